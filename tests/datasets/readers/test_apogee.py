import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from survey_files import FILES, check_golden, golden, line_velocity, real_files
from survey_layouts.apogee import write_apstar, write_apvisit, write_aspcapstar

from skspec.datasets.readers import SpectrumFileError, read_file

fits = pytest.importorskip("astropy.io.fits")

MG = [15745.017, 15753.291, 15770.150]  # vacuum, from 15740.716, 15748.988 and 15765.842 in air


@pytest.fixture
def rng():
    return np.random.default_rng(0)


class TestRealFiles:
    @pytest.mark.parametrize("path", real_files("apogee_apStar/*"))
    def test_combined_and_visits(self, path):
        [spectra] = read_file(FILES / path, exposures=True)
        rows = golden()[str(path)]
        assert len(spectra) == rows["n_spectra"]
        for k in range(len(spectra)):
            check_golden(spectra[k], rows[f"row{k}"])
        [combined] = read_file(FILES / path)
        assert len(combined) == 1
        assert_array_equal(combined.flux, spectra.flux[:1])

    @pytest.mark.parametrize("path", real_files("apogee_apStar/*2M12241699*"))
    def test_visits_have_names_and_velocities(self, path):
        [spectra] = read_file(FILES / path, exposures=True)
        visits = ["apVisit-r6-7435-56756-144", "apVisit-r6-7437-56815-150"]
        assert spectra.meta["exposure"][:4].tolist() == ["", "global weights", *visits]
        assert_allclose(spectra.meta["rv_removed"][1:3], [-270.223, -272.152])

    @pytest.mark.parametrize("path", real_files("apogee_aspcapStar/*"))
    def test_normalised(self, path):
        [spectra] = read_file(FILES / path)
        check_golden(spectra, golden()[str(path)]["norm"])

    @pytest.mark.parametrize("path", real_files("apogee_aspcapStar/*2M17334253*"))
    def test_calibrated_labels(self, path):
        [spectra] = read_file(FILES / path)
        found = [spectra.meta[name][0] for name in ("teff", "logg", "feh")]
        assert_allclose(found, [3788.4, 1.0783666, 0.0045828], rtol=1e-5)  # 1.3062 is raw

    @pytest.mark.parametrize("path", real_files("apogee_aspcapStar/*2M03290406*"))
    def test_labels_that_are_not_calibrated(self, path):
        [spectra] = read_file(FILES / path)
        assert all(np.isnan(spectra.meta[name][0]) for name in ("teff", "logg", "feh"))

    @pytest.mark.parametrize("path", real_files("apogee_a*Star/*2M17334253*"))
    def test_magnesium_is_at_rest(self, path):
        [spectra] = read_file(FILES / path)
        found = [
            line_velocity(spectra.wavelength, spectra.flux[0], spectra.good[0], line, core=25)
            for line in MG
        ]
        assert_allclose(np.median(found), 0, atol=5)

    @pytest.mark.parametrize("path", real_files("apogee_apVisit/*"))
    def test_visit(self, path):
        [spectra] = read_file(FILES / path)
        row = golden()[str(path)]["visit"]
        check_golden(spectra, row)
        assert_allclose(spectra.meta["berv"], row["bc"])
        assert np.all(np.diff(spectra.wavelength) > 0)  # the chips do not overlap
        assert_array_equal(np.unique(spectra.order, return_counts=True)[1], [4096] * 3)
        assert "rv" not in spectra.meta  # 602 km/s in the header of an L dwarf


