import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from skspec.solvers.statistics.conformal import conformal_quantile

LEVEL = st.floats(0.01, 0.99)


@settings(deadline=None)
@given(st.integers(1, 60), LEVEL)
def test_of_all_ranks_that_a_new_score_may_have_enough_lie_below(n, level):
    """Exchangeable: leave each of n + 1 scores out in turn, count those within the others' quantile."""
    scores = np.arange(n + 1.0)
    inside = [s <= conformal_quantile(np.delete(scores, i), level) for i, s in enumerate(scores)]
    assert np.mean(inside) >= level * (1 - 1e-9)
    smaller = np.mean(inside) - 1 / (n + 1)  # not one rank too many
    assert smaller < level


@pytest.mark.parametrize("kind", ["normal", "cauchy", "few values"])
def test_coverage_whatever_the_distribution(kind):
    rng = np.random.default_rng(0)
    draw = {
        "normal": lambda *size: np.abs(rng.normal(size=size)),
        "cauchy": lambda *size: np.abs(rng.standard_cauchy(size)),
        "few values": lambda *size: rng.integers(4, size=size).astype(float),
    }[kind]
    calibration, new = np.sort(draw(49, 4000), axis=0), draw(4000)
    for level in (0.5, 0.6827, 0.9, 0.9545):
        observed = np.mean(new <= conformal_quantile(calibration, level))
        assert observed > level - 0.02
        if kind != "few values":
            assert observed < level + 0.04


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 50), LEVEL, LEVEL, st.floats(0.01, 1e4))
def test_monotone_and_equivariant(n, one, two, unit):
    scores = np.sort(np.random.default_rng(n).exponential(size=(n, 3)), axis=0)
    low, high = (conformal_quantile(scores, level) for level in sorted((one, two)))
    assert np.all(low <= high)
    assert_array_equal(
        conformal_quantile(unit * scores, one), unit * conformal_quantile(scores, one)
    )


def test_too_few_scores_promise_nothing():
    assert np.isinf(conformal_quantile(np.zeros((9, 2)), 0.95)).all()
    assert conformal_quantile(np.zeros((0,)), 0.5) == np.inf
