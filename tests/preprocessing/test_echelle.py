import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from skspec import Spectra, concatenate
from skspec.preprocessing import ContinuumNormalizer, EchelleLayout

GRID = np.linspace(5000, 5600, 1201)


@parametrize_with_checks([EchelleLayout(n_orders=3, n_pixels=5)])
def test_sklearn_checks(estimator, check):
    check(estimator)


@pytest.fixture
def stars():
    level = np.array([1.0, 30.0])[:, None]
    return Spectra(
        level * (1 + 0.3 * np.sin(GRID / 9)),
        flux_err=level * 0.01,
        wavelength=GRID,
        meta={"name": ["a", "b"], "snr": np.array([100.0, 100.0])},
    )


def test_orders_follow_the_grating(stars):
    layout = EchelleLayout(6, 300, overlap=0.3).fit(stars)
    lines = layout.order_wavelength_
    assert lines.shape == layout.blaze_.shape == (6, 300)
    assert np.all(np.diff(lines, axis=1) > 0) and np.all(np.diff(lines[:, 0]) > 0)
    assert 5000 < lines.min() < 5001 and 5599 < lines.max() < 5600
    # m lambda = const at the middle, for consecutive (not necessarily whole) m
    peak = lines[np.arange(6), layout.blaze_.argmax(axis=1)]
    m = 1 / np.diff(1 / peak[::-1]).mean() / peak
    assert_allclose(np.diff(m), -1, atol=0.02)
    # 30 % of an order is seen twice
    shared = (lines[2] >= lines[3].min()).mean()
    assert shared == pytest.approx(0.3 / 1.3, abs=0.02)


def test_blaze_function_of_a_grating(stars):
    layout = EchelleLayout(20, 50, overlap=0.0).fit(stars)
    assert layout.blaze_[:, [0, -1]].min() == pytest.approx(4 / np.pi**2, rel=0.05)
    wide = EchelleLayout(5, 400, overlap=0.9).fit(stars)
    ends = 1 / wide.order_wavelength_[:, [0, -1]]
    middle = 1 / ends.mean(axis=1)
    m = 1 / (np.diff(1 / middle[::-1]).mean() * middle)[:, None]
    X = m * (1 - middle[:, None] / wide.order_wavelength_)
    assert_allclose(wide.blaze_, np.sinc(X) ** 2, atol=0.005)
    at = np.linspace(5200, 5400, 50)
    total = sum(
        np.interp(at, x, b, left=0, right=0) for x, b in zip(wide.order_wavelength_, wide.blaze_)
    )
    assert np.all((total > 0.8) & (total < 1))  # what is missing falls on farther orders


def test_layout_of_the_result(stars):
    layout = EchelleLayout(4, 500)
    orders = layout.fit_transform(stars)
    assert orders.shape == (2, 2000)
    assert_array_equal(orders.order, np.repeat(np.arange(4), 500))
    assert_array_equal(orders.wavelength, layout.order_wavelength_.ravel())
    assert orders.meta["name"] == ["a", "b"] and orders.meta["order_scale"].shape == (2, 4)
    assert list(orders[1:].meta["name"]) == ["b"] and orders[1:].meta["order_scale"].shape == (1, 4)
    assert_allclose(np.median(orders.flux.reshape(2, 4, 500), axis=2), 1)
    assert_allclose(orders.flux[0], orders.flux[1])  # the level is gone
    image = orders.flux.reshape(2, 4, 500) * orders.meta["order_scale"][:, :, None]
    smooth = 1 + 0.3 * np.sin(layout.order_wavelength_ / 9)
    assert_allclose(image[0], smooth * layout.blaze_, atol=0.02)


def test_cubic_for_finer_pixels(stars):
    layout = EchelleLayout(4, 3000, method="cubic", normalize=None, blaze=False)
    orders = layout.fit_transform(stars)
    assert_allclose(orders.flux[0], 1 + 0.3 * np.sin(orders.wavelength / 9), atol=1e-6)
    assert "order_scale" not in orders.meta


def test_signal_to_noise_falls_with_the_blaze(stars):
    plain = stars.replace(flux=np.ones(stars.shape), flux_err=0.02)
    layout = EchelleLayout(4, 500, normalize=None).fit(plain)
    orders = layout.transform(plain)
    snr = orders.flux * np.sqrt(orders.ivar)
    width = np.gradient(layout.order_wavelength_, axis=1) / 0.5  # of the star's pixels
    expected = 50 * layout.blaze_ * np.sqrt(width)
    assert_allclose(snr, np.tile(expected.ravel(), (2, 1)), rtol=1e-6)
    free = EchelleLayout(4, 500, normalize=None, blaze=False).fit_transform(plain)
    assert_allclose(orders.ivar, free.ivar)
    normalized = EchelleLayout(4, 500).fit_transform(plain)  # which changes no S/N
    assert_allclose(normalized.flux * np.sqrt(normalized.ivar), snr)


