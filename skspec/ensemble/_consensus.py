"""ConsensusRegressor: several methods, one set of labels (SSPP, Lee et al. 2008)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.utils import Bunch

from skspec._short_repr import ShortRepr
from skspec._sklearn import BaseComposition, fit_context
from skspec.base import LabelRegressor, inner_fits, predict_dist
from skspec.calibration._residual_covariance import ResidualCovarianceRegressor
from skspec.discriminative._kernel_pca import KernelPCARegressor
from skspec.distributions import MultivariateNormal
from skspec.metrics import ONE_SIGMA
from skspec.model_selection import check_cv, star_groups
from skspec.solvers.statistics.biweight import N_SIGMA, best_weights, biweight_location

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from skspec._typing import CrossValidation, Labels, SpectraLike

__all__ = ["ConsensusRegressor", "ConsensusResult"]

MIN_WEIGHT = 0.01  # of a method, which other methods may have to be replaced by
MIN_SIGMA = 1e-6  # error bars below this fraction of a label's spread are not believed


@dataclass(frozen=True)
class ConsensusResult(ShortRepr):
    """What `M` methods say about `n` stars, and what was made of it.

    Attributes
    ----------
    dist : MultivariateNormal
        The consensus.
    names : list of str
        Of the methods.
    labels, std : ndarray of shape (M, n, K)
        Of each method; `std` as calibrated on out-of-fold errors.
    weights : ndarray of shape (M, n, K)
        Share of each method in each label, of sum 1; 0 where it was not used.
    valid : ndarray of bool of shape (M, n)
        Whether the star is within the ranges of the method.
    between_std : ndarray of shape (n, K)
        Scatter between the methods.
    """

    dist: MultivariateNormal
    names: list[str]
    labels: np.ndarray
    std: np.ndarray
    weights: np.ndarray
    valid: np.ndarray
    between_std: np.ndarray

    def to_frame(self) -> pd.DataFrame:
        """One row per star, label and method: label, error, weight, whether it was in range."""
        n_methods, n, n_labels = self.labels.shape
        names = self.dist.label_names or [f"label_{k}" for k in range(n_labels)]
        index = pd.MultiIndex.from_product(
            [range(n), names, self.names], names=["star", "label", "method"]
        )

        def column(values):
            return np.moveaxis(values, 0, 2).ravel()

        valid = np.broadcast_to(self.valid[:, :, None], self.labels.shape)
        columns = {"value": self.labels, "std": self.std, "weight": self.weights, "valid": valid}
        return pd.DataFrame({name: column(v) for name, v in columns.items()}, index=index)


class ConsensusRegressor(BaseComposition, LabelRegressor):
    r"""Outlier-resistant mean of several methods (SSPP, Lee et al. 2008).

    Out-of-fold predictions of the training stars tell how large the errors :math:`\sigma_m` of each
    method really are, how correlated they are between methods, how far each strays from the others, and
    how good the consensus is. Each label is the biweight mean of the methods
    (:func:`skspec.solvers.statistics.biweight.biweight_location`) with weights
    :math:`w_m \bar\sigma_m^2 / \sigma_m^2`, where :math:`w \ge 0` minimises the variance
    :math:`w^T C w` of the out-of-fold errors and :math:`\bar\sigma_m` is the median error bar: a method
    that is only a noisier copy of another hardly counts, nor does one that knows its spectrum is bad.

    The methods see the same photons and the same wrong training labels: their errors are nearly the
    same, and do not average out. The covariance of the consensus is therefore the weighted *mean* of
    theirs plus that between them, and is scaled, label by label, such that 68.27 % of the
    out-of-fold consensus lies within one sigma.

    Parameters
    ----------
    estimators : list of (str, estimator), optional
        Anything that :func:`skspec.predict_dist` understands; ``"drop"`` leaves one out. Default: a
        ridge regression and :class:`~skspec.discriminative.KernelPCARegressor`.
    valid : dict of dict, optional
        Where a method is to be believed, ``{name: {label: (low, high), "snr": (low, high)}}``:
        ranges of labels (of the median of all methods) and of the median signal-to-noise ratio per
        pixel. A star outside any of them is left to the other methods; a star that nobody is valid
        for has NaN labels and infinite errors.
    cv : int or cross-validation splitter
        Folds of the out-of-fold predictions. Spectra of one star (``star_id`` or ``group_id`` in
        ``X.meta``) are never on both sides.
    n_jobs : int, optional
        Methods and folds fitted in parallel.

    Attributes
    ----------
    estimators_ : list of estimators
        Fitted on all training stars.
    named_estimators_ : Bunch
        The same by name.
    method_weights_ : ndarray of shape (M, K)
        Weights `w` of least variance, of sum 1.
    error_scale_ : ndarray of shape (M, K)
        True over promised error of each method.
    stray_scale_ : ndarray of shape (M, K)
        Distance from the median of the methods, over the error.
    consensus_scale_ : ndarray of shape (K,)
        True error of the consensus over that without correction.
    cv_label_errors_ : ndarray of shape (n, K)
        Out-of-fold consensus minus training labels.

    References
    ----------
    Lee et al. 2008, AJ 136, 2022 (SSPP).

    Examples
    --------
    >>> from skspec.datasets import make_spectra
    >>> from skspec.discriminative import KernelPCARegressor
    >>> from skspec.ensemble import ConsensusRegressor
    >>> from skspec.forward import TheCannon
    >>> spectra, labels = make_spectra(n_samples=200, n_pixels=200, random_state=0)
    >>> methods = [("cannon", TheCannon()), ("kpca", KernelPCARegressor(gamma=0.5))]
    >>> model = ConsensusRegressor(methods, valid={"cannon": {"teff": (4500, 7000)}}, cv=3)
    >>> result = model.fit(spectra[:150], labels[:150]).combine(spectra[150:])
    >>> result.weights.shape
    (2, 50, 3)
    """

    _parameter_constraints: dict = {
        "estimators": [list, None],
        "valid": [dict, None],
        "cv": ["cv_object"],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        estimators: Sequence[tuple[str, BaseEstimator]] | None = None,
        *,
        valid: Mapping[str, Mapping[str, Any]] | None = None,
        cv: CrossValidation = 5,
        n_jobs: int | None = None,
    ):
        self.estimators = estimators
        self.valid = valid
        self.cv = cv
        self.n_jobs = n_jobs

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters, those of the methods included as ``name__parameter``."""
        return self._get_params("estimators", deep=deep)

    def set_params(self, **params: Any) -> Self:
        """Set parameters, also of the methods; a method is replaced by ``set_params(name=...)``."""
        self._set_params("estimators", **params)
        return self

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: SpectraLike, y: Labels) -> Self:
        """Fit all methods, on all training stars and fold by fold.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
            Training spectra.
        y : array-like of shape (n, K) or (n,)
            Training labels.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Without a method, or with fewer than 6 stars, or when `valid` names a method or label that is
            not there.
        """
        spectra, y = self._validate_fit(X, y)
        if len(y) < 6:
            raise ValueError(
                f"ConsensusRegressor needs at least 2 stars in each of 3 folds, got {len(y)} "
                f"sample{'s' * (len(y) > 1)}."
            )
        named = self._checked_estimators()
        spread = y.std(axis=0)
        self._label_floor = MIN_SIGMA * np.where(spread > 0, spread, 1.0)
        targets = self._named_labels(y)
        groups = star_groups(spectra)
        folds = list(check_cv(self.cv, len(y), groups).split(spectra.flux, groups=groups))
        every = np.arange(len(y))
        tasks = [(every, every[:0]), *folds]
        done = Parallel(n_jobs=self.n_jobs)(
            delayed(_fitted)(model, spectra, targets, *rows) for _, model in named for rows in tasks
        )
        done = [done[m * len(tasks) : (m + 1) * len(tasks)] for m in range(len(named))]
        self.estimators_ = [parts[0][0] for parts in done]
        self.named_estimators_ = Bunch(**dict(zip((name for name, _ in named), self.estimators_)))
        rows = np.concatenate([test for _, test in folds])
        mean, cov = (
            np.stack([np.concatenate([part[i] for part in parts[1:]]) for parts in done])
            for i in (1, 2)
        )
        self._calibrate(mean, cov, spectra[rows], y[rows])
        back = np.argsort(rows, kind="stable")
        self.cv_label_errors_ = self.cv_label_errors_[back]  # type: ignore[has-type]
        return self

    def _checked_estimators(self):
        given = self.estimators
        if given is None:
            given = [("ridge", ResidualCovarianceRegressor()), ("kernel_pca", KernelPCARegressor())]
        named = [(name, model) for name, model in given if not isinstance(model, str)]
        if not named:
            raise ValueError("ConsensusRegressor needs at least one method in `estimators`.")
        names = [name for name, _ in given]
        if len(set(names)) < len(names):
            raise ValueError(f"The names of the estimators are not unique: {', '.join(names)}.")
        for name, ranges in (self.valid or {}).items():
            if name not in names:
                raise ValueError(f"valid names {name!r}; the methods are {', '.join(names)}.")
            for key in ranges:
                if key != "snr" and key not in self.label_names_in_:
                    raise ValueError(
                        f"valid[{name!r}] names {key!r}; it may name snr and the labels, "
                        f"{', '.join(self.label_names_in_)}."
                    )
        self._names = [name for name, _ in named]
        return named

    def _calibrate(self, mean, cov, spectra, y):
        """Factors by which error bars are off, from out-of-fold predictions."""
        n_labels = mean.shape[2]
        self.consensus_scale_ = np.ones(n_labels)
        std = self._believable_std(cov)
        self.error_scale_ = np.maximum(_one_sigma(np.abs(mean - y) / std, axis=1), MIN_SIGMA)
        stray = np.abs(mean - np.median(mean, axis=0)) / (std * self.error_scale_[:, None])
        # at least a tenth of the error, or the methods that agree best would drop all others
        self.stray_scale_ = np.maximum(_one_sigma(stray, axis=1), 0.1)
        seen = np.isfinite(mean).all(axis=(0, 2))
        self.method_weights_ = np.stack(
            [best_weights((mean - y)[:, seen, k], MIN_WEIGHT) for k in range(n_labels)], axis=1
        )
        self._median_std = self.error_scale_ * np.median(std[:, seen], axis=1)
        found, total, *_ = self._combined(mean, cov, spectra)
        self.cv_label_errors_ = found - y
        sigma = np.sqrt(np.diagonal(total, axis1=1, axis2=2))
        self.consensus_scale_ = _one_sigma(np.abs(found - y) / sigma, axis=0)

    def _believable_std(self, cov):
        return np.maximum(np.sqrt(np.diagonal(cov, axis1=2, axis2=3)), self._label_floor)

    # -- combining ---------------------------------------------------------------------------------

    def combine(self, X: SpectraLike) -> ConsensusResult:
        """The consensus, and which methods it comes from.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)

        Returns
        -------
        ConsensusResult
        """
        spectra = self._validate_predict(X)
        dists = [predict_dist(model, spectra) for model in self.estimators_]
        mean = np.stack([dist.mean() for dist in dists])
        cov = np.stack([dist.cov() for dist in dists])
        found, total, std, share, valid, between = self._combined(mean, cov, spectra)
        dist = MultivariateNormal(found, cov=total, label_names=self.label_names_in_)
        return ConsensusResult(dist, self._names, mean, std, share, valid, np.sqrt(between))

    def predict_dist(self, X: SpectraLike) -> MultivariateNormal:
        """The consensus of the methods.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)

        Returns
        -------
        MultivariateNormal
            NaN, with infinite errors, for a star without a good pixel or a valid method.
        """
        return self.combine(X).dist

    def _combined(self, mean, cov, spectra):
        """Labels, covariance, errors and shares of the methods, their validity, scatter between."""
        valid = self._validity(mean, spectra)
        std = self._believable_std(cov) * self.error_scale_[:, None]
        usable = valid[:, :, None] & np.isfinite(mean) & np.isfinite(std)
        weight = (self._median_std[:, None] / np.where(usable, std, np.inf)) ** 2
        weight *= self.method_weights_[:, None]
        stray = std * self.stray_scale_[:, None]
        found, share = biweight_location(mean, stray, weight)
        # for the errors, no judgement on outliers: then more noise means larger errors
        total_weight = weight.sum(axis=0)
        root = np.sqrt(weight / np.where(total_weight > 0, total_weight, 1))
        inner = np.where(usable[..., None] & usable[..., None, :], cov, 0)
        factor = root * self.error_scale_[:, None]
        within = np.einsum("mnj,mnjk,mnk->njk", factor, inner, factor)
        limit = N_SIGMA * np.where(usable, stray, 0)
        offset = np.clip(np.where(usable, mean - found, 0), -limit, limit)
        offset /= np.sqrt(np.maximum(usable.sum(axis=0), 1))
        between = np.einsum("mnj,mnk->njk", offset, offset)
        scale = self.consensus_scale_
        floor = np.diag(self._label_floor**2)
        total = (within + between + floor) * scale[:, None] * scale
        labels, lost = range(total.shape[1]), ~usable.any(axis=0)
        total[lost[:, :, None] | lost[:, None, :]] = 0
        total[:, labels, labels] = np.where(lost, np.inf, total[:, labels, labels])
        return found, total, std, share, valid, np.diagonal(between, axis1=1, axis2=2)

    def _validity(self, mean, spectra):
        """(M, n): whether the median of all methods and the S/N lie in the ranges of each."""
        valid = np.ones(mean.shape[:2], dtype=bool)
        middle, snr = np.median(mean, axis=0), None
        for m, name in enumerate(self._names):
            for key, (low, high) in (self.valid or {}).get(name, {}).items():
                if key == "snr":
                    snr = spectra.snr if snr is None else snr
                    valid[m] &= np.isnan(snr) | ((snr >= low) & (snr <= high))
                else:
                    label = middle[:, self.label_names_in_.index(key)]
                    valid[m] &= (label >= low) & (label <= high)
        return valid


def _fitted(model, spectra, targets, fit_rows, test_rows):
    """A clone fitted on some stars; mean and covariance of others."""
    with inner_fits():
        model = clone(model).fit(spectra[fit_rows], targets.iloc[fit_rows])
    if not len(test_rows):
        return model, None, None
    dist = predict_dist(model, spectra[test_rows])
    return None, dist.mean(), dist.cov()


def _one_sigma(z, axis):
    """The 68.27 % quantile of absolute values, those that are not finite left aside."""
    finite = np.isfinite(z).all(axis=tuple(i for i in range(z.ndim) if i != z.ndim - 2))
    if not finite.any():
        return np.ones(np.delete(z.shape, axis))
    return np.quantile(np.compress(finite, z, axis=z.ndim - 2), ONE_SIGMA, axis=axis)
