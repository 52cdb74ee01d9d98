import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from skspec import Spectra, predict_dist
from skspec.datasets import load_spectra, make_spectra
from skspec.forward import TheCannon
from skspec.metrics import coverage
from skspec.preprocessing import ContinuumNormalizer, EchelleLayout, Resampler

DATA = Path(os.environ.get("SKSPEC_DATA", Path(__file__).parents[3] / "shared" / "data"))
REAL = DATA / "optical_common" / "optical_common.npz"
METHODS = ["flux_conserving", "linear", "cubic"]


@parametrize_with_checks([Resampler()])
def test_sklearn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("method", METHODS)
def test_plain_arrays_with_input_wavelength(method):
    resampler = Resampler([2.0, 3.0], method=method, input_wavelength=np.arange(6.0))
    flux = np.tile(np.arange(6.0), (4, 1))
    out = resampler.fit_transform(flux)
    assert isinstance(out, np.ndarray)
    assert_allclose(out, np.tile([2.0, 3.0], (4, 1)))
    assert list(resampler.get_feature_names_out()) == ["resampler0", "resampler1"]


@pytest.fixture
def grids():
    rng = np.random.default_rng(0)
    return np.sort(rng.uniform(5000, 5100, 60)), np.linspace(5010, 5090, 25)


def test_identity_returns_everything():
    spectra = Spectra(
        np.ones((2, 4)),
        ivar=2.0,
        wavelength_unit="Angstrom",
        wavelength=np.arange(4),
        order=[0, 0, 1, 1],
    )
    out = Resampler().fit_transform(spectra)
    assert_array_equal(out.order, spectra.order)
    assert_array_equal(out.ivar, spectra.ivar)


def test_flux_conserving_integral_and_slow_formula(grids):
    old, new = grids
    flux = np.random.default_rng(1).uniform(0.5, 1.5, (3, 60))
    matrix = (
        Resampler(new)
        .fit(Spectra(flux, wavelength_unit="Angstrom", wavelength=old))
        .matrix_.toarray()
    )

    def edges(grid):
        middle = 0.5 * (grid[1:] + grid[:-1])
        return np.r_[2 * grid[0] - middle[0], middle, 2 * grid[-1] - middle[-1]]

    a, b = edges(old), edges(new)
    overlap = np.array(
        [[max(0, min(b[i + 1], a[j + 1]) - max(b[i], a[j])) for j in range(60)] for i in range(25)]
    )
    assert_allclose(matrix, overlap / np.diff(b)[:, None], atol=1e-12)
    everything = np.linspace(old[0] - 20, old[-1] + 20, 100)
    conserved = (
        Resampler(everything).fit(Spectra(flux, wavelength_unit="Angstrom", wavelength=old)).matrix_
        @ flux.T
    )
    assert_allclose(np.diff(edges(everything)) @ conserved, flux @ np.diff(a))


def test_linear_is_numpy_interp(grids):
    old, new = grids
    flux = np.random.default_rng(2).normal(size=(3, 60))
    out = Resampler(new, method="linear").fit_transform(
        Spectra(flux, wavelength_unit="Angstrom", wavelength=old)
    )
    assert_allclose(out.flux, [np.interp(new, old, f) for f in flux])


