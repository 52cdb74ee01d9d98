import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.utils.estimator_checks import parametrize_with_checks

from skspec import Spectra
from skspec.preprocessing import ContinuumNormalizer
from skspec.preprocessing._smoothing import gaussian_smooth, running_quantile

METHODS = ["gaussian", "chebyshev", "sincos", "running_median"]
LINEAR = METHODS[:3]


@parametrize_with_checks([ContinuumNormalizer(method) for method in METHODS])
def test_sklearn_checks(estimator, check):
    check(estimator)


@pytest.fixture
def spectra():
    """12 stars with lines, a sloping continuum, heteroscedastic noise and 5 % bad pixels."""
    rng = np.random.default_rng(0)
    wavelength = np.exp(np.linspace(np.log(15000), np.log(15400), 300))
    lines = 1 - 0.4 * np.exp(-0.5 * ((wavelength[:, None] - [15100, 15250, 15260]) / 2) ** 2).sum(1)
    level = rng.uniform(50, 5000, size=(12, 1)) * (
        1 + rng.normal(size=(12, 1)) * 2e-3 * (wavelength - 15200) / 40
    )
    err = 0.01 * level * rng.uniform(0.5, 2, size=level.shape)
    flux = level * lines + err * rng.normal(size=level.shape)
    return Spectra(
        flux,
        flux_err=err,
        mask=rng.random(flux.shape) < 0.05,
        wavelength_unit="Angstrom",
        wavelength=wavelength,
    )


# -- against slow, obviously right formulae --------------------------------------------------------


@pytest.mark.parametrize("convention, exponent", [("efold", 1.0), ("sigma", 0.5)])
def test_gaussian_is_the_weighted_mean_of_ho(spectra, convention, exponent):
    normalizer = ContinuumNormalizer(width=30, convention=convention).fit(spectra)
    c = spectra.wavelength
    kernel = np.exp(-exponent * ((c[:, None] - c) / 30) ** 2)
    expected = ((spectra.flux * spectra.ivar) @ kernel) / (spectra.ivar @ kernel)
    assert_allclose(normalizer.continuum(spectra), expected, rtol=1e-5)


def test_gaussian_blocks_do_not_show():
    rng = np.random.default_rng(1)
    flux, weight = rng.normal(size=(2, 1300)) + 3, rng.random((2, 1300))
    coordinate = np.sort(rng.uniform(0, 500, 1300))
    distance = coordinate[:, None] - coordinate
    kernel = np.exp(-0.5 * (distance / 5) ** 2) * (np.abs(distance) < 5 * np.sqrt(2 * np.log(1e7)))
    expected = ((flux * weight) @ kernel) / (weight @ kernel)
    assert_allclose(gaussian_smooth(flux, weight, coordinate, 5.0), expected, rtol=1e-10)


@pytest.mark.parametrize("method", ["chebyshev", "sincos"])
def test_fit_is_weighted_least_squares(spectra, method):
    pixels = np.arange(300) % 7 == 0
    normalizer = ContinuumNormalizer(
        method, degree=2, period=700.0, n_harmonics=2, continuum_pixels=pixels
    ).fit(spectra)
    w = spectra.wavelength
    x = w - 15200
    phase = 2 * np.pi * w / 700
    basis = (
        np.column_stack([x**0, x, x**2])
        if method == "chebyshev"
        else np.column_stack([x**0] + [f(m * phase) for m in (1, 2) for f in (np.sin, np.cos)])
    )
    for star, fitted in enumerate(normalizer.continuum(spectra)):
        root = np.sqrt(spectra.ivar[star, pixels])
        coef = np.linalg.lstsq(
            basis[pixels] * root[:, None], spectra.flux[star, pixels] * root, rcond=None
        )[0]
        assert_allclose(fitted, basis @ coef, rtol=1e-6)


