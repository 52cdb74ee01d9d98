"""`BadPixelMasker`: say which pixels not to use."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy.ndimage import binary_dilation
from sklearn.base import OneToOneFeatureMixin
from sklearn.utils import gen_batches

from skspec._sklearn import Interval, fit_context
from skspec.base import SpectraTransformer
from skspec.preprocessing._smoothing import running_quantile

if TYPE_CHECKING:
    from skspec._typing import Labels, Range, SpectraLike, Windows

__all__ = ["BadPixelMasker"]

_STARS_AT_ONCE = 1024  # bounds the memory of float64 copies
_MAD_TO_STD = 1.4826022185056018  # standard deviation of a Gaussian over its median |deviation|


class BadPixelMasker(OneToOneFeatureMixin, SpectraTransformer):
    """Give bad pixels ``ivar`` 0. By default nothing is masked: choose the criteria.

    Parameters
    ----------
    flux_range : (lower, upper), optional
        Pixels with flux outside are bad; SLAM uses (1e-3, 1e2) on normalised spectra.
    max_flux_err : float, optional
        Pixels with a larger error are bad, in units of the flux.
    min_snr : float, optional
        Pixels with ``flux / flux_err`` below it are bad.
    sigma_clip : float or (below, above), optional
        Pixels this many robust standard deviations (1.4826 MAD, per star) from the star's running
        median are bad. Deep lines are outliers too: to remove cosmic rays and sky residuals only,
        use ``(numpy.inf, 5)``.
    width : float, default=50
        Half the window of that running median [Angstrom, or pixels without wavelength].
    wavelength_windows : list of (lower, upper), optional
        Pixels inside are bad in every star, e.g. telluric bands [Angstrom].
    grow : int, default=0
        Also mask so many neighbours on either side of each bad pixel, those bad on input included.

    Attributes
    ----------
    fill_ : ndarray of shape (P,)
        Median flux of the good pixels of the training stars (0 where there is none).
    wavelength_ : ndarray of shape (P,) or None
        Wavelengths of the training spectra [Angstrom].
    n_features_in_ : int
        Number of pixels P.

    Notes
    -----
    A `Spectra` keeps its flux and gets ``ivar`` 0. A plain array has no place for a mask: there
    bad values are replaced by `fill_`, the pixel's median over the training stars. Criteria on
    errors pass where errors are unknown.

    Examples
    --------
    >>> from skspec import Spectra
    >>> from skspec.preprocessing import BadPixelMasker
    >>> spectra = Spectra([[1.0, 0.9, 50.0, 1.0, 1.0]], ivar=1e4)
    >>> BadPixelMasker(flux_range=(0, 2), grow=1).fit_transform(spectra).ivar.tolist()
    [[10000.0, 0.0, 0.0, 0.0, 10000.0]]
    """

    _parameter_constraints: dict = {
        "flux_range": ["array-like", None],
        "max_flux_err": [Interval(Real, 0, None, closed="neither"), None],
        "min_snr": [Real, None],
        "sigma_clip": [Interval(Real, 0, None, closed="neither"), "array-like", None],
        "width": [Interval(Real, 0, None, closed="neither")],
        "wavelength_windows": ["array-like", None],
        "grow": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(
        self,
        flux_range: tuple[float, float] | None = None,
        *,
        max_flux_err: float | None = None,
        min_snr: float | None = None,
        sigma_clip: Range | None = None,
        width: float = 50.0,
        wavelength_windows: Windows | None = None,
        grow: int = 0,
    ):
        self.flux_range = flux_range
        self.max_flux_err = max_flux_err
        self.min_snr = min_snr
        self.sigma_clip = sigma_clip
        self.width = width
        self.wavelength_windows = wavelength_windows
        self.grow = grow

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: SpectraLike, y: Labels | None = None) -> Self:
        """Learn the grid and the fill values; `y` is ignored."""
        spectra, _ = self._validate_spectra(X, reset=True)
        good = ~self._bad(spectra)
        if good.all():
            self.fill_ = np.median(spectra.flux, axis=0)
        else:
            seen = good.any(axis=0)
            self.fill_ = np.zeros(spectra.shape[1], dtype=spectra.dtype)
            known = np.where(good[:, seen], spectra.flux[:, seen], np.nan)
            self.fill_[seen] = np.nanmedian(known, axis=0)
        return self

    def _transform(self, spectra):
        bad = self._bad(spectra)
        return spectra.replace(mask=bad) if bad.any() else spectra

    def _plain(self, out):
        return np.where(out.good, out.flux, self.fill_)

    def _bad(self, spectra):
        """Boolean array (n, P) of everything that is bad, on input or by any criterion."""
        batches = gen_batches(max(1, len(spectra)), _STARS_AT_ONCE)
        return np.concatenate([self._bad_in(spectra[stars]) for stars in batches])

    def _bad_in(self, spectra):
        flux, bad = spectra.flux, ~spectra.good
        if self.flux_range is not None:
            lower, upper = self.flux_range
            bad |= (flux < lower) | (flux > upper)
        if self.max_flux_err is not None:
            bad |= spectra.flux_err > self.max_flux_err
        if self.min_snr is not None:
            bad |= flux < self.min_snr * np.where(bad, 0, spectra.flux_err)
        if self.wavelength_windows is not None:
            bad |= self._in_windows(spectra)
        if self.sigma_clip is not None:
            bad |= self._outliers(flux, ~bad)
        if self.grow:
            bad = binary_dilation(bad, structure=np.ones((1, 2 * self.grow + 1)))
        return bad

    def _in_windows(self, spectra):
        wavelength = self.wavelength_ if spectra.wavelength is None else spectra.wavelength
        if wavelength is None:
            raise ValueError(
                "wavelength_windows needs the wavelengths: pass Spectra(flux, wavelength=...)."
            )
        windows = [(wavelength >= low) & (wavelength <= up) for low, up in self.wavelength_windows]
        return np.any(windows, axis=0) if windows else np.zeros(len(wavelength), dtype=bool)

    def _outliers(self, flux, good):
        below, above = (
            self.sigma_clip if np.ndim(self.sigma_clip) else (self.sigma_clip, self.sigma_clip)
        )
        wavelength = self.wavelength_
        if wavelength is None:
            wavelength = np.arange(flux.shape[1], dtype=float)
        order = np.argsort(wavelength, kind="stable")
        median = np.empty(flux.shape)
        median[:, order] = running_quantile(
            flux[:, order], good[:, order], wavelength[order], self.width
        )
        residual = np.where(good, flux - median, np.nan)
        some = good.any(axis=1)
        spread = np.zeros((len(flux), 1))
        spread[some, 0] = _MAD_TO_STD * np.nanmedian(np.abs(residual[some]), axis=1)
        # a star without any spread has no outliers to speak of; inf * 0 would be NaN
        spread[spread == 0] = np.inf
        with np.errstate(invalid="ignore"):
            return (residual < -below * spread) | (residual > above * spread)