def test_cubic_is_exact_for_cubics(grids):
    old, new = grids
    flux = np.polynomial.Polynomial([1, 0.2, -0.03, 0.001])(old - 5050)[None]
    expected = np.polynomial.Polynomial([1, 0.2, -0.03, 0.001])(new - 5050)
    out = Resampler(new, method="cubic").fit_transform(
        Spectra(flux, wavelength_unit="Angstrom", wavelength=old)
    )
    assert_allclose(out.flux[0], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_same_grid_changes_nothing(method, grids):
    old, _ = grids
    rng = np.random.default_rng(3)
    spectra = Spectra(
        rng.normal(size=(2, 60)),
        ivar=rng.uniform(1, 2, (2, 60)),
        mask=rng.random((2, 60)) < 0.2,
        wavelength_unit="Angstrom",
        wavelength=old,
    )
    out = Resampler(old, method=method).fit_transform(spectra)
    assert_array_equal(out.good, spectra.good)
    assert_allclose(out.flux[out.good], spectra.flux[out.good])
    assert_allclose(out.ivar, spectra.ivar)


@pytest.mark.parametrize("method", METHODS)
def test_variance_is_that_of_noise_sent_through(method, grids):
    old, new = grids
    rng = np.random.default_rng(4)
    sigma = rng.uniform(0.1, 1, 60)
    noise = Spectra(
        sigma * rng.normal(size=(20000, 60)),
        flux_err=sigma,
        wavelength_unit="Angstrom",
        wavelength=old,
    )
    out = Resampler(new, method=method).fit_transform(noise)
    seen = out.good[0]
    assert_allclose(out.flux_err[0, seen], out.flux.std(axis=0)[seen], rtol=0.03)


@settings(max_examples=30, deadline=None)
@given(
    value=st.floats(-1e20, 1e20),
    method=st.sampled_from(METHODS),
    bad_fraction=st.sampled_from([0.0, 0.05, 0.4]),
    errors=st.booleans(),
)
def test_flux_of_bad_pixels_does_not_matter(value, method, bad_fraction, errors):
    rng = np.random.default_rng(5)
    old, new = np.linspace(0, 10, 41), np.linspace(1, 9, 17)
    mask = rng.random((3, 41)) < 0.2
    flux, ivar = rng.normal(size=(3, 41)), rng.uniform(1, 2, (3, 41)) if errors else None
    resampler = Resampler(new, method=method, bad_fraction=bad_fraction)
    clean = resampler.fit_transform(
        Spectra(flux, ivar=ivar, mask=mask, wavelength_unit="Angstrom", wavelength=old)
    )
    dirty = Spectra(
        np.where(mask, value, flux),
        ivar=ivar,
        mask=mask,
        wavelength_unit="Angstrom",
        wavelength=old,
    )
    out = resampler.fit_transform(dirty)
    assert_array_equal(out.flux, clean.flux)
    assert_array_equal(out.ivar, clean.ivar)
    assert (out.ivar == 0).any()


@pytest.mark.parametrize("method", METHODS)
def test_bad_pixels_spread_only_as_far_as_their_weight(method):
    grid = np.arange(20.0)
    spectra = Spectra(
        np.ones((1, 20)), mask=grid == 10, wavelength_unit="Angstrom", wavelength=grid
    )
    out = Resampler(grid[2:-2] + 0.5, method=method).fit_transform(spectra)
    bad = out.wavelength[~out.good[0]]
    reach = 2 if method == "cubic" else 1
    assert bad.size and np.all(np.abs(bad - 10) < reach)
    assert_allclose(out.flux[out.good], 1)


@pytest.mark.parametrize("method", METHODS)
def test_outside_is_bad(method):
    spectra = Spectra(
        np.ones((2, 11)), wavelength_unit="Angstrom", wavelength=np.arange(11.0), ivar=1.0
    )
    out = Resampler(np.arange(-5.0, 16), method=method).fit_transform(spectra)
    inside = (out.wavelength >= 0) & (out.wavelength <= 10)
    assert_array_equal(out.good, np.tile(inside, (2, 1)))


def test_unsorted_pixels(grids):
    old, new = grids
    flux = np.sin(old / 7)[None]
    shuffle = np.random.default_rng(6).permutation(60)
    straight = Resampler(new).fit_transform(Spectra(flux, wavelength=old))
    mixed = Spectra(flux[:, shuffle], wavelength=old[shuffle], order=np.zeros(60, int))
    out = Resampler(new).fit_transform(mixed)
    assert_allclose(out.flux, straight.flux)
    assert out.order is None


# -- holes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_no_pixel_across_a_hole(method):
    old = np.r_[np.arange(5000.0, 5100), np.arange(5300.0, 5400)]
    flux = np.where(old < 5200, 1.0, 2.0) + 0.1 * np.sin(old)
    new = np.arange(5000.0, 5399, 2)
    out = Resampler(new, method=method).fit_transform(
        Spectra(flux[None], flux_err=0.1, wavelength=old)
    )
    seen = (new <= 5099) | (new >= 5300)
    if method == "flux_conserving":  # of the first pixel on either side a quarter is missing
        seen &= ~np.isin(new, [5000, 5300])
    assert_array_equal(out.good[0], seen)
    assert_array_equal(out.flux[~out.good], 0)
    assert out.flux[out.good].min() > 0.85 and out.flux[out.good].max() < 2.15


@pytest.fixture
def holes():
    """300 pixels, and which of them are missing: one, two, three, forty, and the last."""
    missing = np.zeros(300, bool)
    for first, end in ((20, 23), (60, 100), (150, 160), (298, 300)):
        missing[first:end] = True
    return missing


@pytest.mark.parametrize("phase", [0.0, 0.3])
@pytest.mark.parametrize("step", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("grid", ["linear", "log"])
def test_hole_of_missing_pixels_is_that_of_bad_ones(grid, step, phase, holes):
    make = (lambda at: 5000 + at) if grid == "linear" else (lambda at: 5000 * np.exp(1e-4 * at))
    old, new = make(np.arange(300.0)), make(np.arange(phase + 1, 299, step))
    rng = np.random.default_rng(0)
    full = Spectra(rng.normal(size=(3, 300)), ivar=rng.uniform(1, 2, (3, 300)), wavelength=old)
    resampler = Resampler(new)
    masked = resampler.fit_transform(full.replace(mask=holes))
    cut = resampler.fit_transform(full[:, ~holes])
    assert_array_equal(cut.good, masked.good)
    assert 0.1 < np.mean(~cut.good) < 0.3
    assert_allclose(cut.flux, masked.flux, rtol=1e-3, atol=1e-3)
    assert_allclose(cut.ivar, masked.ivar, rtol=1e-3)


@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_interpolation_stays_on_one_side_of_a_hole(method, holes):
    old, new = np.arange(300.0), np.arange(0.5, 299)
    step = np.where(old < 80, 0.0, 100.0)
    spectra = Spectra(step[None], wavelength_unit="Angstrom", wavelength=old)[:, ~holes]
    out = Resampler(new, method=method).fit_transform(spectra)
    between = ~holes[:-1] & ~holes[1:]
    assert_array_equal(out.good[0], between)
    assert_allclose(out.flux[0], np.where(between & (new > 80), 100, 0), atol=1e-9)


def test_new_grid_with_a_hole():
    old, new = np.arange(0.0, 400), np.r_[np.arange(0.0, 100, 2), np.arange(300.0, 400, 2)]
    out = Resampler(new).fit_transform(
        Spectra((old**2)[None], wavelength_unit="Angstrom", wavelength=old)
    )
    assert_allclose(out.flux[0, 1:-1], new[1:-1] ** 2, atol=1)  # pixels two wide at its rims, too


def test_max_gap_is_in_pixels():
    old, new = np.delete(np.arange(30.0), [10, 11, 12, 13]), np.arange(5.0, 25)
    spectra = Spectra(np.ones((1, 26)), wavelength_unit="Angstrom", wavelength=old)
    bad = ~Resampler(new, max_gap=4.9).fit_transform(spectra).good
    assert_array_equal(new[bad[0]], [10, 11, 12, 13])
    assert Resampler(new, max_gap=5.1).fit_transform(spectra).good.all()
    assert Resampler(new, max_gap=np.inf).fit_transform(spectra).good.all()


def test_layout_of_orders_knows_holes():
    grid = np.r_[np.arange(5000.0, 5200), np.arange(5300.0, 5500)]
    star = Spectra(np.ones((1, 400)), ivar=1.0, wavelength=grid)
    orders = EchelleLayout(3, 100, blaze=False, normalize=None).fit_transform(star)
    inside = (orders.wavelength > 5204) & (orders.wavelength < 5295)
    assert inside.sum() > 20 and not orders.good[0, inside].any()
    outside = (orders.wavelength < 5196) | (orders.wavelength > 5303)
    assert orders.good[0, outside].mean() > 0.95


def hole_and_mask(spectra, labels, train, hole):
    """Distributions of stars with pixels missing, and with the same masked; model of the full grid."""
    grid = spectra.wavelength
    resampler = Resampler(np.linspace(grid[2], grid[-3], len(grid) // 2)).fit(spectra)
    model = TheCannon(2).fit(resampler.transform(spectra[train]), labels[train])
    masked = spectra[~train].replace(mask=hole)
    return [
        predict_dist(model, resampler.transform(part))
        for part in (spectra[~train][:, ~hole], masked)
    ]


def test_coverage_with_a_hole_is_that_with_a_mask():
    spectra, labels = make_spectra(300, n_pixels=300, random_state=0)
    train = np.arange(300) < 200
    hole = np.abs(np.arange(300) - 150) < 50
    missing, masked = hole_and_mask(spectra, labels, train, hole)
    assert_allclose(missing.mean(), masked.mean(), rtol=1e-3, atol=1e-3)
    assert_allclose(missing.std(), masked.std(), rtol=1e-3)
    inside = np.abs(missing.mean() - labels[~train]) < missing.std()
    assert np.all(inside.mean() > 0.5)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_file(), reason="SKSPEC_DATA: no real spectra here")
def test_coverage_with_a_hole_on_miles():
    names = ["teff", "logg", "feh"]
    spectra, labels = load_spectra(REAL, names)
    keep = (np.asarray(spectra.meta["survey"]) == "MILES") & labels["teff"].between(4000, 7000)
    spectra, labels = spectra[keep.to_numpy()], labels[keep].reset_index(drop=True)
    train = np.random.default_rng(0).random(len(labels)) < 0.7
    hole = np.abs(spectra.wavelength - np.median(spectra.wavelength)) < 100
    missing, masked = hole_and_mask(spectra, labels, train, hole)
    found, expected = (coverage(labels[~train], dist, 0.6827) for dist in (missing, masked))
    assert_allclose(found, expected, atol=0.01)


# -- orders ----------------------------------------------------------------------------------------


def echelle(n, rng, *, errors=True, n_orders=4, n_pixels=60):
    """Overlapping orders, red first and the pixels of some descending."""
    parts = [5000 + 40 * k + np.sort(rng.uniform(0, 55, n_pixels)) for k in range(n_orders)][::-1]
    grid = np.concatenate([part[::-1] if k % 2 else part for k, part in enumerate(parts)])
    order = np.repeat(np.arange(100, 100 + n_orders), n_pixels)
    ivar = rng.uniform(1, 100, (n, len(grid))) if errors else None
    flux = np.sin(grid / 9) + rng.normal(size=(n, len(grid))) * 0.05
    mask = rng.random(flux.shape) < 0.05
    return Spectra(flux, ivar=ivar, mask=mask, wavelength=grid, order=order)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    method=st.sampled_from(METHODS),
    errors=st.booleans(),
    step=st.floats(0.3, 4),
)
def test_orders_are_a_loop_over_orders(seed, method, errors, step):
    spectra = echelle(3, np.random.default_rng(seed), errors=errors)
    new = np.arange(4990.0, 5190, step)
    out = Resampler(new, method=method).fit_transform(spectra)
    top, total = np.zeros(out.shape), np.zeros(out.shape)
    for number in np.unique(spectra.order):
        own = spectra[:, spectra.order == number].replace(order=None)
        part = Resampler(new, method=method).fit_transform(own)
        weight = part.ivar if errors else part.good.astype(float)
        top, total = top + weight * part.flux, total + weight
    assert out.order is None
    assert_array_equal(out.good, total > 0)
    assert_allclose(out.flux[out.good], (top / np.maximum(total, 1e-99))[out.good], atol=1e-12)
    assert_allclose(out.ivar, total if errors else np.where(total > 0, np.inf, 0.0))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    method=st.sampled_from(METHODS),
    level=st.floats(0.1, 1e4),
    step=st.floats(0.3, 4),
    errors=st.booleans(),
)
def test_constant_flux_stays_and_holes_stay_empty(seed, method, level, step, errors):
    rng = np.random.default_rng(seed)
    spectra = echelle(2, rng, errors=errors)
    hole = (spectra.wavelength > 5085) & (spectra.wavelength < 5125)
    spectra = spectra.replace(flux=np.full(spectra.shape, level))[:, ~hole]
    out = Resampler(np.arange(4990.0, 5190, step), method=method).fit_transform(spectra)
    assert_allclose(out.flux[out.good], level)
    reach = step + 4 if method == "flux_conserving" else 0.0  # pixels of either grid
    inside = (out.wavelength > 5085 + reach) & (out.wavelength < 5125 - reach)
    assert inside.any() and not out.good[:, inside].any()
    assert out.good.any()


def test_nothing_between_two_orders():
    """The end of one order and the start of the next are neighbours of one pixel."""
    grid, order = np.arange(20.0), np.repeat([0, 1], 10)
    spectra = Spectra(
        np.where(order, 5.0, 1.0)[None], wavelength_unit="Angstrom", wavelength=grid, order=order
    )
    for method in METHODS:
        out = Resampler(np.arange(0.5, 19), method=method).fit_transform(spectra)
        assert_array_equal(out.flux[0], np.repeat([1.0, 0.0, 5.0], [9, 1, 9]))


def test_overlapping_orders_are_weighted():
    grid, order = np.tile(np.arange(10.0), 3), np.repeat([2, 0, 1], 10)  # each wavelength thrice
    flux, ivar = np.repeat([1.0, 2.0, 9.0], 10), np.repeat([3.0, 1.0, 0.0], 10)
    resampler = Resampler(np.arange(2.0, 8))
    spectra = Spectra(
        flux[None], ivar=ivar, wavelength_unit="Angstrom", wavelength=grid, order=order
    )
    known = resampler.fit_transform(spectra)
    assert_allclose(known.flux, 1.25)
    assert_allclose(known.ivar, 4)
    plain = resampler.transform(spectra.replace(ivar=None))
    assert_allclose(plain.flux, 4)
    assert plain.ivar is None
    ivar[:10] = np.inf
    mixed = resampler.transform(spectra.replace(ivar=ivar))
    assert_allclose(mixed.flux, 1.5)
    assert_allclose(mixed.ivar, 4)  # what is known of the noise of a mean of two
    with pytest.raises(ValueError, match="twice in order 1"):
        resampler.transform(spectra.replace(order=np.repeat([2, 1, 1], 10)))


def test_orders_of_the_fit_hold_for_what_has_no_wavelengths():
    spectra = echelle(2, np.random.default_rng(1))
    resampler = Resampler(np.arange(5000.0, 5180)).fit(spectra)
    out = resampler.transform(spectra)
    bare = resampler.transform(spectra.replace(wavelength=None, order=None))
    assert_array_equal(bare.ivar, out.ivar)
    assert resampler.transform(spectra.flux).shape == out.shape
    one = resampler.transform(spectra.replace(order=None))
    assert not np.allclose(one.flux, out.flux)


def test_other_instruments_come_to_the_same_grid(grids):
    old, new = grids
    resampler = Resampler(new, method="cubic").fit(
        Spectra(np.ones((1, 60)), wavelength_unit="Angstrom", wavelength=old)
    )
    other = np.linspace(5000, 5100, 500)
    out = resampler.transform(
        Spectra(np.sin(other / 9)[None], wavelength_unit="Angstrom", wavelength=other)
    )
    assert_allclose(out.flux[0], np.sin(new / 9), atol=1e-6)
    pipeline = make_pipeline(Resampler(new), ContinuumNormalizer(width=20))
    pipeline.fit(Spectra(np.ones((1, 60)), wavelength_unit="Angstrom", wavelength=old))
    assert pipeline.transform(
        Spectra(np.ones((2, 500)), wavelength_unit="Angstrom", wavelength=other)
    ).shape == (2, 25)


def test_float32_meta_and_inputs_kept(grids):
    old, new = grids
    flux = np.ones((2, 60), dtype=np.float32)
    spectra = Spectra(
        flux, ivar=1.0, wavelength_unit="Angstrom", wavelength=old, meta={"name": ["a", "b"]}
    )
    out = Resampler(new).fit_transform(spectra)
    assert out.flux.dtype == np.float32
    assert out.meta["name"] == ["a", "b"]
    assert_array_equal(flux, 1)


@pytest.mark.parametrize(
    "parameters, wavelength, sentence",
    [
        ({"wavelength": [1, 2]}, None, "does not know the wavelengths"),
        ({"wavelength": [2, 1]}, np.arange(5), "must increase"),
        ({"wavelength": [1]}, np.arange(5), "at least two"),
        ({"wavelength": [1, 2]}, [0, 1, 1, 2, 3], "twice"),
        ({"wavelength": [1, 2], "input_wavelength": [1, 2]}, None, "for 5 pixels"),
        ({"bad_fraction": 1.5}, None, "bad_fraction"),
    ],
)
def test_mistakes_get_a_sentence(parameters, wavelength, sentence):
    with pytest.raises(ValueError, match=sentence):
        Resampler(**parameters).fit(
            Spectra(np.ones((2, 5)), wavelength_unit="Angstrom", wavelength=wavelength)
        )


def test_many_stars_come_in_batches(monkeypatch):
    rng = np.random.default_rng(7)
    flux, mask = rng.normal(size=(10, 30)), rng.random((10, 30)) < 0.1
    mask[:4] = False  # the first batches have no ivar
    spectra = Spectra(flux, mask=mask, wavelength_unit="Angstrom", wavelength=np.arange(30.0))
    resampler = Resampler(np.arange(3.3, 25.3))
    whole = resampler.fit_transform(spectra)
    monkeypatch.setattr("skspec.preprocessing._resample._STARS_AT_ONCE", 2)
    parts = resampler.fit_transform(spectra)
    assert_array_equal(parts.flux, whole.flux)
    assert_array_equal(parts.ivar, whole.ivar)


def test_what_the_numbers_mean_is_kept():
    old, new = np.linspace(5000, 5100, 101), np.linspace(5010, 5090, 41)
    about = {"medium": "air", "frame": "barycentric", "flux_unit": "Jy"}
    spectra = Spectra(np.ones((2, 101)), wavelength=old, resolution=old, **about)
    out = Resampler(new).fit_transform(spectra)
    assert_allclose(out.resolution, new)
    assert {name: out.about[name] for name in about} == about


def test_new_grid_as_a_quantity():
    units = pytest.importorskip("astropy.units")
    old, new = np.linspace(5000, 5100, 101), np.linspace(5010, 5090, 41)
    spectra = Spectra(np.sin(old)[None], wavelength=old)
    out = Resampler((new / 10) * units.nm).fit_transform(spectra)
    assert_allclose(out.wavelength, new)
    assert_allclose(out.flux, Resampler(new).fit_transform(spectra).flux, atol=1e-9)
