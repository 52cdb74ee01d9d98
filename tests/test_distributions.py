import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate, stats

from skspec import MultivariateNormal

NAMES = ["teff", "logg", "feh"]
UNITS = np.array([1e3, 0.3, 1e-2])  # labels of very different sizes


def random_cov(n, seed=0, n_labels=3):
    root = np.random.default_rng(seed).normal(size=(n, n_labels, n_labels))
    return root @ np.swapaxes(root, 1, 2) * np.outer(UNITS[:n_labels], UNITS[:n_labels])


@pytest.fixture
def loc():
    return np.random.default_rng(1).normal(size=(7, 3)) * UNITS + [5000, 3, -0.5]


@pytest.fixture
def y(loc):
    return loc + np.random.default_rng(2).normal(size=(7, 3)) * UNITS


@pytest.fixture(params=["cov", "scale_tril", "scale"])
def dist(request, loc):
    cov = random_cov(7)
    if request.param == "scale":
        return MultivariateNormal(
            loc, scale=np.sqrt(np.diagonal(cov, axis1=1, axis2=2)), label_names=NAMES
        )
    value = cov if request.param == "cov" else np.linalg.cholesky(cov)
    return MultivariateNormal(loc, **{request.param: value}, label_names=NAMES)


# -- against scipy ---------------------------------------------------------------------------------


def test_log_prob_and_mahalanobis(dist, y):
    for star in range(7):
        # in scaled units, for scipy takes a variance ratio of 1e10 for a singular matrix
        scaled = stats.multivariate_normal(
            dist.loc[star] / UNITS, dist.cov()[star] / np.outer(UNITS, UNITS)
        )
        expected = scaled.logpdf(y[star] / UNITS) - np.log(UNITS).sum()
        assert_allclose(dist.log_prob(y)[star], expected, rtol=1e-8)
        residual = y[star] - dist.loc[star]
        distance = residual @ np.linalg.solve(dist.cov()[star], residual)
        assert_allclose(dist.mahalanobis(y)[star] ** 2, distance, rtol=1e-8)
        assert_allclose(dist[star].log_prob(y[star]), expected, rtol=1e-8)
        assert_allclose(dist.to_scipy(star).logpdf(y[star]), expected)
        assert_allclose(dist[star].to_scipy().mean, dist.mean()[star])


def test_marginal_probabilities(dist, y):
    reference = stats.norm(dist.mean(), dist.std())
    assert_allclose(dist.cdf(y), reference.cdf(y))
    assert_allclose(dist.pit(y), reference.cdf(y))
    assert_allclose(dist.quantile(0.3), reference.ppf(0.3))
    q = np.random.default_rng(0).random((7, 3))
    assert_allclose(dist.cdf(dist.quantile(q)), q)
    for level in (0.01, 0.68, 0.9545):
        assert_allclose(dist.interval(level), reference.interval(level))


@settings(max_examples=25, deadline=None)
@given(mean=st.floats(-5, 5), sigma=st.floats(0.01, 10), truth=st.floats(-5, 5))
def test_crps_is_the_integral_of_squared_cdf_errors(mean, sigma, truth):
    norm = stats.norm(mean, sigma)
    low = integrate.quad(lambda t: norm.cdf(t) ** 2, min(mean, truth) - 12 * sigma, truth)[0]
    high = integrate.quad(lambda t: norm.sf(t) ** 2, truth, max(mean, truth) + 12 * sigma)[0]
    score = MultivariateNormal([mean], scale=[sigma]).crps([truth])
    assert_allclose(score, [low + high], rtol=1e-5, atol=1e-7)


def test_energy_score_is_the_crps_for_one_label():
    dist = MultivariateNormal([[0.0], [2.0]], scale=[[1.0], [3.0]])
    truth = np.array([[0.5], [-4.0]])
    score = dist.energy_score(truth, n_draws=200_000)
    assert_allclose(score, dist.crps(truth)[:, 0], rtol=0.01)
    in_units = dist.energy_score(truth, scale=[10.0], n_draws=200_000)
    assert_allclose(in_units, dist.crps(truth)[:, 0] / 10, rtol=0.01)