def test_cannon2_continuum_has_seven_parameters_and_is_recovered():
    wavelength = np.linspace(15090, 15822, 500)
    phase = 2 * np.pi * wavelength / 1400
    truth = 100 + 5 * np.sin(phase) + 2 * np.cos(2 * phase) - np.sin(3 * phase)
    spectra = Spectra(truth, wavelength_unit="Angstrom", wavelength=wavelength)
    normalizer = ContinuumNormalizer("sincos", continuum_pixels=wavelength[::9]).fit(spectra)
    assert normalizer._basis(wavelength).shape == (500, 7)
    assert_allclose(normalizer.continuum(spectra)[0], truth, rtol=1e-7)


def test_waves_longer_than_the_segment_do_not_explode(spectra):
    out = ContinuumNormalizer("sincos", segments=[(14999, 15200), (15200, 15401)])
    assert np.abs(out.fit_transform(spectra).flux - 1).max() < 1


def test_running_quantile_against_numpy():
    rng = np.random.default_rng(2)
    flux, good = rng.normal(size=(3, 40)), rng.random((3, 40)) < 0.8
    coordinate = np.arange(40.0)
    out = running_quantile(flux, good, coordinate, half_width=3, q=0.3)  # knots at every pixel
    for star in range(3):
        for pixel in range(40):
            near = good[star] & (np.abs(coordinate - pixel) <= 3)
            assert_allclose(out[star, pixel], np.quantile(flux[star, near], 0.3))


def test_running_quantile_interpolates_between_knots_and_past_empty_windows():
    coordinate = np.linspace(0, 100, 2001)
    flux = (3 + 0.1 * coordinate)[None, :]
    out = running_quantile(flux, np.ones_like(flux, bool), coordinate, half_width=8)
    inner = (coordinate > 9) & (coordinate < 91)
    assert_allclose(out[0, inner], flux[0, inner], rtol=1e-3)
    good = np.ones((1, 2001), dtype=bool)
    good[:, 500:] = False
    out = running_quantile(flux, good, coordinate, half_width=8)
    assert np.isfinite(out[0, :500]).all()
    assert np.isnan(out[0, -1])
    assert np.isnan(running_quantile(flux, ~good & False, coordinate, 8.0)).all()


# -- laws ------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(factor=st.floats(1e-18, 1e12), method=st.sampled_from(METHODS), errors=st.booleans())
def test_flux_unit_does_not_matter(factor, method, errors):
    rng = np.random.default_rng(3)
    flux, ivar = rng.uniform(0.5, 1.5, (4, 80)), rng.uniform(50, 100, (4, 80))
    plain = Spectra(flux, ivar=ivar if errors else None)
    scaled = Spectra(factor * flux, ivar=ivar / factor**2 if errors else None)
    normalizer = ContinuumNormalizer(method, width=8, period=100).fit(plain)
    a, b = normalizer.transform(plain), normalizer.transform(scaled)
    assert_allclose(b.flux, a.flux, rtol=1e-8)
    if errors:
        assert_allclose(b.ivar, a.ivar, rtol=1e-8)


@settings(max_examples=20, deadline=None)
@given(value=st.floats(-1e30, 1e30), method=st.sampled_from(METHODS))
def test_bad_pixels_carry_no_weight_whatever_their_flux(value, method):
    rng = np.random.default_rng(4)
    flux, mask = rng.uniform(0.5, 1.5, (4, 80)), rng.random((4, 80)) < 0.3
    ivar = np.full(flux.shape, 30.0)
    clean = Spectra(flux, ivar=ivar, mask=mask)
    dirty = Spectra(np.where(mask, value, flux), ivar=ivar, mask=mask)
    normalizer = ContinuumNormalizer(
        method, width=8, period=100, continuum_pixels=np.ones(80, bool)
    )
    a, b = normalizer.fit(clean).transform(clean), normalizer.fit(dirty).transform(dirty)
    assert_allclose(a.flux, b.flux, rtol=1e-10)
    assert_allclose(a.ivar, b.ivar, rtol=1e-10)
    assert_array_equal(b.ivar[mask], 0)
    assert_array_equal(b.flux[mask], 1)


