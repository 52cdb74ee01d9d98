import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from skspec import Spectra
from skspec.preprocessing import ContinuumNormalizer, Resampler

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


def test_unsorted_pixels_and_orders(grids):
    old, new = grids
    flux = np.sin(old / 7)[None]
    shuffle = np.random.default_rng(6).permutation(60)
    straight = Resampler(new).fit_transform(
        Spectra(flux, wavelength_unit="Angstrom", wavelength=old)
    )
    mixed = Spectra(
        flux[:, shuffle],
        wavelength_unit="Angstrom",
        wavelength=old[shuffle],
        order=np.arange(60) % 2,
    )
    out = Resampler(new).fit_transform(mixed)
    assert_allclose(out.flux, straight.flux)
    assert out.order is None


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