@pytest.mark.parametrize("method", ["flux_conserving", "linear", "cubic"])
@pytest.mark.parametrize("n_pixels", [40, 300, 2000])
def test_resampling_never_gains_information(method, n_pixels):
    rng = np.random.default_rng(0)
    sigma = rng.uniform(0.01, 0.03, len(GRID))
    noise = Spectra(1 + sigma * rng.normal(size=(3000, len(GRID))), flux_err=sigma, wavelength=GRID)
    layout = EchelleLayout(2, n_pixels, overlap=0, blaze=False, normalize=None, method=method)
    out = layout.fit_transform(noise)
    seen = out.good[0]
    assert seen.mean() > 0.95
    assert np.all(out.flux_err[0, seen] > 0.93 * out.flux.std(axis=0)[seen])
    assert out.ivar[0].sum() <= 1.001 * noise.ivar[0].sum()


def test_exact_where_pixels_are_joined():
    grid = np.arange(0.5, 1200) + 5000  # pixels 5000-5001 and so on
    star = Spectra(np.ones((1, 1200)), ivar=np.linspace(1, 2, 1200), wavelength=grid)
    layout = EchelleLayout(
        1, 100, overlap=0, blaze=False, normalize=None, wavelength_range=(5000, 6200)
    )
    out = layout.fit_transform(star)
    assert_allclose(out.ivar[0], 144 / (1 / star.ivar).reshape(100, 12).sum(axis=1))


@pytest.mark.parametrize("blaze", [True, False])
def test_there_and_back(stars, blaze):
    layout = EchelleLayout(5, 900, blaze=blaze).fit(stars)
    back = layout.inverse_transform(layout.transform(stars))
    assert_allclose(back.flux, stars.flux, rtol=0.01)
    assert_array_equal(back.wavelength, GRID)
    assert back.order is None and list(back.meta) == ["name", "snr"]
    known = sum(
        np.interp(GRID, x, b**2, left=0, right=0)
        for x, b in zip(layout.order_wavelength_, layout.blaze_)
    )
    assert np.mean(abs(back.ivar / stars.ivar - known) < 0.01) > 0.98  # but where orders begin
    plain = layout.inverse_transform(layout.transform(stars.flux[:1]))
    assert isinstance(plain, np.ndarray) and plain.shape == (1, 1201)


def test_merging_weighs_by_ivar():
    star = Spectra(np.ones((1, 400)), ivar=1.0, wavelength=np.linspace(5000, 5200, 400))
    layout = EchelleLayout(2, 200, overlap=0.5, normalize=None).fit(star)
    orders = layout.transform(star)
    spoilt = orders.flux + 100.0 * (orders.order == 1)
    hidden = orders.replace(flux=spoilt, ivar=np.where(orders.order == 1, 0.0, orders.ivar))
    seen = layout.inverse_transform(hidden)
    assert_allclose(seen.flux[seen.good], 1)
    assert 0.5 < seen.good.mean() < 0.7
    assert_array_equal(seen.flux[~seen.good], 0)


def test_pixels_beyond_the_spectrum_are_padded(stars):
    layout = EchelleLayout(4, 400, wavelength_range=(4900, 5700)).fit(stars)
    orders = layout.transform(stars)
    outside = (orders.wavelength < 4999) | (orders.wavelength > 5601)
    assert outside.any()
    assert not orders.good[:, outside].any() and np.all(orders.flux[:, outside] == 0)
    assert orders.good[:, (orders.wavelength > 5001) & (orders.wavelength < 5599)].all()
    medians = [
        np.median(row[good])
        for row, good in zip(orders.flux[0].reshape(4, 400), orders.good[0].reshape(4, 400))
    ]
    assert_allclose(medians, 1)
    without = layout.transform(stars.replace(ivar=None))
    assert_array_equal(without.good, orders.good)
    assert np.all(np.isinf(without.ivar[without.good]))


def test_order_without_light_is_bad(stars):
    dark = stars.flux * (GRID < 5300) - 1.0 * (GRID >= 5300)
    orders = EchelleLayout(4, 200).fit_transform(Spectra(dark, wavelength=GRID))
    good = orders.good.reshape(2, 4, 200)
    assert good[:, :2].all() and not good[:, 3].any()
    assert np.isnan(orders.meta["order_scale"][:, 3]).all()
    back = EchelleLayout(4, 200).fit(stars).inverse_transform(orders)
    assert_allclose(back.flux[0, :100], stars.flux[0, :100], rtol=0.01)


