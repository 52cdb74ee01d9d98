import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from survey_files import FILES, check_golden, golden, real_files
from survey_layouts.sdss import log10_grid, write_plate, write_spec

from skspec.datasets.readers import SpectrumFileError, read_file

fits = pytest.importorskip("astropy.io.fits")

LIGHT_SPEED = 299_792.458


class TestRealFiles:
    def rounded(self, row, ends):
        """Ends that differ from golden.json by the rounding of loglam alone, up to 5 mA."""
        logarithm = np.log10([row["w0"], row["w1"]])
        assert_allclose(
            np.log10(ends), logarithm, rtol=0, atol=2e-7
        )  # half a unit of float32, 3.5-4
        return dict(zip(("w0", "w1"), ends))

    @pytest.mark.parametrize("path", real_files("sdss_spec/*"))
    def test_coadd(self, path):
        [spectra] = read_file(FILES / path)
        row = golden()[str(path)]["coadd"]
        check_golden(spectra, row | self.rounded(row, spectra.wavelength[[0, -1]]))
        star = spectra.meta["class"][0] == "STAR"
        assert_allclose(spectra.meta["rv"], row["z"] * LIGHT_SPEED if star else np.nan, rtol=1e-6)

    def test_full_is_lite(self):
        folder = FILES / "sdss_spec"
        if not folder.is_dir():
            pytest.skip("no sdss_spec in SKSPEC_FILES")
        full = read_file(folder / "spec-0332-52367-0639.fits", exposures=True)
        [lite] = read_file(folder / "spec-0332-52367-0639__9f6a62.fits", exposures=True)
        [coadd] = [spectra for spectra in full if spectra.meta["exposure"] == ""]
        for name in ("flux", "ivar", "wavelength"):
            assert_array_equal(getattr(coadd, name), getattr(lite, name))
        assert coadd.meta["star_id"] == lite.meta["star_id"] == "SDSS J121607.35-021417.8"
        assert len(full) == 7  # three exposures of two cameras


def columns(rng, n, first=0, **masks):
    return {
        "flux": rng.uniform(5, 6, n).astype(np.float32),
        "loglam": log10_grid(n, first).astype(np.float32),
        "ivar": np.full(n, 4, np.float32),
    } | {name: np.asarray(values) for name, values in masks.items()}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


