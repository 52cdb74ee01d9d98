"""`compare`: fit several methods on the same stars, predict the same other stars."""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from skspec._label_values import label_names, label_values
from skspec._progress import CallbackSupportMixin, StepCounter
from skspec.base import as_spectra, last_step, predict_dist, unwrap
from skspec.calibration import ResidualCovarianceRegressor
from skspec.diagnostics._comparison import Comparison, MethodResult
from skspec.diagnostics._cramer_rao import CramerRaoBound, cramer_rao_bound
from skspec.model_selection import star_splits

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from sklearn.base import BaseEstimator

    from skspec._typing import CrossValidation, Labels, PathLike, RandomState, SpectraLike
    from skspec.spectra import Spectra

__all__ = ["compare"]

MIN_STARS = 10
_SNR_KEYS = ("snr", "snr_est")
_QUALITY = ("chi2", "reduced_chi2", "n_good", "converged", "inside_training")


def compare(
    methods: Mapping[str, BaseEstimator],
    spectra: SpectraLike,
    labels: Labels,
    *,
    test_size: float = 0.2,
    cv: CrossValidation | None = None,
    groups: ArrayLike | None = None,
    reference: str | BaseEstimator | None = None,
    label_noise: ArrayLike | None = None,
    snr: ArrayLike | None = None,
    titles: Mapping[str, str] | None = None,
    settings: dict[str, Any] | None = None,
    random_state: RandomState = 0,
    out: PathLike | None = None,
    progress: Callable[..., object] | None = None,
) -> Comparison:
    """Compare methods on the same stars, with the same splits.

    Parameters
    ----------
    methods : dict of str to estimator
        Each is cloned and fitted. One that predicts no distribution is wrapped in
        :class:`~skspec.calibration.ResidualCovarianceRegressor`.
    spectra : Spectra or array-like of shape (n, P)
        Spectra.
    labels : DataFrame or array-like of shape (n, K)
        Their labels; stars with a missing label are left out.
    test_size : float or int
        Fraction (or number) of stars, or of groups, that are predicted. Not used with `cv`.
    cv : int or splitter, optional
        Predict every star once, by a model that never saw it: the way for small sets.
    groups : array-like of shape (n,), optional
        Star each spectrum belongs to; spectra of a star are never on both sides of a split.
    reference : str or fitted forward model, optional
        Whose gradients give the Cramer-Rao bound; default: the first method that has gradients.
    label_noise : array-like broadcastable to (n, K), optional
        Standard deviation of the errors of `labels`, added to the bound before the efficiency.
    snr : array-like of shape (n,), optional
        S/N of each star; default: ``snr`` or ``snr_est`` in ``spectra.meta``, else from the
        flux errors.
    titles : dict of str to str, optional
        Names in print.
    settings : dict, optional
        Kept with the results.
    random_state : int or None
        Seed of the splits.
    out : path, optional
        Folder in which ``results.json`` and ``predictions.csv`` are rewritten after every method.
    progress : callable ``(name, done, total, doing)``, optional
        Told before every step; `done` equals `total` when the method is over.

    Returns
    -------
    Comparison
        A method that fails is listed in ``failures`` and does not disturb the others.

    Raises
    ------
    ValueError
        When there are fewer than 10 labelled stars, or the splits leave nothing to learn from.
    """
    spectra, labels, names, star, groups, snr = _labelled(spectra, labels, groups, snr)
    splits = star_splits(len(star), test_size, cv, groups, random_state)
    test = np.concatenate([inside for _, inside in splits])
    comparison = Comparison(
        label_names=names,
        labels=labels[test],
        star=star[test],
        snr=snr[test],
        fold=np.repeat(np.arange(len(splits)), [len(inside) for _, inside in splits]),
        n_train=min(len(inside) for inside, _ in splits),
        label_noise=_label_noise(label_noise, names, star[test], labels[test]),
        settings=dict(settings or {}),
        spectra=spectra[test],
    )
    if reference is not None and not isinstance(reference, str):
        comparison.reference = type(reference).__name__
        comparison.bound = cramer_rao_bound(reference, labels[test], spectra[test])
    run = _Run(comparison, spectra, labels, splits, progress or _silent)
    done = {}
    order = _reference_first(methods, reference)
    for name in order:
        done[name] = run.method(name, methods[name], (titles or {}).get(name, name), reference)
        comparison.results = {key: done[key] for key in methods if key in done}
        comparison.complete = name == order[-1]
        _save(comparison, out)
    return comparison


