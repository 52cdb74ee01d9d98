"""CalibratedRegressor: error bars that hold what they promise, whatever the method."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy.special import chdtri, ndtri
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.parallel import Parallel, delayed

from skspec._label_values import label_values
from skspec._sklearn import HasMethods, Interval, StrOptions, fit_context
from skspec._spectrum_domain import InnerDomainMixin
from skspec.base import LabelRegressor, inner_fits, predict_dist
from skspec.calibration._residual_covariance import ResidualCovarianceRegressor
from skspec.distributions import MultivariateNormal
from skspec.metrics import ONE_SIGMA
from skspec.model_selection import check_cv, star_groups
from skspec.solvers.statistics.conformal import conformal_quantile

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from sklearn.base import BaseEstimator

    from skspec._typing import CrossValidation, Labels, SpectraLike

__all__ = ["CalibratedRegressor"]

MIN_SCALE = 1e-6  # of an error bar
MAX_COMPARED = 2000  # stars of the training whose scores are compared between models
MIN_SPREAD = 1e-6  # of the logarithms of scores, squared: folds that all claim the same
MIN_SEEN = 0.1  # of the scores of new stars, for those of the training to say anything
MIN_STARS_PER_BIN = 40  # stars that may have a calibration of their own: enough for 95 % of them
NOISE_TERMS = np.geomspace(0.05, 20, 49)  # that are tried, in units of a typical error bar
MIN_GAIN = 2.0  # of the log-likelihood, for a noise term


class CalibratedRegressor(InnerDomainMixin, LabelRegressor):
    r"""Any method, with error bars calibrated on stars it has not seen.

    Predictions of the training stars out of fold tell how errors follow the noise:
    :math:`\sigma_{ik}^2 \to \sigma_{ik}^2 + t_k^2\,(S/N)_i^{-2}` where such a term makes them likelier.
    Then they give the scores :math:`z_{ik} = |\ell_{ik} - \mu_{ik}| / \sigma_{ik}` of label `k`, from
    which

    - each :math:`\sigma_k` is multiplied by one factor :math:`s_k`, correlations kept:
      :math:`\Sigma' = S \Sigma S` with :math:`S = \mathrm{diag}(s)`. This is ``predict_dist``: a
      Gaussian whose intervals hold their promise at `level`, and elsewhere as well as the errors
      are Gaussian. ``method="scale"`` stops here.
    - ``method="conformal"`` also keeps the scores, for intervals that hold at every level, whatever
      the distribution of the errors: :math:`\mu_k \pm q_k \sigma_k` with the
      :math:`\lceil (n+1)\,\mathrm{level} \rceil`-th smallest of `n` scores
      (:meth:`predict_interval`), and joint regions of all labels in the same way from the
      Mahalanobis distances (:meth:`joint_region`, :meth:`contains`).

    As many spectra as possible are used: the predictions come from models of the folds, then the
    method is fitted once more to all (``ensemble=False`` of
    :class:`~sklearn.calibration.CalibratedClassifierCV`). The final model has seen more stars than
    those of the folds, so its error bars are, if anything, too wide. Networks that differ by their
    seed also claim error bars that differ by several per cent; the scores of training stars tell how
    much, and the folds are put on the scale of the final model. A method that has been fitted before,
    on other stars, is given as ``FrozenEstimator(model)``, and all stars calibrate it.

    Parameters
    ----------
    estimator : estimator, optional
        Anything that :func:`skspec.predict_dist` understands. Default:
        :class:`ResidualCovarianceRegressor`.
    method : {"scale", "conformal"}
        See above.
    level : float or None
        Fraction of stars within the interval from which the factors are found. None: the factors
        of maximum likelihood, root mean square scores, which outliers widen.
    noise_term : bool
        Whether there may be the term :math:`t_k^2\,(S/N)^{-2}`. Many methods claim too much for noisy
        spectra and too little for good ones, which one factor cannot mend. Stars of unknown noise have
        a typical one.
    snr_bins : int or array-like of float, optional
        Separate calibration in bins of the median signal-to-noise ratio (Mondrian), by number or by
        edges. Bins of fewer than 40 stars, and stars of unknown noise, use that of all stars.
    cv : int or cross-validation splitter
        Folds; a number shuffles the stars, always in the same way. Spectra of one star (`groups` of
        :meth:`fit`, else ``group_id`` or ``star_id`` in ``X.meta``) are never on both sides.
    ensemble : bool
        Keep the models of the folds, and predict with their mixture, instead of fitting one to all
        stars. The mixture errs less than its members, from which the scores come: its error bars
        may be too wide.
    n_jobs : int, optional
        Folds fitted in parallel.

    Attributes
    ----------
    estimators_ : list of estimators
        The fitted method, or that of each fold with ``ensemble=True``.
    scale_ : ndarray of shape (B + 1, K)
        Factors of the error bars in each of B bins of S/N, and of all stars; shape (1, K) without
        bins.
    noise_ : ndarray of shape (K,)
        Coefficients :math:`t_k`, in units of the labels; 0 where the error bars follow the noise.
    scores_, joint_scores_ : list of ndarray of shape (n_bin, K), (n_bin,)
        Sorted scores of the labels, and Mahalanobis distances after scaling, of each row of
        `scale_`.
    snr_edges_ : ndarray of shape (B - 1,)
        Limits between the bins.

    Notes
    -----
    Guaranteed coverage (for conformal intervals: at least the level, on average over calibrations)
    needs test stars like those of the calibration, which no method can know of a new survey:
    :func:`skspec.domain_score` warns. With bins of S/N it holds in every bin, but then a noisier
    spectrum that falls into another bin may get a narrower error bar.

    References
    ----------
    Guo et al. 2017 (ICML) and Kuleshov et al. 2018 (ICML), scaling; Lei et al. 2018, JASA 113,
    1094, and Vovk et al. 2005, conformal prediction.

    Examples
    --------
    >>> from skspec.datasets import make_spectra
    >>> from skspec.calibration import CalibratedRegressor
    >>> from skspec.forward import TheCannon
    >>> spectra, labels = make_spectra(n_samples=300, n_pixels=200, random_state=0)
    >>> model = CalibratedRegressor(TheCannon(), method="conformal", cv=3)
    >>> model = model.fit(spectra[:200], labels[:200])
    >>> model.scale_.shape
    (1, 3)
    >>> lower, upper = model.predict_interval(spectra[200:], 0.9)
    >>> inside = model.contains(spectra[200:], labels[200:], 0.9)
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "predict"]), None],
        "method": [StrOptions({"scale", "conformal"})],
        "level": [Interval(Real, 0, 1, closed="neither"), None],
        "noise_term": ["boolean"],
        "snr_bins": [Interval(Integral, 1, None, closed="left"), "array-like", None],
        "cv": ["cv_object"],
        "ensemble": ["boolean"],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        estimator: BaseEstimator | None = None,
        *,
        method: str = "scale",
        level: float | None = ONE_SIGMA,
        noise_term: bool = True,
        snr_bins: int | ArrayLike | None = None,
        cv: CrossValidation = 5,
        ensemble: bool = False,
        n_jobs: int | None = None,
    ):
        self.estimator = estimator
        self.method = method
        self.level = level
        self.noise_term = noise_term
        self.snr_bins = snr_bins
        self.cv = cv
        self.ensemble = ensemble
        self.n_jobs = n_jobs

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: SpectraLike, y: Labels, groups: ArrayLike | None = None) -> Self:
        """Predict the training stars out of fold, calibrate, and fit the method to all of them.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
            Training spectra; with a frozen estimator, spectra that it has not been fitted to.
        y : array-like of shape (n, K) or (n,)
            Their labels.
        groups : array-like of shape (n,), optional
            Star of each spectrum.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            With fewer than 6 stars, when a frozen estimator has other labels, or when no star has
            a finite prediction.
        """
        spectra, y = self._validate_fit(X, y)
        groups = star_groups(X, groups)
        n_stars = len(y) if groups is None else len(np.unique(groups))
        if n_stars < 6:
            raise ValueError(
                f"CalibratedRegressor needs at least 2 stars in each of 3 folds, got {n_stars} "
                f"sample{'s' * (n_stars > 1)}."
            )
        estimator = ResidualCovarianceRegressor() if self.estimator is None else self.estimator
        if isinstance(estimator, FrozenEstimator):
            self.estimators_, dist = [estimator], predict_dist(estimator, spectra)
        else:
            dist = self._cross_fit(estimator, spectra, y, groups)
        self._check_labels(dist)
        self._calibrate(dist, y, spectra)
        return self

    def _cross_fit(self, estimator, spectra, y, groups):
        """Predictions of all stars by models that have not seen them, claiming what the final does."""
        targets = self._named_labels(y)
        folds = check_cv(self.cv, len(y) // 2, groups, shuffle=True)
        tasks = list(folds.split(spectra.flux, groups=groups))
        if not self.ensemble:
            every = np.arange(len(y))
            tasks.append((every, every[:0]))
        done = Parallel(n_jobs=self.n_jobs)(
            delayed(_fitted)(estimator, spectra, targets, fit_rows, test_rows, self.ensemble)
            for fit_rows, test_rows in tasks
        )
        self.estimators_ = [model for model, *_ in done if model is not None]
        mean, cov = np.full(y.shape, np.nan), np.full((*y.shape, y.shape[1]), np.nan)
        parts = [(rows, *rest) for (_, rows), (_, *rest) in zip(tasks, done) if len(rows)]
        units = np.ones((len(parts), y.shape[1]))
        if min(len(rows) for rows, *_ in parts) >= MIN_STARS_PER_BIN:
            some = _sample(np.arange(len(y)))
            final = _typical(_scores(self._uncalibrated(spectra[some]), y[some]))
            unseen = np.array([_typical(_scores(dist, y[rows])) for rows, dist, _ in parts])
            units = _relative_claims(np.array([seen for *_, seen in parts]), final, unseen)
        for (rows, dist, _), unit in zip(parts, units):
            mean[rows], cov[rows] = dist.mean(), dist.cov() * np.outer(unit, unit)
        return MultivariateNormal(mean, cov=cov)

    def _check_labels(self, dist):
        names, own = dist.label_names, self.label_names_in_
        if dist.n_labels != len(own):
            raise ValueError(f"The estimator predicts {dist.n_labels} labels; y has {len(own)}.")
        if names is not None and names != own and own[0] != "label_0":
            raise ValueError(
                f"The estimator predicts {', '.join(names)}; y holds {', '.join(own)}. Give these "
                "columns in that order."
            )

    # -- calibration -------------------------------------------------------------------------------

    def _calibrate(self, dist, y, spectra):
        self._learn_noise(dist, y, spectra)
        dist = self._noisier(dist, spectra)
        scores = _scores(dist, y)
        known = np.isfinite(scores).all(axis=1)
        if not known.any():
            raise ValueError("No star has a finite prediction with finite errors to calibrate by.")
        self.snr_edges_ = self._edges(spectra)
        place = self._bins(spectra)
        n_bins = len(self.snr_edges_) + 1
        rows = [known & (place == k) for k in range(n_bins)] if n_bins > 1 else []
        rows = [inside if inside.sum() >= MIN_STARS_PER_BIN else known for inside in (*rows, known)]
        self.scores_ = [np.sort(scores[inside], axis=0) for inside in rows]
        self.scale_ = np.array([self._factor(part) for part in self.scores_])
        distance = self._scaled(dist, place).mahalanobis(y)
        self.joint_scores_ = [np.sort(distance[inside]) for inside in rows]

    def _learn_noise(self, dist, y, spectra):
        """Coefficients of the noise term, and the noise of stars of which it is not known."""
        noise, error, variance = _relative_noise(spectra), np.abs(y - dist.mean()), dist.std() ** 2
        usable = np.isfinite(noise) & np.isfinite(error * variance).all(axis=1)
        usable &= (variance > 0).all(axis=1)
        self.noise_, self._typical_noise = np.zeros(y.shape[1]), 0.0
        if self.noise_term and usable.sum() >= MIN_STARS_PER_BIN:
            some = _sample(np.flatnonzero(usable))
            self._typical_noise = np.median(noise[some])
            self.noise_ = _noise_coefficients(error[some], variance[some], noise[some])

    def _noisier(self, dist, spectra):
        """Distributions with the noise term, correlations kept."""
        if not self.noise_.any():
            return dist
        noise = _relative_noise(spectra)
        noise = np.where(np.isfinite(noise), noise, self._typical_noise)[:, None]
        sigma = dist.std()
        factor = np.hypot(1, noise * self.noise_ / np.where(sigma > 0, sigma, np.inf))
        return _stretched(dist, factor, dist.label_names)

    def _factor(self, scores):
        """Factor of each label from its sorted scores."""
        if self.level is None:
            factor = np.sqrt(np.mean(scores**2, axis=0))
        elif self.method == "conformal":
            factor = np.minimum(conformal_quantile(scores, self.level), scores[-1])
        else:
            factor = np.quantile(scores, self.level, axis=0)
        unit = 1.0 if self.level is None else _gaussian_quantile(self.level)
        return np.maximum(factor / unit, MIN_SCALE)

    def _edges(self, spectra):
        """Limits between the bins of S/N."""
        if self.snr_bins is None:
            return np.zeros(0)
        if not isinstance(self.snr_bins, Integral):
            edges = np.asarray(self.snr_bins, dtype=float)
            if edges.ndim != 1 or not np.all(np.diff(edges) > 0):
                raise ValueError(f"snr_bins must be a number or rising edges, not {self.snr_bins}.")
            return edges
        snr = spectra.snr
        snr = snr[np.isfinite(snr)]
        n_bins = min(self.snr_bins, len(snr) // MIN_STARS_PER_BIN)
        if n_bins < 2:
            return np.zeros(0)
        return np.unique(np.quantile(snr, np.arange(1, n_bins) / n_bins))

    def _bins(self, spectra):
        """Row of `scale_` that each star uses; the last one where its noise is not known."""
        if not len(self.snr_edges_):
            return np.zeros(len(spectra), dtype=int)
        snr = spectra.snr
        place = np.searchsorted(self.snr_edges_, snr, side="right")
        return np.where(np.isfinite(snr), place, len(self.snr_edges_) + 1)

    def _scaled(self, dist, place):
        return _stretched(dist, self.scale_[place], self.label_names_in_)

    def _uncalibrated(self, spectra):
        dists = [predict_dist(model, spectra) for model in self.estimators_]
        return dists[0] if len(dists) == 1 else MultivariateNormal.mixture(dists)

    def _claimed(self, spectra):
        """Distributions before scaling, and the rows of `scale_` that they use."""
        return self._noisier(self._uncalibrated(spectra), spectra), self._bins(spectra)

    # -- prediction --------------------------------------------------------------------------------

    def predict_dist(self, X: SpectraLike) -> MultivariateNormal:
        """The Gaussian of the method with the noise term, its error bars multiplied by ``scale_``.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)

        Returns
        -------
        MultivariateNormal
            NaN, with infinite errors, for a star without a good pixel.
        """
        spectra = self._validate_predict(X)
        return self._scaled(*self._claimed(spectra))

    def predict_interval(
        self, X: SpectraLike, level: float = ONE_SIGMA
    ) -> tuple[np.ndarray, np.ndarray]:
        """Interval of each label that holds the truth with probability `level`.

        Conformal with ``method="conformal"``, otherwise that of the Gaussian.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
        level : float
            Between 0 and 1.

        Returns
        -------
        lower, upper : ndarray of shape (n, K), or (n,) when `y` was a vector at fit
            Infinite where the calibration stars are too few for `level`: fewer than
            ``level / (1 - level)``.
        """
        _check_level(level)
        spectra = self._validate_predict(X)
        dist, place = self._claimed(spectra)
        if self.method == "conformal":
            width = np.array([conformal_quantile(scores, level) for scores in self.scores_])
        else:
            width = self.scale_ * _gaussian_quantile(level)
        half = width[place] * dist.std()
        ends = dist.mean() - half, dist.mean() + half
        return tuple(end[:, 0] for end in ends) if self._y_is_vector else ends

    def joint_region(
        self, X: SpectraLike, level: float = ONE_SIGMA
    ) -> tuple[np.ndarray, np.ndarray]:
        r"""Ellipsoid that holds all labels of a star at once with probability `level`.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
        level : float
            Between 0 and 1.

        Returns
        -------
        centre : ndarray of shape (n, K)
        matrix : ndarray of shape (n, K, K)
            The region is :math:`(\ell - c)^T M^{-1} (\ell - c) \le 1`.
        """
        _check_level(level)
        spectra = self._validate_predict(X)
        dist, place = self._claimed(spectra)
        dist = self._scaled(dist, place)
        with np.errstate(invalid="ignore"):
            matrix = dist.cov() * self._radius(level)[place, None, None] ** 2
        return dist.mean(), matrix

    def contains(self, X: SpectraLike, y: Labels, level: float = ONE_SIGMA) -> np.ndarray:
        """Whether labels lie in the joint region of their star.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
        y : array-like of shape (n, K) or (n,)
        level : float
            Between 0 and 1.

        Returns
        -------
        ndarray of bool of shape (n,)
            False for a star without a good pixel.
        """
        _check_level(level)
        spectra = self._validate_predict(X)
        dist, place = self._claimed(spectra)
        dist = self._scaled(dist, place)
        y = label_values(y, self.label_names_in_).reshape(len(spectra), -1)
        return dist.mahalanobis(y) <= self._radius(level)[place]

    def _radius(self, level):
        """Mahalanobis distance that holds `level` of the stars, for each row of `scale_`."""
        if self.method == "conformal":
            return np.array([conformal_quantile(scores, level) for scores in self.joint_scores_])
        return np.full(len(self.scale_), np.sqrt(chdtri(len(self.label_names_in_), 1 - level)))


def _fitted(estimator, spectra, targets, fit_rows, test_rows, keep):
    """Estimator fitted to some stars, if it is kept; what it predicts of others; scores of these."""
    with inner_fits():
        model = clone(estimator).fit(spectra[fit_rows], targets.iloc[fit_rows])
    if not len(test_rows):
        return model, None, None
    some = _sample(fit_rows)
    y = targets.to_numpy()[some].reshape(len(some), -1)
    seen = _typical(_scores(predict_dist(model, spectra[some]), y))
    return (model if keep else None), predict_dist(model, spectra[test_rows]), seen


def _sample(rows):
    """Some of the stars, evenly."""
    return rows[:: -(-len(rows) // MAX_COMPARED)]


def _scores(dist, y):
    """Errors (n, K) in units of their error bars."""
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = np.abs(y - dist.mean()) / dist.std()
    scores[y == dist.mean()] = 0
    return scores


def _stretched(dist, factor, names):
    """Distributions whose error bars are multiplied by factors (n, K)."""
    with np.errstate(invalid="ignore"):
        cov = dist.cov() * factor[:, :, None] * factor[:, None, :]
    return MultivariateNormal(dist.mean(), cov=cov, label_names=names)


def _relative_noise(spectra):
    """Noise (n,) in units of the flux; NaN where it is not known."""
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = 1 / spectra.snr
    return np.where(np.isfinite(noise) & (noise > 0), noise, np.nan)


def _noise_coefficients(error, variance, noise):
    r"""Coefficients t (K,) of the noise that make errors (n, K) likeliest, whatever their scale.

    The variances are :math:`\sigma^2 + t^2\nu^2`. Errors are taken as Laplace's, for which the best
    scale is their mean in units of sigma: tails count little.
    """
    unit = np.sqrt(np.median(variance, axis=0) / np.median(noise**2))
    terms = np.append(0.0, NOISE_TERMS)[:, None] * unit
    cost = []
    for t in terms:
        v = variance + (noise[:, None] * t) ** 2
        typical = np.mean(error / np.sqrt(v), axis=0)
        cost.append(0.5 * np.mean(np.log(v), axis=0) + np.log(np.maximum(typical, MIN_SPREAD)))
    cost = len(error) * np.array(cost)
    best = np.argmin(cost, axis=0)
    best[cost[0] - cost.min(axis=0) < MIN_GAIN] = 0
    return np.take_along_axis(terms, best[None], axis=0)[0]


def _typical(scores):
    """The 68.27 % quantile of the scores of each label; NaN where there are none."""
    known = np.isfinite(scores).all(axis=1)
    if not known.any():
        return np.full(scores.shape[1], np.nan)
    return np.quantile(scores[known], ONE_SIGMA, axis=0)


def _relative_claims(seen, final, unseen):
    r"""Factors (F, K) that make the error bars of the folds those that the final model claims.

    Networks of other seeds claim other error bars, which shows in their scores of training stars:
    a control variate, with the slope :math:`\beta` (0 to 1) of the scores of new stars on these. It
    is 0 for a method whose scores of training stars tell how closely it was fitted, not what it
    claims. Where the final model differs from the folds by more than these differ from each other,
    it is for it has seen more stars, and nothing can be said.

    Parameters
    ----------
    seen, unseen : ndarray of shape (F, K)
        Typical scores of each fold, of stars of the training and of others.
    final : ndarray of shape (K,)
        Of the final model, of stars of the training.
    """
    told = (seen > MIN_SEEN * unseen).all(axis=0) & (unseen > 0).all(axis=0) & (final > 0)
    if len(seen) < 2 or not told.any():  # not told: stars of the training are reproduced
        return np.ones(seen.shape)
    claim, new, own = (np.log(np.where(told, part, 1)) for part in (seen, unseen, final))
    centre, spread = claim.mean(axis=0), claim.std(axis=0, ddof=1)
    offset = claim - centre
    beta = np.clip(np.sum(offset * new) / max(np.sum(offset**2), MIN_SPREAD), 0, 1)
    return np.exp(beta * (offset - np.clip(own - centre, -2 * spread, 2 * spread)))


def _gaussian_quantile(level):
    """Half width of the central interval of a unit Gaussian."""
    return ndtri(0.5 * (1 + level))


def _check_level(level):
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}.")
