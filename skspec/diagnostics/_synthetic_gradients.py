"""Gradient spectra of the embedded generator: the true physical limit of `make_spectra`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from skspec._label_values import label_values

if TYPE_CHECKING:
    from skspec._typing import Labels

__all__ = ["SyntheticGradients"]

_STEP = {
    "teff": 20.0,
    "logg": 0.05,
    "feh": 0.02,
    "alpha_m": 0.02,
    "vsini": 0.5,
    "rv": 0.1,
}


class SyntheticGradients:
    """Reference for :func:`~skspec.diagnostics.compare` on spectra from ``make_spectra``.

    Its Cramer-Rao bound is free of training noise: that of the generator itself.

    Parameters
    ----------
    label_names : sequence of str
        The labels that vary.
    wavelength : ndarray of shape (P,)
        Pixels [Angstrom].
    fixed_labels : dict, optional
        Values of labels that do not vary.
    **kwargs
        ``resolution`` and ``medium``, as given to ``make_spectra``.
    """

    def __init__(
        self,
        label_names: Sequence[str],
        wavelength: np.ndarray,
        *,
        fixed_labels: Mapping[str, float] | None = None,
        **kwargs: Any,
    ):
        self.label_names_in_ = list(label_names)
        self.wavelength = self.wavelength_ = wavelength
        self.fixed_labels = dict(fixed_labels or {})
        self.kwargs = kwargs

    def predict_flux(self, labels: Labels) -> np.ndarray:
        """Spectra of ``synthesize``, shape (m, P)."""
        return self._flux(self._given(labels))

    def flux_jacobian(self, labels: Labels) -> np.ndarray:
        """Central differences of ``synthesize``, shape (m, P, K)."""
        labels = self._given(labels)
        out = np.empty((len(labels), len(self.wavelength), labels.shape[1]))
        for k, name in enumerate(self.label_names_in_):
            step = np.zeros(labels.shape[1])
            step[k] = _STEP[name]
            difference = self._flux(labels + step) - self._flux(labels - step)
            out[:, :, k] = difference / (2 * _STEP[name])
        return out

    def _given(self, labels):
        return np.atleast_2d(label_values(labels, self.label_names_in_, among_others=True))

    def _flux(self, labels):
        from skspec.datasets import synthesize

        table = dict(zip(self.label_names_in_, labels.T)) | self.fixed_labels
        return synthesize(table, self.wavelength, **self.kwargs)
