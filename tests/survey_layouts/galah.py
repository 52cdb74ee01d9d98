"""GALAH files as DR1 to DR4 have them, with spectra of your own."""

import numpy as np
from astropy.io import fits

COUNTS = 100 + 10 * np.sin(np.arange(300.0))
ERRORS = np.full(300, 0.01)
GRID, REST_GRID = (6478.0, 0.06), (6479.0, 0.06 * 6479 / 6478)


def _grid(first, step):
    cards = {"CTYPE1": "LINEAR", "CRVAL1": first, "CRPIX1": 1.0, "CDELT1": step, "CD1_1": step}
    return cards | {"CUNIT1": "Angstroms", "DC-FLAG": 0}


def _image(values, grid, name=None):
    hdu = fits.ImageHDU(np.asarray(values, np.float32), name=name)
    hdu.header.update(grid)
    return hdu


def write_dr3(
    path,
    counts=COUNTS,
    relative_error=ERRORS,
    normalised=COUNTS / 100,
    *,
    grid=GRID,
    rest_grid=REST_GRID,
    header=None,
):
    """Five HDUs; `grid` and `rest_grid` are first wavelength and step [Angstrom]."""
    primary = fits.PrimaryHDU(np.asarray(counts, np.float32))
    primary.header.update(_grid(*grid) | {"INSTRUME": "HERMES-2dF", "SLITMASK": "OUT"})
    primary.header.update({"COMB0": 1402070014000051} | (header or {}))
    hdus = [
        primary,
        _image(relative_error, _grid(*grid), "input_sigma"),
        # its step is wrong in DR1
        _image(counts, _grid(grid[0] + 1, 1.0), "no_sky_subspectrum"),
        _image(relative_error, _grid(*grid), "no_sky_sigma"),
    ]
    if normalised is not None:
        hdu = fits.ImageHDU(np.asarray(normalised, float))
        hdu.header.update({"CRPIX1": 1.0, "CRVAL1": rest_grid[0], "CDELT1": rest_grid[1]})
        hdus.append(hdu)
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path


def write_dr4(
    path,
    counts=COUNTS,
    normalised=COUNTS / 100,
    relative_error=ERRORS,
    *,
    grid=GRID,
    fwhm=0.2,
    header=None,
):
    """Eight HDUs on one grid."""
    cards = {"GALAH_ID": "1760921", "COMB0": "170711001800006", "TEFF": "None", "LOGG": "None"}
    cards |= {"RV": 9.7, "RV_OK": 1, "RVCOM": 9.6, "RVCOM_OK": 1, "SNR": 50.0}
    primary = fits.PrimaryHDU(np.asarray(counts, np.float32))
    primary.header.update(_grid(*grid) | cards | (header or {}))
    images = {"normalized": normalised, "relative_error": relative_error}
    images |= {
        name: 0 * np.asarray(counts) for name in ("sky", "teluric", "scattered", "cross_talk")
    }
    images["resolution_profile"] = np.full(len(counts), fwhm)
    hdus = [_image(values, _grid(*grid), name) for name, values in images.items()]
    fits.HDUList([primary, *hdus]).writeto(path, overwrite=True)
    return path
