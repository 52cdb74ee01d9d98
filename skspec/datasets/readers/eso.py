"""Spectra of the ESO archive (Phase 3, ``ADP.*.fits``), of any instrument."""

from __future__ import annotations

import numpy as np

from skspec.datasets.readers._cards import (
    berv_of,
    flux_unit_of,
    frame_of,
    position_of,
    resolution_of,
    star_of,
    velocity,
    wavelength_unit_of,
)
from skspec.datasets.readers._file import SpectrumFile, SpectrumFileError, card, column_names, text
from skspec.datasets.readers._grids import ivar_from_sigma, questioned, zero_runs
from skspec.datasets.readers._registry import reader
from skspec.spectra import Spectra

#: of instruments whose spectra do not say it
MEDIUM = {"HARPS": "air", "FEROS": "air", "UVES": "air", "GIRAFFE": "air"}
#: names of columns where neither TUTYP nor TUCD tells what they are
WAVELENGTHS = ("WAVE", "WAVELENGTH", "LAMBDA")
FLUXES = ("FLUX", "FLUX_REDUCED")
ERRORS = ("ERR", "ERR_FLUX", "ERROR", "ERR_REDUCED", "SIGMA")


def _table(file):
    """Position of the table with the spectrum; 0 for none."""
    for position, hdu in enumerate(file.hdus[1:], start=1):
        kind = text(hdu.header.get("VOCLASS")).upper()
        if column_names(hdu) and "SPECTRUM" in kind:
            return position
    return 0


def _is_phase_3(file):
    category = text(file.header.get("PRODCATG")).upper().startswith("SCIENCE.SPECTRUM")
    return bool(_table(file)) or (category and any(map(column_names, file.hdus[1:])))


@reader("eso_phase3", "ESO archive: tables of Phase 3 (ADP)", _is_phase_3, priority=2)
def read_phase3(file: SpectrumFile) -> Spectra:
    """Columns by their TUTYP and TUCD (of several fluxes, the main one), else by their names.

    The frame is that of SPECSYS. Wavelengths of ESPRESSO are in vacuum, those of HARPS, FEROS, UVES and
    GIRAFFE in air; those of others are not known.
    """
    position = _table(file) or 1
    header, hdu = file.header, file.hdus[position]
    columns = [_Column(hdu.header, i + 1) for i in range(len(hdu.data.dtype.names))]
    table = file.columns(position)
    wave = _spectral_axis(columns)
    flux = _main_flux(columns)
    if wave is None or flux is None:
        missing = "wavelengths" if wave is None else "flux"
        raise SpectrumFileError(f"none of its columns {[c.name for c in columns]} holds {missing}")
    error = _error_of(flux, columns)
    values = np.asarray(table[flux.name], dtype=float)
    if values.ndim != 1:
        raise SpectrumFileError("its table has more than one spectrum")
    ivar = None
    if error is not None and np.any(np.isfinite(table[error.name]) & (table[error.name] > 0)):
        ivar = ivar_from_sigma(table[error.name])
    bad = zero_runs(values)
    for name in ("QUAL", "QUALITY"):
        if name in table:
            bad |= table[name] != 0
    used = np.isfinite(table[wave.name]) & (table[wave.name] > 0)  # rows may be padded
    return Spectra(
        values[used],
        ivar=None if ivar is None else ivar[used],
        mask=bad[used],
        wavelength=table[wave.name][used].astype(float),
        wavelength_unit=questioned(table[wave.name][used], wavelength_unit_of(wave.unit)),
        medium=_medium(header, hdu.header, wave, columns),
        frame=frame_of(header) or frame_of(hdu.header),
        resolution=resolution_of(header),
        flux_unit=flux_unit_of(flux.unit),
        meta=_meta(header, hdu.header),
    )


class _Column:
    """Name, unit and meaning of a column."""

    def __init__(self, header, i):
        self.name = text(header.get(f"TTYPE{i}")).upper()
        self.unit = text(header.get(f"TUNIT{i}"))
        self.utype = text(header.get(f"TUTYP{i}")).lower()
        self.ucd = text(header.get(f"TUCD{i}")).lower()


def _spectral_axis(columns):
    axes = [
        c for c in columns if c.utype.endswith("spectralaxis.value") or c.ucd.startswith("em.wl")
    ]
    axes += [c for name in WAVELENGTHS for c in columns if c.name == name]
    plain = [c for c in axes if c.name == "WAVE"]  # ESPRESSO has WAVE_AIR, too
    return next(iter(plain + axes), None)


def _main_flux(columns):
    fluxes = [c for c in columns if c.utype.endswith("fluxaxis.value") and "continuum" not in c.ucd]
    fluxes += [c for c in columns if c.ucd.startswith("phot.flux") and "continuum" not in c.ucd]
    main = [c for c in fluxes if "meta.main" in c.ucd]
    own = [c for c in fluxes if c.utype.startswith("spec:")]
    named = [c for name in FLUXES for c in columns if c.name == name]
    return next(iter(main + own + named + fluxes), None)


def _error_of(flux, columns):
    """The error that belongs to a flux: of several, the one of the same model, or name."""
    errors = [c for c in columns if c.utype.endswith("staterror") or c.ucd.startswith("stat.error")]
    own = [c for c in errors if c.name in (f"ERR_{flux.name}", flux.name.replace("FLUX", "ERR"))]
    same = [c for c in errors if c.utype.split(":")[0] == flux.utype.split(":")[0]]
    named = [c for name in ERRORS for c in columns if c.name == name]
    return next(iter(own + same + (named if not errors else [])), None)


def _medium(header, table_header, wave, columns):
    words = " ".join([wave.ucd, wave.name, text(table_header.comments["TTYPE1"])]).upper()
    if "AIR" in words.replace("_", " ").split() or "OBS.ATMOS" in words:
        return "air"
    if "VAC" in words or any(c.name == "WAVE_AIR" for c in columns):
        return "vacuum"
    return MEDIUM.get(text(header.get("INSTRUME")).upper())


def _meta(header, table_header):
    rv = velocity(header, "ESO QC CCF RV", "ESO DRS CCF RVC")
    topocentric = frame_of(header) == "topocentric"
    berv = berv_of(header)
    return {
        "star_id": star_of(header) or star_of(table_header),
        "rv": rv - berv if topocentric else rv,
        "berv": berv,
        **position_of(header),
        "mjd": card(header, "MJD-OBS"),
        "snr": card(header, "SNR"),
        "normalised": bool(header.get("CONTNORM") is True),
    }
