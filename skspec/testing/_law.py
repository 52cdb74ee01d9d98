"""What a law is, and the stars on which it is tried."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cached_property, partial, wraps

from sklearn.base import clone

from skspec.forward import ForwardModel
from skspec.testing._stars import draw_stars

__all__ = ["Trial", "forward_only", "law"]


class Trial:
    """An estimator on trial: fresh copies of it, one that is fitted, and toy stars.

    Parameters
    ----------
    estimator : estimator
        Never fitted itself.
    param_grid : dict, optional
        Some of its parameters with values for a search.

    Attributes
    ----------
    train, test : tuple of Spectra and DataFrame
        70 and 20 stars of :func:`draw_stars` with three labels, 50 pixels, 3 % of them bad.
    fitted : estimator
        Fitted to `train` when first asked for. Laws must not change it.
    is_forward : bool
        Whether it is a :class:`~skspec.forward.ForwardModel`: then the laws ask more of it.
    """

    def __init__(self, estimator, param_grid: Mapping | None = None):
        self.estimator = estimator
        self.param_grid = dict(param_grid or {})
        self.is_forward = isinstance(estimator, ForwardModel)

    def new(self, **parameters):
        """An unfitted copy."""
        return clone(self.estimator).set_params(**parameters)

    @cached_property
    def train(self):
        return draw_stars(70, bad=0.03)

    @cached_property
    def test(self):
        return draw_stars(20, bad=0.03, seed=1)

    @cached_property
    def fitted(self):
        return self.new().fit(*self.train)


def law(function=None, *, applies=None):
    """Make ``check_xxx(trial)`` a law: ``check_xxx(estimator)``, whose failure says what is broken.

    Parameters
    ----------
    function : callable
        Its docstring states the law.
    applies : callable ``Trial -> bool``, optional
        Which estimators it is a law for; by default all regressors.
    """
    if function is None:
        return partial(law, applies=applies)

    @wraps(function)
    def check(estimator, *, trial=None):
        trial = Trial(estimator) if trial is None else trial
        try:
            function(trial)
        except AssertionError as error:
            raise AssertionError(f"{broken(trial)}\n{error}") from error
        except Exception as error:
            error.add_note(broken(trial))
            raise

    def broken(trial):
        statement = inspect.getdoc(function).splitlines()[0]
        return f"{trial.estimator!r} breaks the law {function.__name__}: {statement}"

    del check.__wrapped__  # its signature is (estimator)
    check.applies = applies or (lambda trial: True)
    return check


def forward_only(trial):
    """For laws of forward models."""
    return trial.is_forward