@settings(max_examples=25, deadline=None)
@given(garbage=st.floats(-1e20, 1e20), at=st.integers(0, 1200), normalize=st.booleans())
def test_bad_pixels_change_nothing(garbage, at, normalize):
    flux = 1 + 0.1 * np.sin(np.arange(2 * 1201.0)).reshape(2, 1201)
    mask = np.zeros(flux.shape, dtype=bool)
    mask[0, at] = True
    layout = EchelleLayout(3, 500, normalize="median" if normalize else None)
    clean = layout.fit_transform(Spectra(flux, ivar=4.0, mask=mask, wavelength=GRID))
    flux[mask] = garbage
    dirty = layout.fit_transform(Spectra(flux, ivar=4.0, mask=mask, wavelength=GRID))
    assert_array_equal(clean.flux, dirty.flux)
    assert_array_equal(clean.ivar, dirty.ivar)
    assert not clean.good[0].all()


def test_without_wavelengths_orders_are_cut_by_pixel_number():
    flux = np.tile(np.arange(1.0, 81.0), (3, 1))
    layout = EchelleLayout(4, 50, overlap=0, normalize=None, blaze=False, method="linear")
    orders = layout.fit_transform(Spectra(flux))
    assert orders.wavelength is None and orders.order.max() == 3
    assert_allclose(orders.flux[0], layout.order_wavelength_.ravel() + 1)
    widths = np.ptp(layout.order_wavelength_, axis=1)
    assert_allclose(widths, widths[0])


def test_other_grids_and_unsorted_ones(stars):
    layout = EchelleLayout(3, 200).fit(stars)
    fine = np.linspace(5000, 5600, 5000)
    other = Spectra((1 + 0.3 * np.sin(fine / 9))[None], wavelength=fine)
    assert_allclose(layout.transform(other).flux, layout.transform(stars[:1]).flux, atol=0.01)
    shuffle = np.random.default_rng(0).permutation(len(GRID))
    mixed = EchelleLayout(3, 200).fit(stars[:, shuffle])
    assert_allclose(mixed.transform(stars[:, shuffle]).flux, layout.transform(stars).flux)
    back = mixed.inverse_transform(mixed.transform(stars[:, shuffle]))
    assert_allclose(back.flux, layout.inverse_transform(layout.transform(stars)).flux[:, shuffle])


def test_single_precision_stays_and_joins(stars):
    small = Spectra(
        stars.flux.astype(np.float32),
        ivar=stars.ivar.astype(np.float32),
        wavelength=GRID,
        meta=stars.meta,
    )
    orders = EchelleLayout(3, 100).fit_transform(small)
    assert orders.flux.dtype == orders.ivar.dtype == np.float32
    assert concatenate([orders, orders]).meta["order_scale"].shape == (4, 3)


def test_many_stars_come_in_batches(stars, monkeypatch):
    flux = np.repeat(stars.flux, 5, axis=0)
    mask = np.zeros(flux.shape, dtype=bool)
    mask[7, 40] = True  # the first batches have no ivar
    spectra = Spectra(flux, mask=mask, wavelength=GRID)
    layout = EchelleLayout(3, 100).fit(spectra)
    whole = layout.transform(spectra)
    monkeypatch.setattr("skspec.preprocessing._echelle._VALUES_AT_ONCE", 700)
    parts = layout.transform(spectra)
    assert_allclose(parts.flux, whole.flux, rtol=1e-12)
    assert_array_equal(parts.ivar, whole.ivar)
    assert_allclose(parts.meta["order_scale"], whole.meta["order_scale"], rtol=1e-12)


def test_each_order_is_a_segment_of_the_continuum(stars):
    pipeline = make_pipeline(EchelleLayout(3, 200), ContinuumNormalizer("chebyshev", degree=2))
    out = pipeline.fit_transform(stars)
    assert out.shape == (2, 600) and len(pipeline[-1].segments_) == 3


@pytest.mark.parametrize(
    "parameters, wavelength, order, sentence",
    [
        ({}, GRID[:6], [0, 0, 0, 1, 1, 1], "several orders already"),
        ({"wavelength_range": (5000, 5100)}, None, None, "needs spectra with wavelengths"),
        ({"wavelength_range": (5100, 5000)}, GRID[:6], None, "low < high"),
        ({}, np.arange(6.0), None, "must be positive"),
        ({"overlap": 1.0}, GRID[:6], None, "overlap"),
        ({"n_pixels": 1}, GRID[:6], None, "n_pixels"),
    ],
)
def test_mistakes_get_a_sentence(parameters, wavelength, order, sentence):
    spectra = Spectra(
        np.ones((2, 6)), wavelength=wavelength, wavelength_unit="Angstrom", order=order
    )
    with pytest.raises(ValueError, match=sentence):
        EchelleLayout(**parameters).fit(spectra)


def test_inverse_of_other_layouts_is_refused(stars):
    layout = EchelleLayout(3, 100).fit(stars)
    with pytest.raises(ValueError, match="3 orders of 100 pixels"):
        layout.inverse_transform(stars)
