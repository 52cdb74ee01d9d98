"""The one way through scikit-learn's wrappers: pipelines, searches, target transformers, frozen ones.

:func:`unwrap_once` knows them by what they keep of their fit, not by their class, so that searches of
other libraries (optuna, dask-ml) are known too.
"""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skspec.distributions import MultivariateNormal

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from skspec._typing import SpectraLike

__all__ = ["last_step", "target_transformer", "transform_targets_back", "unwrap", "unwrap_once"]

FITTED, GIVEN = ("best_estimator_", "estimator_", "regressor_"), ("estimator", "regressor")


@singledispatch
def unwrap_once(model: BaseEstimator, X: SpectraLike) -> tuple[BaseEstimator, Any] | None:
    """The fitted estimator within a wrapper, and the spectra as it sees them.

    Wrappers are Pipeline, FrozenEstimator, and whatever predicts no distribution of its own but keeps
    one fitted estimator as ``best_estimator_``, ``estimator_`` or ``regressor_``: searches of any
    library, TransformedTargetRegressor. Others can be registered with
    ``skspec.base.unwrap_once.register``: a function ``(model, X) -> (estimator, X)``.

    Parameters
    ----------
    model : fitted estimator
    X : Spectra or array-like of shape (n, P)

    Returns
    -------
    tuple (estimator, X), or None
        None when `model` is no wrapper.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        When the wrapper is not fitted.
    ValueError
        When a search was run with ``refit=False``.
    """
    inner = _inner(model, FITTED)
    if inner is not None:
        return inner, X
    if _inner(model, GIVEN) is not None:
        check_is_fitted(model)
        if not getattr(model, "refit", True):
            raise ValueError("The search was run with refit=False: it has no best_estimator_.")
    return None


@unwrap_once.register
def _(model: Pipeline, X):
    check_is_fitted(model)
    return model.steps[-1][1], model[:-1].transform(X) if len(model) > 1 else X


@unwrap_once.register
def _(model: FrozenEstimator, X):
    return model.estimator, X


def unwrap(model: BaseEstimator, X: SpectraLike) -> tuple[BaseEstimator, Any]:
    """Last estimator of a fitted Pipeline, search or the like, and the spectra as it sees them.

    Stops at a target transformer: what is within it has labels in other units.

    Parameters
    ----------
    model : fitted estimator
    X : Spectra or array-like of shape (n, P)

    Returns
    -------
    estimator
    X : Spectra or array-like
    """
    while target_transformer(model) is None and (inner := unwrap_once(model, X)) is not None:
        model, X = inner
    return model, X


def last_step(estimator: BaseEstimator) -> BaseEstimator:
    """Last estimator within any wrappers, target transformers too; it need not be fitted."""
    while (inner := _inner(estimator, FITTED + GIVEN)) is not None:
        estimator = inner
    return estimator


def _inner(model, attributes):
    """What a wrapper wraps, under the first of the `attributes` that it has; None for any other."""
    if isinstance(model, Pipeline):
        return model.steps[-1][1]
    if isinstance(model, FrozenEstimator):
        return model.estimator
    combines = hasattr(model, "estimators_") or hasattr(model, "get_support")
    if hasattr(model, "predict_dist") or combines:
        return None
    return next((getattr(model, name) for name in attributes if hasattr(model, name)), None)


def target_transformer(model):
    """Fitted transformer of the labels, of a wrapper that has one; else None."""
    frozen = isinstance(model, FrozenEstimator)  # has every attribute of what is within
    return None if frozen else getattr(model, "transformer_", None)


def transform_targets_back(dist, transformer) -> MultivariateNormal:
    """Distribution of labels whose `transformer` has the distribution `dist`; it must be affine."""
    n_labels = dist.n_labels
    probe = np.vstack([np.zeros(n_labels), np.eye(n_labels), np.full(n_labels, 2.0)])
    image = transformer.inverse_transform(probe)
    shift, matrix = image[0], image[1:-1] - image[0]
    if not np.allclose(image[-1], shift + 2 * matrix.sum(axis=0), rtol=1e-9):
        raise ValueError(
            "A Gaussian stays a Gaussian only through an affine target transformer, such as "
            f"StandardScaler; {type(transformer).__name__} is not affine."
        )
    if matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.diag(np.diag(matrix))):
        return dist.affine(np.diag(matrix), shift)  # also right for stars of infinite variance
    with np.errstate(invalid="ignore"):
        cov = matrix.T @ dist.cov() @ matrix
        loc = dist.mean() @ matrix + shift
    return MultivariateNormal(loc, cov=cov)  # the labels are mixed: their names no longer hold
