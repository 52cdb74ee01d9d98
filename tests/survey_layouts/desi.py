"""DESI coadd and spectra files, with spectra of your own."""

import numpy as np
from astropy.io import fits

ARMS = {"B": (3600, 5800), "R": (5760, 7620), "Z": (7520, 9824)}


def write_desi(path, arms, fibres, *, exposures=False):
    """`arms` by name: wavelength (P,), flux, ivar and mask (n, P); `fibres` columns of FIBERMAP.

    `exposures` makes a spectra file, of which the columns are FIBERSTATUS and EXPID.
    """
    forms = {"f": "D", "i": "K", "u": "K", "U": "8A"}
    columns = [
        fits.Column(name, forms[np.asarray(values).dtype.kind], array=values)
        for name, values in fibres.items()
    ]
    hdus = [fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="FIBERMAP")]
    if not exposures:
        hdus.append(fits.BinTableHDU.from_columns(columns[:1], name="EXP_FIBERMAP"))
    for arm, (wavelength, flux, ivar, mask) in arms.items():
        hdus += [
            fits.ImageHDU(np.asarray(wavelength, np.float64), name=f"{arm}_WAVELENGTH"),
            fits.ImageHDU(np.asarray(flux, np.float32), name=f"{arm}_FLUX"),
            fits.ImageHDU(np.asarray(ivar, np.float32), name=f"{arm}_IVAR"),
        ]
        if mask is not None:
            hdus.append(fits.ImageHDU(np.asarray(mask, np.uint32), name=f"{arm}_MASK"))
        band = np.zeros((len(flux), 11, len(wavelength)), np.float32)
        hdus.append(fits.ImageHDU(band, name=f"{arm}_RESOLUTION"))
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path
