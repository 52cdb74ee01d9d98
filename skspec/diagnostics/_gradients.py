"""Gradient spectra of labels and nuisance parameters, and the noise they are held against."""

from __future__ import annotations

from numbers import Integral

import numpy as np

from skspec._label_values import label_values
from skspec.forward import ForwardModel
from skspec.likelihood import (
    FreeParameters,
    InversionResult,
    Linearization,
    PixelNoise,
)
from skspec.likelihood._free_parameters import RV_RANGE
from skspec.solvers.spectra.nuisance import continuum_basis, nuisance_gradients
from skspec.spectra import Spectra

__all__ = ["GradientSpectra"]

_BATCH_VALUES = 16_000_000  # gradient values held at once (128 MB)


class GradientSpectra:
    """What :func:`cramer_rao_bound` and :func:`information_map` sum over pixels.

    A forward model of ours is asked for its own likelihood; of any other the gradients are those of
    ``flux_jacobian``, and its noise that of ``noise``.

    Parameters
    ----------
    model, labels, ivar, noise, rv, continuum_degree, broadening
        See :func:`~skspec.diagnostics.cramer_rao_bound`.

    Attributes
    ----------
    label_names : list of str or None
    nuisance_names : list of str
    n_stars, n_labels, n_pixels : int
    wavelength, order : ndarray of shape (P,) or None
    """

    def __init__(self, model, labels, ivar, noise, rv, continuum_degree, broadening):
        names = getattr(model, "label_names_in_", None)
        self.model, self.label_names = model, None if names is None else list(names)
        if isinstance(labels, InversionResult):
            self._at, self.n_stars = labels, len(labels)
            self.n_labels = len(labels.dist.label_names)
        else:
            self._at = _as_labels(labels, self.label_names)
            self.n_stars, self.n_labels = self._at.shape
        self.spectra = _spectra_with_noise(ivar, self.n_stars)
        self._photon_only = self._checked_noise(noise)
        self.wavelength = getattr(self.spectra, "wavelength", None)
        if self.wavelength is None:
            self.wavelength = getattr(model, "wavelength_", None)
        self.order = getattr(self.spectra, "order", None)
        is_own = isinstance(model, ForwardModel)
        free = model.free_columns.free if is_own else FreeParameters()
        self._rv = _switch(rv, free.rv_range is not None)
        self._broadening = _switch(broadening, free.kernel is not None)
        self._degree = free.degree if _is_auto(continuum_degree) else continuum_degree
        self._check(self._rv, self._degree, self._broadening)
        self._continuum, order = None, self.order
        if is_own:
            self._free = FreeParameters(
                (free.rv_range or RV_RANGE) if self._rv else None,
                (free.kernel or "gaussian") if self._broadening else None,
                self._degree,
            )
            order = model.free_columns.with_free(self._free, self.wavelength, order).order
        self.nuisance_names = ["rv"] * self._rv + ["broadening"] * self._broadening
        if self._degree is not None:
            pixels = np.arange(self.n_pixels)
            where = pixels if self.wavelength is None else self.wavelength
            self._continuum = continuum_basis(where, self._degree, order)
            self.nuisance_names += [f"continuum_{q}" for q in range(len(self._continuum))]

    def _checked_noise(self, noise):
        """Whether photon noise alone counts."""
        if noise not in ("auto", "photon", "total"):
            raise ValueError(f"noise must be 'auto', 'photon' or 'total', got {noise!r}.")
        spectra = self.spectra
        known = spectra is not None and spectra.has_errors
        if noise == "photon" and not known:
            raise ValueError("The photon noise is not known: give `ivar`, or use noise='total'.")
        if known and len(spectra) != self.n_stars:
            raise ValueError(f"{self.n_stars} sets of labels for {len(spectra)} spectra.")
        if known and noise != "total":
            return True
        if not hasattr(self.model, "noise"):
            raise ValueError(
                f"The spectra have no errors and {type(self.model).__name__} has no noise(): give "
                "`ivar`."
            )
        return False

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
    def n_pixels(self) -> int:
        """P."""
        if self.spectra is not None:
            return self.spectra.shape[1]
        return len(self.model.scatter_)

    def batches(self):
        """:class:`~skspec.likelihood.Linearization` of some stars each."""
        if isinstance(self.model, ForwardModel):
            yield from self._of_forward_model()
            return
        n_parameters = self.n_labels + len(self.nuisance_names)
        step = max(1, _BATCH_VALUES // max(1, self.n_pixels * n_parameters))
        for start in range(0, self.n_stars, step):
            yield self._of_gradients(slice(start, min(start + step, self.n_stars)))

    def _of_forward_model(self):
        spectra, photon_only = self.spectra, self._photon_only
        if spectra is None or not spectra.meta.get(_KNOWS_FLUX, True):
            # nothing was observed: as if the star were what the model says
            flux = self.model.predict_flux(self._at)
            given = {} if spectra is None else {"ivar": spectra.ivar}
            spectra = Spectra(flux, wavelength=self.wavelength, order=self.order, **given)
        yield from self.model.linearize(self._at, spectra, free=self._free, photon_only=photon_only)

    def _of_gradients(self, rows):
        labels = self._at[rows]
        design = np.asarray(self.model.flux_jacobian(labels), dtype=float)
        if design.shape[1] != self.n_pixels:
            raise ValueError(f"The noise has {self.n_pixels} pixels, the model {design.shape[1]}.")
        design = np.swapaxes(design, 1, 2)
        more = np.empty((len(labels), 0, self.n_pixels))
        if self.nuisance_names:
            more = nuisance_gradients(
                np.asarray(self.model.predict_flux(labels), dtype=float),
                self.wavelength,
                self.order,
                rv=self._rv,
                broadening=self._broadening,
                polynomials=self._continuum,
            )
        n_own = self._rv + self._broadening
        design = np.concatenate([design, more[:, :n_own]], axis=1)
        return Linearization(rows, design, more[:, n_own:], self._noise(rows), None)

    def _noise(self, rows):
        if self._photon_only:
            ivar = self.spectra.ivar[rows]
            return PixelNoise(np.where(np.isfinite(ivar), ivar, 0.0))
        spectra = self.spectra
        if spectra is None:
            spectra = Spectra(np.ones((self.n_stars, self.n_pixels)))
        return self.model.noise(spectra[rows])


_KNOWS_FLUX = "knows_flux"  # in the meta of spectra made of a bare inverse variance


def _is_auto(value):
    return isinstance(value, str) and value == "auto"


def _switch(value, of_model):
    """A switch, or that of the model."""
    return of_model if _is_auto(value) else bool(value)


def _as_labels(labels, names):
    """Labels (n, K); the columns of a DataFrame are found by name."""
    return np.atleast_2d(label_values(labels, names, among_others=True))


def _spectra_with_noise(ivar, n_stars):
    if ivar is None or isinstance(ivar, Spectra):
        return ivar
    ivar = np.atleast_2d(np.asarray(ivar, dtype=float))
    ivar = np.broadcast_to(ivar, (n_stars, ivar.shape[1]))
    return Spectra(np.ones(ivar.shape), ivar=ivar, meta={_KNOWS_FLUX: False})
