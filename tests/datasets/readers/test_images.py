"""Readers of images of one spectrum, or one per order: keck, igrins, libraries, fits_1d."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from survey_files import FILES, check_golden, golden, line_velocity, real_files
from survey_layouts.images import (
    write_hires,
    write_igrins,
    write_image,
    write_library,
    write_mastar_hc,
    write_specmatch,
)

from skspec.datasets.readers import SpectrumFileError, read_file

pytest.importorskip("astropy")
from astropy.io import fits  # noqa: E402

FOLDERS = "highres_1d miles indo_us stelib mastar_hc mike_multispec".split()
ONE_SPECTRUM = [path for folder in FOLDERS for path in real_files(f"{folder}/*")]
NA_D2, MG_B = 5889.951, 5183.604  # air


def test_files_of_one_spectrum():
    assert len(ONE_SPECTRUM) >= len(FOLDERS)


@pytest.mark.parametrize("path", [*ONE_SPECTRUM, *real_files("misc/L5g*")])
def test_golden(path):
    [spectra] = read_file(FILES / path)
    check_golden(spectra, golden()[str(path)]["spec"])


@pytest.mark.parametrize("path", real_files("keck_hires/rj26*"))
def test_specmatch_golden(path):
    [spectra] = read_file(FILES / path)
    check_golden(spectra, golden()[str(path)]["ref"])
    velocity = line_velocity(spectra.wavelength, spectra.flux[0], spectra.good[0], MG_B, core=12)
    assert abs(velocity) < 5


@pytest.mark.parametrize("path", [*real_files("keck_hires/rj130*"), *real_files("igrins/*a0v*")])
def test_orders_golden(path):
    [spectra] = read_file(FILES / path)
    rows = golden()[str(path)]
    assert len(np.unique(spectra.order)) == rows["n_spectra"]
    for name in set(rows) - {"n_spectra"}:
        check_golden(spectra[:, spectra.order == int(name.removeprefix("ord"))], rows[name])


@pytest.mark.parametrize("path", real_files("igrins/*.sn.fits"))
def test_signal_to_noise_is_no_spectrum(path):
    with pytest.raises(SpectrumFileError, match="no HDU of wavelengths: a map of signal to noise"):
        read_file(FILES / path)


@pytest.mark.parametrize("path", [*real_files("miles/*"), *real_files("indo_us/G2*")])
def test_libraries_are_at_rest(path):
    [spectra] = read_file(FILES / path)
    found = line_velocity(spectra.wavelength, spectra.flux[0], spectra.good[0], 6562.80, core=120)
    assert abs(found) < 15
    assert spectra.frame == "rest"


def test_uves_pipeline():
    path = FILES / "misc" / "UVES.fits"
    if not path.is_file():
        pytest.skip("no such file in SKSPEC_FILES")
    [spectra] = read_file(path)
    assert (spectra.frame, spectra.medium) == ("topocentric", "air")
    assert_allclose(spectra.meta["berv"], -27.472006)
    assert spectra.meta["star_id"] == "MN-Lup"
    assert_allclose(spectra.wavelength[[0, -1]], [3732.05623, 3732.05623 + 42750 * 0.02965338348])


def flux_of(*shape):
    return np.random.default_rng(0).uniform(80, 120, shape).astype(np.float32)


class TestLibraries:
    def test_miles(self, tmp_path):
        [spectra] = read_file(write_library(tmp_path / "MILES_m0505V.fits", "miles", flux_of(60)))
        assert_array_equal(spectra.flux[0], flux_of(60))
        assert_allclose(spectra.wavelength, 3540.5 + 0.9 * np.arange(60))
        assert_allclose(spectra.resolution, spectra.wavelength / 2.5)
        assert (spectra.medium, spectra.frame) == ("air", "rest")
        assert spectra.meta["star_id"] == "m0505"

    @pytest.mark.parametrize(
        "survey, names", [("indo_us", "TEFF LOGG FEH"), ("stelib", "TEFF LOG_G FE_H")]
    )
    def test_labels(self, tmp_path, survey, names):
        given = {"TEFF": 5521, "g": 3.3, "m": "-0.06"}
        cards = dict(zip(names.split(), given.values()))
        [spectra] = read_file(write_library(tmp_path / "a", survey, flux_of(60), **cards))
        assert spectra.meta["format"] == survey
        labels = [spectra.meta[name][0] for name in ("teff", "logg", "feh")]
        assert_allclose(labels, [5521, 3.3, -0.06])
        assert spectra.meta["star_id"][0].replace(" ", "") == "HD1"
        for missing in ("INDEF", "-", "None", -9999.0):
            cards = dict.fromkeys(names.split(), missing)
            [spectra] = read_file(write_library(tmp_path / "a", survey, flux_of(60), **cards))
            assert all(np.isnan(spectra.meta[name]) for name in ("teff", "logg", "feh"))

    def test_position(self, tmp_path):
        cards = dict.fromkeys(["TEFF", "LOGG", "FEH"], "INDEF")
        [spectra] = read_file(write_library(tmp_path / "a", "indo_us", flux_of(60), **cards))
        assert_allclose(spectra.meta["ra"], 15 * (14 + 28 / 60 + 12.14 / 3600))
        assert_allclose(spectra.meta["dec"], -(2 + 13 / 60 + 40.6 / 3600))

    def test_unobserved_zeros(self, tmp_path):
        flux = flux_of(60)
        flux[:9] = 0
        cards = {"TEFF": 5000.0, "LOG_G": 4.0, "FE_H": 0.0}
        [spectra] = read_file(write_library(tmp_path / "a", "stelib", flux, **cards))
        assert_array_equal(~spectra.good[0], np.arange(60) < 9)

    def test_mastar_hc(self, tmp_path):
        resolution = np.linspace(1500, 2000, 60)
        path = write_mastar_hc(tmp_path / "a", flux_of(60), np.full(60, 4.0), resolution)
        [spectra] = read_file(path)
        assert_allclose(spectra.wavelength, 10 ** (3.5601 + 1e-4 * np.arange(60)))
        assert_allclose(spectra.ivar, 4)
        assert_allclose(spectra.resolution, resolution)
        assert (spectra.medium, spectra.frame) == ("vacuum", "rest")

    def test_irtf(self, tmp_path):
        rows = np.stack([np.linspace(0.8, 0.9, 60), flux_of(60), np.full(60, 2.0)])
        rows[1:, :3] = np.nan
        cards = {"XUNITS": "Microns", "YUNITS": "W m-2 um-1", "WAVETYPE": "Vacuum", "OBJECT": "X"}
        [spectra] = read_file(write_image(tmp_path / "a", rows, cards, dtype=float))
        assert_allclose(spectra.wavelength, np.linspace(8000, 9000, 60))
        assert_array_equal(~spectra.good[0], np.arange(60) < 3)
        assert_allclose(spectra.ivar[0, 3:], 0.25)
        assert (spectra.medium, spectra.flux_unit) == ("vacuum", "W m-2 um-1")


class TestKeck:
    def test_orders(self, tmp_path):
        wavelength = 5000 + np.arange(120.0).reshape(2, 60) * 0.02 - [[0], [0.5]]
        relative = np.full((2, 60), 0.01)
        relative[0, 3] = 0
        path = write_hires(tmp_path / "a", flux_of(2, 60), relative, wavelength)
        [spectra] = read_file(path)
        assert_array_equal(spectra.flux[0], flux_of(2, 60).ravel())
        assert_allclose(spectra.snr, 100)
        assert_array_equal(np.flatnonzero(~spectra.good[0]), [3])
        assert_allclose(spectra.wavelength, wavelength.ravel())
        assert_array_equal(spectra.order, np.repeat([0, 1], 60))
        assert (spectra.medium, spectra.frame) == ("air", "topocentric")
        assert spectra.meta["star_id"] == "gl699"
        assert_allclose(spectra.meta["ra"], 269.4495)

    def test_without_wavelengths(self, tmp_path):
        relative = np.full((2, 60), 0.01)
        path = write_hires(tmp_path / "a", flux_of(2, 60), relative, relative)
        with pytest.raises(SpectrumFileError, match="no HDU with wavelengths"):
            read_file(path)

    def test_specmatch(self, tmp_path):
        wavelength, error = np.linspace(5000, 5010, 60), np.full(60, 0.5)
        error[4] = 0
        [spectra] = read_file(write_specmatch(tmp_path / "a", flux_of(60), error, wavelength))
        assert_array_equal(spectra.wavelength, wavelength)
        assert_array_equal(np.flatnonzero(~spectra.good[0]), [4])
        assert_allclose(spectra.ivar[0, 5:], 4)
        assert (spectra.medium, spectra.frame) == ("air", "rest")


class TestIgrins:
    @pytest.mark.parametrize("factor", [1, 1e3])
    def test_micron_and_nanometre(self, tmp_path, factor):
        wavelength = np.array([2.2 + 1e-5 * np.arange(60), 2.1 + 1e-5 * np.arange(60)])
        flux = flux_of(2, 60)
        flux[0, :4] = np.nan
        [spectra] = read_file(write_igrins(tmp_path / "a", flux, factor * wavelength))
        assert_allclose(spectra.wavelength, 1e4 * wavelength.ravel())
        assert_array_equal(~spectra.good[0], np.arange(120) < 4)
        assert_array_equal(spectra.order, np.repeat([0, 1], 60))
        assert (spectra.medium, spectra.frame) == ("vacuum", "topocentric")

    def test_no_wavelengths(self, tmp_path):
        with pytest.raises(SpectrumFileError, match="a map of signal to noise"):
            read_file(write_igrins(tmp_path / "a", flux_of(2, 60), None))


LINEAR = {"CRVAL1": 5000.0, "CDELT1": 0.1, "CRPIX1": 1.0}


class TestOneDimensional:
    wavelength = 5000 + 0.1 * np.arange(60)

    def read(self, path, cards, flux=None, **extensions):
        flux = flux_of(60) if flux is None else flux
        [spectra] = read_file(write_image(path, flux, cards, **extensions))
        assert spectra.meta["format"] == "fits_1d"
        return spectra

    @pytest.mark.parametrize(
        "cards",
        [
            LINEAR,
            {"CRVAL1": 5000.0, "CD1_1": 0.1},  # without CRPIX1, which is 1 then
            {"CRVAL1": 5001.0, "CDELT1": 0.1, "CRPIX1": 11},
            {"CRVAL1": 500.0, "CDELT1": 0.01, "CUNIT1": "nm"},
            {"CRVAL1": 500.0, "CDELT1": 0.01, "CUNIT1": "nanometers"},
            {"CRVAL1": 0.5, "CDELT1": 1e-5, "CUNIT1": "um"},
            {"CRVAL1": 5e-7, "CDELT1": 1e-11, "CUNIT1": "m"},
            LINEAR | {"CTYPE1": "WAVELENGTH [Ang]"},
        ],
    )
    def test_linear(self, tmp_path, cards):
        spectra = self.read(tmp_path / "a", cards)
        assert_allclose(spectra.wavelength, self.wavelength, rtol=1e-10)
        assert_array_equal(spectra.flux[0], flux_of(60))
        assert spectra.ivar is None or np.isinf(spectra.ivar).all()
        assert spectra.frame is None

    @pytest.mark.parametrize("cards", [{"DC-FLAG": 1}, {"CTYPE1": "LOGLIN"}, {}])
    def test_log(self, tmp_path, cards):
        spectra = self.read(tmp_path / "a", {"CRVAL1": 3.7, "CDELT1": 1e-5} | cards)
        assert_allclose(spectra.wavelength, 10 ** (3.7 + 1e-5 * np.arange(60)), rtol=1e-12)
        assert spectra.medium is None

    @pytest.mark.parametrize("kind, medium", [("WAVE-LOG", "vacuum"), ("AWAV-LOG", "air")])
    @pytest.mark.parametrize("unit, size", [("Angstrom", 1), ("nm", 10), ("um", 1e4)])
    def test_log_of_the_standard(self, tmp_path, kind, medium, unit, size):
        """CRVAL1 is a wavelength, and CDELT1 its step there: paper III, equation 5."""
        cards = {"CTYPE1": kind, "CUNIT1": unit, "CRVAL1": 5000 / size, "CDELT1": 0.1 / size}
        spectra = self.read(tmp_path / "a", cards | {"CRPIX1": 2.0})
        assert_allclose(spectra.wavelength, 5000 * np.exp((np.arange(60) - 1) * 0.1 / 5000))
        assert spectra.medium == medium

    def test_reference_pixel_zero(self, tmp_path):
        spectra = self.read(tmp_path / "a", LINEAR | {"CRPIX1": 0.0})
        assert_allclose(spectra.wavelength, 5000.1 + 0.1 * np.arange(60))

    def test_no_unit(self, tmp_path):
        with pytest.raises(SpectrumFileError, match="from 500 to 500.59.*in which unit"):
            self.read(tmp_path / "a", {"CRVAL1": 500.0, "CDELT1": 0.01})

    @pytest.mark.parametrize("name", ["ERR", "uncertainty", "IVAR", "Mask", "flags"])
    def test_flux_behind_its_errors(self, tmp_path, name):
        """The first image is not the flux where its name says that it holds something else."""
        hdus = [fits.ImageHDU(np.full(60, 2.0), name=name), fits.ImageHDU(flux_of(60), name="SCI")]
        for hdu in hdus:
            hdu.header.update(LINEAR)
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "a")
        [spectra] = read_file(tmp_path / "a")
        good = spectra.good[0]
        assert good.all() != (name in ("Mask", "flags"))
        assert_array_equal(spectra.flux[0], flux_of(60))

    @pytest.mark.parametrize("unit, size", [("Angstrom", 1), ("nm", 10)])
    @pytest.mark.parametrize("cards", [{}, {"CRVAL1": 1.0, "CDELT1": 1.0}])
    def test_wavelengths_of_an_extension(self, tmp_path, unit, size, cards):
        wavelength = 5000 + np.cumsum(np.linspace(0.1, 0.2, 60))
        path = write_image(tmp_path / "a", flux_of(60), cards, WAVELENGTH=wavelength / size)
        with fits.open(path, mode="update") as hdus:
            hdus["WAVELENGTH"].header["BUNIT"] = unit
        [spectra] = read_file(path)
        assert_allclose(spectra.wavelength, wavelength)
        assert spectra.medium is None  # uneven

    @pytest.mark.parametrize(
        "cards, medium",
        [
            ({}, "air"),  # even steps in the optical, as of IRAF
            ({"CTYPE1": "AWAV"}, "air"),
            ({"CTYPE1": "WAVE"}, "vacuum"),
            ({"VACUUM": True}, "vacuum"),
            ({"VACUUM": False}, "air"),
            ({"VACUUM": ""}, "air"),
            ({"AIRORVAC": "vac"}, "vacuum"),
            ({"CRVAL1": 22_000.0}, None),
        ],
    )
    def test_medium(self, tmp_path, cards, medium):
        assert self.read(tmp_path / "a", LINEAR | cards).medium == medium

    @pytest.mark.parametrize(
        "specsys, frame",
        [("BARYCENT", "barycentric"), ("HELIOCEN", "heliocentric"), ("TOPOCENT", "topocentric")]
        + [("SOURCE", "rest"), ("LSRK", None)],
    )
    def test_frame(self, tmp_path, specsys, frame):
        assert self.read(tmp_path / "a", LINEAR | {"SPECSYS": specsys}).frame == frame

    @pytest.mark.parametrize(
        "extensions",
        [
            {"ERR": np.full(60, 0.5)},
            {"SIGMA": np.full(60, 0.5)},
            {"UNCERTAINTY": np.full(60, 0.5)},
            {"flux_err": np.full(60, 0.5)},
            {"VAR": np.full(60, 0.25)},
            {"IVAR": np.full(60, 4.0)},
        ],
    )
    def test_errors(self, tmp_path, extensions):
        mask = np.zeros(60, np.int32)
        mask[7] = 1
        spectra = self.read(tmp_path / "a", LINEAR, MASK=mask, **extensions)
        assert_allclose(spectra.ivar[0], np.where(mask, 0, 4))

    def test_gap(self, tmp_path):
        flux = flux_of(60)
        flux[10:20], flux[30] = 0, 0  # one zero can be a flux
        spectra = self.read(tmp_path / "a", LINEAR, flux)
        assert_array_equal(~spectra.good[0], (np.arange(60) >= 10) & (np.arange(60) < 20))

    def test_axes_of_length_one(self, tmp_path):
        assert self.read(tmp_path / "a", LINEAR, flux_of(1, 1, 60)).shape == (1, 60)

    @pytest.mark.parametrize("axis", ["VELO-LSR", "FREQ", "PIXEL"])
    def test_other_axes(self, tmp_path, axis):
        with pytest.raises(SpectrumFileError, match=f"its axis is {axis}"):
            self.read(tmp_path / "a", LINEAR | {"CTYPE1": axis})

    def test_uves_popler(self, tmp_path):
        rows = np.stack([flux_of(60), np.full(60, 2.0), np.zeros(60), np.ones(60)])
        rows[:2, :5] = -1e32
        cards = {"CTYPE1": "LOGLIN", "CRVAL1": 3.6, "CDELT1": 1e-5, "CRPIX1": 1, "DC-FLAG": 1}
        [spectra] = read_file(write_image(tmp_path / "a", rows, cards, dtype=float))
        assert_array_equal(~spectra.good[0], np.arange(60) < 5)
        assert_allclose(spectra.ivar[0, 5:], 0.25)
        assert_allclose(spectra.wavelength, 10 ** (3.6 + 1e-5 * np.arange(60)))
        assert (spectra.medium, spectra.frame) == ("vacuum", "heliocentric")
