import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from survey_files import FILES, check_golden, golden, line_velocity, real_files
from survey_layouts.harps import write_e2ds, write_map, write_s1d, write_s1d_table, write_s2d

from skspec.datasets.readers import SpectrumFileError, read_file

pytest.importorskip("astropy")

LINES = (5183.604, 5889.951, 6592.91)  # air
GL_273 = 18.2  # km/s, barycentric


class TestRealFiles:
    @pytest.mark.parametrize("path", real_files("harps_drs/*s1d_A.fits"))
    def test_s1d(self, path):
        [spectra] = read_file(FILES / path)
        row = golden()[str(path)]["spec"]
        # golden.json has the 62 305 pixels beyond 1e9 only; 3387 more lie beyond 1e5
        check_golden(spectra, row | {"n_bad": 65_599 + 3387})
        assert (spectra.frame, spectra.medium) == ("barycentric", "air")
        gap = (spectra.wavelength > 5305) & (spectra.wavelength < 5336)
        assert not spectra.good[:, gap].any()
        assert np.abs(spectra.flux[spectra.good]).max() < 2e5

    @pytest.mark.parametrize("path", real_files("harps_drs/*s1d_A.fits"))
    def test_s1d_lines(self, path):
        [spectra] = read_file(FILES / path)
        found = [
            line_velocity(spectra.wavelength, spectra.flux[0], spectra.good[0], line, core=15)
            for line in LINES
        ]
        assert_allclose(found, GL_273, rtol=0, atol=5)

    @pytest.mark.parametrize("path", real_files("harps_drs/*e2ds_A.fits"))
    def test_e2ds(self, path):
        [spectra] = read_file(FILES / path)
        assert spectra.shape == (1, 72 * 4096)
        assert (spectra.frame, spectra.medium) == ("topocentric", "air")
        assert_allclose(spectra.meta["berv"], 15.25769)
        for number, snr in ((49, 26.2), (50, 29.1), (51, 28.2)):  # ESO DRS SPE EXT SNnn, central
            order = spectra[:, spectra.order == number]
            assert_allclose(order[:, 1948:2148].snr, snr, rtol=0.02)
        [line] = LINES[2:]
        order = spectra[:, spectra.order == 67]
        found = line_velocity(order.wavelength, order.flux[0], order.good[0], line, core=15)
        assert_allclose(found + spectra.meta["berv"], GL_273, rtol=0, atol=5)

    @pytest.mark.parametrize("path", real_files("harps_drs/*wave_A.fits"))
    def test_wavelength_map(self, path):
        with pytest.raises(SpectrumFileError, match="a map of wavelengths, which holds no flux"):
            read_file(FILES / path)


def flux_of(n, seed=0):
    return np.random.default_rng(seed).uniform(80, 120, n).astype(np.float32)


class TestS1d:
    @pytest.mark.parametrize(
        "origin, instrument, resolution",
        [("ESO", "HARPS", 115_000), ("TNG", "HARPN", 115_000), ("OHP", "SOPHIE", 75_000)],
    )
    def test_exact(self, tmp_path, origin, instrument, resolution):
        flux = flux_of(200)
        flux[50:90], flux[120] = 0, 1e7
        path = write_s1d(
            tmp_path / "a", flux, first=3781.75, rv=-9.39, origin=origin, instrument=instrument
        )
        [spectra] = read_file(path)
        bad = np.isin(np.arange(200), [*range(50, 90), 120])
        assert_array_equal(spectra.good[0], ~bad)
        assert_array_equal(spectra.flux[0, ~bad], flux[~bad])
        assert_allclose(spectra.wavelength, 3781.75 + 0.01 * np.arange(200), rtol=1e-14)
        assert (spectra.frame, spectra.medium) == ("barycentric", "air")
        assert spectra.resolution == resolution
        assert_allclose([spectra.meta["rv"][0], spectra.meta["berv"][0]], [-9.39, 10])
        assert spectra.meta["star_id"] == "HD 1"

    def test_velocity_that_failed(self, tmp_path):
        [spectra] = read_file(write_s1d(tmp_path / "a", flux_of(200), first=5000, rv=-99999.0))
        assert np.isnan(spectra.meta["rv"])


COEFFICIENTS = np.array([[5000.0, 0.012, -4e-7], [5020.0, 0.0125, -4.1e-7]])


