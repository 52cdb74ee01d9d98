"""mwmStar and mwmVisit of SDSS-V, with spectra of your own."""

import numpy as np
from astropy.io import fits

GRIDS = {"BOSS": (3.5523, 1e-4, 4648), "APOGEE": (4.179, 6e-6, 8575)}
PLACES = [("BOSS", "APO"), ("BOSS", "LCO"), ("APOGEE", "APO"), ("APOGEE", "LCO")]


def write_mwm(path, rows, *, visits, flux_name="flux", header=None):
    """`rows` by (instrument, observatory): flux, ivar and pixel_flags, each (n, P).

    `visits` makes mwmVisit: the wavelengths in the header only, an MJD in each row. Instruments that are
    not in `rows` have a table without rows, as in the survey's files.
    """
    primary = fits.PrimaryHDU()
    cards = {"V_ASTRA": "0.5.0", "SDSS_ID": 42, "APOGEEID": "2M00000000+0000000"}
    primary.header.update(
        cards | {"GAIA3_ID": 2**60 + 1, "RA": 198.4, "DEC": 67.1} | (header or {})
    )
    hdus = [primary] + [_table(place, rows.get(place), visits, flux_name) for place in PLACES]
    fits.HDUList(hdus).writeto(path, overwrite=True, checksum=True)
    return path


def _table(place, values, visits, flux_name):
    instrument, observatory = place
    start, step, n_pixels = GRIDS[instrument]
    flux, ivar, flags = values or np.zeros((3, 0, n_pixels))
    n = len(flux)
    vector = f"{n_pixels}E"
    columns = [
        fits.Column("sdss_id", "K", array=np.full(n, 42)),
        fits.Column("telescope", "6A", array=[f"{observatory.lower()}25m"] * n),
        fits.Column("snr", "E", array=np.full(n, 50.0)),
        fits.Column("v_rad", "E", array=np.arange(n) + 10.0),
        fits.Column(flux_name, vector, array=flux),
        fits.Column("ivar", vector, array=ivar),
        fits.Column("pixel_flags", f"{n_pixels}K", array=flags),
        fits.Column("continuum", vector, array=np.ones((n, n_pixels))),
    ]
    if visits:
        columns += [
            fits.Column("mjd", "J", array=59804 + np.arange(n)),
            fits.Column("in_stack", "L", array=np.arange(n) != 1),
        ]
    else:
        wavelength = 10 ** (start + step * np.arange(n_pixels))
        columns += [
            fits.Column("wavelength", vector, array=np.tile(wavelength, (n, 1))),
            fits.Column("min_mjd", "J", array=np.full(n, 59804)),
        ]
    hdu = fits.BinTableHDU.from_columns(columns, name=f"{instrument}/{observatory}")
    cards = {"INSTRMNT": instrument, "OBSRVTRY": observatory, "CTYPE": "LOG-LINEAR", "CRPIX": 1}
    hdu.header.update(cards | {"CRVAL": start, "CDELT": step, "NPIXELS": n_pixels})
    return hdu
