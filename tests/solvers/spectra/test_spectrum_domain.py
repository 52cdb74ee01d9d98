import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from skspec.solvers.spectra.spectrum_domain import MAX_FITTED, _coherent, fit_domain


def draw(n, n_pixels=60, *, noise=0.02, bad=0.0, seed=0):
    """Flux in three dimensions plus noise that differs from star to star."""
    world, rng = np.random.default_rng(7), np.random.default_rng(seed)
    lines = 0.1 * world.normal(size=(3, n_pixels))
    sigma = noise * rng.uniform(0.3, 3, (n, 1)) * np.ones(n_pixels)
    flux = 1 + rng.uniform(-1, 1, (n, 3)) @ lines + sigma * rng.normal(size=(n, n_pixels))
    good = rng.random(flux.shape) >= bad
    return np.where(good, flux, 1e9), good, sigma**2, lines


@pytest.mark.parametrize("n", [200, 2 * MAX_FITTED + 200])
def test_one_in_a_hundred_unseen_spectra_scores_above_one(n):
    *train, _ = draw(n, bad=0.05)
    *test, _ = draw(4000, bad=0.05, seed=1)
    above = np.mean(fit_domain(*train).score(*test) > 1)
    assert 0 < above < (0.04 if n < 1000 else 0.025)


def test_it_tells_strange_from_ordinary():
    *train, lines = draw(300)
    flux, good, variance, _ = draw(100, seed=1)
    domain = fit_domain(*train)
    ordinary = domain.score(flux, good, variance)
    assert np.median(ordinary) < 0.8
    assert np.median(domain.score(np.roll(flux, 1, axis=1), good, variance)) > 1.5  # other lines
    assert np.median(domain.score(flux + 0.2, good, variance)) > 2
    assert domain.score(1 + 6 * lines, good[:3], variance[:3]).min() > 2  # lines much too strong
    # twice as far is twice the score, in the limit
    near, far = (domain.score(flux + step, good, variance) for step in (5.0, 10.0))
    assert_allclose(far / near, 2, rtol=0.1)


def test_a_noisy_spectrum_is_not_a_strange_one():
    *train, _ = draw(300)
    noisy, good, variance, _ = draw(400, noise=0.3, seed=2)
    domain = fit_domain(*train)
    assert np.mean(domain.score(noisy, good, variance) > 1) < 0.15
    assert np.mean(domain.score(noisy, good, np.zeros_like(variance)) > 1) > 0.9


def test_what_neighbouring_pixels_have_in_common_counts():
    """Ripples of a third of the noise: too small for chi2, and like no noise."""
    *train, _ = draw(400, n_pixels=400)
    flux, good, variance, _ = draw(200, n_pixels=400, seed=1)
    domain = fit_domain(*train)
    sigma = np.sqrt(variance)
    ripple = sigma * np.sin(np.arange(400) * 2 * np.pi / 100) / 2
    assert np.mean(domain.score(flux, good, variance) > 1) < 0.05
    assert np.mean(domain.score(flux + ripple, good, variance) > 1) > 0.6
    rough = sigma * np.random.default_rng(3).choice([-1, 1], size=flux.shape) / 8**0.5
    assert np.mean(domain.score(flux + rough, good, variance) > 1) < 0.6  # of the same chi2


def test_sums_of_neighbours_are_those_of_the_formula():
    rng = np.random.default_rng(0)
    known = rng.random((3, 20)) > 0.3
    r = rng.normal(size=known.shape) * known
    for m, fast in zip((1, 4, 16), _coherent(r, known, (1, 4, 16))):
        starts = range(20 - m + 1)
        square = sum(r[:, j : j + m].sum(axis=1) ** 2 for j in starts)
        count = sum(known[:, j : j + m].sum(axis=1) for j in starts)
        assert_allclose(fast, np.sqrt(square / count))


