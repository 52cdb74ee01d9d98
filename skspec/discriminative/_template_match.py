"""TemplateMatch: labels of the training spectra that look most alike (LSP3, Xiang et al. 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Self

import numpy as np

from skspec._short_repr import ShortRepr
from skspec._sklearn import Interval, StrOptions, fit_context
from skspec.base import LabelRegressor
from skspec.distributions import MultivariateNormal
from skspec.likelihood import LabelErrors, excess_covariance
from skspec.likelihood._free_parameters import velocity_range
from skspec.likelihood._spectrum_model import spread_rows
from skspec.solvers.kernels.local_interpolation import (
    affine_weights,
    best_rows,
    distance_weights,
    gram_of_differences,
    template_chi2,
)
from skspec.solvers.linear.gappy_pca import fit_gappy_pca
from skspec.solvers.spectra.cross_correlation import velocity_scan
from skspec.solvers.spectra.line_of_sight import LineOfSight, ln_shift

if TYPE_CHECKING:
    from skspec._typing import Labels, SpectraLike

__all__ = ["TemplateMatch", "TemplateMatchResult"]

SMOOTHING = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # tried by leaving each template out
N_BEST_INTERPOLATED, N_BEST_MEAN = 60, 10
N_VELOCITY_TEMPLATES = 24
BATCH = 256  # stars matched together


@dataclass(frozen=True)
class TemplateMatchResult(ShortRepr):
    """Labels of `n` stars, and the `m` templates they come from.

    Attributes
    ----------
    dist : MultivariateNormal
        Labels with their total covariance, ``formal_cov + model_cov``.
    formal_cov : ndarray of shape (n, K, K)
        From photon noise.
    model_cov : ndarray of shape (K, K)
        Of templates matched with all others (`TemplateMatch.label_covariance_`).
    scatter_cov : ndarray of shape (n, K, K)
        Weighted scatter of the labels of the templates: how coarse the templates are there.
    templates : ndarray of int of shape (n, m)
        Rows of the training set, best first.
    weights : ndarray of shape (n, m)
        Their weights in the labels, of sum 1; some are negative where templates are interpolated.
    chi2, reduced_chi2 : ndarray of shape (n,)
        Of the combined templates; per good pixel less K, NaN without any.
    best_chi2 : ndarray of shape (n,)
        Of the best single template.
    n_good : ndarray of int of shape (n,)
        Good pixels.
    rv, rv_std : ndarray of shape (n,) or None
        Radial velocity, positive when receding, and its error [km/s]; None if not fitted.
    """

    dist: MultivariateNormal
    formal_cov: np.ndarray
    model_cov: np.ndarray
    scatter_cov: np.ndarray
    templates: np.ndarray
    weights: np.ndarray
    chi2: np.ndarray
    reduced_chi2: np.ndarray
    best_chi2: np.ndarray
    n_good: np.ndarray
    rv: np.ndarray | None = None
    rv_std: np.ndarray | None = None

    @property
    def labels(self) -> np.ndarray:
        """Labels, shape (n, K)."""
        return self.dist.mean()


class TemplateMatch(LabelRegressor):
    r"""Labels from the training spectra that are most like a spectrum (LSP3, Xiang et al. 2015).

    The chi2 of a spectrum against every template, :math:`\sum_j w_j (y_j - t_{kj})^2`, chooses the
    `n_best` of them; the labels are the weighted mean :math:`\hat\ell = \sum_k a_k \ell_k`. With
    ``interpolate=False`` the weights are those of `weight`. Otherwise :math:`\sum_k a_k t_k` also
    approaches the spectrum, as far as `smoothing_` lets it
    (:mod:`skspec.solvers.kernels.local_interpolation`), which takes the labels off the grid of
    templates.

    Each training spectrum matched with all *others* gives an error; `label_covariance_` is what
    they exceed photon noise by. The photon part of the covariance is the Cramer-Rao bound with
    gradient spectra from a linear regression, so that more noise always means a wider interval.

    Parameters
    ----------
    n_best : int, optional
        Templates that enter the labels; default 60 with interpolation, 10 without.
    weight : {"exp", "1/chi2"}
        Weights ``exp(-chi2 / 2T)``, where T gives the last of the `n_best` the share ``exp(-2)`` of
        the first, or ``1 / chi2``.
    interpolate : bool
        Interpolate the templates.
    fit_amplitude : bool
        Let the flux of each star be any multiple of the templates'.
    fit_rv : bool or (float, float)
        Find the radial velocity of each star and shift it to rest before it is matched: True from
        -500 to 500 km/s, or within a range (lowest, highest) [km/s]. Needs `wavelength`; training
        spectra are at rest.
    ivar : {"auto", "require", "ignore"}
        Take flux errors where they are given, insist on them, or leave them aside.

    Attributes
    ----------
    templates_ : ndarray of shape (n, P)
        Training spectra; their bad pixels hold what principal components expect there.
    template_labels_ : ndarray of shape (n, K)
    smoothing_ : float
        Lambda of the interpolation, of least leave-one-out error; ``inf`` for plain means.
    cv_label_errors_ : ndarray of shape (n, K)
        Label of each template from all others minus its own.
    label_covariance_ : ndarray of shape (K, K)
    rv_scatter_ : float
        Robust scatter of velocities among the templates themselves [km/s]; with `fit_rv`.

    References
    ----------
    Xiang et al. 2015, MNRAS 448, 822 (LSP3). Roweis & Saul 2000, Science 290, 2323.

    Examples
    --------
    >>> from skspec.datasets import make_spectra
    >>> from skspec.discriminative import TemplateMatch
    >>> spectra, labels = make_spectra(n_samples=200, random_state=0)
    >>> model = TemplateMatch().fit(spectra[:150], labels[:150])
    >>> result = model.match(spectra[150:])
    >>> result.labels.shape, result.templates.shape
    ((50, 3), (50, 60))
    """

    _capabilities = {"follows_noise": True, "native_bad_pixels": True, "speed": "seconds"}
    _parameter_constraints: dict = {
        "n_best": [Interval(Integral, 1, None, closed="left"), None],
        "weight": [StrOptions({"exp", "1/chi2"})],
        "interpolate": ["boolean"],
        "fit_amplitude": ["boolean"],
        "fit_rv": ["boolean", "array-like"],
        "ivar": [StrOptions({"auto", "require", "ignore"})],
    }

    def __init__(
        self,
        n_best: int | None = None,
        *,
        weight: str = "exp",
        interpolate: bool = True,
        fit_amplitude: bool = False,
        fit_rv: bool | tuple[float, float] = False,
        ivar: str = "auto",
    ):
        self.n_best = n_best
        self.weight = weight
        self.interpolate = interpolate
        self.fit_amplitude = fit_amplitude
        self.fit_rv = fit_rv
        self.ivar = ivar

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: SpectraLike, y: Labels) -> Self:
        """Keep the spectra, and match each with all others to learn how well that works.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
            Training spectra, at rest, continuum normalised the same way as the spectra to come.
        y : array-like of shape (n, K) or (n,)
            Their labels.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            With one star only, or with `fit_rv` and no wavelength or an empty range.
        """
        spectra, y = self._validate_fit(X, y)
        if len(spectra) < 2:
            raise ValueError("TemplateMatch needs at least 2 stars, got n_samples = 1.")
        self._rv_range = velocity_range(self.fit_rv)
        if self._rv_range is not None and self.wavelength_ is None:
            raise ValueError("fit_rv=True needs wavelengths: pass Spectra(flux, wavelength=...).")
        spread = y.std(axis=0)
        self.label_scale_ = np.where(spread > 0, spread, 1.0)
        self.template_labels_ = y
        self.templates_ = fit_gappy_pca(spectra.flux, spectra.good).fill(spectra.flux, spectra.good)
        self.training_variance_ = spectra.mean_variance
        self._slopes = _slopes(self.templates_, y, self.label_scale_)
        self._leave_one_out(spectra)
        if self._rv_range is not None:
            self._prepare_velocities(spectra)
        return self

    def _leave_one_out(self, spectra):
        """Sets the smoothing, the errors and their covariance."""
        candidates = SMOOTHING if self.interpolate else (np.inf,)
        found = np.empty((len(candidates), *self.template_labels_.shape))
        for start in range(0, len(spectra), BATCH):
            rows = np.arange(len(spectra))[start : start + BATCH]
            flux, weight = self._weighted(spectra[rows])
            nearest, prior, gram, _ = self._nearest(flux, weight, rows)
            for c, smoothing in enumerate(candidates):
                a = prior if gram is None else affine_weights(gram, prior, smoothing)
                found[c, rows] = np.einsum("nm,nmk->nk", a, self.template_labels_[nearest])
        error = found - self.template_labels_
        informed = spectra.good.any(axis=1)
        mean_error = np.abs(error[:, informed] / self.label_scale_).mean(axis=(1, 2))
        best = int(np.argmin(mean_error))
        self.smoothing_, self.cv_label_errors_ = candidates[best], error[best]
        formal = self._formal_cov(spectra)
        scaled = LabelErrors(error[best] / self.label_scale_, formal, informed)
        unit = np.outer(self.label_scale_, self.label_scale_)
        self.label_covariance_ = excess_covariance(scaled) * unit

    # -- matching ----------------------------------------------------------------------------------

    def match(self, X: SpectraLike) -> TemplateMatchResult:
        """Labels, and the templates, weights and velocity they come from.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)

        Returns
        -------
        TemplateMatchResult
        """
        spectra = self._validate_predict(X)
        velocities = {}
        if self._rv_range is not None:
            spectra, velocities["rv"], velocities["rv_std"] = self._at_rest(spectra)
        step = range(0, max(1, len(spectra)), BATCH)
        parts = [self._matched(spectra[start : start + BATCH]) for start in step]
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        labels, n_good = found.pop("labels"), spectra.good.sum(axis=1)
        formal = self._formal_cov(spectra) * np.outer(self.label_scale_, self.label_scale_)
        blind = n_good == 0
        labels[blind] = np.nan
        formal[blind] = np.diag(np.full(labels.shape[1], np.inf))
        found["chi2"][blind] = found["best_chi2"][blind] = np.nan
        free = n_good - labels.shape[1]
        reduced = np.where(free > 0, found["chi2"] / np.maximum(free, 1), np.nan)
        dist = MultivariateNormal(
            labels, cov=formal + self.label_covariance_, label_names=self.label_names_in_
        )
        return TemplateMatchResult(
            dist,
            formal,
            self.label_covariance_,
            reduced_chi2=reduced,
            n_good=n_good,
            **found,
            **velocities,
        )

    def predict_dist(self, X: SpectraLike) -> MultivariateNormal:
        """Labels of the best templates, with photon noise and the error of templates themselves.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)

        Returns
        -------
        MultivariateNormal
            NaN, with infinite errors, for a star without a good pixel.
        """
        return self.match(X).dist

    def _matched(self, spectra):
        flux, weight = self._weighted(spectra)
        nearest, prior, gram, chi2 = self._nearest(flux, weight)
        a = prior
        if gram is not None and np.isfinite(self.smoothing_):
            a = affine_weights(gram, prior, self.smoothing_)
        labels = self.template_labels_[nearest]
        mean = np.einsum("nm,nmk->nk", a, labels)
        offset = labels - np.einsum("nm,nmk->nk", prior, labels)[:, None]
        scatter = np.einsum("nm,nmj,nmk->njk", prior, offset, offset)
        combined = chi2[:, 0] if gram is None else np.einsum("nk,nkl,nl->n", a, gram, a)
        return {
            "labels": mean,
            "scatter_cov": scatter,
            "templates": nearest,
            "weights": a,
            "chi2": combined,
            "best_chi2": chi2[:, 0],
        }

    def _nearest(self, flux, weight, own=None):
        """Rows of the best templates but `own`; their plain weights, products of differences, chi2."""
        chi2, amplitude = template_chi2(
            flux, weight, self.templates_, fit_amplitude=self.fit_amplitude
        )
        n_templates = len(self.templates_)
        if own is not None:
            chi2[np.arange(len(own)), own] = np.inf
            n_templates -= 1
        nearest = best_rows(chi2, min(self._n_best, n_templates))
        chi2 = np.take_along_axis(chi2, nearest, axis=1)
        prior = distance_weights(chi2, self.weight)
        if not self.interpolate:
            return nearest, prior, None, chi2
        if self.fit_amplitude:
            best = np.take_along_axis(amplitude, nearest[:, :1], axis=1)
            best = np.where(best != 0, best, 1)
            flux, weight = flux / best, weight * best**2
        return nearest, prior, gram_of_differences(flux, weight, self.templates_, nearest), chi2

    @property
    def _n_best(self):
        if self.n_best is not None:
            return self.n_best
        return N_BEST_INTERPOLATED if self.interpolate else N_BEST_MEAN

    def _weighted(self, spectra):
        """Flux (0 at bad pixels), and weights of its differences from templates."""
        good = spectra.good
        flux = np.where(good, spectra.flux, 0).astype(float)
        if not self.uses_ivar_:
            return flux, good.astype(float)
        # a template is as noisy as the training spectra are on average
        variance = self._photon_variance(spectra) + self.training_variance_
        return flux, 1 / np.where(variance > 0, variance, np.inf)

    def _photon_variance(self, spectra):
        variance = spectra.variance
        if self.uses_ivar_:
            return np.where(variance == 0, self.training_variance_, variance)
        return np.where(np.isinf(variance), np.inf, 0.0)

    def _formal_cov(self, spectra):
        """Cramer-Rao bound (n, K, K) of scaled labels that are known to lie in the training set."""
        n_labels = len(self._slopes)
        if not self.uses_ivar_:
            return np.zeros((len(spectra), n_labels, n_labels))
        variance = self._photon_variance(spectra)
        floor = 1e-12 * np.mean(self.templates_**2)
        pairs = (self._slopes[:, None] * self._slopes[None]).reshape(n_labels**2, -1)
        fisher = (1 / np.maximum(variance, floor)) @ pairs.T
        return np.linalg.inv(fisher.reshape(-1, n_labels, n_labels) + np.eye(n_labels))

    # -- radial velocity ---------------------------------------------------------------------------

    def _prepare_velocities(self, spectra):
        """Templates of the scan, spread over the labels, and how well they agree with the others."""
        n = len(self.templates_)
        n_chosen = min(N_VELOCITY_TEMPLATES, max(1, n // 2))
        chosen = spread_rows(self.template_labels_ / self.label_scale_, n_chosen)
        self._velocity_templates = self.templates_[chosen]
        others = spectra[np.setdiff1d(np.arange(n), chosen)]
        rv = self._scan(others).rv
        rv = rv[np.isfinite(rv)]
        self.rv_scatter_ = float(1.4826 * np.median(np.abs(rv))) if rv.size else 0.0

    def _scan(self, spectra):
        flux, weight = self._weighted(spectra)
        return velocity_scan(
            flux, weight, self._velocity_templates, self.wavelength_, self._rv_range
        )

    def _at_rest(self, spectra):
        """Spectra shifted to rest, their velocities and the errors of these."""
        scan = self._scan(spectra)
        sight = LineOfSight(self.wavelength_, spectra.order)
        z = ln_shift(np.where(np.isfinite(scan.rv), scan.rv, 0.0))
        steps = z / sight.step
        templates = sight.transform(self._velocity_templates)
        flux, ivar = np.empty(spectra.shape), np.empty(spectra.shape)
        for start in range(0, len(spectra), BATCH):
            part = slice(start, start + BATCH)
            phase = sight.phase(steps[part])
            expected = sight.spectra(templates[scan.template[part]] * phase)
            filled = np.where(spectra.good[part], spectra.flux[part], expected)
            flux[part] = sight.spectra(sight.transform(filled) * phase.conj())
            pixels, inside = sight.nearest_pixels(z[part])
            known = spectra.good[part] * 1.0 if spectra.ivar is None else spectra.ivar[part]
            ivar[part] = np.where(inside, np.take_along_axis(known, pixels, axis=1), 0.0)
        if spectra.ivar is None:
            ivar = np.where(ivar > 0, np.inf, 0.0)
        return (
            spectra.replace(flux=flux, ivar=ivar),
            scan.rv,
            np.hypot(scan.error, self.rv_scatter_),
        )


def _slopes(flux, labels, scale):
    """Gradient spectra (K, P) of a linear regression of the flux on scaled labels."""
    x = (labels - labels.mean(axis=0)) / scale
    return np.linalg.lstsq(x, flux - flux.mean(axis=0), rcond=1e-9)[0]