class _Run:
    """The stars and splits that all methods share."""

    def __init__(self, comparison, spectra, labels, splits, progress):
        self.comparison, self.spectra, self.labels = comparison, spectra, labels
        self.splits, self.progress = splits, progress

    def method(self, name, estimator, title, reference):
        """Result of one method; whatever goes wrong in it stays in it."""
        result = MethodResult(name, title)
        self.doing, total = "starting", 2 * len(self.splits)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            try:
                self._run(result, estimator, self._wants_bound(name, reference))
            except Exception as error:  # noqa: BLE001  any failure of a method is a result
                result.error = _message(error, self.doing)
        result.warnings = sorted({_one_line(str(w.message)) for w in caught})
        self.progress(name, total, total, "failed" if result.error else "done")
        return result

    def _wants_bound(self, name, reference):
        return self.comparison.bound is None and reference in (None, name)

    def _run(self, result, estimator, wants_bound):
        estimator = _with_distribution(estimator)
        n_test, n_labels = self.comparison.labels.shape
        parts = []
        for fold, (train, test) in enumerate(self.splits):
            X, truth = self.spectra[test], self.labels[test]
            self._tell(result.name, fold, 0)
            start = time.perf_counter()
            # labels keep their names, so that every method can name its own
            model = self._watched(clone(estimator), result.name, fold)
            model.fit(self.spectra[train], self._frame(train))
            if isinstance(model, CallbackSupportMixin):
                model.set_callbacks()
            result.fit_seconds.append(time.perf_counter() - start)
            self._tell(result.name, fold, 1)
            start = time.perf_counter()
            dist, inversion = _predict(model, X)
            result.predict_seconds += time.perf_counter() - start
            parts.append((dist, inversion, _bound(model, truth, X) if wants_bound else None))
            result.model = model
            result.n_removed.append(_n_removed(model))
        result.mean = np.concatenate([dist.mean() for dist, _, _ in parts])
        result.cov = np.concatenate([dist.cov() for dist, _, _ in parts])
        if result.mean.shape != (n_test, n_labels):
            raise ValueError(f"predictions of shape {result.mean.shape}, not {n_test, n_labels}")
        if not np.isfinite(result.mean).all(axis=1).any():
            raise ValueError("no star has a finite prediction")
        _add_inversion(result, [inversion for _, inversion, _ in parts])
        self._add_bound(result.name, [bound for _, _, bound in parts])

    def _frame(self, rows):
        import pandas as pd

        return pd.DataFrame(self.labels[rows], columns=self.comparison.label_names)

    def _tell(self, name, fold, step):
        n_folds = len(self.splits)
        self.doing = ("fitting", "predicting")[step]
        if n_folds > 1:
            self.doing += f" fold {fold + 1} of {n_folds}"
        self.progress(name, 2 * fold + step, 2 * n_folds, self.doing)

    def _watched(self, estimator, name, fold):
        """The estimator, telling of its steps where it can."""
        if isinstance(estimator, CallbackSupportMixin):
            n_steps = 2 * len(self.splits)
            estimator.set_callbacks(
                StepCounter(
                    lambda done, total: self.progress(
                        name, 2 * fold + min(done / total, 0.999), n_steps, self.doing
                    )
                )
            )
        return estimator

    def _add_bound(self, name, bounds):
        if all(bound is not None for bound in bounds):
            fisher = np.concatenate([bound.fisher for bound in bounds])
            self.comparison.bound = CramerRaoBound(fisher, self.comparison.label_names)
            self.comparison.reference = name


def _with_distribution(estimator):
    if hasattr(last_step(estimator), "predict_dist"):
        return estimator
    return ResidualCovarianceRegressor(estimator)


