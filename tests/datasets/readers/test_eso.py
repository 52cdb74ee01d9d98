import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from survey_files import FILES, check_golden, golden, real_files
from survey_layouts.eso import MEANINGS, write_phase3

from skspec.datasets.readers import SpectrumFileError, read_file

pytest.importorskip("astropy")


@pytest.mark.parametrize("path", real_files("misc/XShooter*"))
def test_golden(path):
    [spectra] = read_file(FILES / path)
    check_golden(spectra, golden()[str(path)]["spec"])
    assert (spectra.frame, spectra.resolution) == ("heliocentric", 5300)
    assert spectra.flux_unit == "erg s**(-1) cm**(-2) nm**(-1)"
    assert spectra.meta["star_id"] == "BR J2349-3712"


@pytest.fixture
def columns():
    rng = np.random.default_rng(0)
    wave = 400 + 0.01 * np.arange(100)
    return {"WAVE": wave, "FLUX": rng.uniform(5, 6, 100), "ERR_FLUX": np.full(100, 0.5)}


def test_nanometre(tmp_path, columns):
    columns["ERR_FLUX"][4], columns["FLUX"][5] = 0, np.nan
    [spectra] = read_file(write_phase3(tmp_path / "a", columns))
    assert_allclose(spectra.wavelength, 4000 + 0.1 * np.arange(100))
    assert_array_equal(spectra.flux[0, 6:], columns["FLUX"][6:])
    assert_array_equal(np.flatnonzero(~spectra.good[0]), [4, 5])
    assert_allclose(spectra.ivar[0, 6:], 4)
    assert (spectra.frame, spectra.medium) == ("barycentric", None)
    assert_allclose([spectra.meta["ra"][0], spectra.meta["dec"][0]], [10, -5])


@pytest.mark.parametrize("order", [1, -1])
def test_main_flux_of_several(tmp_path, columns, order):
    others = {"CONTINUUM": np.ones(100), "FLUX_TELL_CORR": np.full(100, 2.0)}
    others["ERR_FLUX_TELL_CORR"] = np.full(100, 3.0)
    several = dict(list((columns | others).items())[::order])
    [spectra] = read_file(write_phase3(tmp_path / "a", several))
    assert_array_equal(spectra.flux[0], columns["FLUX"])
    assert_allclose(spectra.ivar, 4)


def test_columns_by_name(tmp_path, columns):
    columns["ERR"] = columns.pop("ERR_FLUX")
    columns["QUAL"] = np.where(np.arange(100) == 9, 4, 0)
    columns["WAVE"] *= 10
    path = write_phase3(tmp_path / "a", columns, unit="Angstrom", meanings={}, voclass=False)
    [spectra] = read_file(path)
    assert_array_equal(spectra.wavelength, columns["WAVE"])
    assert_allclose(spectra.ivar[0, :9], 4)
    assert_array_equal(np.flatnonzero(~spectra.good[0]), [9])


def test_no_errors(tmp_path, columns):
    """HARPS and FEROS have a column of NaN."""
    columns["ERR_FLUX"][:] = np.nan
    header = {"INSTRUME": "HARPS", "HIERARCH ESO DRS BERV": 10.0, "HIERARCH ESO DRS CCF RVC": 3.0}
    [spectra] = read_file(write_phase3(tmp_path / "a", columns, header=header))
    assert np.isnan(spectra.snr)
    assert spectra.good.all()
    assert spectra.medium == "air"
    assert_allclose(spectra.meta["rv"], 3)


def test_topocentric(tmp_path, columns):
    header = {"INSTRUME": "UVES", "SPECSYS": "TOPOCENT", "HIERARCH ESO QC VRAD BARYCOR": -27.5}
    [spectra] = read_file(write_phase3(tmp_path / "a", columns, header=header))
    assert (spectra.frame, spectra.medium) == ("topocentric", "air")
    assert_allclose(spectra.meta["berv"], -27.5)


def test_vacuum_beside_air(tmp_path, columns):
    columns = {"WAVE_AIR": columns["WAVE"] / 1.00028} | columns
    [spectra] = read_file(write_phase3(tmp_path / "a", columns, header={"INSTRUME": "ESPRESSO"}))
    assert spectra.medium == "vacuum"
    assert_allclose(spectra.wavelength[0], 4000)


def test_air_by_its_ucd(tmp_path, columns):
    meanings = MEANINGS | {"WAVE": (MEANINGS["WAVE"][0], "em.wl;obs.atmos")}
    [spectra] = read_file(write_phase3(tmp_path / "a", columns, meanings=meanings))
    assert spectra.medium == "air"


def test_no_unit(tmp_path, columns):
    with pytest.raises(SpectrumFileError, match="from 400 to 400.99.*in which unit"):
        read_file(write_phase3(tmp_path / "a", columns, unit=None))


def test_without_wavelengths(tmp_path, columns):
    del columns["WAVE"]
    with pytest.raises(SpectrumFileError, match="none of its columns .* holds wavelengths"):
        read_file(write_phase3(tmp_path / "a", columns))


def test_impossible_number_of_columns(tmp_path, columns):
    path = write_phase3(tmp_path / "a", columns)
    number = b"TFIELDS =                    3"
    data = path.read_bytes()
    assert number in data
    path.write_bytes(data.replace(number, b"TFIELDS =            987654321"))
    with pytest.raises(SpectrumFileError, match="an impossible TFIELDS"):
        read_file(path)