class TestSpec:
    def test_wavelengths_in_double_precision(self, tmp_path, rng):
        coadd = columns(rng, 3000, first=13, and_mask=np.zeros(3000, int))
        write_spec(tmp_path / "a.fits", coadd)
        [spectra] = read_file(tmp_path / "a.fits")
        assert_allclose(spectra.wavelength, 10 ** log10_grid(3000, 13), rtol=1e-12)
        assert_array_equal(spectra.flux[0], coadd["flux"])
        assert (spectra.medium, spectra.frame) == ("vacuum", "heliocentric")

    def test_target(self, tmp_path, rng):
        write_spec(tmp_path / "a.fits", columns(rng, 50, and_mask=np.zeros(50, int)))
        [spectra] = read_file(tmp_path / "a.fits")
        meta = {name: values[0] for name, values in spectra.meta.items()}
        assert_allclose(meta["rv"], -1e-4 * LIGHT_SPEED)
        assert meta["star_id"] == "SDSS J094917.05-000023.6"  # as in its catalogue
        assert (meta["plate"], meta["mjd"], meta["fiberid"]) == (266, 51602, 31)
        assert meta["specobjid"] == "299497923312379904"
        assert "teff" not in meta  # ELODIE_TEFF is that of a template

    def test_pixels_that_are_bad_in_all_exposures(self, tmp_path, rng):
        and_mask, or_mask = np.zeros((2, 50), int)
        and_mask[[3, 4, 5]] = [1 << 18, 1 << 22, 1 << 24]
        and_mask[[6, 7]] = [1 << 4, 1 << 16]  # of the whole fibre; near a bad pixel
        or_mask[:] = 1 << 24
        coadd = columns(rng, 50, and_mask=and_mask, or_mask=or_mask)
        coadd["ivar"][0] = 0
        write_spec(tmp_path / "a.fits", coadd)
        [spectra] = read_file(tmp_path / "a.fits")
        assert_array_equal(np.flatnonzero(~spectra.good[0]), [0, 3, 4, 5])

    def test_masks_in_floats(self, tmp_path, rng):
        coadd = columns(rng, 50, and_mask=np.zeros(50))
        coadd["and_mask"][[3, 4, 5]] = [1 << 24, np.nan, 1 << 4]
        write_spec(tmp_path / "a.fits", coadd)
        [spectra] = read_file(tmp_path / "a.fits")
        assert_array_equal(np.flatnonzero(~spectra.good[0]), [3, 4])

    def test_wavelengths_that_are_no_logarithms(self, tmp_path, rng):
        coadd = columns(rng, 50, and_mask=np.zeros(50, int))
        coadd["loglam"][7] = 3000
        write_spec(tmp_path / "a.fits", coadd)
        with pytest.raises(SpectrumFileError, match="log10 wavelengths"):
            read_file(tmp_path / "a.fits")

    def test_exposures_on_pixels_of_their_own(self, tmp_path, rng):
        blue = columns(rng, 30, mask=np.full(30, 1 << 18))
        red = columns(rng, 40, first=20, mask=np.zeros(40, int))
        red["loglam"] = (red["loglam"] + rng.uniform(-2e-5, 2e-5, 40)).astype(np.float32)[::-1]
        red["flux"] = red["flux"][::-1]
        coadd = columns(rng, 50, and_mask=np.zeros(50, int))
        write_spec(tmp_path / "a.fits", coadd, exposures={"B2-00014178": blue, "R2-00014178": red})
        found = read_file(tmp_path / "a.fits", exposures=True)
        assert [s.meta["exposure"][0] for s in found] == ["", "B2-00014178", "R2-00014178"]
        assert not found[1].good.any()
        assert_allclose(found[2].wavelength, 10 ** red["loglam"][::-1].astype(float), rtol=1e-12)
        assert_array_equal(found[2].flux[0], red["flux"][::-1])
        assert len(read_file(tmp_path / "a.fits")) == 1

    def test_of_sdss_v(self, tmp_path, rng):
        or_mask = np.full(50, 1 << 24)
        coadd = columns(rng, 50, or_mask=or_mask)
        target = {"SDSS_ID": 2**60 + 1, "CLASS": "STAR", "FIELD": 15143, "OBJTYPE": "science"}
        write_spec(tmp_path / "a.fits", coadd, target=target, catalogue="SPALL", capitals=True)
        [spectra] = read_file(tmp_path / "a.fits")
        assert spectra.good.all()
        assert spectra.meta["star_id"] == str(2**60 + 1)  # all of its digits

    def test_galaxies_have_no_velocity(self, tmp_path, rng):
        coadd = columns(rng, 50, and_mask=np.zeros(50, int))
        write_spec(tmp_path / "a.fits", coadd, target={"CLASS": "GALAXY", "Z": 0.1})
        [spectra] = read_file(tmp_path / "a.fits")
        assert np.isnan(spectra.meta["rv"])

    def test_without_catalogue(self, tmp_path, rng):
        write_spec(tmp_path / "a.fits", columns(rng, 50, and_mask=np.zeros(50, int)))
        with fits.open(tmp_path / "a.fits") as hdus:
            hdus[:2].writeto(tmp_path / "b.fits")
        [spectra] = read_file(tmp_path / "b.fits")
        assert spectra.meta["mjd"] == -1
        assert np.isnan(spectra.meta["rv"])
        assert np.isnan(spectra.meta["ra"])  # 1.0 in the header is where the plate was

    def test_of_the_sky(self, tmp_path, rng):
        coadd = columns(rng, 50, and_mask=np.zeros(50, int))
        write_spec(tmp_path / "a.fits", coadd, target={"OBJTYPE": "SKY"})
        with pytest.raises(SpectrumFileError, match="of the sky"):
            read_file(tmp_path / "a.fits")


class TestPlate:
    KINDS = ("STAR_BHB", "SKY", "SPECTROPHOTO_STD", "NA", "QSO")

    def test_targets_are_rows(self, tmp_path, rng):
        flux = rng.uniform(5, 6, (5, 60)).astype(np.float32)
        ivar = np.full((5, 60), 4.0)
        ivar[4] = 0  # broken
        and_mask = np.zeros((5, 60), int)
        and_mask[0, 7] = 1 << 24
        ra, dec = 147.32107 + np.arange(5), np.linspace(-1, 1, 5)
        write_plate(tmp_path / "a.fits", flux, ivar, and_mask, self.KINDS, ra=ra, dec=dec)
        [spectra] = read_file(tmp_path / "a.fits")
        assert spectra.meta["fiberid"].tolist() == [1, 3, 4]  # BOSS has targets of OBJTYPE NA
        assert_array_equal(spectra.flux, flux[[0, 2, 3]])
        assert_array_equal(np.argwhere(~spectra.good), [[0, 7]])
        assert_allclose(spectra.wavelength, 10 ** log10_grid(60), rtol=1e-12)
        assert_allclose(spectra.meta["ra"], ra[[0, 2, 3]])
        assert spectra.meta["plate"].tolist() == [266] * 3
        assert np.isnan(spectra.meta["rv"]).all()

    def test_without_targets(self, tmp_path):
        ones = np.ones((2, 60))
        write_plate(tmp_path / "a.fits", ones, ones, 0 * ones, ["SKY"] * 2, ra=[0, 0], dec=[0, 0])
        with pytest.raises(SpectrumFileError, match="none of its fibres"):
            read_file(tmp_path / "a.fits")
