import numpy as np
import pytest
from numpy.polynomial.chebyshev import chebval
from numpy.polynomial.legendre import legval
from numpy.testing import assert_allclose, assert_array_equal
from survey_files import FILES, check_golden, golden, line_velocity, real_files
from survey_layouts.iraf import write_equispec, write_multispec

from skspec.datasets.readers import SpectrumFileError, read_file

pytest.importorskip("astropy")

N = 50
PIXEL = np.arange(1.0, N + 1)


class TestRealFiles:
    @pytest.mark.parametrize("path", real_files("iraf_multispec/*"))
    def test_golden(self, path):
        [spectra] = read_file(FILES / path)
        rows = golden()[str(path)]
        assert len(np.unique(spectra.order)) == rows["n_spectra"]
        for name in set(rows) - {"n_spectra"}:
            order = spectra[:, spectra.order == int(name.removeprefix("ap"))]
            row = dict(rows[name])
            if path.name == "TRES.fits":
                # golden.json has the first pixels of the orders, which are exactly 0, as good ones
                assert_array_equal(order.flux[0, :4], 0)
                row |= {"n_bad": 4, "flux_med": np.median(order.flux[0, 4:])}
            check_golden(order, row)
            assert order.medium == "air"

    @pytest.mark.parametrize("path", real_files("iraf_multispec/TRES.fits"))
    def test_hydrogen(self, path):
        """A star, as observed: within the velocities that the Earth and the star can have."""
        [spectra] = read_file(FILES / path)
        for line in (4861.33, 6562.80):
            for order in np.unique(spectra.order):
                part = spectra[:, spectra.order == order]
                if part.wavelength[0] + 30 < line < part.wavelength[-1] - 30:
                    velocity = line_velocity(
                        part.wavelength, part.flux[0], part.good[0], line, core=60
                    )
                    assert abs(velocity) < 15

    @pytest.mark.parametrize("path", real_files("damaged/evega*"))
    def test_truncated(self, path):
        with pytest.raises(SpectrumFileError, match="it is truncated: HDU 0"):
            read_file(FILES / path)


def flux_of(*shape):
    return np.random.default_rng(0).uniform(80, 120, shape).astype(np.float32)


def spec(dtype, *functions, start=5000.0, step=0.1, n=N, z=0.0, number=1):
    words = [number, 90, dtype, start, step, n, z, 10.5, 20.5]
    return " ".join(map(str, words + [word for function in functions for word in function]))


SCALED = (2 * PIXEL - (N + 1)) / (N - 1)
TERMS = [5000.0, 10.0, 0.5, -0.02]
SPLINE_X = (PIXEL - 1) / (N - 1) * 2
DISPERSIONS = {
    "linear": (spec(0), 5000 + 0.1 * (PIXEL - 1)),
    "falling": (spec(0, step=-0.1), 5000 - 0.1 * (PIXEL - 1)),
    "redshift": (spec(0, z=0.01), (5000 + 0.1 * (PIXEL - 1)) / 1.01),
    "log10": (spec(1, start=3.7, step=1e-5), 10 ** (3.7 + 1e-5 * (PIXEL - 1))),
    "chebyshev": (spec(2, [1, 0, 1, 4, 1, N, *TERMS]), chebval(SCALED, TERMS)),
    "legendre": (spec(2, [1, 0, 2, 4, 1, N, *TERMS]), legval(SCALED, TERMS)),
    # a straight line has the coefficients of its values at the knots, six times those of the basis
    "cubic spline": (
        spec(2, [1, 0, 3, 2, 1, N, *(np.array([-1, 0, 1, 2, 3]) / 6 * 5 + 5000 / 6)]),
        5000 + 5 * SPLINE_X,
    ),
    "linear spline": (spec(2, [1, 0, 4, 2, 1, N, 5000, 5010, 5030]), None),
    "pixels": (spec(2, [1, 0, 5, N, *(5000 + PIXEL**1.1)]), 5000 + PIXEL**1.1),
    "samples": (spec(2, [1, 0, 6, 3, 1, 5000, 25, 5024, N, 5074]), None),
    "two functions": (
        spec(2, [0.5, 0, 1, 4, 1, N, *TERMS], [0.5, 2, 2, 4, 1, N, *TERMS], z=0.001),
        0.5 * (chebval(SCALED, TERMS) + legval(SCALED, TERMS) + 2) / 1.001,
    ),
}
DISPERSIONS["linear spline"] = (
    DISPERSIONS["linear spline"][0],
    np.interp(SPLINE_X, [0, 1, 2], [5000, 5010, 5030]),
)
DISPERSIONS["samples"] = (
    DISPERSIONS["samples"][0],
    np.interp(PIXEL, [1, 25, N], [5000, 5024, 5074]),
)