def _reference_first(methods, reference):
    """Names of the methods; the one that gives the bound first, so that it is never missing."""
    names = list(methods)
    if isinstance(reference, str) and reference not in methods:
        raise ValueError(f"The reference {reference!r} is none of the methods {names}.")
    if reference is None:
        forward = [n for n in names if hasattr(last_step(methods[n]), "flux_jacobian")]
        reference = forward[0] if forward else None
    return sorted(names, key=lambda name: name != reference)


def _predict(model, X):
    """Distribution, and the inversion's account of it where the model is a forward model."""
    last, inner = unwrap(model, X)
    if hasattr(last, "invert"):
        inversion = last.invert(inner)
        return inversion.dist, inversion
    return predict_dist(model, X), None


def _n_removed(model):
    """Training stars that `clean_training` removed."""
    return len(getattr(last_step(model), "training_outliers_", ()))


def _bound(model, truth, X):
    last, inner = unwrap(model, X)
    # without a noise() its gradients may be in another unit than the spectra
    if not (hasattr(last, "flux_jacobian") and hasattr(last, "noise")):
        return None
    return cramer_rao_bound(last, truth, as_spectra(inner))


def _add_inversion(result, inversions):
    if any(inversion is None for inversion in inversions):
        return
    # formal errors are about labels of maximum likelihood: under a prior they would flatter
    flat = all(getattr(i, "likelihood", i.dist) is i.dist for i in inversions)
    if flat and all(getattr(i, "formal_cov", None) is not None for i in inversions):
        result.formal_cov = np.concatenate([inversion.formal_cov for inversion in inversions])
    for name in _QUALITY:
        if all(getattr(inversion, name, None) is not None for inversion in inversions):
            result.quality[name] = np.concatenate([getattr(i, name) for i in inversions])
    if all(getattr(inversion, "at_bound", None) is not None for inversion in inversions):
        at_bound = np.concatenate([np.asarray(i.at_bound) for i in inversions])
        result.quality["at_bound"] = at_bound.any(axis=1)


def _labelled(
    spectra: SpectraLike, labels: Labels, groups: ArrayLike | None, snr: ArrayLike | None
) -> tuple[Spectra, np.ndarray, list[str], np.ndarray, np.ndarray | None, np.ndarray]:
    """The stars with all labels, checked."""
    spectra = as_spectra(spectra)
    names = label_names(labels)
    labels = label_values(labels, names)
    labels = labels.reshape(len(labels), -1)
    if len(labels) != len(spectra):
        raise ValueError(f"{len(spectra)} spectra, but {len(labels)} rows of labels.")
    names = names or [f"label_{k}" for k in range(labels.shape[1])]
    star = np.flatnonzero(np.isfinite(labels).all(axis=1) & spectra.good.any(axis=1))
    if len(star) < MIN_STARS:
        raise ValueError(
            f"Only {len(star)} of {len(spectra)} stars have all labels ({', '.join(names)}) and a "
            f"good pixel; a comparison needs at least {MIN_STARS}."
        )
    snr = known_snr(spectra) if snr is None else np.asarray(snr, dtype=float)
    groups = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1][star]
    return spectra[star], labels[star], names, star, groups, snr[star]


def known_snr(spectra):
    """S/N of each star: that in ``meta`` where it is finite, else from the flux errors."""
    known = np.asarray(next((spectra.meta[k] for k in _SNR_KEYS if k in spectra.meta), np.nan))
    if known.shape == (len(spectra),) and np.isfinite(known).any():
        return np.where(np.isfinite(known), known, np.nan)
    return spectra.snr


def _label_noise(label_noise, names, star, labels):
    if label_noise is None:
        return None
    noise = label_values(label_noise, names, what="label_noise", sentinels=False)
    noise = noise[star] if noise.ndim == 2 and len(noise) > 1 else noise
    return np.broadcast_to(noise, labels.shape)


def _save(comparison, out):
    if out is None:
        return
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    comparison.to_json(folder / "results.json")
    comparison.predictions_frame().to_csv(
        folder / "predictions.csv", index=False, float_format="%.8g"
    )


def _message(error, doing):
    """One line: what was being done, what went wrong, and in which function."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" (in {frames[-1].name})" if frames else ""
    return _one_line(f"{doing}: {type(error).__name__}: {error}{where}")


def _one_line(text):
    return " ".join(text.split())


def _silent(name, done, total, doing):
    """No progress."""
