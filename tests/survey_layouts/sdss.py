"""SDSS, BOSS and SDSS-V spectra of single targets and of plates, with spectra of your own."""

import numpy as np
from astropy.io import fits

COEFF0, COEFF1 = 3.5785, 1e-4


def log10_grid(n_pixels, first=0):
    """As the pipeline computes it, before it is rounded to single precision."""
    return COEFF0 + COEFF1 * (first + np.arange(n_pixels))


def _header(cards=None):
    primary = fits.PrimaryHDU()
    known = {"TELESCOP": "SDSS 2.5-M", "COEFF0": COEFF0, "COEFF1": COEFF1, "RA": 1.0, "DEC": 2.0}
    primary.header.update(known | {"DC-FLAG": 1} | (cards or {}))
    return primary


def _spectrum(name, columns, capitals):
    """A table of one spectrum, a row per pixel."""
    forms = {"flux": "E", "loglam": "E", "ivar": "E"}
    found = [
        fits.Column(
            key.upper() if capitals else key,
            forms.get(key, "J" if values.dtype.kind == "i" else "D"),
            array=values,
        )
        for key, values in columns.items()
    ]
    return fits.BinTableHDU.from_columns(found, name=name)


def write_spec(
    path, coadd, *, exposures=None, target=None, catalogue="SPECOBJ", capitals=False, header=None
):
    """`coadd` are columns flux, loglam, ivar, and_mask, ...; `exposures` the same by HDU name."""
    known = {"CLASS": "STAR  ", "SUBCLASS": "F5", "Z": -1e-4, "ZWARNING": 0, "PLATE": 266}
    known |= {"MJD": 51602, "FIBERID": 31, "PLUG_RA": 147.32107, "PLUG_DEC": -0.00657572}
    known |= {"ELODIE_TEFF": 5000.0, "SPECOBJID": "   299497923312379904"} | (target or {})
    forms = {str: "24A", int: "K", float: "D"}
    row = fits.BinTableHDU.from_columns(
        [fits.Column(key, forms[type(value)], array=[value]) for key, value in known.items()],
        name=catalogue,
    )
    lines = fits.BinTableHDU.from_columns(
        [fits.Column("LINEZ", "E", array=np.zeros(3))], name="SPZLINE"
    )
    hdus = [_header(header), _spectrum("COADD", coadd, capitals), row, lines]
    hdus += [_spectrum(name, columns, capitals) for name, columns in (exposures or {}).items()]
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path


def write_plate(path, flux, ivar, and_mask, kinds, *, ra, dec):
    """`flux`, `ivar`, `and_mask` of shape (fibres, P); `kinds` is OBJTYPE of each fibre."""
    n = len(kinds)
    primary = _header({"PLATEID": 266, "MJD": 51602})
    first = fits.PrimaryHDU(np.asarray(flux, np.float32), header=primary.header)
    fibres = fits.BinTableHDU.from_columns(
        [
            fits.Column("OBJTYPE", "16A", array=kinds),
            fits.Column("FIBERID", "J", array=np.arange(1, n + 1)),
            fits.Column("RA", "D", array=ra),
            fits.Column("DEC", "D", array=dec),
        ]
    )
    images = [np.asarray(ivar, np.float32)]
    images += [np.asarray(and_mask, np.int32), np.ones(np.shape(flux), np.int32)]
    images += [np.ones(np.shape(flux), np.float32)]
    sky = fits.ImageHDU(np.asarray(flux, np.float32))
    hdus = [first, *map(fits.ImageHDU, images), fibres, sky]
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path
