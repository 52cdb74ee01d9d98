"""The laws that every method keeps, for methods of your own.

``check_regressor(estimator)`` and ``check_forward_model(estimator)`` try all of them, and
:func:`parametrize_with_laws` makes a test of each. :func:`draw_stars` draws the toy stars, and
:mod:`~skspec.testing.corruptions` spoils them.
"""

from skspec.testing import corruptions
from skspec.testing._check import (
    check_forward_model,
    check_regressor,
    laws_of,
    parametrize_with_laws,
)
from skspec.testing._stars import draw_stars

__all__ = [
    "check_forward_model",
    "check_regressor",
    "corruptions",
    "draw_stars",
    "laws_of",
    "parametrize_with_laws",
]
