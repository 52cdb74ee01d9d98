import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from survey_layouts.sdss_v import GRIDS, write_mwm

from skspec.datasets.readers import SpectrumFileError, read_file

pytest.importorskip("astropy")


@pytest.fixture
def rows():
    """Flux, ivar and flags of `n` spectra of an instrument."""
    rng = np.random.default_rng(0)

    def draw(instrument, n):
        n_pixels = GRIDS[instrument][2]
        flux = rng.uniform(5, 6, (n, n_pixels)).astype(np.float32)
        flags = np.zeros((n, n_pixels), dtype=int)
        flags[:, 3] = 1 << 0
        flags[:, 4] = 1 << 12
        return flux, np.full((n, n_pixels), 4.0), flags

    return draw


def grid(instrument):
    start, step, n_pixels = GRIDS[instrument]
    return 10 ** (start + step * np.arange(n_pixels))


def test_star(tmp_path, rows):
    apogee, boss = rows("APOGEE", 1), rows("BOSS", 1)
    write_mwm(tmp_path / "a.fits", {("APOGEE", "APO"): apogee, ("BOSS", "LCO"): boss}, visits=False)
    found = read_file(tmp_path / "a.fits")
    for spectra, instrument, (flux, *_) in zip(found, ("BOSS", "APOGEE"), (boss, apogee)):
        assert spectra.meta["instrument"] == instrument
        assert_allclose(spectra.wavelength, grid(instrument), rtol=1e-12)  # the column has float32
        assert_array_equal(spectra.flux, flux)
        assert (spectra.medium, spectra.frame) == ("vacuum", "rest")
        assert spectra.meta["star_id"] == "42"
        assert spectra.meta["source_id"] == 2**60 + 1
        assert spectra.meta["exposure"] == ""
        assert spectra.meta["rv_removed"] == 10
    # flags of BOSS are of any of the exposures
    assert [np.flatnonzero(~s.good[0]).tolist() for s in found] == [[], [3]]
    assert [s.meta["telescope"][0] for s in found] == ["lco25m", "apo25m"]


def test_telescopes_on_one_grid_are_rows(tmp_path, rows):
    apo, lco = rows("APOGEE", 1), rows("APOGEE", 1)
    write_mwm(tmp_path / "a.fits", {("APOGEE", "APO"): apo, ("APOGEE", "LCO"): lco}, visits=False)
    [spectra] = read_file(tmp_path / "a.fits")
    assert_array_equal(spectra.flux, np.concatenate([apo[0], lco[0]]))


def test_visits(tmp_path, rows):
    flux, ivar, flags = rows("APOGEE", 3)
    ivar[2] = 0
    write_mwm(tmp_path / "a.fits", {("APOGEE", "APO"): (flux, ivar, flags)}, visits=True)
    [spectra] = read_file(tmp_path / "a.fits")  # there is no combined spectrum to stand for them
    assert spectra.meta["exposure"].tolist() == ["apo25m 59804", "apo25m 59805"]
    assert_array_equal(spectra.flux, flux[:2])
    assert_allclose(spectra.wavelength, grid("APOGEE"), rtol=1e-12)
    assert_allclose(spectra.meta["rv_removed"], [10, 11])
    assert spectra.meta["in_stack"].tolist() == [True, False]


def test_empty(tmp_path):
    write_mwm(tmp_path / "a.fits", {}, visits=False)
    with pytest.raises(SpectrumFileError, match="no spectrum of either instrument"):
        read_file(tmp_path / "a.fits")


def test_models_are_no_observations(tmp_path, rows):
    found = {("APOGEE", "APO"): rows("APOGEE", 1)}
    write_mwm(tmp_path / "a.fits", found, visits=False, flux_name="model_flux")
    with pytest.raises(SpectrumFileError, match="models only"):
        read_file(tmp_path / "a.fits")
