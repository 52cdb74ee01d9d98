import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from skspec.solvers.linear.monomials import LogMonomials, Monomials

LABELS = ["teff", "logg", "feh"]


def test_quadratic_in_three_labels_term_by_term():
    monomials = Monomials.of_degree(3, 2)
    assert monomials.names(LABELS) == [
        "1",
        "teff",
        "logg",
        "feh",
        "teff^2",
        "teff*logg",
        "teff*feh",
        "logg^2",
        "logg*feh",
        "feh^2",
    ]
    a, b, c = 0.5, -2.0, 3.0
    value, slope = monomials(np.array([[a, b, c]]), derivative=True)
    assert_allclose(value[0], [1, a, b, c, a * a, a * b, a * c, b * b, b * c, c * c])
    assert_allclose(slope[0, 0], [0, 1, 0, 0, 2 * a, b, c, 0, 0, 0])
    assert_allclose(slope[0, 1], [0, 0, 1, 0, 0, a, 0, 2 * b, c, 0])
    assert_allclose(slope[0, 2], [0, 0, 0, 1, 0, 0, a, 0, b, 2 * c])
    weight = np.arange(1.0, 11.0)[None]
    expected = [[2 * 5, 6, 7], [6, 2 * 8, 9], [7, 9, 2 * 10]]
    assert_allclose(monomials.curvature(np.array([[a, b, c]]), weight)[0], expected)


@pytest.mark.parametrize("n_labels", [1, 2, 5, 17])
def test_number_of_terms(n_labels):
    assert len(Monomials.of_degree(n_labels, 1)) == 1 + n_labels
    assert len(Monomials.of_degree(n_labels, 2)) == 1 + n_labels + n_labels * (n_labels + 1) // 2


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_values_slopes_and_curvature_of_any_terms(data):
    n_labels, n_terms = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 8))
    row = st.lists(st.integers(0, 4), min_size=n_labels, max_size=n_labels)
    exponents = np.array([[0] * n_labels] + [data.draw(row) for _ in range(n_terms)])
    monomials = Monomials(exponents)
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    x, weight = rng.normal(size=(3, n_labels)), rng.normal(size=(3, len(exponents)))
    x[0, 0] = 0.0  # 0**0 is 1
    values, slope = monomials(x, derivative=True)
    assert_allclose(values, np.prod(x[:, None, :] ** exponents, axis=2), rtol=1e-12, atol=1e-14)
    check_derivatives(monomials, x, weight)


def check_derivatives(monomials, x, weight):
    _, slope = monomials(x, derivative=True)
    curvature = monomials.curvature(x, weight)
    assert_allclose(curvature, np.swapaxes(curvature, 1, 2), rtol=1e-9, atol=1e-9)
    n_labels, h = x.shape[1], 1e-5
    for k in range(n_labels):
        step = np.zeros(n_labels)
        step[k] = h
        (up, slope_up), (down, slope_down) = (monomials(x + s * step, True) for s in (1, -1))
        scale = 1 + np.abs(slope).max()
        assert_allclose(slope[:, k], (up - down) / (2 * h), atol=1e-6 * scale**2)
        second = np.einsum("nkd,nd->nk", (slope_up - slope_down) / (2 * h), weight)
        assert_allclose(curvature[:, k], second, atol=1e-6 * (1 + np.abs(curvature).max()) ** 2)


def test_labels_that_enter_by_their_logarithm():
    pivot, scale = np.array([5500.0, 4.0, 0.0]), np.array([800.0, 0.5, 0.3])
    logarithmic = np.array([True, False, False])
    monomials = LogMonomials(Monomials.of_degree(3, 2), logarithmic, pivot / scale)
    assert monomials.names(LABELS)[4:6] == ["log(teff)^2", "log(teff)*logg"]
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(4, 3)), rng.normal(size=(4, 10))
    expected = np.log((pivot[0] + scale[0] * x[:, 0]) / pivot[0]) * pivot[0] / scale[0]
    assert_allclose(monomials(x)[:, 1], expected)
    check_derivatives(monomials, x, weight)
    assert np.isfinite(monomials(np.array([[-100.0, 0, 0]]))).all()


def test_terms_by_name_or_number():
    monomials = Monomials.of_terms(
        ["teff", ("feh", "teff"), (1, 1), 2, (), ("teff", "feh"), "teff"], LABELS
    )
    assert monomials.names(LABELS) == ["1", "teff", "teff*feh", "logg^2", "feh"]
    assert_array_equal(monomials.exponents[2], [1, 0, 1])


@pytest.mark.parametrize(
    "term, message",
    [
        (("vsini",), "unknown label 'vsini'.*teff"),
        ((3,), "number 3; there are 3"),
        (-1, "number -1"),
    ],
)
def test_unknown_terms(term, message):
    with pytest.raises(ValueError, match=message):
        Monomials.of_terms([term], LABELS)
