import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from survey_files import FILES, check_golden, golden, line_velocity, real_files
from survey_layouts.galah import write_dr3, write_dr4

from skspec.datasets.readers import SpectrumFileError, SpectrumFileWarning, read_file

pytest.importorskip("astropy")

LIGHT_SPEED = 299_792.458
H_ALPHA, H_BETA = 6562.80, 4861.33  # air
BROKEN = "1402070012010051.fits", "1402070012010054.fits"  # relative errors of DR1


def read_all(path):
    """Normalised spectrum, and counts."""
    if path.name not in BROKEN:
        return read_file(path, exposures=True)
    with pytest.warns(SpectrumFileWarning, match="9.% of its errors are not positive"):
        return read_file(path, exposures=True)


class TestRealFiles:
    @pytest.mark.parametrize("path", real_files("galah/*"))
    def test_golden(self, path):
        normalised, counts = read_all(FILES / path)
        rows = golden()[str(path)]
        check_golden(normalised, rows["normalised"])
        row = dict(rows["flux"])
        if path.name in BROKEN:
            # golden.json has the few pixels whose error is positive; none of the errors is right
            assert counts.ivar is None
            row = {"n_bad": 0, "flux_med": None} | {k: row[k] for k in ("n", "w0", "w1", "frame")}
        check_golden(counts, row)
        assert counts.meta["exposure"] == "counts"

    @pytest.mark.parametrize("path", real_files("galah/*"))
    def test_lines_at_their_velocity(self, path):
        for spectra in read_all(FILES / path):
            rv = 0.0 if spectra.frame == "rest" else spectra.meta["rv"][0]
            for line in (H_ALPHA, H_BETA):
                found = line_velocity(
                    spectra.wavelength, spectra.flux[0], spectra.good[0], line, core=60
                )
                assert np.isnan(found) or abs(found - rv) < 15

    def test_snr_is_that_of_the_header(self):
        path = FILES / "galah" / "1707110015010062.fits"
        if not path.is_file():
            pytest.skip("no such file in SKSPEC_FILES")
        for spectra in read_file(path, exposures=True):
            assert_allclose(spectra.snr, 76.214, rtol=0, atol=5e-4)
            assert_allclose(spectra.meta["snr"], 76.214, rtol=0, atol=5e-4)
        assert spectra.meta["star_id"] == "1760921"
        assert_allclose(spectra.meta["rv"], 9.589399457)


@pytest.fixture
def star():
    rng = np.random.default_rng(0)
    counts = rng.uniform(90, 110, 300).astype(np.float32)
    return counts, counts / 100, rng.uniform(0.01, 0.02, 300).astype(np.float32)