def test_a_spectrum_is_compared_with_its_like():
    """Stars of one kind differ from each other, those of the other do not."""

    def world(n, seed):
        rng = np.random.default_rng(seed)
        kind = rng.uniform(-1, 1, n)
        shape = np.sin(np.arange(80) / 5)
        spread = np.where(kind > 0, 0.05, 0.002)[:, None]
        flux = 1 + kind[:, None] * shape + spread * rng.normal(size=(n, 80))
        return kind, flux, np.ones(flux.shape, dtype=bool), np.full(flux.shape, 1e-6)

    _, *train = world(600, 0)
    kind, flux, good, variance = world(2000, 1)
    domain = fit_domain(*train)
    score = domain.score(flux, good, variance)
    assert np.mean(score[kind > 0] > 1) < 0.04
    assert np.mean(score[kind < 0] > 1) < 0.04
    flux += np.where(kind < -0.2, 0.02, 0)[:, None] * np.random.default_rng(2).normal(
        size=flux.shape
    )
    assert np.mean(domain.score(flux, good, variance)[kind < -0.2] > 1) > 0.95


def test_noisy_and_good_spectra_are_flagged_alike():
    *train, _ = draw(2 * MAX_FITTED + 1000, n_pixels=200)
    flux, good, variance, _ = draw(4000, n_pixels=200, seed=1)
    above = fit_domain(*train).score(flux, good, variance) > 1
    noisy = variance[:, 0] > np.median(variance)
    assert 0 < np.mean(above[noisy]) < 0.03 and 0 < np.mean(above[~noisy]) < 0.03


@settings(deadline=None, max_examples=15)
@given(st.sampled_from([0.0, 1e30, -1e30, np.nan, np.inf]), st.integers(0, 100))
def test_a_bad_pixel_changes_nothing(garbage, seed):
    flux, good, variance, _ = draw(60, n_pixels=30, bad=0.1, seed=seed)
    good[:, 5] = False
    good[0] = False
    variance = np.where(good, variance, np.inf)
    fitted = fit_domain(flux, good, variance)
    other = fit_domain(np.where(good, flux, garbage), good, variance)
    score = fitted.score(flux, good, variance)
    assert np.isnan(score[0]) and np.isfinite(score[1:]).all()
    assert_array_equal(other.score(np.where(good, flux, garbage), good, variance), score)
    dead = np.ones(30, dtype=bool)
    dead[5] = False  # never seen: it says nothing, good or not
    assert_allclose(fitted.score(flux, good | ~dead, variance), score)


def test_the_unit_of_flux_does_not_matter():
    flux, good, variance, _ = draw(100)
    one = fit_domain(flux, good, variance).score(flux, good, variance)
    two = fit_domain(1e-17 * flux, good, 1e-34 * variance).score(
        1e-17 * flux, good, 1e-34 * variance
    )
    assert_allclose(one, two, rtol=1e-6)


def test_spectra_of_a_star_are_seen_together():
    """Three spectra of each star differ by noise only: apart, the folds would know the test stars."""
    rng, n = np.random.default_rng(0), 60
    star = np.repeat(np.arange(n), 3)
    flux = rng.normal(size=(n, 40))[star] + 0.01 * rng.normal(size=(3 * n, 40))
    parts = flux, np.ones(flux.shape, dtype=bool), np.full(flux.shape, 1e-4)
    together, apart = fit_domain(*parts, groups=star), fit_domain(*parts)
    new = rng.normal(size=(200, 40)), np.ones((200, 40), dtype=bool), np.full((200, 40), 1e-4)
    assert np.mean(together.score(*new) > 1) < 0.1
    assert np.mean(apart.score(*new) > 1) > 0.5


@pytest.mark.parametrize("n", [1, 2, 3, 7])
@pytest.mark.parametrize("constant", [False, True])
def test_few_or_constant_spectra(n, constant):
    flux, good, variance, _ = draw(n, n_pixels=8)
    flux = np.ones_like(flux) if constant else flux
    score = fit_domain(flux, good, 0 * variance).score(flux, good, variance)
    assert np.isfinite(score).all()
