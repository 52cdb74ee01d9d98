"""APOGEE files as DR13 to SDSS-V have them, with spectra of your own."""

import numpy as np
from astropy.io import fits

GRID = {"CRVAL1": 4.179, "CDELT1": 6e-6, "CRPIX1": 1, "CTYPE1": "LOG-LINEAR", "DC-FLAG": 1}
UNIT = "(10^-17 erg/s/cm^2/Ang)"


def _save(path, hdus):
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path


def _image(values, unit=None, grid=True):
    hdu = fits.ImageHDU(values)
    hdu.header.update(GRID if grid else {})
    if unit:
        hdu.header["BUNIT"] = unit
    return hdu


def write_apstar(path, flux, error, mask, *, visits=(), header=None, mask_type=np.int16):
    """Flux, error and mask of shape (P,) or (2 + visits, P); `visits` are (file, velocity)."""
    primary = fits.PrimaryHDU()
    cards = {"OBJID": "2M00000000+0000000", "RA": 10.0, "DEC": -5.0, "NVISITS": len(visits) or 1}
    primary.header.update(cards | {"VHELIO": 31.5, "SNR": 50.0, "RVTEFF": 5500.0} | (header or {}))
    for k, (name, velocity) in enumerate(visits, 1):
        primary.header[f"SFILE{k}"] = name
        primary.header[f"VHELIO{k}"] = velocity
    others = np.zeros(np.shape(flux), dtype=np.float32)
    names = [name for name, _ in visits] or ["apVisit-1.fits"]
    width = max(map(len, names))
    form, dim = f"{width * len(names)}A{width}", f"({width},{len(names)})"
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column("FILE", form, dim=dim, array=np.array([names])),
            fits.Column("TEFF", "E", array=[5500.0]),
        ]
    )
    images = [
        _image(np.asarray(flux, np.float32), f"Flux {UNIT}"),
        _image(np.asarray(error, np.float32), f"Error {UNIT}"),
        _image(np.asarray(mask).astype(mask_type), "Flag Mask (bitwise)"),
    ]
    images += [_image(others, "Sky") for _ in range(4)] + [_image(np.zeros(26), grid=False)]
    return _save(path, [primary, *images, table])


def write_aspcapstar(path, flux, error, *, param, fparam=None, header=None):
    """Normalised flux and error of shape (P,); `param` are Teff, log g, log v, [M/H], ..."""
    primary = fits.PrimaryHDU()
    primary.header.update({"OBJ": "2M00000000+0000000", "VHELIO": -12.0} | (header or {}))
    columns = [
        fits.Column("APOGEE_ID", "18A", array=["2M00000000+0000000"]),
        fits.Column("PARAM", f"{len(param)}E", array=np.array([param])),
        fits.Column("FPARAM", f"{len(param)}E", array=np.array([fparam or param])),
    ]
    images = [_image(np.asarray(values, np.float32)) for values in (flux, error, flux)]
    return _save(path, [primary, *images, fits.BinTableHDU.from_columns(columns)])


def write_apvisit(path, flux, error, mask, wavelength, *, header=None):
    """All of shape (3, P): red, green and blue chip, each falling in wavelength."""
    primary = fits.PrimaryHDU()
    cards = {"OBJID": "2M00000000+0000000", "PLATE": "7438", "MJD5": 56790, "FIBERID": 145}
    primary.header.update(cards | {"BC": -22.1, "VREL": 176.4} | (header or {}))
    images = [
        _image(np.asarray(flux, np.float32), f"Flux {UNIT}", grid=False),
        _image(np.asarray(error, np.float32), f"Flux Error {UNIT}", grid=False),
        _image(np.asarray(mask, np.int16), "Flag Mask (bitwise)", grid=False),
        _image(np.asarray(wavelength, np.float64), "Wavelength (Ang)", grid=False),
        _image(np.asarray(flux, np.float32), f"Sky {UNIT}", grid=False),
    ]
    return _save(path, [primary, *images])
