"""SDSS-V: mwmStar and mwmVisit of Astra, with what BOSS and APOGEE have of one star."""

from __future__ import annotations

import numpy as np

from skspec.datasets.readers import apogee, sdss
from skspec.datasets.readers._file import (
    SpectrumFile,
    SpectrumFileError,
    card,
    column_names,
    identifier,
    text,
)
from skspec.datasets.readers._grids import FLUX_UNIT, header_grid
from skspec.datasets.readers._registry import reader
from skspec.spectra import Spectra, concatenate

#: first log10 wavelength, step and number of pixels of the grids that all of them are on
GRIDS = {"BOSS": (3.5523, 1e-4, 4648), "APOGEE": (4.179, 6e-6, 8575)}
RESOLUTION = {"BOSS": sdss.RESOLUTION, "APOGEE": apogee.RESOLUTION}


def _is_mwm(file):
    return "V_ASTRA" in file.header and "SDSS_ID" in file.header


@reader("sdss_mwm", "SDSS-V mwmStar and mwmVisit, from BOSS and APOGEE", _is_mwm, priority=2)
def read_mwm(file: SpectrumFile) -> list[Spectra]:
    """Vacuum, rest frame, on the grids of BOSS and APOGEE; a row per telescope, or per visit."""
    found: dict[str, list[Spectra]] = {"BOSS": [], "APOGEE": []}
    models = False
    for k, hdu in enumerate(file.hdus[1:], 1):
        names = column_names(hdu)
        if not names or not len(hdu.data):  # this star was not seen with it
            continue
        if not {"FLUX", "IVAR"} <= names:
            models |= "MODEL_FLUX" in names
            continue
        table = file.columns(k)
        name = text(hdu.header.get("INSTRMNT")).upper() or hdu.name.upper()
        n_pixels = table["FLUX"].shape[-1]
        instrument = "BOSS" if "BOSS" in name or n_pixels == GRIDS["BOSS"][2] else "APOGEE"
        spectra = _rows(file, hdu, table, instrument)
        if spectra is not None:
            found[instrument].append(spectra)
    out = [concatenate(parts) for parts in found.values() if parts]
    if not out:
        what = "models only" if models else "no spectrum of either instrument"
        raise SpectrumFileError(f"it holds {what}")
    return out


def _rows(file, hdu, table, instrument):
    """The rows of one telescope; None where none has data."""
    n = len(hdu.data)
    flux, ivar = (np.reshape(table[name], (n, -1)) for name in ("FLUX", "IVAR"))
    mask = np.zeros(flux.shape, dtype=bool)
    if instrument == "APOGEE" and "PIXEL_FLAGS" in table:
        # those of BOSS are bad in any of the exposures; ivar knows what is left
        mask = apogee.bad_pixels(np.reshape(table["PIXEL_FLAGS"], (n, -1)))
    spectra = Spectra(
        flux,
        ivar=ivar,
        mask=mask,
        wavelength=_wavelength(hdu.header, table, instrument, flux.shape[1]),
        medium="vacuum",
        frame="rest",
        resolution=RESOLUTION[instrument],
        flux_unit=FLUX_UNIT,
        meta=_meta(file.header, hdu, instrument),
    )
    kept = spectra.good.any(axis=1)
    return spectra[kept] if kept.any() else None


def _wavelength(header, table, instrument, n_pixels):
    """Of the header, in double precision, where the column does not say something else."""
    start, step, size = GRIDS[instrument]
    cards = {"CRVAL1": card(header, "CRVAL"), "CDELT1": card(header, "CDELT"), "CTYPE1": "LOG"}
    cards["CRPIX1"] = card(header, "CRPIX", default=1.0)
    if np.isfinite(cards["CRVAL1"] + cards["CDELT1"]):
        grid = header_grid(cards, n_pixels)
    elif n_pixels == size:
        grid = header_grid({"CRVAL1": start, "CDELT1": step, "CTYPE1": "LOG"}, n_pixels)
    else:
        grid = None
    if "WAVELENGTH" not in table:
        if grid is None:
            raise SpectrumFileError(f"HDU {instrument} has no wavelengths")
        return grid
    column = np.reshape(table["WAVELENGTH"], (-1, n_pixels))[0].astype(float)
    return grid if grid is not None and np.max(np.abs(grid - column)) < 0.01 else column


def _meta(header, hdu, instrument):
    rows = {name.upper(): hdu.data[name] for name in hdu.data.dtype.names}
    n = len(hdu.data)

    def numbers(*names):
        return np.array(
            [card({k: rows[k][i] for k in names if k in rows}, *names) for i in range(n)]
        )

    telescope = [text(value) for value in rows.get("TELESCOPE", [hdu.name] * n)]
    visits = [""] * n
    if "MJD" in rows:
        visits = [f"{where} {int(mjd)}" for where, mjd in zip(telescope, rows["MJD"])]
    star = text(header.get("SDSS_ID"))
    return {
        "star_id": [star] * n,
        "sdss_id": [identifier(header.get("SDSS_ID"))] * n,
        "apogee_id": [text(header.get("APOGEEID"))] * n,
        "source_id": [identifier(header.get("GAIA3_ID"))] * n,
        "rv_removed": numbers("V_RAD", "XCSAO_V_RAD"),
        "ra": np.full(n, card(header, "RA")),
        "dec": np.full(n, card(header, "DEC")),
        "instrument": [instrument] * n,
        "telescope": telescope,
        "snr_survey": numbers("SNR"),
        "in_stack": np.array(rows.get("IN_STACK", np.ones(n)), dtype=bool),
        "exposure": visits,
    }
