"""Gradient spectra of labels and nuisance parameters, and the noise they are held against."""

from __future__ import annotations

from numbers import Integral

import numpy as np

from skspec.solvers.spectra.nuisance import continuum_basis, nuisance_gradients
from skspec.spectra import Spectra

__all__ = ["GradientSpectra"]

_BATCH_VALUES = 16_000_000  # gradient values held at once (128 MB)


class GradientSpectra:
    """What :func:`cramer_rao_bound` and :func:`information_map` sum over pixels.

    Parameters
    ----------
    model, labels, ivar, noise, rv, continuum_degree, broadening
        See :func:`~skspec.diagnostics.cramer_rao_bound`.

    Attributes
    ----------
    label_names : list of str or None
    nuisance_names : list of str
    wavelength, order : ndarray of shape (P,) or None
    """

    def __init__(self, model, labels, ivar, noise, rv, continuum_degree, broadening):
        names = getattr(model, "label_names_in_", None)
        self.model, self.label_names = model, None if names is None else list(names)
        self.labels = _as_labels(labels, self.label_names)
        spectra = _spectra_with_noise(ivar, len(self.labels))
        self.weights = _inverse_noise(model, spectra, len(self.labels), noise)
        self.wavelength = getattr(spectra, "wavelength", None)
        if self.wavelength is None:
            self.wavelength = getattr(model, "wavelength_", None)
        self.order = getattr(spectra, "order", None)
        self._rv, self._broadening, self._continuum = rv, broadening, None
        self._check(rv, continuum_degree, broadening)
        self.nuisance_names = ["rv"] * bool(rv) + ["broadening"] * bool(broadening)
        if continuum_degree is not None:
            pixels = np.arange(self.weights.shape[1])
            where = pixels if self.wavelength is None else self.wavelength
            self._continuum = continuum_basis(where, continuum_degree, self.order)
            self.nuisance_names += [f"continuum_{q}" for q in range(len(self._continuum))]

    def _check(self, rv, degree, broadening):
        if (rv or broadening) and self.wavelength is None:
            raise ValueError(
                "rv and broadening need the wavelength of the pixels: give Spectra(..., "
                "wavelength=...) as `ivar`, or fit the model on such."
            )
        if rv and "rv" in (self.label_names or []):
            raise ValueError("rv is a label of this model already: leave rv=False.")
        if degree is not None and not (isinstance(degree, Integral) and degree >= 0):
            raise ValueError(f"continuum_degree must be None or an integer >= 0, got {degree!r}.")
        asked = rv or broadening or degree is not None
        if asked and not hasattr(self.model, "predict_flux"):
            raise ValueError(
                f"{type(self.model).__name__} has no predict_flux(), which nuisance parameters need."
            )

    @property
    def n_labels(self) -> int:
        """K."""
        return self.labels.shape[1]

    def batches(self):
        """``(rows, gradients (m, P, M), weights (m, P))``: labels first, then nuisances."""
        n_pixels = self.weights.shape[1]
        n_parameters = self.n_labels + len(self.nuisance_names)
        step = max(1, _BATCH_VALUES // max(1, n_pixels * n_parameters))
        for start in range(0, len(self.labels), step):
            rows = slice(start, start + step)
            yield rows, self._gradients(self.labels[rows]), self.weights[rows]

    def _gradients(self, labels):
        columns = [np.asarray(self.model.flux_jacobian(labels), dtype=float)]
        if columns[0].shape[1] != self.weights.shape[1]:
            raise ValueError(
                f"The noise has {self.weights.shape[1]} pixels, the model {columns[0].shape[1]}."
            )
        if self.nuisance_names:
            flux = np.asarray(self.model.predict_flux(labels), dtype=float)
            more = nuisance_gradients(
                flux,
                self.wavelength,
                self.order,
                rv=self._rv,
                broadening=self._broadening,
                polynomials=self._continuum,
            )
            columns.append(np.swapaxes(more, 1, 2))
        return np.concatenate(columns, axis=2) if len(columns) > 1 else columns[0]


def _as_labels(labels, names):
    """Labels (n, K); the columns of a DataFrame are found by name."""
    if names is not None and hasattr(labels, "columns") and set(names) <= set(labels.columns):
        labels = labels[names]
    return np.atleast_2d(np.asarray(labels, dtype=float))


def _spectra_with_noise(ivar, n_stars):
    if ivar is None or isinstance(ivar, Spectra):
        return ivar
    ivar = np.atleast_2d(np.asarray(ivar, dtype=float))
    ivar = np.broadcast_to(ivar, (n_stars, ivar.shape[1]))
    return Spectra(np.ones(ivar.shape), ivar=ivar)


def _inverse_noise(model, spectra, n_stars, noise):
    """1 / noise variance (n, P), 0 at bad pixels."""
    if noise not in ("auto", "photon", "total"):
        raise ValueError(f"noise must be 'auto', 'photon' or 'total', got {noise!r}.")
    known = spectra is not None and spectra.has_errors
    if noise == "photon" and not known:
        raise ValueError("The photon noise is not known: give `ivar`, or use noise='total'.")
    if known and len(spectra) != n_stars:
        raise ValueError(f"{n_stars} sets of labels for {len(spectra)} spectra.")
    if known and noise != "total":
        return np.where(np.isfinite(spectra.ivar), spectra.ivar, 0)
    if spectra is None:
        scatter = np.asarray(model.scatter_, dtype=float)
        spectra = Spectra(np.ones((n_stars, len(scatter))))
    if not hasattr(model, "noise_variance"):
        raise ValueError(
            f"The spectra have no errors and {type(model).__name__} has no noise_variance(): "
            "give `ivar`."
        )
    with np.errstate(divide="ignore"):
        weights = 1 / np.asarray(model.noise_variance(spectra), dtype=float)
    return np.where(np.isfinite(weights), weights, 0)