class TestE2ds:
    wavelength = np.array([np.polyval(c[::-1], np.arange(100)) for c in COEFFICIENTS])
    counts = flux_of(200).reshape(2, 100)

    def check(self, spectra):
        assert_allclose(spectra.wavelength, self.wavelength.ravel(), rtol=1e-12)
        assert_array_equal(spectra.order, np.repeat([0, 1], 100))
        assert (spectra.frame, spectra.medium) == ("topocentric", "air")

    @pytest.mark.parametrize("origin", ["ESO", "TNG", "OHP"])
    def test_polynomials_of_the_header(self, tmp_path, origin):
        path = write_e2ds(tmp_path / "a", self.counts, coefficients=COEFFICIENTS, origin=origin)
        [spectra] = read_file(path)
        self.check(spectra)
        assert_array_equal(spectra.flux, self.counts.reshape(1, -1))
        assert_allclose(spectra.ivar, 1 / (self.counts.reshape(1, -1) + 6 * 9), rtol=1e-6)
        assert_allclose(spectra.meta["berv"], 10)

    def test_wavelengths_and_blaze_beside_it(self, tmp_path):
        blaze = np.linspace(0.5, 1, 200).reshape(2, 100)
        path = write_e2ds(tmp_path / "a", self.counts, coefficients=None)
        write_map(tmp_path / "HARPS.x_wave_A.fits", self.wavelength)
        write_map(tmp_path / "HARPS.x_blaze_A.fits", blaze)
        [spectra] = read_file(path)
        assert_allclose(spectra.wavelength, self.wavelength.ravel(), rtol=1e-7)
        assert_allclose(spectra.flux, (self.counts / blaze).reshape(1, -1), rtol=1e-6)
        ivar = blaze**2 / (self.counts + 6 * 9)
        assert_allclose(spectra.ivar, ivar.reshape(1, -1), rtol=1e-6)
        with pytest.raises(SpectrumFileError, match="a map of wavelengths"):
            read_file(tmp_path / "HARPS.x_wave_A.fits")

    def test_no_wavelengths(self, tmp_path):
        path = write_e2ds(tmp_path / "a", self.counts, coefficients=None)
        with pytest.raises(SpectrumFileError, match=r"put HARPS\.x_wave_A\.fits beside it"):
            read_file(path)

    @pytest.mark.parametrize("rows", [1, 3])
    def test_other_number_of_orders(self, tmp_path, rows):
        """A cross-correlation function has one row more than its spectrum orders."""
        counts = np.resize(self.counts, (rows, 100))
        path = write_e2ds(tmp_path / "a", counts, coefficients=COEFFICIENTS)
        with pytest.raises(SpectrumFileError, match="cross-correlation functions are no spectra"):
            read_file(path)

    def test_velocity_is_seen_from_the_telescope(self, tmp_path):
        cards = {"DRS CCF RVC": 18.0}
        path = write_e2ds(tmp_path / "a", self.counts, coefficients=COEFFICIENTS, cards=cards)
        assert_allclose(read_file(path)[0].meta["rv"], 8.0)


class TestNewPipeline:
    def test_s1d(self, tmp_path):
        vacuum, flux = 4000 * np.exp(np.arange(100) * 0.5 / 299_792), flux_of(100)
        error, quality = np.full(100, 2.0), np.zeros(100, int)
        quality[3], error[4] = 16, np.nan
        path = write_s1d_table(
            tmp_path / "a", flux, error, quality, vacuum=vacuum, air=vacuum / 1.00028, rv=5.0
        )
        [spectra] = read_file(path)
        assert spectra.meta["format"] == "espresso_s1d"
        assert_array_equal(spectra.wavelength, vacuum)
        assert_array_equal(np.flatnonzero(~spectra.good[0]), [3, 4])
        assert_allclose(spectra.ivar[0, 5:], 0.25)
        assert (spectra.frame, spectra.medium, spectra.resolution) == (
            "barycentric",
            "vacuum",
            140_000,
        )
        assert_allclose([spectra.meta["rv"][0], spectra.meta["berv"][0]], [5, 10])

    def test_s2d(self, tmp_path):
        vacuum = 4000 + np.arange(300).reshape(3, 100) * 0.01
        vacuum[2] = 0  # an order that is not on the detector
        flux = flux_of(300).reshape(3, 100)
        quality = np.zeros((3, 100))
        quality[1, 7] = 1
        path = write_s2d(tmp_path / "a", flux, np.full((3, 100), 2.0), quality, vacuum=vacuum)
        [spectra] = read_file(path)
        assert_array_equal(spectra.flux[0], flux[:2].ravel())
        assert_array_equal(np.flatnonzero(~spectra.good[0]), [107])
        assert_allclose(spectra.wavelength, vacuum[:2].ravel())
        assert_array_equal(spectra.order, np.repeat([0, 1], 100))
        assert (spectra.frame, spectra.medium) == ("barycentric", "vacuum")
