"""What public functions say of the information in a spectrum is one and the same number."""

from itertools import combinations, product

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skspec.datasets import make_spectra
from skspec.diagnostics import cramer_rao_bound, information_map
from skspec.forward import TheCannon, sample_posterior
from skspec.likelihood import Inversion

OPTIONS = {
    "coherence": (0.0, 0.2),
    "fit_rv": (False, (-200, 200)),
    "fit_broadening": (False, True),
    "continuum_degree": (None, 2),
    "loss": ("linear", "soft_l1"),
    "correlation_length": (0, 8),
    "label_prior": ("flat", "training"),
}


def is_possible(options):
    """A likelihood knows one way in which pixels are correlated."""
    return not (options["coherence"] and options["correlation_length"])


ALL = [dict(zip(OPTIONS, values)) for values in product(*OPTIONS.values())]
ALL = [options for options in ALL if is_possible(options)]


def pairs_of(options):
    return set(combinations(sorted(options.items(), key=str), 2))


def pairwise(cases):
    """Cases, greedily chosen, that hold every pair of options that any case holds."""
    left, chosen = set().union(*map(pairs_of, cases)), []
    while left:
        best = max(cases, key=lambda case: len(pairs_of(case) & left))
        left -= pairs_of(best)
        chosen.append(best)
    return chosen


FEW = pairwise(ALL)
CASES = [
    pytest.param(o, marks=() if o in FEW else pytest.mark.slow, id="-".join(map(str, o.values())))
    for o in ALL
]


@pytest.fixture(scope="module")
def data():
    box = {"teff": (4500, 6500), "logg": (3.0, 4.8), "feh": (-0.8, 0.3)}
    how = {"n_pixels": 260, "snr": 60, "resolution": 4000, "label_ranges": box}
    train, y = make_spectra(200, random_state=1, **how)
    test, _ = make_spectra(40, random_state=2, **how)
    return train, y, test


@pytest.fixture(scope="module")
def fitted(data):
    """Models by what matters at their fit."""
    known, (train, y, _) = {}, data

    def get(options):
        at_fit = {k: v for k, v in options.items() if k not in ("loss", "correlation_length")}
        key = tuple(at_fit.values())
        if key not in known:
            known[key] = TheCannon(inversion=Inversion(), **at_fit).fit(train, y)
        inversion = {k: options[k] for k in ("loss", "correlation_length")}
        return known[key].set_params(inversion=Inversion(**inversion))

    return get


def relative(matrix, unit):
    return matrix / np.sqrt(unit[..., :, None] * unit[..., None, :])


@pytest.mark.parametrize("options", CASES)
def test_public_functions_agree(options, data, fitted):
    model, stars = fitted(options), data[2]
    result = model.invert(stars)
    middle = result.inside_training & ~result.at_bound.any(axis=1) & result.converged
    middle = np.flatnonzero(middle)[:6]
    stars = stars[middle]
    result = model.invert(stars)
    fisher = model.fisher_information(result, stars)
    # a label that nothing is known of gets an error of 1000 label scales
    cov = np.linalg.inv(fisher + np.diag(1e-6 / model.label_scale_**2))
    unit = np.diagonal(cov, axis1=1, axis2=2)
    if options["loss"] == "linear":
        assert_allclose(relative(result.formal_cov - cov, unit), 0.0, atol=1e-8)
    else:
        beyond = np.linalg.eigvalsh(relative(result.formal_cov - cov, unit))
        assert np.all(beyond > -1e-8), f"below the bound: {beyond.min():.3g}"

    bound = cramer_rao_bound(model, result, stars, noise="total")
    assert_allclose(relative(bound.fisher, 1 / unit), relative(fisher, 1 / unit), atol=1e-8)
    prior = np.diag(model.label_scale_**2) * 0.04
    known = cramer_rao_bound(model, result, stars, noise="total", prior_cov=prior)
    expected = np.linalg.inv(fisher + np.linalg.inv(prior))
    assert_allclose(relative(known.cov() - expected, unit), 0.0, atol=1e-8)
    for i in (0, 1):
        found = information_map(model, result[i], stars[i : i + 1], noise="total").std()
        assert_allclose(found, bound.std()[i], rtol=1e-7)


@pytest.mark.parametrize("options", CASES)
def test_samples_agree(options, data, fitted):
    pytest.importorskip("emcee")
    model, stars = fitted(options), data[2]
    result = model.invert(stars)
    box, reach = model._likelihood.training, 4 * result.formal_dist.std() / model.label_scale_
    x = model._to_scaled(result.likelihood.mean())
    inside = np.all((x - reach > box.lower) & (x + reach < box.upper), axis=1)
    star = np.flatnonzero(inside & result.converged)[:1]
    result = model.invert(stars[star])
    expected = result.formal_dist
    if model._likelihood.population is not None:
        unit, pivot = model.label_scale_, model.label_pivot_
        scaled = expected.affine(1 / unit, -pivot / unit)
        mean, cov = model._likelihood.population.posterior(scaled.mean(), scaled.cov())
        expected = type(expected)(mean, cov=cov).affine(unit, pivot)
    found = sample_posterior(
        model, stars[star], result, n_steps=500, n_burn=200, label_covariance=False, random_state=0
    )
    sampling = 3 / np.sqrt(found.n_effective)
    off = (found.mean() - expected.mean()) / expected.std()
    assert np.all(np.abs(off) < 0.15 + sampling), f"off by {off} sigma"
    assert np.all(np.abs(np.log(found.dist.std() / expected.std())) < 0.12 + sampling)
    for name in ("rv", "broadening"):
        assert (getattr(found, name) is not None) == (getattr(result, name) is not None)
    if found.rv is not None:
        assert abs(found.rv.mean() - result.rv[0]) < 0.5 * result.rv_std[0]


@pytest.mark.parametrize("n_stars", [30, pytest.param(150, marks=pytest.mark.slow)])
def test_correlated_noise_is_in_the_samples(n_stars):
    """Noise of five-pixel running means: errors as if pixels were independent are too small."""
    pytest.importorskip("emcee")
    box = {"teff": (4500, 6500), "logg": (3.0, 4.8), "feh": (-0.8, 0.3)}
    train, y = make_spectra(500, n_pixels=400, snr=300, random_state=3, label_ranges=box)
    inner = {
        name: (low + 0.15 * (high - low), high - 0.15 * (high - low))
        for name, (low, high) in box.items()
    }
    clean, truth = make_spectra(
        n_stars, n_pixels=400, snr=np.inf, random_state=4, label_ranges=inner
    )
    rng = np.random.default_rng(0)
    white = rng.normal(size=(n_stars, 404)) * np.sqrt(5) * 0.02
    noise = np.lib.stride_tricks.sliding_window_view(white, 5, axis=1).mean(axis=-1)
    stars = clean.replace(flux=clean.flux + noise, ivar=np.full(clean.shape, 0.02**-2.0))
    model = TheCannon(3, label_covariance=False, scatter=0.0).fit(train, y)
    z = {}
    for length in (0, 12):
        model.set_params(inversion__correlation_length=length)
        found = sample_posterior(model, stars, n_steps=150, n_burn=80, random_state=0)
        off = (found.mean() - truth.to_numpy()) / found.dist.std()
        z[length] = 1.4826 * np.median(np.abs(off - np.median(off, axis=0)))
    counting = 2 / np.sqrt(3 * n_stars)
    assert z[0] > 1.4
    assert 0.9 - counting < z[12] < 1.1 + counting