class TestMultispec:
    @pytest.mark.parametrize("name", DISPERSIONS)
    def test_dispersion(self, tmp_path, name):
        words, expected = DISPERSIONS[name]
        flux = flux_of(1, N)
        [spectra] = read_file(write_multispec(tmp_path / "a", flux, [words]))
        assert_allclose(spectra.wavelength, expected, rtol=1e-12)
        assert_array_equal(spectra.flux, flux)
        assert spectra.medium == "air"

    @pytest.mark.parametrize("stripped", [False, True])
    def test_blanks_where_the_text_is_cut(self, tmp_path, stripped):
        """Every place of the cuts, one of which falls on a blank."""
        for lead in range(70):
            words = spec(2, [1.0, 0.0, 2, 4, 1, N, *TERMS], start="1" * (lead + 1))
            path = write_multispec(tmp_path / "a", flux_of(1, N), [words], stripped=stripped)
            [spectra] = read_file(path)
            assert_allclose(spectra.wavelength, legval(SCALED, TERMS), rtol=1e-12)

    def test_orders(self, tmp_path):
        flux = flux_of(3, N)
        specs = [
            spec(0, number=7),
            spec(0, start=5003, number=8),
            spec(0, start=5006, n=40, number=9),
        ]
        [spectra] = read_file(write_multispec(tmp_path / "a", flux, specs))
        assert_array_equal(spectra.order, np.repeat([7, 8, 9], [N, N, 40]))  # the third is padded
        assert_array_equal(spectra.flux[0], np.concatenate([flux[0], flux[1], flux[2, :40]]))
        last = spectra.wavelength[spectra.order == 9]
        assert_allclose(last, 5006 + 0.1 * np.arange(40))

    def test_apertures_without_wavelengths(self, tmp_path):
        specs = [spec(-1, number=1), spec(0, number=2)]
        flux = flux_of(2, N)
        [spectra] = read_file(write_multispec(tmp_path / "a", flux, specs))
        assert_array_equal(spectra.flux[0], flux[1])
        with pytest.raises(SpectrumFileError, match="none of its apertures has a wavelength"):
            read_file(write_multispec(tmp_path / "a", flux, [spec(-1), spec(-1)]))

    def test_fibres_on_one_grid_are_rows(self, tmp_path):
        flux = flux_of(2, N)
        header = {"APID1": "HD 3"}
        path = write_multispec(tmp_path / "a", flux, [spec(0), spec(0, number=2)], header=header)
        [spectra] = read_file(path)
        assert_array_equal(spectra.flux, flux)
        assert spectra.order is None
        assert list(spectra.meta["star_id"]) == ["HD 3", "HD 1 aperture 2"]

    def test_bands(self, tmp_path):
        flux = flux_of(4, 2, N)
        bands = ["raw - x", "spectrum - background fit", "background - x", "sigma - x"]
        specs = [spec(0, number=1), spec(0, start=5003, number=2)]
        [spectra] = read_file(write_multispec(tmp_path / "a", flux, specs, bands=bands))
        assert_array_equal(spectra.flux[0], flux[1].ravel())
        assert_allclose(spectra.ivar[0], flux[3].ravel() ** -2.0, rtol=1e-6)

    def test_pixels_of_the_uncut_image(self, tmp_path):
        """LTV1 = -10: functions count ten pixels that were cut off."""
        words = spec(2, [1, 0, 2, 4, 1, N, *TERMS], n=30)
        path = write_multispec(tmp_path / "a", flux_of(1, 30), [words], header={"LTV1": -10.0})
        assert_allclose(read_file(path)[0].wavelength, legval(SCALED, TERMS)[10:40])

    @pytest.mark.parametrize("units, factor", [("nanometers", 10), ("microns", 1e4)])
    def test_units(self, tmp_path, units, factor):
        words = spec(0, start=5000 / factor, step=0.1 / factor)
        [spectra] = read_file(write_multispec(tmp_path / "a", flux_of(1, N), [words], units=units))
        assert_allclose(spectra.wavelength, 5000 + 0.1 * np.arange(N))

    @pytest.mark.parametrize(
        "words",
        [
            "1 90 0 5000.",
            spec(2),
            spec(2, [1, 0, 1, 4, 1, N, 5000.0]),
            spec(2, [1, 0, 9, 4, 1, N, *TERMS]),
            spec(2, [1, 0, 1, -4, 1, N, *TERMS]),
            spec(0, z=-1.0),
            spec(0).replace("5000.0", "x"),
        ],
    )
    def test_damaged_description(self, tmp_path, words):
        with pytest.raises(
            SpectrumFileError, match="spec1 of its WAT2 cards is cut off or damaged"
        ):
            read_file(write_multispec(tmp_path / "a", flux_of(1, N), [words]))

    def test_no_description(self, tmp_path):
        with pytest.raises(SpectrumFileError, match="describe no apertures"):
            read_file(write_multispec(tmp_path / "a", flux_of(1, N), []))


def test_equispec(tmp_path):
    flux = flux_of(2, 3, N)
    bands = ["spectrum - background fit", "sigma - x"]
    path = write_equispec(tmp_path / "a", flux, first=6000.0, step=0.5, bands=bands)
    [spectra] = read_file(path)
    assert_array_equal(spectra.flux, flux[0])
    assert_allclose(spectra.ivar, flux[1] ** -2.0)
    assert_allclose(spectra.wavelength, 6000 + 0.5 * np.arange(N))
    assert spectra.medium == "air"
