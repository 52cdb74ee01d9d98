"""DESI: coadd and spectra files, with the targets of many fibres in three arms."""

from __future__ import annotations

import numpy as np

from skspec.datasets.readers._file import SpectrumFile, SpectrumFileError, text
from skspec.datasets.readers._grids import FLUX_UNIT
from skspec.datasets.readers._registry import reader
from skspec.spectra import Spectra

WAVELENGTH = "_WAVELENGTH"


def _arms(file):
    return [
        name.removesuffix(WAVELENGTH)
        for name in file.extensions
        if name.endswith(WAVELENGTH) and name.replace(WAVELENGTH, "_FLUX") in file.extensions
    ]


def _is_desi(file):
    return "FIBERMAP" in file.extensions and bool(_arms(file))


@reader("desi", "DESI coadd and spectra files: a row per target, or per exposure", _is_desi)
def read_desi(file: SpectrumFile) -> Spectra:
    """Arms as orders, blue to red. Vacuum, barycentric; velocities are in other files.

    Left out are rows that are no target (OBJTYPE, negative TARGETID), were on a bad fibre or have no
    data. Any bit of the mask marks a bad pixel.
    """
    fibres = _fibremap(file)
    n = len(fibres["TARGETID"])
    parts = sorted((_arm(file, arm, n) for arm in _arms(file)), key=lambda part: part[0][0])
    wavelength, flux, ivar = (np.concatenate(values, axis=-1) for values in zip(*parts))
    kept = (fibres["TARGETID"] >= 0) & np.any(ivar > 0, axis=1)
    kept &= np.array([text(kind).upper() in ("TGT", "") for kind in fibres["OBJTYPE"]])
    kept &= fibres["STATUS"] == 0
    if not kept.any():
        raise SpectrumFileError("none of its fibres has the spectrum of a target")
    return Spectra(
        flux,
        ivar=ivar,
        wavelength=wavelength,
        order=np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts]),
        medium="vacuum",
        frame="barycentric",
        flux_unit=FLUX_UNIT,
        meta=_meta(fibres, n),
    )[kept]


def _fibremap(file):
    """Columns of FIBERMAP; all of one row as vectors of one."""
    data = file.extensions["FIBERMAP"].data
    if data is None or not data.dtype.names or not len(data):
        raise SpectrumFileError("its FIBERMAP is empty")
    out = {name.upper(): np.asarray(data[name]) for name in data.dtype.names}
    if "TARGETID" not in out:
        raise SpectrumFileError("its FIBERMAP has no TARGETID")
    out.setdefault("OBJTYPE", np.full(len(data), "TGT"))
    out["STATUS"] = out.get("COADD_FIBERSTATUS", out.get("FIBERSTATUS", np.zeros(len(data), int)))
    return out


def _arm(file, arm, n):
    """Wavelength, flux and ivar of one arm; ivar 0 where any bit of the mask is set."""
    wavelength = file.image(arm + WAVELENGTH, 1)
    flux, ivar = (np.atleast_2d(file.image(f"{arm}_{name}", (1, 2))) for name in ("FLUX", "IVAR"))
    if flux.shape != (n, len(wavelength)) or ivar.shape != flux.shape:
        raise SpectrumFileError(
            f"arm {arm} has fluxes of shape {flux.shape} and errors of {ivar.shape} for {n} rows of "
            f"FIBERMAP and {len(wavelength)} wavelengths"
        )
    if f"{arm}_MASK" in file.extensions:
        mask = np.atleast_2d(file.image(f"{arm}_MASK", (1, 2)))
        ivar = np.where(mask != 0, 0, ivar).astype(ivar.dtype)
    by = np.argsort(wavelength, kind="stable")
    return wavelength[by].astype(float), flux[:, by], ivar[:, by]


def _meta(fibres, n):
    target = fibres["TARGETID"].astype(np.int64)
    meta = {
        "star_id": target.astype(str),
        "targetid": target,
        "ra": _column(fibres, n, "TARGET_RA"),
        "dec": _column(fibres, n, "TARGET_DEC"),
        "exposure": [""] * n,
    }
    if "EXPID" in fibres:
        meta["exposure"] = fibres["EXPID"].astype(str)
    if "REF_ID" in fibres and "REF_CAT" in fibres:
        gaia = np.array([text(name).upper().startswith("G") for name in fibres["REF_CAT"]])
        meta["source_id"] = np.where(gaia, fibres["REF_ID"], -1).astype(np.int64)
    return meta


def _column(fibres, n, name):
    return np.asarray(fibres.get(name, np.full(n, np.nan)), dtype=float)