class TestDR3:
    grid = (6478.0, 0.06)
    rv = 52.8
    rest_grid = tuple(np.array(grid) / (1 + rv / LIGHT_SPEED))

    def write(self, path, star, **options):
        counts, normalised, relative = star
        options = {"grid": self.grid, "rest_grid": self.rest_grid} | options
        return write_dr3(path, counts, relative, normalised, **options)

    def test_two_spectra_on_wavelengths_of_their_own(self, tmp_path, star):
        counts, normalised, relative = star
        path = self.write(tmp_path / "1402070012010053.fits", star)
        [default] = read_file(path)
        first, second = read_file(path, exposures=True)
        assert_array_equal(default.flux, first.flux)
        assert_array_equal(first.flux[0], normalised.astype(float))
        assert_allclose(first.wavelength, self.rest_grid[0] + self.rest_grid[1] * np.arange(300))
        assert_allclose(second.wavelength, 6478 + 0.06 * np.arange(300))
        assert_allclose(first.ivar[0], (relative * normalised) ** -2.0, rtol=1e-5)
        assert_allclose(second.ivar[0], (relative * counts) ** -2.0, rtol=1e-5)
        assert (first.frame, second.frame, first.medium) == ("rest", "barycentric", "air")
        assert_allclose(first.meta["rv_removed"], self.rv, rtol=1e-6)
        assert_allclose(second.meta["rv"], self.rv, rtol=1e-6)
        assert second.flux_unit == "counts"
        assert_array_equal(first.order, 3)

    def test_infrared_is_shorter(self, tmp_path, star):
        """The normalised spectrum begins at pixel 100; its errors are those of these pixels."""
        counts, normalised, relative = star
        step = 0.074 / (1 + self.rv / LIGHT_SPEED)
        start = (7600.0 + 100 * 0.074) / (1 + self.rv / LIGHT_SPEED)
        path = write_dr3(
            tmp_path / "a.fits",
            counts,
            relative,
            normalised[100:],
            grid=(7600.0, 0.074),
            rest_grid=(start, step),
        )
        [spectra] = read_file(path)
        assert spectra.shape == (1, 200)
        assert_allclose(spectra.ivar[0], (relative * normalised)[100:] ** -2.0, rtol=1e-3)
        assert_allclose(spectra.meta["rv_removed"], self.rv, rtol=1e-6)
        assert spectra.meta["ccd"] == 4

    def test_few_bad_errors_are_bad_pixels(self, tmp_path, star):
        star[2][:20], star[2][20:30] = 0, -1
        counts = read_file(self.write(tmp_path / "a.fits", star), exposures=True)[1]
        assert_array_equal(~counts.good[0], np.arange(300) < 30)

    @pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
    def test_broken_errors(self, tmp_path, star, value):
        star[2][30:] = value
        path = self.write(tmp_path / "a.fits", star)
        with pytest.warns(SpectrumFileWarning, match=r"a\.fits: 90% of its errors.*without errors"):
            spectra = read_file(path, exposures=True)
        assert [s.ivar for s in spectra] == [None, None]

    def test_counts_where_there_is_nothing_else(self, tmp_path, star):
        [spectra] = read_file(
            write_dr3(tmp_path / "a.fits", star[0], star[2], None, grid=self.grid)
        )
        assert_array_equal(spectra.flux[0], star[0])
        assert spectra.meta["exposure"] == ""

    def test_cameras_of_a_star_have_one_name(self, tmp_path, star):
        blue = self.write(tmp_path / "x.fits", star, grid=(4714.0, 0.046))
        red = self.write(tmp_path / "y.fits", star)
        one, other = (read_file(path)[0].meta for path in (blue, red))
        assert one["star_id"] == other["star_id"] == "140207001400005"  # of the exposures
        assert (one["part"], other["part"], one["ccd"], other["ccd"]) == ("1", "3", 1, 3)
        named = self.write(tmp_path / "1402070012010053_x.fits", star)
        assert read_file(named)[0].meta["star_id"] == "140207001201005"

    def test_resolution(self, tmp_path, star):
        for mask, resolution in (("OUT", 28_000), ("IN", 42_000)):
            path = self.write(tmp_path / "a.fits", star, header={"SLITMASK": mask})
            assert read_file(path)[0].resolution == resolution

    def test_other_wavelengths(self, tmp_path, star):
        path = self.write(tmp_path / "a.fits", star, grid=(4000.0, 0.05))
        with pytest.raises(SpectrumFileError, match="none of the four cameras"):
            read_file(path)


class TestDR4:
    def test_exact(self, tmp_path, star):
        counts, normalised, relative = star
        path = write_dr4(tmp_path / "a.fits", counts, normalised, relative, grid=(5650.0, 0.0546))
        first, second = read_file(path, exposures=True)
        assert_array_equal(first.flux[0], normalised)
        assert_array_equal(second.flux[0], counts)
        assert_allclose(first.ivar[0], (relative * normalised) ** -2.0, rtol=1e-5)
        assert_allclose(first.wavelength, 5650 + 0.0546 * np.arange(300))
        assert_allclose(first.resolution, first.wavelength / 0.2, rtol=1e-6)
        assert first.frame == second.frame == "barycentric"
        assert_allclose(first.meta["rv"], 9.6)
        assert first.meta["sobject_id"] == "170711001800006"

    @pytest.mark.parametrize(
        "cards, rv",
        [
            ({"RVCOM_OK": 0}, 9.7),
            ({"RVCOM": "None"}, 9.7),
            ({"RVCOM_OK": 0, "RV_OK": 0}, np.nan),
        ],
    )
    def test_velocity_that_the_pipeline_trusts(self, tmp_path, star, cards, rv):
        path = write_dr4(tmp_path / "a.fits", *star, grid=(5650.0, 0.0546), header=cards)
        assert_allclose(read_file(path)[0].meta["rv"], rv)