def test_energy_score_needs_little_memory():
    dist = MultivariateNormal(np.zeros((100_000, 3)), scale=1.0)
    tracemalloc.start()
    dist.energy_score(dist.loc, n_draws=20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e8  # all draws at once: 96 MB per array and five of them


def test_sample_moments(dist):
    draws = dist.sample(40_000, random_state=0)
    assert draws.shape == (40_000, 7, 3)
    assert np.all(np.abs(draws.mean(axis=0) - dist.mean()) < 0.03 * dist.std())
    for star in range(7):
        assert_allclose(np.corrcoef(draws[:, star].T), dist.corr()[star], atol=0.03)
    assert_allclose(draws.std(axis=0), dist.std(), rtol=0.03)


def test_sample_shapes_and_seeds(dist):
    assert dist.sample().shape == (7, 3)
    assert dist.sample((2, 4)).shape == (2, 4, 7, 3)
    assert dist[0].sample(5).shape == (5, 3)
    assert_array_equal(dist.sample(random_state=3), dist.sample(random_state=3))


# -- moments in all three forms --------------------------------------------------------------------


def test_moments_agree(dist):
    cov = dist.cov()
    assert_allclose(dist.var(), np.diagonal(cov, axis1=1, axis2=2))
    assert_allclose(dist.std(), np.sqrt(dist.var()))
    assert_allclose(dist.scale_tril @ np.swapaxes(dist.scale_tril, 1, 2), cov, rtol=1e-9, atol=1e-9)
    assert_allclose(np.diagonal(dist.corr(), axis1=1, axis2=2), 1)
    assert dist.shape == (7, 3) and dist.n_labels == 3 and len(dist) == 7


def test_diagonal_is_full_without_correlation(loc, y):
    scale = np.random.default_rng(3).uniform(0.5, 2, (7, 3)) * UNITS
    diagonal = MultivariateNormal(loc, scale=scale)
    full = MultivariateNormal(loc, cov=diagonal.cov())
    for name in ("log_prob", "mahalanobis", "cdf", "crps", "energy_score"):
        assert_allclose(getattr(diagonal, name)(y), getattr(full, name)(y), rtol=1e-9)
    assert_allclose(diagonal.sample(random_state=0), full.sample(random_state=0))


def test_one_label_full_is_diagonal(y):
    full = MultivariateNormal(y[:, :1], cov=np.full((7, 1, 1), 4.0))
    assert_allclose(full.log_prob(y[:, :1] + 1), stats.norm(0, 2).logpdf(1))


def test_broadcasting(loc):
    assert MultivariateNormal(loc, scale=UNITS).std().shape == (7, 3)
    assert MultivariateNormal(loc, cov=np.diag(UNITS**2)).cov().shape == (7, 3, 3)
    assert_allclose(
        MultivariateNormal(loc, scale_tril=np.diag(UNITS)).std(), np.tile(UNITS, (7, 1))
    )


# -- singular covariances --------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_semidefinite_covariances(loc, y, rank):
    root = np.random.default_rng(4).normal(size=(7, 3, rank)) * UNITS[:, None]
    cov = root @ np.swapaxes(root, 1, 2)
    dist = MultivariateNormal(loc, cov=cov)
    tril = dist.scale_tril
    unit = np.outer(UNITS, UNITS)
    assert_allclose(tril @ np.swapaxes(tril, 1, 2) / unit, cov / unit, atol=1e-7)
    assert_array_equal(np.triu(tril, 1), 0)
    assert (np.diagonal(tril, axis1=1, axis2=2) >= 0).all()
    draws = dist.sample(20_000, random_state=0)
    assert_allclose(draws.std(axis=0) / UNITS, dist.std() / UNITS, rtol=0.05, atol=1e-6)
    assert not np.isnan(dist.crps(y)).any()
    dist.log_prob(y)  # no warning


def test_singular_next_to_regular_and_nan_leaves_them_alone(loc, y):
    cov = random_cov(7)
    alone = MultivariateNormal(loc, cov=cov).log_prob(y)
    cov[1] = 0
    cov[2] = np.nan
    cov[3] = np.diag([np.inf] * 3)
    mixed = MultivariateNormal(loc, cov=cov).log_prob(y)
    assert_allclose(mixed[[0, 4, 5, 6]], alone[[0, 4, 5, 6]], rtol=1e-8)
    assert np.isnan(mixed[2])


def test_certain_labels():
    dist = MultivariateNormal([[1.0, 2.0]], scale=[0.0, 1.0])
    assert dist.log_prob([[1.0, 2.0]]) == np.inf
    assert dist.log_prob([[1.1, 2.0]]) == -np.inf
    assert_allclose(dist.cdf([[1.1, 2.0]]), [[1, 0.5]])
    assert_allclose(dist.crps([[1.1, 2.0]]), [[0.1, dist.crps([[1, 2.0]])[0, 1]]])
    with pytest.raises(ValueError, match="semi-definite"):
        MultivariateNormal([0.0, 0.0], cov=[[1, 2], [2, 1]]).scale_tril  # noqa: B018


# -- stars without information ---------------------------------------------------------------------


@pytest.mark.parametrize("form", ["scale", "cov"])
def test_a_star_without_information_leaves_the_others_alone(loc, y, form):
    scale = np.tile(UNITS, (7, 1))
    value = scale if form == "scale" else random_cov(7)
    whole = MultivariateNormal(loc, **{form: value})
    loc, value = loc.copy(), value.copy()
    loc[3] = np.nan
    value[3] = np.inf if form == "scale" else np.diag([np.inf] * 3)
    dist = MultivariateNormal(loc, **{form: value})
    others = np.arange(7) != 3

    def functions(d):
        half = d.marginal([0, 2])
        moved = d.affine([-2.0, 1.0, 0.5], [1.0, 0.0, 3.0])
        mixed = MultivariateNormal.mixture([d, d])
        low, high = d.interval()
        return [
            d.mean(),
            d.std(),
            d.var(),
            d.cov(),
            d.corr(),
            d.log_prob(y),
            d.mahalanobis(y),
            d.cdf(y),
            d.quantile(0.5),
            low,
            high,
            d.crps(y),
            d.energy_score(y),
            d.sample(random_state=0),
            half.cov(),
            moved.cov(),
            moved.log_prob(y),
            mixed.cov(),
            mixed.log_prob(y),
            d.scale_tril,
            d.to_frame().to_numpy(),
        ]

    for got, expected in zip(functions(dist), functions(whole)):
        assert_allclose(got[others], expected[others], rtol=1e-8, atol=1e-12)
    assert np.isnan(dist.log_prob(y)[3])
    assert np.isinf(dist.std()[3]).all()
    assert np.isinf(dist.affine(2.0, 0.0).std()[3]).all()


# -- indexing, marginal, affine, mixture -----------------------------------------------------------


@pytest.mark.parametrize(
    "stars", [slice(2, 5), slice(None, None, -2), [4, 1], np.array([0, 0]), np.arange(7) > 2, []]
)
def test_index_many(dist, y, stars):
    stars = np.array(stars, dtype=int) if isinstance(stars, list) else stars
    part = dist[stars]
    assert_array_equal(part.mean(), dist.mean()[stars])
    assert_allclose(part.cov(), dist.cov()[stars])
    assert_allclose(part.log_prob(y[stars]), dist.log_prob(y)[stars])
    assert part.label_names == NAMES


def test_index_one(dist):
    for star in (0, -1, np.int64(3)):
        assert_array_equal(dist[star].mean(), dist.mean()[star])
        assert_allclose(dist[star].cov(), dist.cov()[star])
    with pytest.raises(TypeError, match="single"):
        len(dist[0])
    with pytest.raises(TypeError, match="single"):
        dist[0][0]
    with pytest.raises(TypeError, match="marginal"):
        dist[:, 0]
    with pytest.raises(IndexError):
        dist[7]


def test_marginal(dist, y):
    for labels, index in [(["feh", "teff"], [2, 0]), ([1], [1]), ("logg", [1]), (2, [2])]:
        part = dist.marginal(labels)
        assert part.label_names == [NAMES[k] for k in index]
        assert_allclose(part.mean(), dist.mean()[:, index])
        assert_allclose(part.cov(), dist.cov()[:, index][:, :, index])
    with pytest.raises(ValueError, match="no label 'alpha'"):
        dist.marginal("alpha")


def test_affine(dist, y):
    scale, shift = np.array([-2.0, 10.0, 1e3]), np.array([1.0, 0.0, -5.0])
    moved = dist.affine(scale, shift)
    assert_allclose(moved.mean(), scale * dist.mean() + shift)
    assert_allclose(moved.std(), np.abs(scale) * dist.std())
    assert_allclose(moved.cov(), dist.cov() * np.outer(scale, scale))
    jacobian = np.log(np.abs(scale)).sum()
    assert_allclose(moved.log_prob(scale * y + shift), dist.log_prob(y) - jacobian, rtol=1e-8)
    back = moved.affine(1 / scale, -shift / scale)
    assert_allclose(back.cov(), dist.cov(), rtol=1e-9)


@settings(max_examples=25, deadline=None)
@given(weight=st.floats(0, 1), seed=st.integers(0, 1000))
def test_mixture_obeys_the_law_of_total_variance(weight, seed):
    rng = np.random.default_rng(seed)
    parts = [
        MultivariateNormal(rng.normal(size=(2, 3)) * UNITS, cov=random_cov(2, seed + k))
        for k in range(2)
    ]
    mixed = MultivariateNormal.mixture(parts, [weight, 1 - weight])
    second = sum(
        w * (d.cov() + np.einsum("ni,nj->nij", d.mean(), d.mean()))
        for w, d in zip([weight, 1 - weight], parts)
    )
    mean = weight * parts[0].mean() + (1 - weight) * parts[1].mean()
    assert_allclose(mixed.mean(), mean)
    expected = second - np.einsum("ni,nj->nij", mean, mean)
    assert_allclose(
        mixed.cov() / UNITS / UNITS[:, None], expected / UNITS / UNITS[:, None], atol=1e-9
    )


def test_mixture_of_one_and_mistakes(dist):
    assert_allclose(MultivariateNormal.mixture([dist]).cov(), dist.cov())
    assert MultivariateNormal.mixture([dist, dist]).label_names == NAMES
    with pytest.raises(ValueError, match="sum to 1"):
        MultivariateNormal.mixture([dist, dist], [1, 1])
    with pytest.raises(ValueError, match="at least one"):
        MultivariateNormal.mixture([])


# -- the rest --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kwargs, sentence",
    [
        ({}, "exactly one"),
        ({"scale": 1.0, "cov": np.eye(2)}, "exactly one"),
        ({"scale": -1.0}, "negative"),
        ({"cov": -np.eye(2)}, "negative variances"),
        ({"cov": np.eye(3)}, "covariance of shape"),
        ({"scale_tril": [[1, 1], [0, 1]]}, "lower triangular"),
        ({"scale": 1.0, "label_names": ["a"]}, "1 label names for 2 labels"),
    ],
)
def test_mistakes_get_a_sentence(kwargs, sentence):
    with pytest.raises(ValueError, match=sentence):
        MultivariateNormal(np.zeros((4, 2)), **kwargs)