class TestCombined:
    def write(self, path, rng, n, **options):
        flux = rng.uniform(50, 60, (n, 8575)).astype(np.float32)
        error = np.full((n, 8575), 0.5, np.float32)
        error[:, :100] = 1e10
        mask = np.zeros((n, 8575), int)
        mask[0, 200:208] = 1 << np.arange(8)  # bad
        mask[0, 208:215] = [1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12, 1 << 13, -(2**15)]  # usable
        mask[0, 215] = 1 << 14
        shape = (8575,) if n == 1 else (n, 8575)
        write_apstar(path, *(np.reshape(v, shape) for v in (flux, error, mask)), **options)
        return flux

    def test_of_one_visit_is_a_vector(self, tmp_path, rng):
        flux = self.write(tmp_path / "a.fits", rng, 1)
        [spectra] = read_file(tmp_path / "a.fits", exposures=True)
        assert spectra.meta["format"] == "apogee_apstar"
        good = spectra.good[0]
        assert_array_equal(np.flatnonzero(~good), [*range(100), *range(200, 208), 215])
        assert_array_equal(spectra.flux[0, good], flux[0, good])
        assert_allclose(spectra.ivar[0, good], 4)
        assert_allclose(spectra.wavelength, 10 ** (4.179 + 6e-6 * np.arange(8575)), rtol=1e-12)
        assert (spectra.medium, spectra.frame) == ("vacuum", "rest")
        assert spectra.meta["rv_removed"] == 31.5
        assert "teff" not in spectra.meta  # RVTEFF is that of a template

    def test_of_two_visits_has_four_rows(self, tmp_path, rng):
        visits = [("apVisit-r6-1.fits", 30.0), ("apVisit-r6-2.fits", 33.0)]
        flux = self.write(tmp_path / "a.fits", rng, 4, visits=visits, mask_type=np.int32)
        [spectra] = read_file(tmp_path / "a.fits", exposures=True)
        assert_array_equal(spectra.flux[3, 100:], flux[3, 100:])
        names = ["", "global weights", "apVisit-r6-1", "apVisit-r6-2"]
        assert spectra.meta["exposure"].tolist() == names
        assert_allclose(spectra.meta["rv_removed"], [31.5, 31.5, 30, 33])
        [combined] = read_file(tmp_path / "a.fits")
        assert_array_equal(combined.flux[:, 100:], flux[:1, 100:])

    def test_names_of_visits_from_the_table(self, tmp_path, rng):
        visits = [("asVisit-dr17-1.fits", 30.0), ("asVisit-dr17-2.fits", 33.0)]
        self.write(tmp_path / "a.fits", rng, 4, visits=visits)
        with fits.open(tmp_path / "a.fits", mode="update") as hdus:
            del hdus[0].header["SFILE1"], hdus[0].header["SFILE2"]
        [spectra] = read_file(tmp_path / "a.fits", exposures=True)
        assert spectra.meta["exposure"][2:].tolist() == ["asVisit-dr17-1", "asVisit-dr17-2"]

    def test_velocity_that_is_missing(self, tmp_path, rng):
        self.write(tmp_path / "a.fits", rng, 1, header={"VHELIO": -9999.0})
        [spectra] = read_file(tmp_path / "a.fits")
        assert np.isnan(spectra.meta["rv_removed"])

    def test_without_any_grid(self, tmp_path):
        ones = np.ones(50)
        write_apstar(tmp_path / "a.fits", ones, ones, np.zeros(50))
        with fits.open(tmp_path / "a.fits", mode="update") as hdus:
            for name in ("CRVAL1", "CDELT1"):
                del hdus[1].header[name]
        with pytest.raises(SpectrumFileError, match="header gives no wavelengths"):
            read_file(tmp_path / "a.fits")


class TestNormalised:
    def test_gaps_and_pixels_that_were_not_used(self, tmp_path, rng):
        flux = rng.uniform(0.8, 1, 8575).astype(np.float32)
        error = np.full(8575, 0.02, np.float32)
        flux[:50] = error[:50] = 0  # gap
        flux[60], error[60] = 0, 99
        error[61] = 60.0
        error[62] = -1.0
        write_aspcapstar(tmp_path / "a.fits", flux, error, param=[4500, 2.5, 0.2, -0.4])
        [spectra] = read_file(tmp_path / "a.fits")
        bad = np.flatnonzero(~spectra.good[0])
        assert_array_equal(bad, [*range(50), 60, 61, 62])
        assert np.all(np.isfinite(spectra.ivar))  # the error 0 is no certainty
        assert_array_equal(spectra.flux[0, 100:], flux[100:])
        found = [spectra.meta[name][0] for name in ("teff", "logg", "feh", "rv_removed")]
        assert_allclose(found, [4500, 2.5, -0.4, -12])
        assert spectra.meta["apogee_id"] == "2M00000000+0000000"

    @pytest.mark.parametrize("missing", [-9999.0, -9999.99, np.nan])
    def test_raw_numbers_are_no_labels(self, tmp_path, missing):
        ones = np.ones(8575)
        param = [missing, missing, 0.2, missing]
        fparam = [2903.6, 1.04, 0.2, -2.36]
        write_aspcapstar(tmp_path / "a.fits", ones, 0.01 * ones, param=param, fparam=fparam)
        [spectra] = read_file(tmp_path / "a.fits")
        assert all(np.isnan(spectra.meta[name][0]) for name in ("teff", "logg", "feh"))


class TestVisit:
    def test_chips_are_orders_from_blue_to_red(self, tmp_path, rng):
        wavelength = np.array([[16.95, 16.48], [16.43, 15.86], [15.81, 15.14]]) * 1000
        wavelength = np.linspace(*wavelength.T, 40).T
        flux = rng.uniform(5, 6, (3, 40)).astype(np.float32)
        error = np.full((3, 40), 0.1)
        mask = np.zeros((3, 40))
        mask[0, 0] = 1  # the reddest pixel
        write_apvisit(tmp_path / "a.fits", flux, error, mask, wavelength)
        [spectra] = read_file(tmp_path / "a.fits")
        assert_array_equal(spectra.wavelength, wavelength.ravel()[::-1])
        assert_array_equal(spectra.flux[0], flux.ravel()[::-1])
        assert_array_equal(spectra.order, np.repeat([0, 1, 2], 40))
        assert_array_equal(np.flatnonzero(~spectra.good[0]), [119])
        assert (spectra.frame, spectra.meta["berv"]) == ("topocentric", -22.1)
        assert spectra.meta["exposure"] == "7438-56790-145"
        assert spectra.meta["rv_visit"] == 176.4

    def test_wavelength_that_is_not_finite(self, tmp_path):
        ones = np.ones((3, 40))
        wavelength = np.linspace(16000, 16100, 120).reshape(3, 40)
        wavelength[1, 2] = np.nan
        write_apvisit(tmp_path / "a.fits", ones, ones, 0 * ones, wavelength)
        with pytest.raises(SpectrumFileError, match="not finite"):
            read_file(tmp_path / "a.fits")
