"""LabelHomogenizer: two surveys on each other's scale, from spectra (Nandakumar et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from skspec._label_values import label_frame, label_values, refuse_sentinels
from skspec._short_repr import ShortRepr
from skspec._sklearn import HasMethods, Interval, fit_context
from skspec.base import (
    DocumentedEstimator,
    as_spectra,
    domain_score,
    predict_dist,
    unwrap,
)
from skspec.distributions import MultivariateNormal
from skspec.likelihood import marginal_information
from skspec.metrics import rmse, robust_std
from skspec.model_selection import check_cv
from skspec.solvers.statistics.label_domain import fit_label_domain
from skspec.transfer._label_translator import LabelTranslator

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from sklearn.base import BaseEstimator

    from skspec._typing import CrossValidation, Labels, SpectraLike

__all__ = ["HomogenizedLabels", "LabelHomogenizer"]

MIN_STARS = 6
STAGES = ("before", "translated", "model", "after")
NO_CORRECTION = {"pivot": 0.0, "offset": 0.0, "slope": 1.0, "offset_std": 0.0, "slope_std": 0.0}


@dataclass(frozen=True)
class HomogenizedLabels(ShortRepr):
    """Labels of `n` stars on the scale of the other survey.

    Attributes
    ----------
    dist : MultivariateNormal
        The labels. One that cannot be homogenised is NaN, with infinite variance.
    inside : ndarray of bool of shape (n,)
        Whether labels and spectrum lie among those of the common stars: elsewhere, do not use them.
    domain_score : ndarray of shape (n,)
        How far they lie, at most 1 inside: the larger of that of the labels, as in
        :meth:`LabelTranslator.domain_score`, and that of the spectrum (:func:`skspec.domain_score`),
        where the model has one. NaN without a prediction.
    homogenisable : ndarray of bool of shape (K,)
    """

    dist: MultivariateNormal
    inside: np.ndarray
    domain_score: np.ndarray
    homogenisable: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """Means, shape (n, K)."""
        return self.dist.mean()

    def to_frame(self) -> pd.DataFrame:
        """Labels, their standard deviations and the flags; one row per spectrum."""
        flags = {"inside": self.inside, "domain_score": self.domain_score}
        return self.dist.to_frame().assign(**flags)


class LabelHomogenizer(DocumentedEstimator):
    r"""Put two surveys on each other's label scale, with models of the spectra of common stars.

    Two models are trained on the stars that both surveys observed: from the *spectra* of A to the
    labels of B, and from those of B to the labels of A. Each is applied to the whole of its survey. So
    neither offsets nor trends between the pipelines remain, and labels that the pipeline of A does not
    deliver, or delivers badly, can be had from its spectra if these know them.

    1. Spectra that fail the cuts in quality, in *either* survey, and those without labels are left out;
       the others are matched by the name of the star. Labels of several visits are averaged.
    2. Stars whose labels in both surveys disagree beyond an affine relation are left out
       (:class:`LabelTranslator`): blends, binaries and wrong matches.
    3. Both models are fitted, and once more in folds that keep each star on one side. The labels out of
       fold tell what offsets, trends and scatter there were and are.
    4. A label is not homogenisable where the spectra do not know it better than its spread in the
       common stars tells already.
    5. Models shrink labels towards the middle, the more so the less they know. That, too, is a trend: it
       is measured out of fold, label by label, and taken out.

    Parameters
    ----------
    estimator_a : estimator
        From spectra of A to labels of B. Anything that :func:`skspec.predict_dist` understands.
    estimator_b : estimator, optional
        From spectra of B to labels of A; default: like `estimator_a`.
    clip : float or None
        Sigma beyond which the labels of a common star disagree.
    correct : bool
        Take offsets and trends out that the models leave (step 5). The labels then scatter more about
        the truth, as they are no longer drawn to the middle. Errors of offset and slope, the same for
        all stars, are part of their covariances.
    cv : int or cross-validation splitter
        Folds; a number shuffles the stars, always in the same way.
    n_jobs : int, optional
        Fits in parallel.

    Attributes
    ----------
    estimator_a_, estimator_b_ : estimators
        Fitted on all common stars.
    stars_ : ndarray of str
        Common stars that were used.
    clipped_ : DataFrame
        Those that were clipped: labels ``<name>_a``, ``<name>_b``, and `distance` from the relation.
    translators_ : dict
        :class:`LabelTranslator` to the scale ``"b"`` of the labels of A, and to ``"a"``.
    cv_labels_ : dict of DataFrame
        Per scale, for the common stars: ``target`` labels of the survey of that scale; those of the
        other survey ``before``; ``translated`` label to label; of the ``model``, from spectra; and
        ``after`` correction. All but the first two out of fold. Columns (stage, label).
    corrections_ : DataFrame
        Per scale and label: the model states ``pivot + offset + slope (label - pivot)``; and the errors
        `offset_std` and `slope_std`.
    report_ : DataFrame
        Per scale, label and stage: `offset` (label minus target, at the mean target) and `trend` (its
        change per unit of the target) with errors, robust standard deviation `scatter` of the
        differences, and `n_stars`.
    homogenisable_ : DataFrame
        Per scale and label: standard deviation `prior` in the common stars; `error`, root mean square
        difference to the target out of fold; `bound` on the error of an unbiased estimate; the verdict
        `homogenisable`.

    Notes
    -----
    `bound` is the Cramér-Rao bound of forward models (median over the spectra, all labels free). Its
    gradients are those of the fitted model, whose noise alone makes a label look known: so the verdict
    asks that `error`, too, be smaller than the prior. Other methods shrink what they do not know
    towards the mean; their error `e` with a prior of width `p` is worth an unbiased estimate of
    :math:`(1/e^2 - 1/p^2)^{-1/2}`.

    Trends are slopes of label minus target against the target. Errors of the target that are not told
    (`label_std_a`, `label_std_b`) make a trend of minus their square over the variance of the label,
    at all stages alike.

    References
    ----------
    Nandakumar et al. 2020, arXiv:2011.02783.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec.datasets import make_spectra
    >>> from skspec.forward import TheCannon
    >>> from skspec.transfer import LabelHomogenizer
    >>> spectra, labels = make_spectra(300, n_pixels=200, random_state=0)
    >>> a, b = spectra[:, :120], spectra[:, 80:]                    # two surveys of the same stars
    >>> other = labels.assign(teff=1.05 * labels["teff"] - 200)     # and their pipelines
    >>> names = np.arange(300)
    >>> model = LabelHomogenizer(TheCannon(), cv=3)
    >>> model = model.fit(a[:200], labels[:200], b[:200], other[:200], star_a=names[:200],
    ...                   star_b=names[:200])
    >>> model.report_.loc[("b", "teff")].loc[["before", "after"], ["offset", "trend"]].round(2)
            offset  trend
    stage
    before  -87.55  -0.05
    after    -0.86  -0.00
    >>> result = model.to_scale_of_b(a[200:])
    >>> result.dist.cov().shape, bool(result.inside.mean() > 0.8)
    ((100, 3, 3), True)
    """

    _parameter_constraints: dict = {
        "estimator_a": [HasMethods(["fit", "predict"])],
        "estimator_b": [HasMethods(["fit", "predict"]), None],
        "clip": [Interval(Real, 0, None, closed="neither"), None],
        "correct": ["boolean"],
        "cv": ["cv_object"],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        estimator_a: BaseEstimator,
        estimator_b: BaseEstimator | None = None,
        *,
        clip: float | None = 4.0,
        correct: bool = True,
        cv: CrossValidation = 5,
        n_jobs: int | None = None,
    ):
        self.estimator_a = estimator_a
        self.estimator_b = estimator_b
        self.clip = clip
        self.correct = correct
        self.cv = cv
        self.n_jobs = n_jobs

    @fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        spectra_a: SpectraLike,
        labels_a: Labels,
        spectra_b: SpectraLike,
        labels_b: Labels,
        *,
        star_a: ArrayLike | None = None,
        star_b: ArrayLike | None = None,
        quality_a: ArrayLike | None = None,
        quality_b: ArrayLike | None = None,
        label_std_a: ArrayLike | None = None,
        label_std_b: ArrayLike | None = None,
    ) -> Self:
        """Find the common stars, and learn each survey's labels from the other's spectra.

        Parameters
        ----------
        spectra_a, spectra_b : Spectra or array-like of shape (n_a, P_a), (n_b, P_b)
            Of the two surveys; stars that only one of them has are passed over.
        labels_a, labels_b : array-like of shape (n_a, K_a), (n_b, K_b)
            Their labels, NaN where unknown. Columns of the same name are the same label; without names
            they are ``label_0``, ``label_1``...
        star_a, star_b : array-like of shape (n_a,), (n_b,), optional
            Name of the star of each spectrum, the same in both surveys. Default: ``star_id`` in
            the `meta` of the spectra.
        quality_a, quality_b : array-like of bool, or float, optional
            Spectra to be used, or the smallest median signal-to-noise ratio.
        label_std_a, label_std_b : float or array-like broadcastable to the labels, optional
            Their standard deviations. They make relation, clipping and report more exact; the models do
            not know them.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Without names of the stars, with fewer than 6 common stars, or when shapes do not agree.
        """
        given = {
            "a": _Survey.of("a", spectra_a, labels_a, star_a, quality_a, label_std_a),
            "b": _Survey.of("b", spectra_b, labels_b, star_b, quality_b, label_std_b),
        }
        common = np.intersect1d(given["a"].star, given["b"].star)
        if len(common) < MIN_STARS:
            raise ValueError(
                f"The surveys have {len(common)} stars in common that pass the cuts; at least "
                f"{MIN_STARS} are needed. Are the names of the stars (star_a, star_b) written alike?"
            )
        tables = {survey: part.of_stars(common) for survey, part in given.items()}
        self.stars_ = common[self._clip(common, tables)]
        tables = {survey: part.of_stars(self.stars_) for survey, part in given.items()}
        self.translators_: dict[str, Any] = {}
        self.cv_labels_: dict[str, Any] = {}
        self._domains: dict[str, Any] = {}
        verdicts, corrections = {}, {}
        estimators = {"b": self.estimator_a, "a": self.estimator_b}
        if self.estimator_b is None:
            estimators["a"] = self.estimator_a
        for scale, survey in (("b", "a"), ("a", "b")):
            part = given[survey].take(np.isin(given[survey].star, self.stars_))
            own, target = tables[survey], tables[scale]
            model, folds = self._fit_direction(scale, part, own, target, estimators[scale])
            setattr(self, f"estimator_{survey}_", model)
            verdicts[scale] = self._judge(scale, model, part.spectra)
            corrections[scale] = self._correct(scale, folds, target[1], verdicts[scale])
        self.corrections_ = pd.concat(corrections, names=["scale", "label"])
        self.homogenisable_ = pd.concat(verdicts, names=["scale", "label"])
        self.report_ = self._report(tables)
        return self

    def _clip(self, common, tables):
        """Which stars are kept; sets `clipped_`."""
        (a, std_a), (b, std_b) = tables["a"], tables["b"]
        relation = LabelTranslator(clip=self.clip).fit(a, b, std_a, std_b)
        frame = a.add_suffix("_a").join(b.add_suffix("_b")).assign(distance=relation.distance_)
        self.clipped_ = frame[relation.clipped_]
        return ~relation.clipped_

    def _fit_direction(self, scale, part, own, target, estimator):
        """The model of one survey, and the stars of each fold; sets the labels out of fold."""
        (own, own_std), (target, target_std) = own, target
        place = pd.Index(self.stars_).get_indexer(part.star)
        y = target.iloc[place].reset_index(drop=True)
        folds = check_cv(self.cv, len(y), place, shuffle=True)
        folds = list(folds.split(part.spectra.flux, groups=place))
        every = np.arange(len(y))
        done = Parallel(n_jobs=self.n_jobs)(
            delayed(_fitted)(estimator, part.spectra, y, *rows)
            for rows in [(every, every[:0]), *folds]
        )
        visits, translated = np.full(y.shape, np.nan), np.full(target.shape, np.nan)
        stars = [np.unique(place[rows]) for _, rows in folds]
        for (_, rows), out, (_, mean) in zip(folds, stars, done[1:]):
            visits[rows] = mean
            rest = np.setdiff1d(np.arange(len(target)), out)
            stds = (None if std is None else std[rest] for std in (own_std, target_std))
            relation = LabelTranslator(clip=None).fit(own.iloc[rest], target.iloc[rest], *stds)
            translated[out] = relation.predict(own.iloc[out]).reshape(len(out), -1)
        self.translators_[scale] = LabelTranslator(clip=None).fit(own, target, own_std, target_std)
        mean = pd.DataFrame(visits, columns=y.columns).groupby(place).mean()
        stages = {
            "target": target,
            "before": own.reindex(columns=target.columns),
            "translated": pd.DataFrame(translated, self.stars_, target.columns),
            "model": mean.set_axis(self.stars_),
            "after": mean.set_axis(self.stars_),
        }
        self.cv_labels_[scale] = pd.concat(stages, axis=1, names=["stage", "label"])
        return done[0][0], stars

    def _judge(self, scale, model, spectra):
        """Which labels the spectra know; sets the domain of those."""
        frame = self.cv_labels_[scale]
        target, labels = frame["target"].to_numpy(), frame["model"].to_numpy()
        prior, error = target.std(axis=0), rmse(target, labels)
        formal = label_bound(model, spectra)
        if formal is None:
            with np.errstate(divide="ignore"):
                known = np.maximum(1 / error**2 - 1 / prior**2, 0.0)
                bound = 1 / np.sqrt(known)
            verdict = bound < prior
        else:
            bound, verdict = formal, np.maximum(formal, error) < prior
        columns = {"prior": prior, "bound": bound, "error": error, "homogenisable": verdict}
        if verdict.any():
            self._domains[scale] = fit_label_domain(target[:, verdict])
        return pd.DataFrame(columns, index=frame["target"].columns)

    def _correct(self, scale, folds, std, verdict):
        """What the model leaves, from all stars; takes it out of each fold as the others tell it."""
        frame = self.cv_labels_[scale]
        names = list(verdict.index[verdict["homogenisable"]]) if self.correct else []
        left = pd.DataFrame(NO_CORRECTION, index=verdict.index)
        if not names:
            return left
        labels, target = frame["model"][names], frame["target"][names]
        std = None if std is None else std[:, verdict.index.get_indexer(names)]
        model = labels.to_numpy()
        after = model.copy()
        for stars in folds:
            rest = np.setdiff1d(np.arange(len(frame)), stars)
            errors = None if std is None else std[rest]
            part = _left(labels.iloc[rest], target.iloc[rest], errors, self.clip)
            after[stars] = _taken_out(model[stars], part)[0]
        for k, name in enumerate(names):
            frame["after", name] = after[:, k]
        left.loc[names] = _left(labels, target, std, self.clip)
        return left

    def _report(self, tables):
        rows = {}
        for scale, frame in self.cv_labels_.items():
            target, std = tables[scale]
            for stage in STAGES:
                labels = frame[stage].dropna(axis=1, how="all")  # that the other survey has
                if labels.shape[1]:
                    errors = None if std is None else std[:, target.columns.isin(labels.columns)]
                    rows[scale, stage] = offset_and_trend(
                        labels, target[labels.columns], errors, self.clip
                    )
        report = pd.concat(rows, names=["scale", "stage", "label"])
        levels = list(self.cv_labels_), list(report.index.unique("label")), STAGES  # in this order
        codes = np.indices([len(level) for level in levels]).reshape(3, -1)
        index = pd.MultiIndex(levels, codes, names=["scale", "label", "stage"])
        return report.reorder_levels(index.names).reindex(index).dropna(how="all")

    # -- application -------------------------------------------------------------------------------

    def to_scale_of_b(self, spectra_a: SpectraLike) -> HomogenizedLabels:
        """Labels of stars of survey A as survey B would give them.

        Parameters
        ----------
        spectra_a : Spectra or array-like of shape (n, P_a)

        Returns
        -------
        HomogenizedLabels
        """
        return self._apply("b", "a", spectra_a)

    def to_scale_of_a(self, spectra_b: SpectraLike) -> HomogenizedLabels:
        """Labels of stars of survey B as survey A would give them.

        Parameters
        ----------
        spectra_b : Spectra or array-like of shape (n, P_b)

        Returns
        -------
        HomogenizedLabels
        """
        return self._apply("a", "b", spectra_b)

    def _apply(self, scale, survey, spectra):
        check_is_fitted(self)
        dist, score = _predicted(getattr(self, f"estimator_{survey}_"), as_spectra(spectra))
        verdict = self.homogenisable_.loc[scale, "homogenisable"].to_numpy()
        left = self.corrections_.loc[scale]
        slope, names = left["slope"].to_numpy(), list(left.index)
        mean, variance = _taken_out(dist.mean(), left)
        mean, cov = np.where(verdict, mean, np.nan), dist.cov() / np.outer(slope, slope)
        cov += np.nan_to_num(variance)[:, :, None] * np.eye(len(names))
        distance = np.full(len(dist), np.nan)
        if verdict.any():
            distance = self._domains[scale].score(mean[:, verdict])
            distance = distance if score is None else np.maximum(distance, score)
        cov[:, ~verdict], cov[:, :, ~verdict] = 0.0, 0.0
        lost = np.flatnonzero(~verdict)
        cov[:, lost, lost] = np.inf
        dist = MultivariateNormal(mean, cov=cov, label_names=names)
        return HomogenizedLabels(dist, distance <= 1, distance, verdict)


def offset_and_trend(labels, target, std=None, clip=4.0):
    """How labels differ from their targets: offset, trend, their errors, scatter.

    Parameters
    ----------
    labels, target : DataFrame of shape (n, K)
    std : array-like of shape (n, K), optional
        Errors of the targets.
    clip : float or None
        As in :class:`LabelTranslator`.

    Returns
    -------
    DataFrame
        One row per label.
    """
    known = np.isfinite(labels).all(axis=1)
    found = pd.DataFrame(_differences(labels, target, std, clip), index=labels.columns)
    scatter = robust_std(target[known], labels[known])
    return found.drop(columns="pivot").assign(scatter=scatter, n_stars=int(known.sum()))


def _differences(labels, target, std, clip):
    """Labels as functions of their targets, one by one: cross terms would explain trends away."""
    known = np.isfinite(labels).all(axis=1).to_numpy()
    out = []
    for k, name in enumerate(labels):
        errors = None if std is None else std[known][:, k, None]
        pair = (frame.loc[known, [name]] for frame in (target, labels))
        found = LabelTranslator(clip=clip).fit(*pair, errors)
        parts = found.pivot_, found.offset_, found.offset_std_, found.trend_, found.trend_std_
        out.append([part.item() for part in parts])
    names = ("pivot", "offset", "offset_std", "trend", "trend_std")
    return dict(zip(names, np.array(out).T))


def _left(labels, target, std, clip):
    """What a model leaves in its labels: a row of ``corrections_`` for each."""
    found = pd.DataFrame(_differences(labels, target, std, clip), index=labels.columns)
    found = found.assign(slope=1 + found["trend"], slope_std=found["trend_std"])
    return found[list(NO_CORRECTION)]


def _taken_out(labels, left):
    """Labels (n, K) without what is left in them, and the variance of that.

    At the pivot, the mean of the stars, errors of offset and slope are independent; those of different
    labels are taken to be.
    """
    pivot, offset, slope, offset_std, slope_std = left[list(NO_CORRECTION)].to_numpy().T
    labels = pivot + (labels - pivot - offset) / slope
    return labels, (offset_std**2 + (slope_std * (labels - pivot)) ** 2) / slope**2


def label_bound(model, X):
    """Cramér-Rao bound (K,) of a forward model, the median over spectra; None for other models."""
    model, X = unwrap(model, X)
    if not hasattr(model, "fisher_information"):
        return None
    labels = np.reshape(model.predict(X), (len(X), -1))
    known = np.isfinite(labels).all(axis=1)
    fisher = model.fisher_information(labels[known], X[known])
    information = [marginal_information(fisher, [k])[:, 0, 0] for k in range(labels.shape[1])]
    with np.errstate(divide="ignore"):
        return np.median(1 / np.sqrt(np.array(information)), axis=1)


def _predicted(model, spectra):
    """Labels, and domain scores of the spectra or None."""
    if hasattr(model, "invert"):  # knows both at once
        result = model.invert(spectra)
        return result.dist, result.domain_score
    try:
        score = domain_score(model, spectra)
    except TypeError:
        score = None
    return predict_dist(model, spectra), score


def _fitted(estimator, spectra, targets, fit_rows, test_rows):
    """A clone fitted on some spectra, or the labels that it predicts of others."""
    model = clone(estimator).fit(spectra[fit_rows], targets.iloc[fit_rows])
    if not len(test_rows):
        return model, None
    return None, predict_dist(model, spectra[test_rows]).mean()


@dataclass(frozen=True)
class _Survey:
    """Usable spectra of a survey with labels, errors of these, and names of stars."""

    spectra: object
    labels: pd.DataFrame
    star: np.ndarray
    std: np.ndarray | None

    @classmethod
    def of(cls, name, spectra, labels, star, quality, std):
        spectra = as_spectra(spectra)
        frame = label_frame(labels, f"labels_{name}")
        values = frame.to_numpy()
        refuse_sentinels(values, list(frame), f"labels_{name}")
        if len(values) != len(spectra):
            raise ValueError(f"{len(values)} rows of labels_{name} for {len(spectra)} spectra.")
        if std is not None:
            std = label_values(std, list(frame), what=f"label_std_{name}", sentinels=False)
            std = np.broadcast_to(std, values.shape)
        star = _star_names(name, spectra, star)
        # for the folds that an estimator makes of its own
        spectra = spectra.replace(meta=spectra.meta | {"group_id": star})
        good = _good(name, spectra, quality) & np.isfinite(values).all(axis=1)
        return cls(spectra, frame, star, std).take(good)

    def take(self, rows):
        std = None if self.std is None else self.std[rows]
        labels = self.labels[rows].reset_index(drop=True)
        return _Survey(self.spectra[rows], labels, self.star[rows], std)

    def of_stars(self, stars):
        """Mean labels of stars, and their errors: those of visits are taken as common to all."""
        labels = self.labels.groupby(self.star).mean().loc[stars]
        if self.std is None:
            return labels, None
        square = pd.DataFrame(self.std**2).groupby(self.star).mean().loc[stars]
        return labels, np.sqrt(square.to_numpy())


def _star_names(name, spectra, star):
    if star is None:
        star = spectra.meta.get("star_id")
    if star is None:
        raise ValueError(
            f"Nothing tells which star each spectrum of survey {name.upper()} shows: give "
            f"star_{name}, or star_id in the meta of the spectra."
        )
    star = np.asarray(star)
    if star.shape != (len(spectra),):
        raise ValueError(f"star_{name} of shape {star.shape} for {len(spectra)} spectra.")
    return star.astype(str)


def _good(name, spectra, quality):
    """Spectra that pass the cut."""
    if quality is None:
        return np.ones(len(spectra), dtype=bool)
    if np.ndim(quality) == 0:
        if not spectra.has_errors:
            raise ValueError(
                f"quality_{name}={quality!r} is a limit in S/N, but the spectra have no errors: give a "
                "boolean for each instead."
            )
        return spectra.snr >= quality
    quality = np.asarray(quality)
    if quality.dtype != bool or quality.shape != (len(spectra),):
        raise ValueError(
            f"quality_{name} must be a number or {len(spectra)} booleans, got {quality.dtype} of shape "
            f"{quality.shape}."
        )
    return quality