def test_scalars_and_levels_are_refused(dist):
    with pytest.raises(ValueError, match="last axis"):
        MultivariateNormal(1.0, scale=1.0)
    for level in (0, 1, 1.5, 68):
        with pytest.raises(ValueError, match="between 0 and 1"):
            dist.interval(level)


def test_frame_pickle_and_repr(dist, y):
    frame = dist.to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert list(frame) == [*NAMES, "teff_std", "logg_std", "feh_std"]
    assert_allclose(frame["feh_std"], dist.std()[:, 2])
    assert len(dist[0].to_frame()) == 1
    again = pickle.loads(pickle.dumps(dist))
    assert_array_equal(again.log_prob(y), dist.log_prob(y))
    assert repr(dist) == "<MultivariateNormal of teff, logg, feh: 7 stars>"
    assert "single" in repr(dist[0])


def test_caller_arrays_are_not_modified(loc, y):
    cov, mean, truth = random_cov(7), loc.copy(), y.copy()
    dist = MultivariateNormal(loc, cov=cov)
    dist.var()[:] = 0
    dist.std()[:] = 0
    dist.log_prob(y), dist.crps(y), dist.sample(3), dist.affine(2, 1)
    assert_array_equal(loc, mean)
    assert_array_equal(y, truth)
    assert_array_equal(cov, random_cov(7))
    assert_allclose(dist.std() ** 2, np.diagonal(cov, axis1=1, axis2=2))


