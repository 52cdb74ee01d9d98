"""What the pipelines of HARPS and its kin write, old and new, with spectra of your own."""

import numpy as np
from astropy.io import fits

FLUX = 100 + 10 * np.sin(np.arange(200.0))
WAVELENGTH = 5000 + 0.01 * np.arange(200)
ORDERS, WAVELENGTHS = FLUX.reshape(2, 100), WAVELENGTH.reshape(2, 100)
COEFFICIENTS = [[5000.0, 0.012, -4e-7], [5020.0, 0.0125, -4.1e-7]]


def _primary(values, cards, origin="ESO", instrument="HARPS"):
    primary = fits.PrimaryHDU(None if values is None else np.asarray(values, np.float32))
    primary.header.update({"INSTRUME": instrument, "OBJECT": "HD 1", "MJD-OBS": 55000.0})
    for name, value in cards.items():
        primary.header[f"HIERARCH {origin} {name}"] = value
    return primary


def write_s1d(
    path,
    flux=FLUX,
    *,
    first=5000.0,
    step=0.01,
    berv=10.0,
    rv=None,
    origin="ESO",
    instrument="HARPS",
):
    cards = {"DRS VERSION": "3.5", "DRS BERV": berv}
    cards |= {} if rv is None else {"DRS CCF RVC": rv}
    primary = _primary(flux, cards, origin, instrument)
    primary.header.update({"CTYPE1": "Angstrom", "CRVAL1": first, "CDELT1": step, "CRPIX1": 1.0})
    primary.header["BUNIT"] = "Relative Flux"
    primary.writeto(path, overwrite=True)
    return path


def write_e2ds(
    path,
    counts=ORDERS,
    *,
    coefficients=COEFFICIENTS,
    berv=10.0,
    noise=3.0,
    origin="ESO",
    cards=None,
):
    """Counts (orders, pixels); `coefficients` (orders, terms) of the wavelengths, if any."""
    known = {"DRS VERSION": "3.5", "DRS BERV": berv, "DRS CCD SIGDET": noise}
    known |= {"DRS CAL TH FILE": "HARPS.x_wave_A.fits", "DRS BLAZE FILE": "HARPS.x_blaze_A.fits"}
    if coefficients is not None:
        known["DRS CAL TH DEG LL"] = np.shape(coefficients)[1] - 1
        known |= {f"DRS CAL TH COEFF LL{i}": float(c) for i, c in enumerate(np.ravel(coefficients))}
    _primary(counts, known | (cards or {}), origin).writeto(path, overwrite=True)
    return path


def write_map(path, values):
    """A wavelength map or a blaze, (orders, pixels)."""
    _primary(values, {"DRS VERSION": "3.5"}).writeto(path, overwrite=True)
    return path


def write_s1d_table(
    path,
    flux=FLUX,
    error=FLUX / 50,
    quality=0 * FLUX,
    *,
    vacuum=WAVELENGTH,
    air=WAVELENGTH / 1.00028,
    berv=10.0,
    rv=None,
):
    cards = {"QC BERV": berv} | ({} if rv is None else {"QC CCF RV": rv})
    columns = [
        fits.Column("wavelength", "D", "angstrom", array=vacuum),
        fits.Column("wavelength_air", "D", "angstrom", array=air),
        fits.Column("flux", "D", "e-", array=flux),
        fits.Column("error", "D", "e-", array=error),
        fits.Column("quality", "J", array=quality),
    ]
    table = fits.BinTableHDU.from_columns(columns)
    hdus = [_primary(None, cards, instrument="ESPRESSO"), table]
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path


def write_s2d(
    path,
    flux=ORDERS,
    error=ORDERS / 50,
    quality=0 * ORDERS,
    *,
    vacuum=WAVELENGTHS,
    berv=10.0,
):
    images = {"SCIDATA": flux, "ERRDATA": error, "QUALDATA": np.asarray(quality, np.int32)}
    images |= {"WAVEDATA_VAC_BARY": vacuum, "WAVEDATA_AIR_BARY": np.asarray(vacuum) / 1.00028}
    hdus = [fits.ImageHDU(np.asarray(values), name=name) for name, values in images.items()]
    primary = _primary(None, {"QC BERV": berv}, instrument="ESPRESSO")
    fits.HDUList([primary, *hdus]).writeto(path, overwrite=True)
    return path
