"""Which nodes of a latent space are used."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import median_abs_deviation

from skspec.latent import informative_nodes, node_dispersion


@pytest.fixture(scope="module")
def latents():
    """Nodes of very different dispersion; the last is constant."""
    return np.random.default_rng(0).normal(size=(301, 5)) * [1, 0.5, 0.1, 0.01, 0] + [
        0,
        3,
        -1,
        0,
        2,
    ]


class TestInformativeNodes:
    def test_finds_those_that_move(self, latents):
        found = informative_nodes(latents)
        assert found.dtype == bool
        assert found.tolist() == [True, True, True, False, False]
        assert informative_nodes(latents, 0.2).sum() == 2

    def test_counts_the_factors_of_linear_spectra(self):
        """Principal components of spectra that three factors make."""
        rng = np.random.default_rng(0)
        flux = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 50)) + rng.normal(
            scale=1e-3, size=(400, 50)
        )
        components = np.linalg.svd(flux - flux.mean(axis=0))[2]
        assert informative_nodes(flux @ components.T).sum() == 3

    def test_threshold_has_no_gaussian_factor(self, latents):
        mad = median_abs_deviation(latents)
        assert informative_nodes(latents, 0.99 * mad[1])[1]
        assert not informative_nodes(latents, 1.01 * mad[1])[1]

    def test_mean_deviation_sees_what_few_stars_move(self):
        latents = np.zeros((100, 1))
        latents[:20] = 1
        assert not informative_nodes(latents)[0]
        assert informative_nodes(latents, deviation="mean")[0]

    def test_shift_and_permutation(self, latents):
        order = np.random.default_rng(1).permutation(5)
        moved = informative_nodes((latents + 7)[:, order])
        assert np.array_equal(moved, informative_nodes(latents)[order])

    def test_stars_without_latents_are_left_out(self, latents):
        blind = np.vstack([latents, np.full((1, 5), np.nan)])
        assert np.array_equal(informative_nodes(blind), informative_nodes(latents))

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"deviation": "std"}, "deviation must be"),
            ({"weight": np.ones(3)}, r"weight has shape \(3,\) for 301 stars"),
            ({"weight": np.full(301, -1.0)}, "must be finite and not negative"),
            ({"weight": np.zeros(301)}, "some must be positive"),
        ],
    )
    def test_bad_input(self, latents, kwargs, message):
        with pytest.raises(ValueError, match=message):
            informative_nodes(latents, **kwargs)

    def test_no_star_left(self):
        with pytest.raises(ValueError, match="No star has finite latents"):
            informative_nodes(np.full((4, 2), np.nan))


class TestNodeDispersion:
    def test_equals_the_definitions(self, latents):
        table = node_dispersion(latents)
        assert list(table.columns) == ["mad", "mean_deviation", "std"]
        assert np.allclose(table["mad"], median_abs_deviation(latents))
        assert np.allclose(table["std"], latents.std(axis=0))
        by_hand = np.abs(latents - latents.mean(axis=0)).mean(axis=0)
        assert np.allclose(table["mean_deviation"], by_hand)

    def test_kl_is_zero_where_the_prior_came_back(self):
        kl = node_dispersion(np.zeros((10, 2)), np.ones((10, 2)))["kl"]
        assert np.allclose(kl, 0)

    def test_kl_equals_the_expected_log_ratio(self):
        """Against the mean of ln q - ln p over samples of q."""
        mean, std = 0.7, 0.3
        z = np.random.default_rng(0).normal(mean, std, 200_000)
        ratio = -0.5 * ((z - mean) / std) ** 2 - np.log(std) + 0.5 * z**2
        kl = node_dispersion(np.full((5, 1), mean), np.full((5, 1), std))["kl"]
        assert kl[0] == pytest.approx(ratio.mean(), abs=0.01)

    def test_bad_std(self, latents):
        for std in (np.ones((301, 4)), np.zeros((301, 5))):
            with pytest.raises(ValueError, match="one positive standard deviation"):
                node_dispersion(latents, std)

    @given(
        st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 4)), min_size=1, max_size=12).filter(
            lambda pairs: sum(count for _, count in pairs) > 0
        )
    )
    def test_weights_count_a_star_several_times(self, pairs):
        values, counts = np.array(pairs, dtype=float).T
        weighted = node_dispersion(values[:, None], weight=counts / 7)
        repeated = node_dispersion(np.repeat(values, counts.astype(int))[:, None])
        assert np.allclose(weighted, repeated)
