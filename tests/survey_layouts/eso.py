"""Tables of the ESO archive (Phase 3), with spectra of your own."""

import numpy as np
from astropy.io import fits

#: utype and UCD of columns
MEANINGS = {
    "WAVE": ("spec:Data.SpectralAxis.Value", "em.wl"),
    "FLUX": ("spec:Data.FluxAxis.Value", "phot.flux.density;em.wl;src.net;meta.main"),
    "ERR_FLUX": (
        "spec:Data.FluxAxis.Accuracy.StatError",
        "stat.error;phot.flux.density;em.wl;src.net",
    ),
    "CONTINUUM": ("continuum:Data.FluxAxis.Value", "phot.flux.density;em.wl;spect.continuum"),
    "FLUX_TELL_CORR": ("eso:Data.FluxAxis.Value", "phot.flux.density;em.wl;src.tellcorr"),
    "ERR_FLUX_TELL_CORR": (
        "eso:Data.FluxAxis.Accuracy.StatError",
        "stat.error;phot.flux.density;em.wl;src.tellcorr",
    ),
}

COLUMNS = {"WAVE": 400 + 0.01 * np.arange(100), "FLUX": np.linspace(5, 6, 100)}
COLUMNS |= {"ERR_FLUX": np.full(100, 0.5), "CONTINUUM": np.full(100, 6.0)}


def write_phase3(path, columns=COLUMNS, *, unit="nm", header=None, meanings=MEANINGS, voclass=True):
    """One row of vectors; `columns` by their names, in this order."""
    primary = fits.PrimaryHDU()
    cards = {"PRODCATG": "SCIENCE.SPECTRUM", "INSTRUME": "XSHOOTER", "OBJECT": "HD 1"}
    cards |= {"SPECSYS": "BARYCENT", "SPEC_RES": 5300.0, "RA": 10.0, "DEC": -5.0}
    primary.header.update(cards | (header or {}))
    found = []
    for name, values in columns.items():
        integer = np.asarray(values).dtype.kind == "i"
        form = f"{len(values)}{'J' if integer else 'D'}"
        of = unit if name.startswith(("WAVE", "LAMBDA")) else "erg s**(-1) cm**(-2) nm**(-1)"
        found.append(fits.Column(name, form, None if integer else of, array=[values]))
    table = fits.BinTableHDU.from_columns(found, name="SPECTRUM")
    if voclass:
        table.header["VOCLASS"] = "SPECTRUM V2.0"
    for i, name in enumerate(columns, start=1):
        if name in meanings:
            table.header[f"TUTYP{i}"], table.header[f"TUCD{i}"] = meanings[name]
    fits.HDUList([primary, table]).writeto(path, overwrite=True)
    return path
