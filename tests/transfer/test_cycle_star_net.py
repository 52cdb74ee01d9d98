"""CycleStarNet: two domains of a small world whose gap is known."""

import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.estimator_checks import (
    check_estimator_cloneable,
    check_estimator_repr,
    check_get_params_invariance,
    check_no_attributes_set_in_init,
    check_set_params,
)

pytest.importorskip("torch")

from skspec import Spectra  # noqa: E402
from skspec.transfer import CycleStarNet, PixelCorrection, TranslationWarning  # noqa: E402
from skspec.transfer._guard_rails import GuardRails  # noqa: E402
from skspec.transfer._spaces import ComponentSpace, PixelSpace  # noqa: E402

P = 60
WAVELENGTH = np.linspace(5000, 5059, P)
SMALL = {"architecture_params": {"hidden": 32, "n_components": 5}, "n_shared": 4, "random_state": 0}


def gradients():
    world = np.random.default_rng(0)
    return 0.06 * world.uniform(0.5, 1.5, (3, P)) * world.choice([-1, 1], (3, P))


def flux_of(labels, broadening=None):
    """Synthetic flux, or that of observed stars whose lines respond otherwise, and which are broad."""
    way = gradients()
    if broadening is None:
        return 0.8 + labels @ way[:2]
    way[:2, : P // 2] *= 0.85
    way[1, P // 2 :] *= 1.3
    flux = 0.78 + labels @ way[:2] + 0.3 * broadening[:, None] * way[2]
    return flux + 0.02 * labels[:, :1] ** 2


def stars(n, seed, observed=False, noise=0.01, bad=0.0):
    """Labels are skewed: nothing but their distribution tells which way is up."""
    rng = np.random.default_rng(seed)
    labels = np.column_stack([rng.uniform(-1, 1, n), 0.5 * rng.exponential(size=n) - 0.5])
    broadening = rng.uniform(-1, 1, n)
    if not observed:
        return Spectra(flux_of(labels), wavelength=WAVELENGTH), labels
    flux = flux_of(labels, broadening)
    flux = flux + noise * rng.normal(size=flux.shape)
    mask = rng.random(flux.shape) < bad
    flux[mask] = 1e3
    spectra = Spectra(
        flux,
        flux_err=np.full(flux.shape, noise),
        mask=mask,
        wavelength=WAVELENGTH,
        meta={"broadening": broadening},
    )
    return spectra, labels


@pytest.fixture(scope="module")
def trained():
    synthetic, labels = stars(600, 1)
    observed, truth = stars(600, 2, observed=True, bad=0.02)
    # five components of S/N 50: distances would drown what the critics say
    weights = {"synthetic_weight": 0.01, "observed_weight": 0.03}
    net = CycleStarNet(**SMALL, **weights, max_iter=1500).fit(synthetic, observed)
    return net, synthetic, labels, observed, truth


def gap(spectra, labels):
    """Root-mean-square difference to observed spectra of the same labels, of medium breadth."""
    return np.sqrt(np.mean((spectra.flux - flux_of(labels, np.zeros(len(labels)))) ** 2))


@pytest.mark.parametrize(
    "check",
    [
        check_no_attributes_set_in_init,
        check_get_params_invariance,
        check_set_params,
        check_estimator_cloneable,
        check_estimator_repr,
    ],
)
def test_sklearn_checks_that_do_not_fit(check):
    check("CycleStarNet", CycleStarNet())


@pytest.mark.slow
def test_translations_are_like_observed_spectra_of_the_same_labels(trained):
    net, synthetic, labels, observed, truth = trained
    pixels = PixelCorrection().fit(synthetic, observed)
    new, new_labels = stars(300, 5)
    before, cheap, after = (
        gap(each, new_labels) for each in (new, pixels.transform(new), net.transform(new))
    )
    assert after < before / 2 and after < 0.9 * cheap
    # and back
    clean, clean_labels = stars(300, 6, observed=True)
    there = net.inverse_transform(clean)
    assert np.sqrt(np.mean((there.flux - flux_of(clean_labels)) ** 2)) < before / 2


@pytest.mark.slow
def test_split_numbers_are_what_only_observed_spectra_have(trained):
    net, _, _, observed, truth = trained
    assert net.split_.shape == (600, 1)
    rho = np.corrcoef(net.split_[:, 0], observed.meta["broadening"])[0, 1]
    assert abs(rho) > 0.9
    assert np.all(net.leakage(observed, truth) < 0.1)
    assert net.leakage(observed, observed.meta["broadening"])[0] > 0.8
    two = net.transform(stars(5, 7)[0], split=np.quantile(net.split_, 0.9, axis=0))
    assert np.abs(two.flux - net.transform(stars(5, 7)[0]).flux).max() > 0.005


@pytest.mark.slow
def test_guard_rails_of_a_good_translation(trained):
    rails = trained[0].guard_rails_
    assert all("AUC" in sentence for sentence in rails.failures)  # five components are not enough
    assert rails.identity < 1 and rails.cycle < 1.5
    assert rails.auc < rails.auc_pixel_correction < rails.auc_before


@pytest.mark.slow
def test_interruptions_lose_nothing(tmp_path, monkeypatch):
    from skspec.networks import _adversarial

    synthetic, observed = stars(60, 1)[0], stars(60, 2, observed=True)[0]
    settings = {**SMALL, "max_iter": 250, "batch_size": 16}
    quiet(CycleStarNet(**settings), synthetic, observed)
    whole = quiet(CycleStarNet(**settings), synthetic, observed).transform(synthetic)
    file = tmp_path / "net.ckpt"
    block, done = _adversarial._Duel.block, []

    def killed(duel):
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(block(duel))

    monkeypatch.setattr(_adversarial._Duel, "block", killed)
    monkeypatch.setattr(_adversarial.StateFile, "is_due", True)
    with pytest.raises(KeyboardInterrupt):
        CycleStarNet(**settings, checkpoint=file).fit(synthetic, observed)
    monkeypatch.undo()
    net = quiet(CycleStarNet(**settings, checkpoint=file), synthetic, observed)
    assert_array_equal(net.transform(synthetic).flux, whole.flux)
    assert net.n_iter_ == 250 and len(net.history_["critic"]) == 3
    stamp = Path(file).stat().st_mtime_ns
    again = quiet(CycleStarNet(**settings, checkpoint=file), synthetic, observed)
    assert_array_equal(again.transform(synthetic).flux, whole.flux)
    assert Path(file).stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="another training: .*batch_size was 16 and is 8"):
        CycleStarNet(**{**settings, "batch_size": 8}, checkpoint=file).fit(synthetic, observed)


def quiet(net, synthetic, observed, **labels):
    """Trained for too short to pass its guard rails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TranslationWarning)
        return net.fit(synthetic, observed, **labels)


def test_short_trainings():
    """Everything that needs no good translation: repeatable, untouched input, arrays, bad pixels."""
    synthetic, observed = stars(40, 1)[0], stars(40, 2, observed=True, bad=0.05)[0]
    # a pixel that nobody knows
    ivar = observed.ivar.copy()
    ivar[:, 3] = 0
    observed = observed.replace(ivar=ivar)
    synthetic = synthetic.replace(mask=np.arange(P) == 3)
    copies = [each.flux.copy() for each in (synthetic, observed)]
    settings = {**SMALL, "max_iter": 20, "batch_size": 16}
    net, other = (quiet(CycleStarNet(**settings), synthetic, observed) for _ in range(2))
    for each, copy in zip((synthetic, observed), copies):
        assert_array_equal(each.flux, copy)
    out = net.transform(synthetic)
    assert_array_equal(out.flux, other.transform(synthetic).flux)
    assert np.all(out.ivar[:, 3] == 0) and np.all(out.ivar[:, 4] > 0)
    assert_array_equal(out.wavelength, WAVELENGTH)
    assert_allclose(net.transform(synthetic[:7]).flux, out.flux[:7], rtol=1e-9)
    assert net.inverse_transform(observed).meta.keys() == observed.meta.keys()
    plain = np.where(synthetic.good, synthetic.flux, 0.8)
    assert isinstance(net.transform(plain), np.ndarray)
    assert net.encode_shared(observed).shape == (40, 4)
    assert net.encode_shared(synthetic, "synthetic").shape == (40, 4)
    assert net.reconstruct(observed).shape == observed.shape
    changed = observed.replace(flux=np.where(observed.good, observed.flux, -7.0))
    assert_allclose(net.encode_split(changed), net.encode_split(observed), rtol=1e-9)
    draws = net.sample_split(50, 0)
    assert draws.shape == (50, 1) and np.isin(draws, net.split_).all()
    assert set(net.history_) == {
        "synthetic",
        "synthetic_cycle",
        "observed",
        "observed_cycle",
        "adversarial",
        "critic",
    }
    with pytest.raises(ValueError, match=r"split has shape \(3,\); for 40 spectra .* \(40, 1\)"):
        net.transform(synthetic, split=np.zeros(3))


@pytest.mark.slow
def test_convolutions():
    rng = np.random.default_rng(0)
    line = np.exp(-0.5 * ((np.arange(1540) - 700) / 30) ** 2)
    depth = rng.uniform(0.1, 0.5, (30, 1))
    synthetic = Spectra(1 - depth * line)
    observed = Spectra(1 - 0.8 * depth * line + 0.01 * rng.normal(size=(30, 1540)), flux_err=0.01)
    net = CycleStarNet(3, 2, architecture="convolutional", max_iter=4, batch_size=4, random_state=0)
    quiet(net, synthetic, observed)
    assert net.transform(synthetic).shape == (30, 1540)
    assert net.encode_shared(observed).shape == (30, 3 * 2)
    assert net.split_.shape == (30, 2 * 2)
    assert net.n_iter_ == 4


def test_divergence_at_once():
    synthetic, observed = stars(40, 1)[0], stars(40, 2, observed=True)[0]
    net = CycleStarNet(**SMALL, max_iter=10, learning_rate_init=1e12, batch_size=8)
    with pytest.raises(ValueError, match="diverged in its first steps: lower learning_rate"):
        net.fit(synthetic, observed)


def test_divergence_is_told_and_the_best_state_kept(monkeypatch):
    from skspec.networks import _adversarial

    step = _adversarial._Duel.step

    def exploding(duel):
        return step(duel) * (100.0 if duel.history else 1.0)

    monkeypatch.setattr(_adversarial._Duel, "step", exploding)
    monkeypatch.setattr(_adversarial, "BLOCK", 5)
    synthetic, observed = stars(40, 1)[0], stars(40, 2, observed=True)[0]
    net = CycleStarNet(**SMALL, max_iter=400, batch_size=8)
    with (
        pytest.warns(ConvergenceWarning, match="diverged after .* learning_rate_init=0.001"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", TranslationWarning)
        net.fit(synthetic, observed)
    assert net.diverged_
    assert np.isfinite(net.transform(synthetic).flux).all()


def test_labels_that_are_not_distributed_alike():
    synthetic, labels = stars(200, 1)
    observed, truth = stars(200, 2, observed=True)
    net = CycleStarNet(**SMALL, max_iter=5)
    with pytest.warns(TranslationWarning, match=r"label_1 is distributed differently .* 0\.6"):
        net.fit(synthetic, observed, synthetic_labels=labels, observed_labels=truth + [0.0, 0.5])
    assert net.guard_rails_.match["label_0"][0] < 0.1


def test_named_labels_in_another_order():
    synthetic, labels = stars(40, 1)
    observed, truth = stars(40, 2, observed=True)
    named = pd.DataFrame(labels, columns=["teff", "feh"])
    others = pd.DataFrame(truth, columns=["teff", "feh"])
    expected = GuardRails.before(synthetic, observed, named, others).match
    assert expected["teff"] != expected["feh"]
    swapped = others[["feh", "teff"]]
    assert GuardRails.before(synthetic, observed, named, swapped).match == expected
    with pytest.raises(ValueError, match="observed labels have no column feh but logg"):
        CycleStarNet(**SMALL, max_iter=1).fit(
            synthetic,
            observed,
            synthetic_labels=named,
            observed_labels=others.rename(columns={"feh": "logg"}),
        )


@pytest.mark.parametrize("ivar", [0.0, np.inf])
def test_most_stars_blind_or_of_unknown_noise(ivar):
    observed = stars(60, 2, observed=True)[0]
    most = np.arange(60)[:, None] < 40
    observed = observed.replace(ivar=np.where(most, ivar, observed.ivar))
    space = ComponentSpace(stars(60, 1)[0], observed, np.random.RandomState(0), 5, 0.005)
    assert np.isfinite(space.components).all() and len(space.components) == 5
    assert all(np.isfinite(part).all() for part in space.arrays(observed))


@pytest.mark.parametrize(("kind", "times"), [(ComponentSpace, 2), (PixelSpace, 4)])
def test_many_stars_take_little_memory(kind, times):
    few = stars(60, 2, observed=True)[0]
    more = (5, 0.005) if kind is ComponentSpace else (0.005,)
    space = kind(stars(60, 1)[0], few, np.random.RandomState(0), *more)
    many = stars(20_000, 3, observed=True)[0]
    tracemalloc.start()
    parts = space.arrays(many)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < times * many.flux.nbytes
    for whole, part in zip(parts, space.arrays(many[19_990:])):
        assert_allclose(whole[19_990:], part, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [ComponentSpace, PixelSpace])
def test_scales_of_many_stars_take_little_memory(kind):
    more = (5, 0.005) if kind is ComponentSpace else (0.005,)
    domains = stars(20_000, 2)[0], stars(20_000, 3, observed=True)[0]
    tracemalloc.start()
    kind(*domains, np.random.RandomState(0), *more)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * domains[0].flux.nbytes


def test_any_meta_and_domains_that_there_are_not(trained):
    net = trained[0]
    observed = stars(30, 5, observed=True)[0]
    named = observed.replace(meta={"s": np.arange(30)})
    assert_array_equal(net.encode_split(named), net.encode_split(observed))
    assert_array_equal(net.inverse_transform(named).flux, net.inverse_transform(observed).flux)
    for function in (net.reconstruct, net.encode_shared):
        with pytest.raises(ValueError, match="'observed' or 'synthetic', not 'real'"):
            function(observed, "real")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, o: (s[:10], o), "10 synthetic and 40 observed spectra: .* at least 20"),
        (lambda s, o: (s[:, :50], o), "50 pixels, the observed ones 60"),
        (lambda s, o: (s, o.replace(wavelength=o.wavelength + 1)), "another grid"),
        (lambda s, o: (s, o.replace(ivar=0.0)), "Every pixel of every observed spectrum is bad"),
    ],
)
def test_sets_that_cannot_be_used(change, message):
    pair = change(stars(40, 1)[0], stars(40, 2, observed=True)[0])
    with pytest.raises(ValueError, match=message):
        CycleStarNet(**SMALL, max_iter=1).fit(*pair)


def test_not_fitted_and_wrong_parameters():
    synthetic, labels = stars(30, 1)
    with pytest.raises(NotFittedError):
        CycleStarNet().transform(synthetic)
    with pytest.raises(ValueError, match="'architecture' parameter"):
        CycleStarNet(architecture="vgg").fit(synthetic, synthetic)
    for architecture, known in (("dense", "hidden, n_components"), ("convolutional", "nothing")):
        net = CycleStarNet(architecture=architecture, architecture_params={"width": 3})
        with pytest.raises(ValueError, match=f"no parameter width; .* may hold {known}"):
            net.fit(synthetic, synthetic)
    with pytest.raises(ValueError, match="validation_fraction=0.9 leaves 3 of 30 spectra"):
        CycleStarNet(**SMALL, validation_fraction=0.9).fit(synthetic, synthetic)
    with pytest.raises(ValueError, match="random_state"):
        CycleStarNet(checkpoint="x.ckpt").fit(synthetic, synthetic)
    with pytest.raises(ValueError, match="labels of both sets, or of none"):
        CycleStarNet(**SMALL).fit(synthetic, synthetic, synthetic_labels=labels)
