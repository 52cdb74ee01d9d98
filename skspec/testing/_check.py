"""All laws for one estimator, or one test for each."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial, update_wrapper
from typing import Any

from sklearn.utils.estimator_checks import check_estimator

from skspec.base import LabelRegressor
from skspec.forward import FewStarsWarning, ForwardModel
from skspec.testing import (
    _bad_input_laws,
    _bad_pixel_laws,
    _capability_laws,
    _forward_laws,
    _label_laws,
    _noise_laws,
    _reproducibility_laws,
    _search_laws,
)
from skspec.testing._law import Trial

__all__ = ["check_forward_model", "check_regressor", "laws_of", "parametrize_with_laws"]

#: in the order in which they are tried
LAWS = tuple(
    member
    for module in (
        _label_laws,
        _capability_laws,
        _bad_pixel_laws,
        _noise_laws,
        _forward_laws,
        _reproducibility_laws,
        _bad_input_laws,
        _search_laws,
    )
    for member in vars(module).values()
    if hasattr(member, "applies")
)


def laws_of(estimator: LabelRegressor, *, param_grid: Mapping | None = None) -> list[Callable]:
    """The laws that an estimator has to keep; those of forward models for forward models only.

    Parameters
    ----------
    estimator : estimator
        With settings that are quick for 70 stars of 50 pixels.
    param_grid : dict, optional
        Some of its parameters with two values each, for a search. Default: a search over nothing.

    Returns
    -------
    list of callable ``law(estimator)``
        ``law.__name__`` is its name and its docstring states it. They share one fit.
    """
    trial = Trial(estimator, param_grid)
    return [update_wrapper(partial(law, trial=trial), law) for law in LAWS if law.applies(trial)]


def check_regressor(
    estimator: LabelRegressor, *, param_grid: Mapping | None = None, on_fail: str | None = "raise"
) -> list[dict[str, Any]]:
    """Whether an estimator keeps the laws of every regressor of skspec, and scikit-learn's.

    It is tried on toy stars (:func:`draw_stars`): 70 to train, 50 pixels, three labels, an easy
    problem. For one test per law see :func:`parametrize_with_laws`.

    Parameters
    ----------
    estimator : estimator
        Settings with which it is quick; with a fixed ``random_state``, if it has one.
    param_grid : dict, optional
        Some of its parameters with two values each, for a search.
    on_fail : {"raise"} or None
        None: go on after a failure.

    Returns
    -------
    list of dict
        Of each law: "law" (its name), "status" ("passed" or "failed") and "exception".

    Raises
    ------
    AssertionError
        With the name of the first law that is broken, what it says, and the numbers.

    Examples
    --------
    >>> from skspec.forward import TheCannon
    >>> from skspec.testing import check_regressor
    >>> results = check_regressor(TheCannon(1), on_fail=None)
    >>> [result["law"] for result in results if result["status"] == "failed"]
    []
    """
    if not isinstance(estimator, LabelRegressor):
        raise TypeError(f"{estimator!r} is no skspec.LabelRegressor: subclass it.")
    laws = [check_scikit_learn, *laws_of(estimator, param_grid=param_grid)]
    return [_result(law, estimator, on_fail) for law in laws]


def check_forward_model(
    estimator: ForwardModel, *, param_grid: Mapping | None = None, on_fail: str | None = "raise"
) -> list[dict[str, Any]]:
    """Whether an estimator keeps the laws of forward models, of every regressor, and scikit-learn's.

    Parameters
    ----------
    estimator : ForwardModel
        Settings with which it is quick; with a fixed ``random_state``, if it has one.
    param_grid : dict, optional
        Some of its parameters with two values each, for a search.
    on_fail : {"raise"} or None
        None: go on after a failure.

    Returns
    -------
    list of dict
        As of :func:`check_regressor`.

    Raises
    ------
    AssertionError
        With the name of the first law that is broken, what it says, and the numbers.
    """
    if not isinstance(estimator, ForwardModel):
        raise TypeError(f"{estimator!r} is no skspec.forward.ForwardModel: subclass it.")
    return check_regressor(estimator, param_grid=param_grid, on_fail=on_fail)


def parametrize_with_laws(
    estimators: Iterable[LabelRegressor], *, param_grids: Iterable[Mapping] | None = None
) -> Any:
    """Decorator of pytest: one test for each estimator and law that it has to keep.

    As :func:`sklearn.utils.estimator_checks.parametrize_with_checks`, which goes well with it.

    Parameters
    ----------
    estimators : list of estimators
        Settings with which they are quick.
    param_grids : list of dict, optional
        Of each estimator: see :func:`laws_of`.

    Returns
    -------
    decorator
        For a function of `estimator` and `law`.

    Examples
    --------
    >>> from skspec.forward import TheCannon
    >>> from skspec.testing import parametrize_with_laws
    >>> @parametrize_with_laws([TheCannon(1), TheCannon(2)])
    ... def test_laws(estimator, law):
    ...     law(estimator)
    """
    import pytest

    estimators = list(estimators)
    grids = [None] * len(estimators) if param_grids is None else list(param_grids)
    return pytest.mark.parametrize(
        "estimator, law",
        [
            pytest.param(estimator, law, id=f"{estimator}-{law.__name__}")
            for estimator, grid in zip(estimators, grids, strict=True)
            for law in laws_of(estimator, param_grid=grid)
        ],
    )


def check_scikit_learn(estimator):
    """scikit-learn's own checks, without exception."""
    with warnings.catch_warnings():
        # one of the checks has 11 stars and 5 labels: too few for some models, which say so
        warnings.simplefilter("ignore", FewStarsWarning)
        check_estimator(estimator, on_skip=None)


def _result(law, estimator, on_fail):
    result = {"law": law.__name__, "status": "passed", "exception": None}
    try:
        law(estimator)
    except Exception as error:
        if on_fail == "raise":
            raise
        result |= {"status": "failed", "exception": error}
    return result
