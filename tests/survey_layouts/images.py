"""Images of other kinds: one-dimensional spectra, libraries, Keck HIRES, IGRINS, UVES_popler."""

import numpy as np
from astropy.io import fits

LIBRARIES = {
    "miles": {"TPLLIB": "MILES", "FWHM": 2.5, "CRVAL1": 3540.5, "CDELT1": 0.9},
    "indo_us": {"TELESCOP": "kpcdf", "CRVAL1": 3465.0, "CDELT1": 0.4, "CTYPE1": "LINEAR"}
    | {"HDNAME": "HD 1", "OBJRA": "14:28:12.14", "OBJDEC": "-02:13:40.6", "SPTYPE": "G2IV"},
    "stelib": {"STARIDEN": "HD1", "CRVAL1": 3199.8, "CDELT1": 1.0, "CTYPE1": "LINEAR"},
}

FLUX = 100 + 10 * np.sin(np.arange(100.0))
ORDERS = FLUX.reshape(2, 50)
WAVELENGTH = 5000 + 0.1 * np.arange(100)
WAVELENGTHS = WAVELENGTH.reshape(2, 50)
MICRONS = WAVELENGTHS / 2500
LINEAR = {"CRVAL1": 5000.0, "CDELT1": 0.1, "CRPIX1": 1.0}


def write_image(path, flux=FLUX, cards=LINEAR, *, dtype=np.float32, **extensions):
    """`extensions` are images by name."""
    primary = fits.PrimaryHDU(np.asarray(flux, dtype))
    primary.header.update(cards or {})
    hdus = [fits.ImageHDU(np.asarray(values), name=name) for name, values in extensions.items()]
    fits.HDUList([primary, *hdus]).writeto(path, overwrite=True)
    return path


def write_library(path, survey="miles", flux=FLUX, **cards):
    return write_image(path, flux, LIBRARIES[survey] | {"CRPIX1": 1.0} | cards)


def write_mastar_hc(path, flux=FLUX, ivar=FLUX / 100, resolution=FLUX * 20):
    cards = {"CTYPE1": "WAVE-LOG", "CRPIX1": 1, "CRVAL1": 3.5601, "CDELT1": 1e-4, "CD1_1": 1e-4}
    return write_image(path, flux, cards, dtype=float, IVAR=ivar, SRES=resolution)


def write_hires(
    path,
    counts=ORDERS,
    relative_error=ORDERS / 1e4,
    wavelength=WAVELENGTHS,
):
    primary = fits.PrimaryHDU(np.asarray(counts, np.float32))
    cards = {"INSTRUME": "HIRES: High Resolution Echelle Spectrometer", "TARGNAME": "gl699"}
    primary.header.update(cards | {"RA": "17:57:47.88", "DEC": "+04:43:36.3", "OBJECT": " "})
    # that of the raw file, which had no data in its first HDU
    primary.header["DATASUM"] = "         0"
    hdus = [fits.ImageHDU(np.asarray(values)) for values in (relative_error, wavelength)]
    fits.HDUList([primary, *hdus]).writeto(path, overwrite=True)
    return path


def write_specmatch(path, flux=FLUX, error=FLUX / 50, wavelength=WAVELENGTH):
    columns = [
        fits.Column(n, "D", array=v) for n, v in zip(["s", "w", "serr"], [flux, wavelength, error])
    ]
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(path)
    return path


def write_igrins(path, flux=ORDERS, wavelength=MICRONS):
    """Orders red to blue, [micron]."""
    # VACUUM is that of the dewar; the units are wrong
    cards = {"INSTRUME": "IGRINS", "OBJECT": "LkCa 19", "VACUUM": ""}
    cards["WAT1_001"] = "wtype=multispec label=Wavelength units=angstroms"
    cards |= {"CTYPE1": "MULTISPE", "WAT0_001": "system=multispec", "EXTNAME": "SPEC_DIVIDE_A0V"}
    more = {} if wavelength is None else {"WAVELENGTH": wavelength, "TGT_SPEC": np.zeros_like(flux)}
    return write_image(path, flux, cards, dtype=float, **more)
