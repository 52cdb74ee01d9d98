"""IGRINS: extracted orders in H or K, as its pipeline (PLP) writes them."""

from __future__ import annotations

import numpy as np

from skspec.datasets.readers._cards import position_of, star_of
from skspec.datasets.readers._file import SpectrumFile, SpectrumFileError, text
from skspec.datasets.readers._grids import ivar_from_sigma, zero_runs
from skspec.datasets.readers._registry import reader
from skspec.spectra import Spectra

#: HDUs that may hold the spectrum, the best first
FLUXES = ("SPEC_DIVIDE_A0V", "SPEC_FLUX", "FLUX", "TGT_SPEC", "SPEC")
RESOLUTION = 45_000.0
MICRON, NM = 30.0, 3000.0  # wavelengths of the infrared below are in that unit


def _is_igrins(file):
    return text(file.header.get("INSTRUME")).upper() == "IGRINS"


@reader("igrins", "IGRINS: orders divided by an A0V star, or as they are", _is_igrins, priority=1)
def read_igrins(file: SpectrumFile) -> Spectra:
    """Orders, in vacuum, topocentric. The header says Angstrom where wavelengths are in micron.

    The spectrum is free of telluric lines where the file has that.
    """
    if "WAVELENGTH" not in file.extensions:
        raise SpectrumFileError(
            "it has no HDU of wavelengths: a map of signal to noise or variance, or a spectrum that has "
            "to be read from its spec_a0v or spec file"
        )
    wavelength = file.image("WAVELENGTH", 2).astype(float)
    name = next((name for name in FLUXES if name in file.extensions), 0)
    flux = file.image(name, 2).astype(float)
    if flux.shape != wavelength.shape:
        raise SpectrumFileError(f"its flux and its wavelengths differ in shape, {flux.shape}")
    typical = np.median(wavelength[np.isfinite(wavelength)])
    unit = "micron" if typical < MICRON else "nm" if typical < NM else "Angstrom"
    variance = "VARIANCE" if "VARIANCE" in file.extensions and name == 0 else None
    return Spectra(
        flux.ravel(),
        ivar=None
        if variance is None
        else ivar_from_sigma(np.sqrt(np.maximum(file.image(variance, 2), 0))).ravel(),
        mask=zero_runs(flux).ravel(),
        wavelength=wavelength.ravel(),
        wavelength_unit=unit,
        order=np.repeat(np.arange(len(flux)), flux.shape[1]),
        medium="vacuum",
        frame="topocentric",
        resolution=RESOLUTION,
        meta={"star_id": star_of(file.header), **position_of(file.header)},
    )
