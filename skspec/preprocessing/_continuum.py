"""`ContinuumNormalizer`: divide every spectrum by its own continuum."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.polynomial.chebyshev import chebvander
from sklearn.base import OneToOneFeatureMixin
from sklearn.utils import gen_batches
from sklearn.utils.validation import check_is_fitted

from skspec._sklearn import Interval, StrOptions, fit_context
from skspec.base import SpectraTransformer
from skspec.preprocessing._base import fit_weights
from skspec.preprocessing._continuum_pixels import find_continuum_pixels
from skspec.preprocessing._smoothing import gaussian_smooth, running_quantile

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from skspec._typing import Labels, SpectraLike, Windows

__all__ = ["ContinuumNormalizer"]

_STARS_AT_ONCE = 1024  # bounds the memory of float64 copies
_SMALLEST_SINGULAR = 1e-3  # squared: the 1e-6 of the largest eigenvalue in Casey et al.'s code


class ContinuumNormalizer(OneToOneFeatureMixin, SpectraTransformer):
    r"""Divide each spectrum by a smooth continuum: ``flux / cont``, ``ivar * cont**2``.

    What matters is not the true continuum but the same one at every S/N: all methods except
    "running_median" are linear in the flux, so that noise averages out instead of shifting it.

    Parameters
    ----------
    method : {"gaussian", "chebyshev", "sincos", "running_median"}, default="gaussian"
        - "gaussian": the ivar-weighted smoothed flux
          :math:`\bar f(\lambda_0) = \sum_j f_j w_j k_j / \sum_j w_j k_j` (Ho et al. 2017), for
          spectra without visible continuum. Every pixel is used.
        - "chebyshev": weighted least squares of a polynomial on the continuum pixels.
        - "sincos": the same with :math:`c_0 + \sum_{m=1}^{M} [a_m \sin(2\pi m\lambda/L) + b_m
          \cos(2\pi m\lambda/L)]` (Casey et al. 2016: M = 3, L = 1400 Angstrom, 7 parameters).
        - "running_median": median within `width` on either side of a pixel (at knots
          ``width / 4`` apart, linear between). NOT linear: shifts systematically with S/N.
    width : float, default=50
        L of the Gaussian, or half the median's window [Angstrom].
    convention : {"efold", "sigma"}, default="efold"
        What `width` means for "gaussian". "efold": :math:`k = e^{-d^2/L^2}`, as printed by Ho et
        al.; "sigma": :math:`k = e^{-d^2/2L^2}`, as in their code, a kernel wider by sqrt(2) for
        the same number.
    degree : int, default=3
        Degree of the Chebyshev polynomial.
    period : float, default=1400
        L of "sincos" [Angstrom].
    n_harmonics : int, default=3
        M of "sincos".
    segments : list of (lower, upper), optional
        Wavelength ranges normalised separately (chips, arms) [Angstrom]; pixels in none of them
        become bad. By default each ``order`` of the `Spectra`, or all pixels together.
    continuum_pixels : array-like of bool (P,), or of wavelengths [Angstrom], optional
        Pixels used by "chebyshev" and "sincos"; for wavelengths, the nearest pixels. By default
        they are chosen at fit, see Notes.
    fraction : float, default=0.07
        Fraction of the pixels of each segment to choose as continuum.

    Attributes
    ----------
    continuum_pixels_ : ndarray of bool of shape (P,)
        Pixels that determine the continuum.
    segments_ : list of ndarray of int
        Pixels of each segment, by increasing wavelength.
    wavelength_ : ndarray of shape (P,) or None
        Wavelengths [Angstrom] of the training spectra.
    n_features_in_ : int
        Number of pixels P.

    Notes
    -----
    Where the continuum is not positive or nothing determines it, and at bad pixels, the flux
    becomes 1 and ``ivar`` 0; plain arrays get flux 1. The continuum's own noise is neglected.

    Without wavelengths (plain arrays) the pixel index stands in: `width` and `period` are then in
    pixels, and `segments` cannot be given. Without ``ivar`` all good pixels weigh the same.

    Combinations of basis functions with a singular value below 1e-3 of the largest on the continuum
    pixels are left out (Casey et al. add 1e-6 of the largest eigenvalue to the normal matrix, to
    the same end); with L = 1400 Angstrom this happens for segments shorter than 500 Angstrom.

    Continuum pixels are found as by TheCannon's ``find_continuum_pixels``: training spectra (at
    most 1000, evenly taken) are divided by their running 90 % quantile within `width`; pixel `j`
    stays when :math:`|\mathrm{median}_n f_{nj} - 1| \le c` and :math:`\mathrm{var}_n f_{nj} \le
    c`, with `c` raised in steps of 1e-4 until `fraction` of the segment is reached (and there are
    as many pixels as parameters). The choice is made once, for all stars, so transforming stays
    linear. (Their code calls the cut on the variance a sigma.)

    References
    ----------
    Ho et al. 2017, ApJ 836, 5; Casey et al. 2016, arXiv:1603.03040; Ness et al. 2015, ApJ 808, 16.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec import Spectra
    >>> from skspec.preprocessing import ContinuumNormalizer
    >>> wavelength = np.linspace(5000, 5300, 300)
    >>> flux = np.outer([10.0, 2000.0], wavelength / 5000)
    >>> normalizer = ContinuumNormalizer("chebyshev", degree=1)
    >>> normalized = normalizer.fit_transform(Spectra(flux, wavelength=wavelength))
    >>> bool(np.allclose(normalized.flux, 1))
    True
    """

    _parameter_constraints: dict = {
        "method": [StrOptions({"gaussian", "chebyshev", "sincos", "running_median"})],
        "width": [Interval(Real, 0, None, closed="neither")],
        "convention": [StrOptions({"efold", "sigma"})],
        "degree": [Interval(Integral, 0, None, closed="left")],
        "period": [Interval(Real, 0, None, closed="neither")],
        "n_harmonics": [Interval(Integral, 1, None, closed="left")],
        "segments": ["array-like", None],
        "continuum_pixels": ["array-like", None],
        "fraction": [Interval(Real, 0, 1, closed="right")],
    }

    def __init__(
        self,
        method: str = "gaussian",
        *,
        width: float = 50.0,
        convention: str = "efold",
        degree: int = 3,
        period: float = 1400.0,
        n_harmonics: int = 3,
        segments: Windows | None = None,
        continuum_pixels: ArrayLike | None = None,
        fraction: float = 0.07,
    ):
        self.method = method
        self.width = width
        self.convention = convention
        self.degree = degree
        self.period = period
        self.n_harmonics = n_harmonics
        self.segments = segments
        self.continuum_pixels = continuum_pixels
        self.fraction = fraction

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: SpectraLike, y: Labels | None = None) -> Self:
        """Learn the grid, its segments and the continuum pixels; `y` is ignored."""
        spectra, _ = self._validate_spectra(X, reset=True)
        self.segments_ = self._find_segments(spectra)
        if self.method in ("gaussian", "running_median"):
            self.continuum_pixels_ = np.ones(spectra.shape[1], dtype=bool)
        elif self.continuum_pixels is not None:
            self.continuum_pixels_ = self._given_pixels()
        else:
            n_terms = self.degree + 1 if self.method == "chebyshev" else 2 * self.n_harmonics + 1
            self.continuum_pixels_ = find_continuum_pixels(
                spectra, self._coordinate, self.segments_, self.width, self.fraction, n_terms
            )
        return self

    def continuum(self, X: SpectraLike) -> np.ndarray:
        """Continuum (n, P) of each spectrum, in units of the flux; NaN where undetermined."""
        check_is_fitted(self)
        spectra, _ = self._validate_spectra(X, reset=False)
        out = np.empty(spectra.shape, dtype=spectra.dtype)
        for stars in gen_batches(max(1, len(spectra)), _STARS_AT_ONCE):
            out[stars] = self._continuum(spectra[stars])
        return out

    def _transform(self, spectra):
        flux = np.empty_like(spectra.flux)
        ivar = None if spectra.ivar is None else np.empty_like(spectra.ivar)
        bad = np.zeros(spectra.shape, dtype=bool)
        for stars in gen_batches(max(1, len(spectra)), _STARS_AT_ONCE):
            part = spectra[stars]
            continuum = self._continuum(part)
            # rounding noise of a continuum that ought to be zero is no continuum
            brightest = np.max(np.abs(part.flux), axis=1, keepdims=True, initial=0, where=part.good)
            usable = part.good & (continuum > 1e-12 * brightest)
            safe = np.where(usable, continuum, 1.0)
            flux[stars] = np.where(usable, part.flux / safe, 1.0)
            bad[stars] = ~usable
            if ivar is not None:
                ivar[stars] = np.where(usable, part.ivar * safe**2, 0.0)
        return spectra.replace(
            flux=flux, ivar=ivar, mask=bad if bad.any() else None, flux_unit=None
        )

    @property
    def _coordinate(self):
        """Wavelengths at fit, or pixel numbers."""
        if self.wavelength_ is None:
            return np.arange(self.n_features_in_, dtype=float)
        return self.wavelength_

    def _find_segments(self, spectra):
        if self.segments is not None:
            if spectra.wavelength is None:
                raise ValueError(
                    "segments are wavelength ranges, but these spectra have no wavelength: pass "
                    "Spectra(flux, wavelength=...)."
                )
            w = spectra.wavelength
            members = [(w >= lower) & (w <= upper) for lower, upper in self.segments]
        elif spectra.order is not None:
            members = [spectra.order == order for order in np.unique(spectra.order)]
        else:
            members = [np.ones(spectra.shape[1], dtype=bool)]
        pixels = [np.flatnonzero(member) for member in members]
        if not all(len(segment) for segment in pixels):
            raise ValueError(
                f"One of the segments {self.segments} holds no pixel; the spectra cover "
                f"{w.min():.1f}-{w.max():.1f} Angstrom."
            )
        return [s[np.argsort(self._coordinate[s], kind="stable")] for s in pixels]

    def _given_pixels(self):
        given = np.asarray(self.continuum_pixels)
        if given.dtype == bool:
            if given.shape != (self.n_features_in_,):
                raise ValueError(
                    f"continuum_pixels has shape {given.shape} for {self.n_features_in_} pixels."
                )
            chosen = given
        elif self.wavelength_ is None:
            raise ValueError(
                "continuum_pixels holds wavelengths, but these spectra have none: pass a boolean "
                "array with one value per pixel, or Spectra(flux, wavelength=...)."
            )
        else:
            order = np.argsort(self.wavelength_)
            edges = self.wavelength_[order]
            nearest = np.searchsorted(0.5 * (edges[1:] + edges[:-1]), given)
            chosen = np.zeros(self.n_features_in_, dtype=bool)
            chosen[order[nearest[(given >= edges[0]) & (given <= edges[-1])]]] = True
        if not all(chosen[segment].any() for segment in self.segments_):
            raise ValueError("continuum_pixels leaves a segment without any continuum pixel.")
        return chosen

    def _continuum(self, spectra):
        weight, flux = fit_weights(spectra), np.asarray(spectra.flux, dtype=float)
        out = np.full(spectra.shape, np.nan)
        for segment in self.segments_:
            f, w, c = flux[:, segment], weight[:, segment], self._coordinate[segment]
            if self.method == "gaussian":
                sigma = self.width / np.sqrt(2) if self.convention == "efold" else self.width
                out[:, segment] = gaussian_smooth(f, w, c, sigma)
            elif self.method == "running_median":
                out[:, segment] = running_quantile(f, w > 0, c, self.width)
            else:
                use = self.continuum_pixels_[segment]
                out[:, segment] = _fit_basis(f, w, self._basis(c), use)
        return out

    def _basis(self, coordinate):
        if self.method == "chebyshev":
            low, high = coordinate[0], coordinate[-1]
            return chebvander(
                (2 * coordinate - low - high) / (high - low if high > low else 1.0), self.degree
            )
        phase = 2 * np.pi / self.period * np.outer(coordinate, np.arange(1, self.n_harmonics + 1))
        return np.hstack([np.ones((len(coordinate), 1)), np.sin(phase), np.cos(phase)])


def _fit_basis(flux, weight, basis, use):
    """Weighted least squares of (n, P) fluxes on a (P, D) basis, using some pixels, all stars.

    The basis is made orthonormal on the pixels in use, so that the normal equations are as well
    conditioned as the weights are even; directions those pixels hardly constrain are left out,
    lest waves far longer than the segment explode between them. Stars with fewer good pixels than
    terms get NaN.
    """
    u, s, vt = np.linalg.svd(basis[use], full_matrices=False)
    keep = s > _SMALLEST_SINGULAR * s[0]
    n_used, n_terms = len(u), int(keep.sum())
    fitted = u[:, keep] * np.sqrt(n_used)
    everywhere = basis @ (vt[keep].T / s[keep]) * np.sqrt(n_used)
    w, f = weight[:, use], flux[:, use]
    products = (fitted[:, :, None] * fitted[:, None, :]).reshape(n_used, -1)
    normal = (w @ products).reshape(-1, n_terms, n_terms)
    moment = (w * f) @ fitted
    coef = np.linalg.pinv(normal, rcond=1e-10, hermitian=True) @ moment[..., None]
    continuum = coef[..., 0] @ everywhere.T
    continuum[np.count_nonzero(w, axis=1) < n_terms] = np.nan
    return continuum
