import numpy as np
import pytest

from skspec import Spectra
from skspec.diagnostics.audit._line_windows import elements_of, window_masks


def test_elements_of_names():
    assert elements_of("mgfe") == elements_of("[Mg/Fe]") == elements_of("Mg_H") == ("Mg",)
    assert elements_of("ca_m") == ("Ca",) and elements_of("c_fe") == ("C",)
    assert "Mg" in elements_of("alpha_m") and "Fe" not in elements_of("[alpha/Fe]")
    for name in ("teff", "logg", "feh", "[Fe/H]", "m_h", "rv", "vsini", "label_0", "xxfe"):
        assert elements_of(name) == ()


def test_default_windows_in_vacuum_and_air():
    wavelength = np.arange(5150.0, 5200.0, 0.1)
    spectra = Spectra(np.ones((1, 500)), wavelength=wavelength, meta={"resolution": 20_000})
    inside = window_masks(spectra, ["teff", "mg_fe"])["mg_fe"]
    assert inside[np.abs(wavelength - 5185.05).argmin()]  # Mg b1 in vacuum
    assert 0.02 < inside.mean() < 0.2
    air = spectra.replace(meta={"resolution": 20_000, "medium": "air"})
    moved = window_masks(air, ["mg_fe"])["mg_fe"]
    shift = wavelength[inside].mean() - wavelength[moved].mean()
    assert shift == pytest.approx(1.44, abs=0.1)
    assert window_masks(spectra.replace(wavelength=None), ["mg_fe"]) == {}
    coarse = window_masks(Spectra(np.ones((1, 100)), wavelength=wavelength[::5]), ["mg_fe"])
    assert coarse["mg_fe"].mean() > inside.mean()
