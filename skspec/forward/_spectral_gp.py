"""SpectralGP: flux of every pixel as a Gaussian process of the labels."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
from sklearn.utils import check_random_state

from skspec._sklearn import Interval
from skspec.forward._base import ForwardModel
from skspec.forward._refits import has_repeats
from skspec.forward._slam_pixels import rbf_curvature
from skspec.likelihood import HeldOut, OutOfSample
from skspec.solvers.kernels.gaussian_process import (
    kernel_basis,
    leave_one_out,
    noise_to_signal,
    orthonormal,
    ridge_in_basis,
    search_length_scales,
    squared_exponential,
)
from skspec.solvers.linear.least_squares import fit_least_squares_with_scatter
from skspec.solvers.linear.monomials import Monomials
from skspec.solvers.linear.pixel_blocks import parallel_map, pixel_slices

if TYPE_CHECKING:
    from skspec._typing import Labels, RandomState

__all__ = ["SpectralGP"]

BLOCK = 512  # pixels at a time
LEFT_OUT = 1e-5  # kernel variance that the basis may miss, in units of the noise
STARS_PER_TERM = 3  # the polynomials have no more terms than this allows


class SpectralGP(ForwardModel):
    r"""Gaussian process over the labels: all pixels share one kernel.

    .. math:: f_j(x) = h(x) \cdot \beta_j + a_j\, g_j(x), \qquad g_j \sim GP(0, k), \qquad
              k(x, x') = \exp\Big(-\tfrac12 \sum_k (x_k - x'_k)^2 / \ell_k^2\Big)

    with standardised labels :math:`x` and a polynomial mean :math:`h`. The length scales maximise the
    evidence of all pixels together, each in units of its noise; every pixel has an amplitude and a
    noise of its own. Errors and bad pixels of single stars count in full.

    Parameters
    ----------
    mean_degree : {0, 1, 2}, default=1
        Degree of the polynomial mean, integrated over with a flat prior. It is lowered where there
        are fewer than three training stars for each of its terms.
    length_bounds : (float, float), default=(2.0, 10.0)
        Smallest and largest length scale, in standard deviations of the labels. Real spectra of
        stars alike share more than their labels; without a lower bound the kernel learns that. On
        noise-free models a lower one may gain a few per cent.
    max_search : int, default=500
        The length scales are found from so many training stars, chosen at random.
    max_rank : int, default=2000
        Largest number of basis functions. A smooth kernel needs far fewer.
    random_state : int, RandomState instance or None, default=0
        Chooses the stars of the search.

    Attributes
    ----------
    length_scale_ : ndarray of shape (K,)
        Length scales of the kernel, in label units.
    nu_ : ndarray of shape (P,)
        Noise variance over squared amplitude of each pixel, for a star of typical noise.
    amplitude_ : ndarray of shape (P,)
        Standard deviation of the flux under the prior, about the mean polynomial.
    coef_ : ndarray of shape (q, P)
        Coefficients of the basis functions.
    scatter_ : ndarray of shape (P,)
        Model error: square root of what the squared leave-one-out residuals exceed the photon
        variance by, stars weighted by their noise; ``inf`` where a pixel had too few good stars.

    Notes
    -----
    Leave-one-out residuals and Jacobians, hence `label_covariance_`, come in closed form: exact for
    stars of equal relative noise. Otherwise the noise of the star itself is exact, and that of the
    others is replaced by their mean in its leverage.

    References
    ----------
    Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, sections 2.7 and 5.4.

    Examples
    --------
    >>> from skspec.datasets import make_spectra
    >>> from skspec.forward import SpectralGP
    >>> spectra, labels = make_spectra(150, n_pixels=200, random_state=0)
    >>> model = SpectralGP().fit(spectra[:100], labels[:100])
    >>> model.length_scale_.shape
    (3,)
    >>> model.predict_dist(spectra[100:])
    <MultivariateNormal of teff, logg, feh: 50 stars>
    """

    _capabilities = {"speed": "seconds"}
    _parameter_constraints: dict = {
        "mean_degree": [Interval(Integral, 0, 2, closed="both")],
        "length_bounds": ["array-like"],
        "max_search": [Interval(Integral, 2, None, closed="left")],
        "max_rank": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        mean_degree: int = 1,
        *,
        length_bounds: tuple[float, float] = (2.0, 10.0),
        max_search: int = 500,
        max_rank: int = 2000,
        random_state: RandomState | None = 0,
        **shared,
    ):
        super().__init__(**shared)
        self.mean_degree = mean_degree
        self.length_bounds = length_bounds
        self.max_search = max_search
        self.max_rank = max_rank
        self.random_state = random_state

    # -- learning ----------------------------------------------------------------------------------

    def _fit_flux(self, x, spectra, context):
        n_pixels = spectra.shape[1]
        self._mean = _affordable(*x.shape, self.mean_degree)
        flux, scatter2 = _polynomial_fit(x, spectra)
        scatter2 = np.maximum(scatter2, self._flux_floor)
        typical = self.training_variance_ + scatter2
        photon, mean = self._photon_variance(spectra), self._mean(x)
        self._star_noise = _relative_noise(photon, scatter2, typical)
        self._search(x, flux / np.sqrt(typical), mean)
        self._kernel_basis = kernel_basis(
            x / self._length,
            mean,
            self._star_noise,
            tol=LEFT_OUT * self._shared_nu,
            max_rank=self.max_rank,
        )
        self.coef_ = np.empty((len(self._kernel_basis.square), n_pixels))
        self.nu_, self.amplitude_, self.scatter_, self._excess = np.empty((4, n_pixels))
        Phi = self._features(x) / np.sqrt(self._star_noise)[:, None]
        parallel_map(
            lambda pixels: self._fit_pixels(
                Phi, flux[:, pixels], photon[:, pixels], scatter2[pixels], pixels
            ),
            pixel_slices(n_pixels, BLOCK),
        )

    def _search(self, x, white, mean):
        """Length scales of the largest evidence, from at most `max_search` stars."""
        rows = np.arange(len(x))
        if len(x) > self.max_search:
            rng = check_random_state(self.random_state)
            rows = np.sort(rng.choice(len(x), self.max_search, replace=False))
        white, bounds = white[rows], np.asarray(self.length_bounds, dtype=float)
        if bounds.shape != (2,) or not 0 < bounds[0] < bounds[1] < np.inf:
            raise ValueError(
                "length_bounds must be the smallest and the largest length scale, such as "
                f"(2.0, 10.0), not {self.length_bounds!r}."
            )
        found = search_length_scales(
            x[rows],
            white @ white.T / white.shape[1],
            orthonormal(mean[rows])[0],
            self._star_noise[rows],
            bounds=bounds,
        )
        self._length, self._shared_nu = found.length, found.nu
        self.length_scale_ = found.length * self.label_scale_

    def _fit_pixels(self, Phi, flux, photon, most, pixels):
        """Amplitude, noise, coefficients and scatter of some pixels.

        Rows are divided by the square root of the star's relative noise, in `Phi` as well. `most` is
        the scatter about a polynomial, measured with the errors of each star.
        """
        basis, level = self._kernel_basis, 1 / np.sqrt(self._star_noise)[:, None]
        good, y = np.isfinite(photon), level * flux
        n_good = np.maximum(good.sum(axis=0), 1)
        known = np.where(good, photon, 0.0)
        nu, amplitude2 = self._typical_noise(Phi, y, self._flux_floor[pixels])
        # values filled in have no residual
        noise = nu * amplitude2 * len(y) / n_good
        excess = np.maximum(noise - np.sum(level**2 * known, axis=0) / n_good, 0.0)
        self.nu_[pixels], self.amplitude_[pixels] = nu, np.sqrt(amplitude2)
        self._excess[pixels] = np.minimum(excess, most) + self._flux_floor[pixels]
        weight = self._weight(photon, pixels)
        coef = ridge_in_basis(Phi, basis, y, weight, amplitude2=amplitude2)
        trained = good.sum(axis=0) > basis.n_mean
        coef[:, ~trained] = 0.0
        held_out = leave_one_out(Phi, basis, y - Phi @ coef, weight).residual / level
        scatter = np.sqrt(_excess_variance(held_out**2, photon, good))
        self.coef_[:, pixels] = coef
        self.scatter_[pixels] = np.where(trained, scatter, np.inf)

    def _typical_noise(self, Phi, y, floor):
        """Noise-to-signal ratio and squared amplitude of each pixel."""
        basis = self._kernel_basis
        p = basis.n_mean
        Z2 = (Phi.T @ y) ** 2 / basis.square[:, None]
        n_rest = len(y) - len(basis.square)
        rest = np.maximum(np.einsum("nb,nb->b", y, y) - Z2.sum(axis=0), n_rest * floor)
        return noise_to_signal(basis.square[p:], Z2[p:] + floor, rest, n_rest, self._shared_nu)

    def _weight(self, photon, pixels):
        """Inverse noise-to-signal ratio of every value, with rows scaled as in `_fit_pixels`."""
        amplitude2 = self.amplitude_[pixels] ** 2
        return amplitude2 * self._star_noise[:, None] / (photon + self._excess[pixels])

    def _out_of_sample(self, x, spectra):
        if has_repeats(spectra):  # leaving out one of them is not enough
            return super()._out_of_sample(x, spectra)
        basis, level = self._kernel_basis, 1 / np.sqrt(self._star_noise)[:, None]
        Phi, slope = self._features(x, derivative=True)
        Phi, slope = level * Phi, level[:, None] * slope

        def held_out(pixels):
            part, coef = spectra[:, pixels], self.coef_[:, pixels]
            good = part.good
            y = level * np.where(good, part.flux, 0.0)
            weight = self._weight(self._photon_variance(part, pixels), pixels)
            without = leave_one_out(Phi, basis, y - Phi @ coef, weight, slope, coef)
            residual, jacobian, change, spread = without

            def project(pull, rows):
                return pull @ coef.T - Phi[rows] * ((pull * change[rows]) @ spread.T)

            residual = np.where(good, residual / level, 0.0)
            return HeldOut(residual, jacobian / level[:, None], project)

        return OutOfSample(held_out, pixel_slices(spectra.shape[1], BLOCK))

    # -- the model of the flux ---------------------------------------------------------------------

    def _features(self, x, derivative=False):
        if not derivative:
            return self._functions(x) @ self._kernel_basis.transform
        return tuple(
            part @ self._kernel_basis.transform for part in self._functions(x, derivative=True)
        )

    def _functions(self, x, derivative=False):
        """Terms of the mean and kernels of all centres, of which the features are combinations."""
        basis, u = self._kernel_basis, x / self._length
        kernel = squared_exponential(u, basis.centres)
        if not derivative:
            return np.hstack([self._mean(x), kernel])
        mean, mean_slope = self._mean(x, derivative=True)
        slope = (basis.centres.T - u[:, :, None]) * (kernel[:, None] / self._length[:, None])
        return np.hstack([mean, kernel]), np.concatenate([mean_slope, slope], axis=2)

    def _compressed(self, points, noise):
        basis = super()._compressed(points, noise)
        if basis.mix is None:
            return basis
        # one product of matrices instead of two
        origin = self._functions(np.zeros((1, points.shape[1])))[0]
        mix = self._kernel_basis.transform @ basis.mix
        return replace(basis, features=self._functions, origin=origin, mix=mix)

    def _curvature(self, x, weight):
        basis, u, p = self._kernel_basis, x / self._length, len(self._mean)
        weight = weight @ basis.transform.T
        kernel = squared_exponential(u, basis.centres)
        bent = rbf_curvature(u, basis.centres, kernel, 0.5, weight[:, p:])
        return self._mean.curvature(x, weight[:, :p]) + bent / np.outer(self._length, self._length)

    @property
    def _coef(self):
        return self.coef_

    def flux_std(self, labels: Labels) -> np.ndarray:
        """Standard deviation of the model spectra: what the training set leaves open.

        Grows away from the training stars. Noise of an observation is not in it.

        Parameters
        ----------
        labels : array-like of shape (m, K) or (K,)
            In label units.

        Returns
        -------
        ndarray of shape (m, P)
            Takes each pixel's noise as that of its typical star; NaN where it could not be trained.
        """
        x, basis = self._checked_labels(labels), self._kernel_basis
        phi, nu = self._features(x), self.nu_
        spread = nu / (basis.square[:, None] + nu * basis.penalty[:, None])
        kernel = squared_exponential(x / self._length, basis.centres)
        seen = kernel @ basis.transform[len(self._mean) :, basis.n_mean :]
        unseen = np.maximum(1 - np.sum(seen**2, axis=1), 0.0)
        std = self.amplitude_ * np.sqrt(phi**2 @ spread + unseen[:, None])
        return np.where(np.isfinite(self.scatter_), std, np.nan)


def _affordable(n, n_labels, degree):
    """Monomials of the degree asked, or of the highest that the stars can hold."""
    while degree and STARS_PER_TERM * len(Monomials.of_degree(n_labels, degree)) > n:
        degree -= 1
    return Monomials.of_degree(n_labels, degree)


def _polynomial_fit(x, spectra):
    """Flux (n, P) with bad pixels filled in, and scatter variance (P,), by a quadratic fit."""
    design, good, flux = _affordable(*x.shape, 2)(x), spectra.good, spectra.flux
    fit = fit_least_squares_with_scatter(design, flux, spectra.variance, scatter="reml")
    if good.all():
        return flux.astype(float), fit.scatter**2
    n_good = np.maximum(good.sum(axis=0), 1)
    mean = np.sum(flux, axis=0, where=good, dtype=float) / n_good
    spread = np.sum((flux - mean) ** 2, axis=0, where=good) / n_good
    guess = np.where(fit.trained, design @ fit.theta, mean)
    return np.where(good, flux, guess), np.where(fit.trained, fit.scatter**2, spread)


def _excess_variance(square, photon, good, n_iter=10):
    """What squared residuals exceed the photon variance by, noisy stars counting for less."""
    weight, square = good.astype(float), np.where(good, square, 0.0)
    photon = np.where(good, photon, 0.0)
    for _ in range(n_iter):
        total = np.sum(weight, axis=0)
        excess = np.sum(weight * (square - photon), axis=0) / np.where(total > 0, total, 1.0)
        excess = np.maximum(excess, 0.0)
        variance = photon + excess
        weight = np.where(good & (variance > 0), variance, np.inf) ** -2.0
    return excess


def _relative_noise(photon, scatter2, typical):
    """Variance of each star relative to the typical one, mean over its good pixels."""
    good = np.isfinite(photon)
    ratio = np.where(good, photon + scatter2, 0.0) / typical
    n_good = good.sum(axis=1)
    return np.where(n_good > 0, ratio.sum(axis=1) / np.maximum(n_good, 1), 1.0)
