import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skspec import Spectra
from skspec.networks import FluxScaler, can_train, split_stars


def scaler(spectra):
    return FluxScaler(spectra, np.random.RandomState(0))


def test_there_and_back(draw_stars):
    spectra, _ = draw_stars(60)
    fitted = scaler(spectra)
    assert fitted.shape == (1, 1, 50)
    x = fitted.tensor(spectra)
    assert x.dtype == np.float32
    assert_allclose(x.mean(axis=0), 0, atol=1e-6)
    assert 0.5 < x.std() < 1.1
    assert_allclose(fitted.flux(x), spectra.flux, rtol=1e-5)


def test_bad_pixels_are_filled_and_marked(draw_stars):
    spectra, _ = draw_stars(100, noise=0.003)
    bad = np.random.default_rng(0).random(spectra.shape) < 0.1
    bad[:, 7] = True
    holes = spectra.replace(flux=np.where(bad, 1e30, spectra.flux), mask=bad)
    fitted = scaler(holes)
    assert_array_equal(np.flatnonzero(~fitted.pixels), [7])
    assert fitted.shape == (2, 1, 49)
    x = fitted.tensor(holes)
    keep = np.arange(50) != 7
    assert_array_equal(x[:, 1] == 0, bad[:, keep])
    truth = (spectra.flux[:, keep] - fitted.mean) / fitted.scale
    filled, unfilled = (np.std((v - truth)[bad[:, keep]]) for v in (x[:, 0], 0.0))
    assert filled < 0.6 * unfilled
    assert (fitted.spectrum(x[:, :1])[:, 7] == 0).all()


def test_orders_of_unequal_length_are_rows(draw_stars):
    spectra, _ = draw_stars(30)
    order = np.repeat([72, 70, 71], [20, 10, 20])
    fitted = scaler(spectra.replace(order=order))
    assert fitted.shape == (2, 3, 20)
    x = fitted.tensor(spectra).reshape(30, 2, 3, 20)
    flat = fitted.tensor(spectra)[:, :3]
    assert_array_equal(x[0, 1].sum(axis=1), [10, 20, 20])
    assert (x[:, :, 0, 10:] == 0).all()
    alone = scaler(spectra).tensor(spectra)[:, 0]
    assert_allclose(x[:, 0, 2], alone[:, :20], rtol=1e-6)  # order 72, the first pixels
    assert_allclose(fitted.spectrum(flat), alone)


def test_noise_level(draw_stars):
    spectra, _ = draw_stars(200)
    fitted = scaler(spectra)
    level = fitted.noise_level(spectra)
    assert np.median(level) == pytest.approx(fitted.typical_noise)
    assert_allclose(
        fitted.noise_level(spectra.replace(ivar=spectra.ivar / 9)), 3 * level, rtol=1e-5
    )
    half = np.where(np.arange(50) < 25, 0, spectra.ivar)
    assert np.all(fitted.noise_level(spectra.replace(ivar=half)) > 1.2 * level)
    unknown = np.where(np.arange(50) < 25, np.inf, spectra.ivar)
    assert_allclose(fitted.noise_level(spectra.replace(ivar=unknown)), level, rtol=0.3)
    for bare in (spectra.replace(ivar=None), spectra.replace(ivar=np.inf)):
        assert_allclose(fitted.noise_level(bare), fitted.typical_noise)
    assert np.isfinite(fitted.noise_level(spectra.replace(ivar=0.0))).all()
    without = scaler(spectra.replace(ivar=None))
    assert without.photon_variance is None
    assert_allclose(without.noise_level(spectra), 1)


def test_unit_noise(draw_stars):
    spectra, _ = draw_stars(40)
    fitted = scaler(spectra)
    unit, snr = fitted.unit_noise(spectra)
    assert_allclose(snr, spectra.snr, rtol=1e-6)
    assert_allclose(
        fitted.spectrum(unit)[:] * fitted.scale / snr[:, None], spectra.flux_err, rtol=1e-5
    )
    unit, snr = fitted.unit_noise(spectra.replace(ivar=None))
    assert np.isinf(snr).all()
    assert_allclose(
        unit[:, 0] * fitted.scale, np.median(spectra.flux, axis=1)[:, None] * np.ones(50), rtol=1e-5
    )


@pytest.mark.skipif(not can_train(), reason="no PyTorch")
def test_fresh_noise(draw_stars):
    import torch

    from skspec.networks import FreshNoise

    state = torch.get_rng_state()
    clean, _ = draw_stars(2000, n_pixels=20)
    spectra = Spectra(clean.flux, flux_err=0.01)
    fitted = scaler(spectra)
    x = {"x": fitted.tensor(spectra), "noise": fitted.noise_level(spectra)}
    for snr, added, level in (("ivar", 0.01, 1.0), (20, 0.049, 5.0), (1e4, 0.0, 1.0)):
        fresh = FreshNoise(snr)
        out = fresh.once(x | fresh.inputs(fitted, spectra), seed=0)
        assert set(out) == {"x", "noise"}
        assert np.std((out["x"] - x["x"])[:, 0] * fitted.scale) == pytest.approx(added, rel=0.03)
        assert_allclose(np.median(out["noise"] / x["noise"]), level, rtol=0.03)
        again = fresh.once(x | fresh.inputs(fitted, spectra), seed=0)
        assert_array_equal(again["x"], out["x"])
    fresh = FreshNoise((20.0, 80.0))
    noise = fresh.once(x | fresh.inputs(fitted, spectra), seed=0)["noise"]
    ratio = noise / x["noise"]
    assert 1.2 < ratio.min() < 1.3
    assert 4.9 < ratio.max() < 5.1
    without = spectra.replace(ivar=None)
    with pytest.raises(ValueError, match="only where there are some.*flux, ivar"):
        FreshNoise("ivar").inputs(fitted, without)
    inputs = {"x": fitted.tensor(without)} | FreshNoise(50).inputs(fitted, without)
    out = FreshNoise(50).once(inputs, seed=0)["x"]
    assert np.std((out - inputs["x"])[:, 0] * fitted.scale) == pytest.approx(0.02, rel=0.05)
    assert torch.equal(torch.get_rng_state(), state)


def test_stars_are_split_whole(draw_stars):
    spectra, _ = draw_stars(100)
    star = np.repeat(np.arange(50), 2)
    twins = Spectra(spectra.flux, ivar=spectra.ivar, meta={"star_id": star})
    train, valid = split_stars(twins, 0.3, np.random.RandomState(0))
    assert not set(star[train]) & set(star[valid])
    assert (len(train), len(valid)) == (70, 30)
    blind = spectra.replace(ivar=np.where(np.arange(100)[:, None] == 3, 0, spectra.ivar))
    train, valid = split_stars(blind, 0.1, np.random.RandomState(0))
    assert (len(train), len(valid)) == (79, 20)
    assert 3 not in {*train, *valid}
    with pytest.raises(
        ValueError, match="at least 2 stars to train on and 1 to validate, got 2 sam"
    ):
        split_stars(spectra[:2], 0.1, np.random.RandomState(0))
