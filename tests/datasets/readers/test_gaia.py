import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from survey_files import FILES, check_golden, golden, line_velocity, real_files

pytest.importorskip("astropy")

from survey_layouts.gaia import CONTAINERS, continuous, long, raw, write_table  # noqa: E402

from skspec.datasets import read_xp_coefficients  # noqa: E402
from skspec.datasets.readers import SpectrumFileError, read_file  # noqa: E402

RVS = 846 + 0.01 * np.arange(2401)
XP = 336 + 2.0 * np.arange(343)
STARS = np.array([5853498713190525696, 5762406957886626817])  # no float64 holds the second
CALCIUM = (8500.36, 8544.44, 8664.52)  # vacuum


@pytest.mark.parametrize("path", real_files("gaia_rvs/*.csv"))
def test_real_rvs(path):
    [spectra] = read_file(FILES / path)
    check_golden(spectra, golden()[str(path)]["rvs"])
    assert spectra.meta["star_id"][0] == str(spectra.meta["source_id"][0])
    first = (FILES / path).read_text().splitlines()[1].split(",")
    assert spectra.meta["star_id"][0] == first[0]
    assert_allclose(spectra.meta["ra"], float(first[2]), rtol=1e-15)
    for line in CALCIUM:
        at = line_velocity(spectra.wavelength, spectra.flux[0], spectra.good[0], line, core=40)
        assert abs(at) < 15


@pytest.mark.parametrize("path", real_files("gaia_rvs/*.fits"))
def test_real_grid_is_no_spectrum(path):
    with pytest.raises(SpectrumFileError, match="map of wavelengths"):
        read_file(FILES / path)


@pytest.mark.parametrize("path", real_files("gaia_xp/XP_SAMPLED*"))
def test_real_xp_is_the_same_in_all_containers(path):
    [spectra] = read_file(FILES / path)
    [other] = read_file(FILES / "gaia_xp" / "XP_SAMPLED_RAW_dr3int6.csv")
    assert spectra.meta["star_id"].tolist() == ["6", "4"]
    assert_array_equal(spectra.wavelength, 10 * XP)
    assert_allclose(spectra.flux, other.flux, rtol=1e-6)
    assert_allclose(spectra.ivar, other.ivar, rtol=1e-6)
    assert_allclose(spectra.meta["ra"], [217.39232147200883, 135.57206089], rtol=1e-9)
    assert spectra.flux_unit == "W m-2 nm-1"


@pytest.mark.parametrize("path", real_files("gaia_xp/SPSS*"))
def test_real_standards(path):
    [spectra] = read_file(FILES / path)
    assert spectra.meta["star_id"].tolist() == ["5", "8", "10", "20", "19"]
    assert_array_equal(spectra.wavelength, np.arange(3000.0, 12001, 20))
    # zeros of flux and error beyond the standards' own spectra
    assert_array_equal(np.sum(~spectra.good, axis=1), [54, 53, 53, 52, 53])


@pytest.mark.parametrize("path", real_files("gaia_xp/XP_CONTINUOUS*"))
def test_real_coefficients(path):
    with pytest.raises(SpectrumFileError, match="read_xp_coefficients"):
        read_file(FILES / path)
    found = read_xp_coefficients(FILES / path)
    other = read_xp_coefficients(FILES / "gaia_xp" / "XP_CONTINUOUS_RAW.csv")
    assert found.source_id.tolist() == [5853498713190525696, 5762406957886626816]
    assert found.coefficients.shape == (2, 110)
    assert_allclose(found.coefficients[0, :2], [56947.03696840172, 13812.466168611605], rtol=1e-12)
    for name in ("coefficients", "errors", "correlations"):
        assert_allclose(getattr(found, name), getattr(other, name), rtol=1e-6)
    whole = np.isfinite(found.correlations).all(axis=(1, 2))
    assert np.linalg.eigvalsh(found.correlations[whole]).min() > -1e-4  # a correlation matrix


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("wide", [True, False])
def test_rvs_made(tmp_path, container, wide):
    rng = np.random.default_rng(0)
    flux = rng.uniform(0.5, 1, (2, 2401)).astype(np.float32).astype(float)
    error = np.full(flux.shape, 0.0078125)
    flux[1, :3] = error[1, :3] = np.nan
    make = raw if wide else long
    args = (STARS, flux, error) if wide else (STARS, RVS, flux, error)
    path = tmp_path / f"rvs.{container}"
    write_table(path, make(*args, ra=np.array([10.0, 20.0])))
    [spectra] = read_file(path)
    assert spectra.meta["format"].tolist() == ["gaia_rvs"] * 2
    assert spectra.meta["source_id"].tolist() == STARS.tolist()
    assert spectra.meta["star_id"].tolist() == list(map(str, STARS))
    assert spectra.meta["ra"].tolist() == [10.0, 20.0]
    assert_array_equal(spectra.wavelength, 10 * RVS)
    assert_allclose(spectra.flux, np.nan_to_num(flux), rtol=1e-7)
    assert_array_equal(spectra.ivar, np.where(np.isnan(error), 0, 1 / 0.0078125**2))
    assert (spectra.medium, spectra.frame, spectra.resolution) == ("vacuum", "rest", 11500)


