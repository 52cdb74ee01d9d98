import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from survey_files import FILES, check_golden, golden, real_files
from survey_layouts.desi import ARMS, write_desi

from skspec.datasets.readers import SpectrumFileError, read_file

pytest.importorskip("astropy")

IDS = np.array([-1695072, 39633297352951412, 39633300968442591, 39633300968442592, 7, 8])


@pytest.mark.parametrize("path", real_files("desi/coadd*"))
def test_real_coadd(path):
    [spectra] = read_file(FILES / path)
    assert spectra.meta["targetid"].tolist() == [39633300968442591]  # the last of five rows
    for order, arm in enumerate("BRZ"):
        row = golden()[str(path)].get(f"4{arm}")
        part = spectra[:, spectra.order == order]
        assert np.all(np.diff(part.wavelength) > 0)
        if row:
            check_golden(part, row)
    assert spectra.frame == "barycentric"


@pytest.fixture
def targets():
    """Six rows: never observed, bad fibre, three targets of which one is without data, and sky."""
    return {
        "TARGETID": IDS,
        "COADD_FIBERSTATUS": np.array([0, 512, 0, 0, 0, 0]),
        "TARGET_RA": np.linspace(215, 216, 6),
        "TARGET_DEC": np.linspace(53, 54, 6),
        "OBJTYPE": np.array(["TGT", "TGT", "TGT", "TGT", "TGT", "SKY"]),
        "REF_ID": np.array([0, 0, 2**60 + 1, 5, 0, 0]),
        "REF_CAT": np.array(["", "", "G2", "T2", "", ""]),
    }


def arms(names="BRZ", n=6, step=40.0, mask=True):
    rng = np.random.default_rng(0)
    out = {}
    for name in names:
        wavelength = np.arange(ARMS[name][0], ARMS[name][1] + 1, step)
        shape = (n, len(wavelength))
        flux, ivar = rng.uniform(1, 2, shape).astype(np.float32), np.full(shape, 4.0)
        if n > 4:
            ivar[4] = 0
        out[name] = wavelength, flux, ivar, np.zeros(shape, np.uint32) if mask else None
    return out


def test_targets_are_rows(tmp_path, targets):
    found = arms()
    found["R"][3][2, 5] = 512
    write_desi(tmp_path / "a.fits", found, targets)
    [spectra] = read_file(tmp_path / "a.fits")
    assert spectra.meta["targetid"].dtype == np.int64
    assert spectra.meta["targetid"].tolist() == IDS[2:4].tolist()
    assert spectra.meta["star_id"].tolist() == IDS[2:4].astype(str).tolist()
    assert spectra.meta["source_id"].tolist() == [2**60 + 1, -1]  # T2 is Tycho
    assert_allclose(spectra.meta["ra"], targets["TARGET_RA"][2:4])
    for order, name in enumerate("BRZ"):
        part = spectra[:, spectra.order == order]
        assert_array_equal(part.wavelength, found[name][0])
        assert_array_equal(part.flux, found[name][1][2:4])
        assert_array_equal(np.argwhere(~part.good), [[0, 5]] if name == "R" else np.empty((0, 2)))
    assert (spectra.medium, spectra.frame) == ("vacuum", "barycentric")
    assert spectra.meta["exposure"].tolist() == ["", ""]


def test_exposures_are_rows(tmp_path):
    fibres = {
        "TARGETID": np.array([7, 7, 9]),
        "FIBERSTATUS": np.array([0, 0, 3]),
        "EXPID": np.array([85502, 85503, 85502]),
        "OBJTYPE": np.array(["TGT"] * 3),
    }
    write_desi(tmp_path / "a.fits", arms(n=3), fibres, exposures=True)
    [spectra] = read_file(tmp_path / "a.fits")
    assert spectra.meta["star_id"].tolist() == ["7", "7"]
    assert spectra.meta["exposure"].tolist() == ["85502", "85503"]


def test_one_target_in_one_arm_without_mask(tmp_path):
    found = arms("Z", n=1, mask=False)
    write_desi(tmp_path / "a.fits", found, {"TARGETID": np.array([7])})
    [spectra] = read_file(tmp_path / "a.fits")
    assert_array_equal(spectra.flux, found["Z"][1])
    assert np.unique(spectra.order).tolist() == [0]


def test_no_target_is_left(tmp_path, targets):
    targets["COADD_FIBERSTATUS"][:] = 1
    write_desi(tmp_path / "a.fits", arms(), targets)
    with pytest.raises(SpectrumFileError, match="none of its fibres"):
        read_file(tmp_path / "a.fits")


def test_arms_that_do_not_fit_the_fibres(tmp_path, targets):
    write_desi(tmp_path / "a.fits", arms(n=3), targets)
    with pytest.raises(SpectrumFileError, match="6 rows"):
        read_file(tmp_path / "a.fits")
