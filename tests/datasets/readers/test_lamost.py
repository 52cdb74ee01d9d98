from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from survey_files import FILES, check_golden, golden, line_velocity, real_files

from skspec.datasets.readers import read_file

pytest.importorskip("astropy")
from astropy.io import fits  # noqa: E402
from survey_layouts.lamost import write_lrs_table  # noqa: E402

H_BETA = 4862.69  # vacuum


@pytest.mark.parametrize("path", real_files("lamost_lrs_*/*"))
def test_low_resolution(path):
    [spectra] = read_file(FILES / path)
    [row] = [row for row in golden()[str(path)].values() if isinstance(row, dict)]
    check_golden(spectra, row)
    assert_allclose(spectra.meta["rv"], row["z"] * 299_792.458, rtol=1e-3)


@pytest.mark.parametrize("path", real_files("lamost_mrs/*"))
def test_medium_resolution(path):
    found = {
        spectra.meta["exposure"][0]: spectra for spectra in read_file(FILES / path, exposures=True)
    }
    rows = {name: row for name, row in golden()[str(path)].items() if isinstance(row, dict)}
    for name, row in rows.items():
        arm, _, number = name.replace("COADD_", "").partition("-")
        check_golden(found[number][:, found[number].order == "BR".index(arm)], row)
    assert sum(len(np.unique(s.order)) for s in found.values()) == golden()[str(path)]["n_spectra"]
    assert len(read_file(FILES / path)) == 1  # the combined one


@pytest.mark.parametrize("path", real_files("lamost_lrs_table_dr10/*"))
def test_lines_of_stars_at_their_velocity(path):
    [spectra] = read_file(FILES / path)
    found = line_velocity(spectra.wavelength, spectra.flux[0], spectra.good[0], H_BETA, core=200)
    assert_allclose(found, spectra.meta["rv"][0], rtol=0, atol=15)


def test_same_star_twice():
    folder = Path(FILES)
    if not (folder / "lamost_mrs").is_dir():
        pytest.skip("no lamost_mrs in SKSPEC_FILES")
    stars = [read_file(path)[0].meta["star_id"][0] for path in sorted(folder.glob("lamost_mrs/*"))]
    assert {star[:15] for star in stars} == {"J192814.09+4355"}


def test_no_error_is_infinitely_small(tmp_path):
    """Infinite inverse variances of some pixels are a fault of the file, not perfect pixels."""
    path = write_lrs_table(tmp_path / "a.fits", n_pixels=100)
    with fits.open(path, mode="update") as hdus:
        hdus["COADD"].data["IVAR"][0, [3, 50]] = np.inf
        hdus["COADD"].data["FLUX"][0, 3] = 0
    [spectra] = read_file(path)
    assert np.flatnonzero(~spectra.good[0]).tolist() == [3, 50]
    assert np.isfinite(spectra.ivar).all()
