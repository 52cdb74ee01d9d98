"""DeepEnsembleRegressor: several fits of one method, and what they disagree about."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils.parallel import Parallel, delayed

from skspec._sklearn import HasMethods, Interval, StrOptions, fit_context
from skspec._spectrum_domain import InnerDomainMixin
from skspec.base import LabelRegressor, inner_fits, predict_dist
from skspec.calibration._residual_covariance import ResidualCovarianceRegressor
from skspec.distributions import MultivariateNormal
from skspec.metrics import robust_sigma
from skspec.model_selection import star_groups

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from skspec._typing import Labels, RandomState, SpectraLike

__all__ = ["DeepEnsembleRegressor"]

DISTINCT = 0.632  # of the stars, in a bootstrap sample
MIN_STARS = 6  # in a sample
MAX_SEED = 2**31 - 1


class DeepEnsembleRegressor(InnerDomainMixin, LabelRegressor):
    r"""Mixture of several fits of one method (deep ensemble).

    Members differ by their seed (the initial weights and batches of a network) or, for a method
    without chance, by the stars they were fitted to. The mixture of their predictions
    :math:`N(\mu_m, \Sigma_m)` has

    .. math:: \mu = \frac{1}{M} \sum_m \mu_m, \qquad
              \Sigma = \frac{1}{M} \sum_m \left[\Sigma_m + (\mu_m - \mu)(\mu_m - \mu)^T\right]

    (law of total variance, in label units): the mean of what the members claim, plus what they
    disagree about. That grows where there were few training stars, but is no calibration;
    :class:`~skspec.calibration.CalibratedRegressor` around an ensemble is.

    Parameters
    ----------
    estimator : estimator, optional
        Anything that :func:`skspec.predict_dist` understands. Every ``random_state`` in it, however
        deep, is set. Default: :class:`~skspec.calibration.ResidualCovarianceRegressor`.
    n_members : int
        M.
    max_samples : float, int or "auto"
        Fraction (or number) of the stars that each member is fitted to, drawn without repetition: a
        star that came twice would be on both sides of a cross-validation inside the member.
        ``"auto"``: all where the method has a ``random_state``, otherwise 0.632, the share of
        distinct stars in a bootstrap sample. Spectra of one star (``group_id`` or ``star_id`` in
        ``X.meta``) are drawn together.
    drop : float, optional
        Leave out members that are worse than the median member by more than so many robust standard
        deviations between members (3.5 in StarNet), or that predict nothing finite: networks that
        failed to train. Judged by mean absolute errors in units of the spread of the labels, of
        stars the member has not seen where there are any. None keeps all.
    n_jobs : int, optional
        Members fitted in parallel.
    random_state : int, RandomState instance or None
        Seed of the seeds, and of the choice of stars.

    Attributes
    ----------
    estimators_ : list of estimators
        Members that were kept.
    member_errors_ : ndarray of shape (n_members,)
        What `drop` judges by.
    kept_ : ndarray of bool of shape (n_members,)

    References
    ----------
    Lakshminarayanan et al. 2017 (NeurIPS); Bialek et al. 2020, MNRAS 498, 3817 (StarNet).

    Examples
    --------
    >>> from skspec.datasets import make_spectra
    >>> from skspec.calibration import ResidualCovarianceRegressor
    >>> from skspec.ensemble import DeepEnsembleRegressor
    >>> spectra, labels = make_spectra(n_samples=300, n_pixels=200, random_state=0)
    >>> model = DeepEnsembleRegressor(ResidualCovarianceRegressor(), random_state=0)
    >>> model = model.fit(spectra[:200], labels[:200])
    >>> len(model.estimators_), model.predict_dist(spectra[200:])
    (5, <MultivariateNormal of teff, logg, feh: 100 stars>)
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "predict"]), None],
        "n_members": [Interval(Integral, 1, None, closed="left")],
        "max_samples": [
            StrOptions({"auto"}),
            Interval(Integral, 1, None, closed="left"),
            Interval(Real, 0, 1, closed="right"),
        ],
        "drop": [Interval(Real, 0, None, closed="neither"), None],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: BaseEstimator | None = None,
        n_members: int = 5,
        *,
        max_samples: float | int | str = "auto",
        drop: float | None = None,
        n_jobs: int | None = None,
        random_state: RandomState | None = None,
    ):
        self.estimator = estimator
        self.n_members = n_members
        self.max_samples = max_samples
        self.drop = drop
        self.n_jobs = n_jobs
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: SpectraLike, y: Labels, **fit_params: Any) -> Self:
        """Fit all members.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
            Training spectra.
        y : array-like of shape (n, K) or (n,)
            Training labels.
        **fit_params
            Handed on, as they are, to the fit of every member.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            With fewer than 2 stars, or when every member failed.
        """
        spectra, y = self._validate_fit(X, y)
        if len(y) < 2:
            raise ValueError("DeepEnsembleRegressor needs at least 2 stars, got 1 sample.")
        random = check_random_state(self.random_state)
        estimator = ResidualCovarianceRegressor() if self.estimator is None else self.estimator
        targets = self._named_labels(y)
        seeds = random.randint(MAX_SEED, size=self.n_members)
        rows = self._samples(estimator, star_groups(X), len(y), random)
        members = Parallel(n_jobs=self.n_jobs)(
            delayed(_fitted)(_seeded(estimator, seed), spectra, targets, chosen, fit_params)
            for seed, chosen in zip(seeds, rows)
        )
        self.kept_ = np.ones(self.n_members, dtype=bool)
        self.member_errors_ = np.full(self.n_members, np.nan)
        if self.drop is not None:
            self._judge(members, spectra, y, rows)
        self.estimators_ = [member for member, kept in zip(members, self.kept_) if kept]
        self._check_variety(estimator, spectra[: min(8, len(y))])
        return self

    def _check_variety(self, estimator, spectra):
        """Warn where seeds change nothing, as those of a ridge regression."""
        if len(self.estimators_) < 2 or not _seeds(estimator):
            return
        one, two = (predict_dist(member, spectra) for member in self.estimators_[:2])
        if np.array_equal(one.mean(), two.mean(), equal_nan=True):
            warnings.warn(
                f"The members are all the same: the seeds of {type(estimator).__name__} change "
                "nothing. max_samples=0.632 fits each to other stars.",
                UserWarning,
                stacklevel=3,
            )

    def _samples(self, estimator, groups, n, random):
        """Rows that each member is fitted to."""
        groups = np.arange(n) if groups is None else groups
        n_stars, size = groups.max() + 1, self.max_samples
        if isinstance(size, str):
            size = 1.0 if _seeds(estimator) else DISTINCT
        if not isinstance(size, Integral):
            size = max(int(np.ceil(size * n_stars)), MIN_STARS)
        size = min(size, n_stars)
        drawn = [random.permutation(n_stars)[:size] for _ in range(self.n_members)]
        return [np.flatnonzero(np.isin(groups, chosen)) for chosen in drawn]

    def _judge(self, members, spectra, y, rows):
        """Errors of the members, and which of them to keep."""
        spread = y.std(axis=0)
        unit = np.where(spread > 0, spread, 1.0)
        for m, (member, chosen) in enumerate(zip(members, rows)):
            unseen = np.setdiff1d(np.arange(len(y)), chosen)
            judged = unseen if len(unseen) else chosen
            judged = judged[spectra.good[judged].any(axis=1)]
            error = np.abs(predict_dist(member, spectra[judged]).mean() - y[judged]) / unit
            self.member_errors_[m] = error.mean()
        finite = np.isfinite(self.member_errors_)
        if not finite.any():
            raise ValueError("Every member of the ensemble predicts NaN: none can be kept.")
        middle = np.median(self.member_errors_[finite])
        spread = robust_sigma(self.member_errors_[finite], middle)
        self.kept_ = finite.copy()
        self.kept_[finite] = self.member_errors_[finite] <= middle + self.drop * spread

    def predict_members(self, X: SpectraLike) -> list[MultivariateNormal]:
        """Distribution that each member predicts.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)

        Returns
        -------
        list of MultivariateNormal
        """
        spectra = self._validate_predict(X)
        return [predict_dist(member, spectra) for member in self.estimators_]

    def predict_dist(self, X: SpectraLike) -> MultivariateNormal:
        """Mean and covariance of the mixture of all members.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)

        Returns
        -------
        MultivariateNormal
            NaN, with infinite errors, for a star without a good pixel.
        """
        mixture = MultivariateNormal.mixture(self.predict_members(X))
        return MultivariateNormal(
            mixture.mean(), cov=mixture.cov(), label_names=self.label_names_in_
        )


def _seeds(estimator):
    """Names of all seeds in an estimator."""
    return [name for name in estimator.get_params() if name.split("__")[-1] == "random_state"]


def _seeded(estimator, seed):
    """A copy with every seed set."""
    return clone(estimator).set_params(**{name: int(seed) for name in _seeds(estimator)})


def _fitted(estimator, spectra, targets, rows, fit_params):
    with inner_fits():
        return estimator.fit(spectra[rows], targets.iloc[rows], **fit_params)
