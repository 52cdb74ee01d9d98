"""Normal matrices of stars that share a basis."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skspec.solvers.linear.weighted_gram import weighted_gram


@given(
    rank=st.integers(0, 5),
    n=st.integers(1, 4),
    n_pixels=st.integers(1, 200),
    size=st.sampled_from([1e-30, 1.0, 1e20]),
    seed=st.integers(0, 99),
)
def test_weighted_gram(rank, n, n_pixels, size, seed):
    rng = np.random.default_rng(seed)
    basis, weight = rng.normal(size=(rank, n_pixels)), size * rng.random((n, n_pixels))
    expected = np.einsum("ip,np,jp->nij", basis, weight, basis)
    gram = weighted_gram(basis, weight)
    np.testing.assert_allclose(gram, expected, rtol=1e-10, atol=1e-12 * size * n_pixels)
    np.testing.assert_array_equal(gram, np.swapaxes(gram, 1, 2))


def test_weights_beyond_single_precision():
    basis, weight = np.array([[1e-3, 2e-3]]), np.array([[1e45, 0.0], [0.0, 0.0]])
    gram = weighted_gram(basis, weight, np.float32)
    assert gram[:, 0, 0] == pytest.approx([1e39, 0.0], rel=1e-6)
