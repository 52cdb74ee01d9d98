"""Spectra as the input of a network: standardised, bad pixels filled and marked, orders as rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skspec.solvers.linear.gappy_pca import fit_gappy_pca

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from skspec.spectra import Spectra

__all__ = ["FluxScaler"]

MAX_STARS = 1000  # to learn what fills a bad pixel
BATCH = 1024  # stars standardised at once, in double precision
NOISE_LIMITS = (1e-6, 1e12)  # squares of these fit into single precision


class FluxScaler:
    r"""Turns spectra into the float32 input of a network, and back.

    .. math:: x_j = (f_j - \bar f_j) / \sqrt{S^2 + \bar\sigma_j^2}

    with the mean flux of each pixel, the variance :math:`S^2` over stars of a mean pixel and the
    typical photon variance :math:`\bar\sigma_j^2` (inverse of the mean `ivar`) of this pixel. Bad
    pixels get what linear principal components expect from the good ones, and are marked in a second
    map. Pixels that are bad in all training stars are left out.

    Parameters
    ----------
    spectra : Spectra
        Training spectra.
    random_state : RandomState
        Of the stars that principal components are learned from, where there are over 1000.

    Attributes
    ----------
    pixels : ndarray of bool of shape (P,)
        Pixels that are used.
    shape : tuple (maps, orders, L)
        Of the input of one star: flux, and mask if anything was bad or orders differ in length; orders
        are padded with zeros (of flux and mask).
    mean, scale : ndarray
        Of the pixels that are used.
    photon_variance, mean_variance : ndarray
        Typical (inverse of the mean `ivar`) and mean photon variance of these; the first is None without
        errors.
    typical_noise : float
        Median noise level.
    """

    def __init__(self, spectra: Spectra, random_state: np.random.RandomState):
        n = len(spectra)
        rows = random_state.permutation(n)[:MAX_STARS] if n > MAX_STARS else slice(None)
        some = spectra[rows]
        self.pixels = some.good.any(axis=0)
        some, spectra = some[:, self.pixels], spectra[:, self.pixels]
        self._place_orders(spectra)
        self.filler = fit_gappy_pca(some.flux, some.good)
        flux = self.filler.fill(some.flux, some.good)
        self.mean = flux.mean(axis=0)
        power = np.mean((flux - self.mean) ** 2)
        self.learn_noise(spectra, cut=False)
        scale = np.sqrt(power + (0.0 if self.photon_variance is None else self.photon_variance))
        self.scale = np.where(scale > 0, scale, 1.0)
        self.shape = (1 + self._is_masked(spectra), *self._layout)

    def learn_noise(self, spectra: Spectra, *, cut: bool = True) -> None:
        """Set what is typical of the noise of these spectra."""
        spectra = spectra[:, self.pixels] if cut else spectra
        self.mean_variance = spectra.mean_variance
        self.photon_variance, self.typical_noise = None, 1.0
        if spectra.has_errors:
            self.photon_variance = _typical_variance(spectra)
            self.typical_noise = float(np.median(self.noise_level(spectra, cut=False)))

    def _place_orders(self, spectra):
        """Index of each pixel in an image (orders, L)."""
        order = np.zeros(spectra.shape[1], dtype=int)
        if spectra.order is not None:
            order = np.unique(spectra.order, return_inverse=True)[1]
        count = np.bincount(order)
        rank = np.empty_like(order)
        rank[np.argsort(order, kind="stable")] = np.concatenate([np.arange(c) for c in count])
        self._layout = (len(count), int(count.max()))
        self._place = order * count.max() + rank

    def _is_masked(self, spectra):
        return bool(np.prod(self._layout) > spectra.shape[1] or not spectra.good.all())

    def _used(self, spectra):
        return spectra if self.pixels.all() else spectra[:, self.pixels]

    def tensor(self, spectra: Spectra) -> np.ndarray:
        """Input (n, maps * orders, L) in float32."""
        n, (maps, orders, length) = len(spectra), self.shape
        out = np.zeros((n, maps, orders, length), dtype=np.float32)
        for start in range(0, n, BATCH):
            rows = slice(start, start + BATCH)
            part = self._used(spectra[rows])
            good = part.good
            flux = part.flux if good.all() else self.filler.fill(part.flux, good)
            x = np.empty(flux.shape, dtype=np.float32)
            np.subtract(flux, self.mean, out=x, casting="same_kind")  # in double precision
            x /= self.scale.astype(np.float32)
            out[rows, 0] = self.image(x)
            if maps == 2:
                out[rows, 1] = self.image(good)
        return out.reshape(n, maps * orders, length)

    def image(self, values: ArrayLike) -> np.ndarray:
        """Values (n, pixels used) as images (n, orders, L) in float32, padded with zeros."""
        if self._layout[0] == 1:
            return np.asarray(values, dtype=np.float32)[:, None]
        out = np.zeros((len(values), int(np.prod(self._layout))), dtype=np.float32)
        out[:, self._place] = values
        return out.reshape(-1, *self._layout)

    def spectrum(self, image: np.ndarray) -> np.ndarray:
        """Images (n, orders, L) as values (n, P); 0 at pixels that are left out."""
        out = np.zeros((len(image), len(self.pixels)))
        out[:, self.pixels] = image.reshape(len(image), -1)[:, self._place]
        return out

    def flux(self, image: np.ndarray) -> np.ndarray:
        """Standardised images (n, orders, L) as flux (n, pixels used)."""
        return image.reshape(len(image), -1)[:, self._place] * self.scale + self.mean

    def unit_noise(self, spectra: Spectra) -> tuple[np.ndarray, np.ndarray]:
        """Standardised images (n, orders, L) of the noise at a S/N of 1, and the S/N (n,).

        Where the noise is not known, it is the median flux, the same for all pixels, and the S/N is
        infinite. Bad pixels have none.
        """
        unit = np.empty((len(spectra), *self._layout), dtype=np.float32)
        snr = np.empty(len(spectra), dtype=np.float32)
        for start in range(0, len(spectra), BATCH):
            rows = slice(start, start + BATCH)
            unit[rows], snr[rows] = self._unit_noise(self._used(spectra[rows]))
        return unit, snr

    def _unit_noise(self, spectra):
        good, snr = spectra.good, spectra.snr
        middle, seen = np.ones(len(spectra)), good.any(axis=1)
        flux = np.where(good[seen], np.abs(spectra.flux[seen]), np.nan)
        middle[seen] = np.nanmedian(flux, axis=1)
        variance = np.where(good, spectra.variance, 0.0)
        snr = np.where(np.isfinite(snr) & (snr > 0), snr, np.inf)
        with np.errstate(invalid="ignore"):
            error = np.sqrt(variance) * snr[:, None]
        error = np.where(variance > 0, error, np.where(good, middle[:, None], 0.0))
        return self.image(error / self.scale), snr

    def noise_level(self, spectra: Spectra, *, cut: bool = True) -> np.ndarray:
        r"""Noise of each star in units of that typical in training, shape (n,).

        .. math:: \nu^{-2} = \frac{1}{P} \sum_j \bar\sigma_j^2 / \sigma_j^2

        A bad pixel adds nothing to the sum, one of unknown noise what the others add on average, or
        what is typical.
        """
        if cut:
            spectra = self._used(spectra)
        if self.photon_variance is None or spectra.ivar is None:
            return np.full(len(spectra), self.typical_noise, dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            information = spectra.ivar @ self.photon_variance / spectra.shape[1]
        unknown = ~np.isfinite(information)
        information[unknown] = self._information(spectra.ivar[unknown])
        with np.errstate(divide="ignore"):
            level = 1.0 / np.sqrt(information)
        return np.clip(level, *NOISE_LIMITS).astype(np.float32)

    def _information(self, ivar):
        """Mean of ivar in units of what is typical, where some of it is not known."""
        share = ivar * self.photon_variance
        known = np.isfinite(share) & (share > 0)
        mean = np.sum(share, axis=1, where=known) / np.maximum(known.sum(axis=1), 1)
        mean = np.where(known.any(axis=1), mean, self.typical_noise**-2)
        return np.where(np.isinf(share), mean[:, None], share).mean(axis=1)


def _typical_variance(spectra):
    """Inverse of the mean known `ivar` of each pixel; the mean of the others where none is known."""
    ivar = np.asarray(spectra.ivar, dtype=float)
    known = np.isfinite(ivar) & (ivar > 0)
    mean = np.sum(ivar, axis=0, where=known) / np.maximum(known.sum(axis=0), 1)
    variance = np.divide(1.0, mean, out=np.full_like(mean, np.nan), where=mean > 0)
    return np.where(np.isnan(variance), np.nanmean(variance), variance)
