"""Every real file is read, or refused for what it is; every folder comes onto one grid."""

import warnings

import numpy as np
import pytest
from survey_files import FILES, real_files

from skspec.datasets import UnreadFilesWarning, read_spectra
from skspec.datasets.readers import SpectrumFileError, SpectrumFileWarning, formats, read_file

pytest.importorskip("astropy")

#: files that hold no spectrum, by a part of their names, and the word that must be said
NO_SPECTRUM = {
    "damaged/": "truncated",
    "2378196p.out": "header written out as text",
    "SampleLSD.s": "velocities",
    "gaia_rvs_wavelength": "map of wavelengths",
    "_wave_A.fits": "map of wavelengths",
    "XP_CONTINUOUS": "coefficients",
    ".sn.fits": "signal to noise",
    "ascii_5columns": "columns without names",
}


@pytest.mark.parametrize("path", real_files("*/*"))
def test_is_read_or_refused_for_what_it_is(path):
    reason = next((why for part, why in NO_SPECTRUM.items() if part in str(path)), None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpectrumFileWarning)
        if reason is not None:
            with pytest.raises(SpectrumFileError, match=reason):
                read_file(FILES / path)
            return
        found = read_file(FILES / path, exposures=True)
    for spectra in found:
        assert set(spectra.meta["format"]) <= set(formats())
        assert np.all(np.isfinite(spectra.flux))
        assert np.all(np.abs(spectra.flux[spectra.good]) < 1e30)
        if spectra.ivar is not None:
            assert np.all(spectra.ivar >= 0)
            assert not np.any(np.isnan(spectra.ivar))
        assert spectra.medium in ("air", "vacuum", None)
    assert any(spectra.good.mean() > 0.05 for spectra in found)


def folders():
    found = sorted({path.parent.name for path in FILES.glob("*/*")} - {"damaged"})
    return found or [pytest.param("", marks=pytest.mark.skip(reason="no SKSPEC_FILES"))]


@pytest.mark.parametrize("folder", folders())
def test_folder_comes_onto_one_grid(folder):
    files = sorted(path for path in (FILES / folder).iterdir())
    refused = [path for path in files if any(part in str(path) for part in NO_SPECTRUM)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpectrumFileWarning)
        warnings.simplefilter("ignore", UnreadFilesWarning)
        if folder in ("misc", "iraf_multispec"):  # of several instruments, without a common range
            spectra = read_spectra(files, grid=np.arange(3900.0, 9500.0, 2.0))
        else:
            spectra = read_spectra(files)
    assert set(spectra.meta["report"].failed) == set(map(str, refused))
    assert spectra.wavelength is not None
    assert np.all(np.isfinite(spectra.flux))
    assert spectra.good.any(axis=1).mean() > 0.5
    assert len(spectra.meta["star_id"]) == len(spectra)