@pytest.mark.parametrize("method", LINEAR)
def test_continuum_is_linear_in_flux(method, spectra):
    normalizer = ContinuumNormalizer(method).fit(spectra)
    other = spectra.replace(flux=np.roll(spectra.flux, 3, axis=1))
    total = normalizer.continuum(spectra.replace(flux=2 * spectra.flux - 0.5 * other.flux))
    parts = 2 * normalizer.continuum(spectra) - 0.5 * normalizer.continuum(other)
    assert_allclose(total, parts, rtol=1e-9, atol=1e-9 * np.abs(parts).max())


@pytest.mark.parametrize("method", METHODS)
def test_errors_follow_the_flux(method, spectra):
    normalizer = ContinuumNormalizer(method, segments=[(14999, 15200), (15200.1, 15401)])
    before = spectra.flux.copy(), spectra.ivar.copy()
    out = normalizer.fit_transform(spectra)
    assert_array_equal(spectra.flux, before[0])
    assert_array_equal(spectra.ivar, before[1])
    good = spectra.good
    assert_array_equal(out.good, good)
    assert_allclose(
        (out.flux * np.sqrt(out.ivar))[good], (spectra.flux * np.sqrt(spectra.ivar))[good]
    )
    assert_allclose(np.median(out.flux, axis=1), 1, atol=0.05)
    assert out.wavelength is spectra.wavelength


@pytest.mark.parametrize("method", METHODS)
def test_stars_do_not_see_each_other(method, spectra):
    normalizer = ContinuumNormalizer(method).fit(spectra)
    assert_allclose(
        normalizer.transform(spectra)[5:6].flux, normalizer.transform(spectra[5]).flux, rtol=1e-10
    )


@pytest.mark.parametrize("method", METHODS)
def test_pixel_order_does_not_matter(method, spectra):
    shuffle = np.random.default_rng(5).permutation(300)
    straight = ContinuumNormalizer(method).fit_transform(spectra)
    mixed = ContinuumNormalizer(method).fit_transform(spectra[:, shuffle])
    assert_allclose(mixed.flux, straight.flux[:, shuffle], rtol=1e-9)


# -- segments, continuum pixels --------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_orders_are_normalised_apart(method):
    flux = np.tile([1.0, 100.0], 40)
    spectra = Spectra(
        [flux, 3 * flux],
        wavelength_unit="Angstrom",
        wavelength=np.repeat(np.arange(40.0), 2),
        order=[0, 1] * 40,
    )
    out = ContinuumNormalizer(method, width=10, degree=0, period=90).fit_transform(spectra)
    assert_allclose(out.flux, 1, rtol=1e-6)


def test_pixels_in_no_segment_become_bad(spectra):
    out = ContinuumNormalizer(segments=[(15100, 15300)]).fit_transform(spectra)
    outside = (spectra.wavelength < 15100) | (spectra.wavelength > 15300)
    assert_array_equal(out.ivar[:, outside], 0)
    assert_array_equal(out.flux[:, outside], 1)


def test_found_continuum_pixels_follow_the_raising_of_both_cuts(spectra):
    segments = [(14999, 15200), (15200.1, 15401)]
    normalizer = ContinuumNormalizer("chebyshev", fraction=0.3, segments=segments).fit(spectra)
    for segment in normalizer.segments_:
        level = running_quantile(
            spectra.flux[:, segment], spectra.good[:, segment], spectra.wavelength[segment], 50, 0.9
        )
        f = np.where(spectra.good[:, segment], spectra.flux[:, segment], np.nan) / level
        f_cut = s_cut = 1e-4
        while True:
            keep = (np.abs(np.nanmedian(f, axis=0) - 1) <= f_cut) & (np.nanvar(f, axis=0) <= s_cut)
            if keep.sum() >= 0.3 * len(segment):
                break
            f_cut, s_cut = f_cut + 1e-4, s_cut + 1e-4
        assert_array_equal(normalizer.continuum_pixels_[segment], keep)
    in_lines = np.abs(spectra.wavelength[:, None] - [15100, 15250]).min(axis=1) < 2
    assert not normalizer.continuum_pixels_[in_lines].any()


