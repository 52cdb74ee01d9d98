"""Assertions that name their numbers, without pytest; those of numpy.testing serve for equality."""

from __future__ import annotations

import re
import warnings
from contextlib import contextmanager

import numpy as np
from numpy.testing import assert_allclose

__all__ = [
    "assert_above",
    "assert_below",
    "assert_finite",
    "assert_raises",
    "assert_same",
    "assert_true",
    "assert_warns",
    "largest_shift",
]


def assert_true(condition, message):
    """`condition`, all of it, or an AssertionError with this message."""
    if not np.all(condition):
        raise AssertionError(message)


def assert_below(values, limit, what, *, strict=True):
    """``values < limit`` everywhere (``<=`` with ``strict=False``); NaN is not."""
    _ordered(values, limit, what, "below", np.less if strict else np.less_equal)


def assert_above(values, limit, what, *, strict=True):
    """``values > limit`` everywhere (``>=`` with ``strict=False``); NaN is not."""
    _ordered(values, limit, what, "above", np.greater if strict else np.greater_equal)


def _ordered(values, limit, what, word, compare):
    values, limit = np.broadcast_arrays(np.asarray(values, float), np.asarray(limit, float))
    wrong = ~compare(values, limit)
    if wrong.any():
        pairs = [f"{v:.6g} (limit {b:.6g})" for v, b in zip(values[wrong][:5], limit[wrong][:5])]
        raise AssertionError(
            f"{what}: {wrong.sum()} of {values.size} not {word} the limit: {', '.join(pairs)}"
        )


def assert_finite(values, what):
    """No NaN, no infinity."""
    wrong = ~np.isfinite(values)
    assert_true(~wrong, f"{what}: {wrong.sum()} of {wrong.size} values are not finite")


def largest_shift(dist, other):
    """Largest difference of the means of two distributions, in units of the error bars."""
    return np.max(np.abs(dist.mean() - other.mean()) / dist.std())


def assert_same(dist, other, *, sigma=1e-4, rtol=1e-3, what="the distributions"):
    """Equal but for rounding and the tolerance of the solvers."""
    assert_below(largest_shift(dist, other), sigma, f"{what}: largest difference in sigma")
    assert_allclose(dist.std(), other.std(), rtol=rtol, err_msg=f"{what}: error bars")
    assert_allclose(dist.corr(), other.corr(), atol=rtol, err_msg=f"{what}: correlations")


@contextmanager
def assert_raises(error, match):
    """The block raises `error` with a message that the pattern `match` finds."""
    try:
        yield
    except error as raised:
        if not re.search(match, str(raised)):
            raise AssertionError(
                f"{error.__name__} with the message {str(raised)!r}; it should say {match!r}"
            ) from raised
    else:
        raise AssertionError(f"no {error.__name__}; expected one that says {match!r}")


@contextmanager
def assert_warns(category, match=""):
    """The block warns of `category` with a message that `match` finds; other warnings pass on."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield
    ours = [w for w in told if issubclass(w.category, category)]
    found = [w for w in ours if re.search(match, str(w.message))]
    for other in (w for w in told if w not in found):
        warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    messages = [str(w.message) for w in ours]
    assert_true(len(found) > 0, f"no {category.__name__} that says {match!r}, but {messages}")