@pytest.mark.parametrize("container", CONTAINERS)
def test_xp_made(tmp_path, container):
    rng = np.random.default_rng(0)
    flux = rng.uniform(1e-16, 2e-16, (2, 343)).astype(np.float32)
    path = tmp_path / f"xp.{container}"
    write_table(path, raw(STARS, flux, flux / 64), units={"flux": "W m-2 nm-1"})
    [spectra] = read_file(path)
    assert spectra.meta["star_id"].tolist() == list(map(str, STARS))
    assert_array_equal(spectra.wavelength, 10 * XP)
    assert_allclose(spectra.flux, flux, rtol=1e-7)
    assert_allclose(spectra.snr, 64, rtol=1e-6)
    assert spectra.flux_unit == "W m-2 nm-1"


def test_long_table_of_a_star_without_its_name(tmp_path):
    """A file of one star has the name of the star in its own."""
    columns = long([1], RVS, np.ones(2401), np.full(2401, 0.01))
    del columns["source_id"]
    star = "Gaia DR3 5762406957886626817"
    write_table(tmp_path / f"RVS_MEAN_SPECTRUM-{star}.csv", columns)
    [spectra] = read_file(tmp_path / f"RVS_MEAN_SPECTRUM-{star}.csv")
    assert spectra.meta["source_id"].tolist() == [5762406957886626817]
    write_table(tmp_path / "mine.csv", columns)
    assert read_file(tmp_path / "mine.csv")[0].meta["star_id"].tolist() == [""]


def test_rows_in_any_order_and_left_out(tmp_path):
    rng = np.random.default_rng(0)
    flux = rng.uniform(0.5, 1, (2, 2401))
    columns = long(STARS, RVS, flux, np.full(flux.shape, 0.01))
    keep = rng.permutation(2 * 2401)[:-100]
    write_table(tmp_path / "a.csv", {name: values[keep] for name, values in columns.items()})
    [spectra] = read_file(tmp_path / "a.csv")
    rows = [spectra.meta["source_id"].tolist().index(star) for star in STARS]
    spectra = spectra[rows]
    assert np.sum(~spectra.good) == 100
    assert_array_equal(spectra.flux[spectra.good], flux[spectra.good])


def test_photons_are_not_watts(tmp_path):
    flux = np.ones((2, 343))
    path = write_table(
        tmp_path / "a.fits", raw(STARS, flux, flux), units={"flux": "photon s-1 m-2 nm-1"}
    )
    assert read_file(path)[0].flux_unit == "ph / (nm s m2)"


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (raw(STARS, np.ones((2, 307)), np.ones((2, 307))), "307 samples without wavelengths"),
        (raw(STARS, np.ones((2, 343)), np.ones((2, 340))), "340 samples without wavelengths"),
        (raw([1.5e18, 2e18], np.ones((2, 343)), np.ones((2, 343))), "last digits are lost"),
        (long([1, 1], RVS, np.ones(4802), np.ones(4802)), "wavelengths of a star twice"),
    ],
)
def test_refused(tmp_path, columns, reason):
    path = write_table(tmp_path / "a.fits", columns)
    with pytest.raises(SpectrumFileError, match=reason):
        read_file(path)


@pytest.mark.parametrize("container", CONTAINERS)
def test_coefficients_made(tmp_path, container):
    rng = np.random.default_rng(0)
    both = [(rng.normal(size=55), np.full(55, 2.0)) for _ in range(3)]
    upper = rng.uniform(-0.1, 0.1, (3, 1485))
    columns = continuous(STARS, [both[0], ([], [])], both[1:], [upper[0], []], upper[1:])
    path = write_table(tmp_path / f"xp.{container}", columns)
    found = read_xp_coefficients(path)
    assert len(found) == 2
    assert found.source_id.tolist() == STARS.tolist()
    assert_allclose(found.coefficients[0, :55], both[0][0], rtol=1e-6)
    assert_allclose(found.coefficients[:, 55:], [both[1][0], both[2][0]], rtol=1e-6)
    assert np.isnan(found.coefficients[1, :55]).all()
    assert np.isnan(found.errors[1, :55]).all()
    # column by column: (0, 1), (0, 2), (1, 2), (0, 3), ...
    block = found.correlations[0, :55, :55]
    assert_allclose([block[0, 1], block[0, 2], block[1, 2], block[0, 3]], upper[0, :4], rtol=1e-6)
    assert_array_equal(block, block.T)
    assert_array_equal(np.diag(found.correlations[0]), 1)
    assert_array_equal(found.correlations[0, :55, 55:], 0)
    assert_allclose(found.cov()[0, 0, 1], 4 * upper[0, 0], rtol=1e-6)


def test_coefficients_refuse_what_has_none(tmp_path):
    path = write_table(tmp_path / "xp.csv", raw(STARS, np.ones((2, 343)), np.ones((2, 343))))
    with pytest.raises(SpectrumFileError, match="no columns bp_coefficients"):
        read_xp_coefficients(path)
    good = (np.ones(55), np.ones(55))
    columns = continuous(STARS, [good] * 2, [(np.ones(54), np.ones(54))] * 2, [[]] * 2, [[]] * 2)
    with pytest.raises(SpectrumFileError, match="54 numbers, not 55"):
        read_xp_coefficients(write_table(tmp_path / "b.csv", columns))
    with pytest.raises(SpectrumFileError, match="cannot be opened"):
        read_xp_coefficients(tmp_path / "nothing.csv")