class TestPrior:
    mean, cov = np.array([5500.0, 4.0]), np.array([[250_000.0, 90.0], [90.0, 0.25]])

    def test_is_the_product_of_two_gaussians(self):
        rng = np.random.default_rng(0)
        root = rng.normal(size=(6, 2, 2)) * np.array([100.0, 0.2])[:, None]
        likelihood = root @ np.swapaxes(root, 1, 2)
        loc = self.mean + rng.normal(size=(6, 2)) * [400, 0.4]
        found = MultivariateNormal(loc, cov=likelihood, label_names=["teff", "logg"]).with_prior(
            self.mean, self.cov
        )
        precision = np.linalg.inv(likelihood) + np.linalg.inv(self.cov)
        np.testing.assert_allclose(
            found.cov() @ precision, np.tile(np.eye(2), (6, 1, 1)), atol=1e-6
        )
        weighted = np.linalg.inv(likelihood) @ loc[..., None]
        weighted = weighted[..., 0] + np.linalg.inv(self.cov) @ self.mean
        np.testing.assert_allclose(
            found.mean(), np.linalg.solve(precision, weighted[..., None])[..., 0]
        )
        assert found.label_names == ["teff", "logg"]

    def test_a_star_without_information_gets_the_prior_and_a_certain_one_stays(self):
        dist = MultivariateNormal(
            [[np.nan, np.nan], [5000.0, 3.0]], scale=[[np.inf, np.inf], [0.0, 0.0]]
        ).with_prior(self.mean, self.cov)
        np.testing.assert_allclose(dist.mean(), [self.mean, [5000.0, 3.0]])
        np.testing.assert_allclose(dist.cov(), [self.cov, np.zeros((2, 2))])

    def test_a_single_distribution(self):
        one = MultivariateNormal([5000.0, 3.0], scale=[500.0, 0.5]).with_prior(
            self.mean, np.diag([500.0, 0.5]) ** 2
        )
        np.testing.assert_allclose(one.mean(), [5250.0, 3.5])
        np.testing.assert_allclose(one.std(), np.array([500.0, 0.5]) / np.sqrt(2))

    @pytest.mark.parametrize(
        "mean, cov, why",
        [
            ([1.0], np.eye(2), "mean of shape"),
            ([1.0, 2.0], np.eye(3), "covariance of shape"),
            ([1.0, 2.0], [[1.0, 2.0], [2.0, 1.0]], "positive definite"),
            ([1.0, 2.0], np.zeros((2, 2)), "positive definite"),
        ],
    )
    def test_no_prior(self, mean, cov, why):
        with pytest.raises(ValueError, match=why):
            MultivariateNormal([1.0, 2.0], scale=[1.0, 1.0]).with_prior(mean, cov)