def test_given_continuum_pixels(spectra):
    by_wavelength = ContinuumNormalizer(
        "chebyshev", degree=1, continuum_pixels=[15010.0, 15200.3, 15390.0, 99999.0]
    ).fit(spectra)
    assert by_wavelength.continuum_pixels_.sum() == 3
    nearest = np.abs(spectra.wavelength - 15200.3).argmin()
    assert by_wavelength.continuum_pixels_[nearest]
    by_mask = ContinuumNormalizer(
        "chebyshev", degree=1, continuum_pixels=by_wavelength.continuum_pixels_
    )
    assert_array_equal(by_mask.fit_transform(spectra).flux, by_wavelength.transform(spectra).flux)


@pytest.mark.parametrize(
    "parameters, wavelength, sentence",
    [
        ({"segments": [(1, 2)]}, None, "have no wavelength"),
        ({"segments": [(1, 2)]}, np.arange(100.0, 120), "holds no pixel"),
        ({"continuum_pixels": [5000.0]}, None, "boolean"),
        ({"continuum_pixels": [True, False]}, None, "shape"),
        ({"continuum_pixels": [5000.0]}, np.arange(20.0), "without any continuum pixel"),
        ({"method": "spline"}, None, "method"),
        ({"width": 0}, None, "width"),
    ],
)
def test_mistakes_get_a_sentence(parameters, wavelength, sentence):
    spectra = Spectra(np.ones((3, 20)), wavelength_unit="Angstrom", wavelength=wavelength)
    with pytest.raises(ValueError, match=sentence):
        ContinuumNormalizer(**{"method": "chebyshev"} | parameters).fit(spectra)


# -- degenerate stars and plain arrays -------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_hopeless_stars_are_marked_and_leave_others_alone(method, spectra):
    flux, ivar = spectra.flux.copy(), spectra.ivar.copy()
    flux[0], ivar[1], flux[2] = -flux[0], 0, 0
    ivar[3, 3:] = 0
    normalizer = ContinuumNormalizer(method).fit(spectra)
    out = normalizer.transform(spectra.replace(flux=flux, ivar=ivar))
    assert_array_equal(out.ivar[:3], 0)
    assert_array_equal(out.flux[:3], 1)
    assert np.isfinite(out.flux).all()
    assert_allclose(out.flux[4:], normalizer.transform(spectra).flux[4:])


def test_without_errors_bad_continuum_marks_pixels_and_arrays_hold_no_nan():
    flux = np.ones((2, 30))
    flux[0] = 0
    out = ContinuumNormalizer(width=5).fit_transform(Spectra(flux))
    assert_array_equal(out.ivar[0], 0)
    assert np.isinf(out.ivar[1]).all()
    assert_array_equal(ContinuumNormalizer(width=5).fit_transform(flux), np.ones((2, 30)))
    assert ContinuumNormalizer(width=5).fit_transform(Spectra(flux[1:])).ivar is None


def test_unknown_noise_weighs_like_the_best_known_pixel(spectra):
    ivar = np.where(spectra.good, np.inf, 0)
    masked = spectra.replace(ivar=ivar)
    even = spectra.replace(ivar=np.where(spectra.good, 7.0, 0))
    a, b = (ContinuumNormalizer().fit_transform(s) for s in (masked, even))
    assert_allclose(a.flux, b.flux)
    assert_array_equal(a.ivar, ivar)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_data_type_is_kept(method, dtype, spectra):
    single = Spectra(
        spectra.flux.astype(dtype), ivar=spectra.ivar.astype(dtype), wavelength=spectra.wavelength
    )
    out = ContinuumNormalizer(method).fit_transform(single)
    assert out.flux.dtype == out.ivar.dtype == dtype
    assert_allclose(out.flux, ContinuumNormalizer(method).fit_transform(spectra).flux, atol=1e-3)


def test_frames_cannot_hold_spectra(spectra):
    normalizer = ContinuumNormalizer().set_output(transform="pandas").fit(spectra)
    with pytest.raises(ValueError, match="set_output"):
        normalizer.transform(spectra)
    assert normalizer.transform(spectra.flux).shape == spectra.shape


def test_another_grid_is_refused(spectra):
    normalizer = ContinuumNormalizer().fit(spectra)
    with pytest.raises(ValueError, match="another grid"):
        normalizer.transform(spectra.replace(wavelength=spectra.wavelength + 1))
