"""IRAF multispec and equispec images, with spectra of your own."""

import numpy as np
from astropy.io import fits

WIDTH = 68

FLUX = 100 + 10 * np.sin(np.arange(100.0)).reshape(2, 50)
SPECS = (
    "1 90 2 5000. 0.1 50 0. 10.5 20.5 1. 0. 1 4 1. 50. 5000. 10. 0.5 -0.02",
    "2 89 0 5010. 0.1 50 0. 30.5 40.5",
)


def write_multispec(
    path, flux=FLUX, specs=SPECS, *, units="angstroms", bands=(), header=None, stripped=False
):
    """`specs` are the texts of the apertures; `flux` (apertures, pixels) or with bands before that.

    IRAF cuts the text of all into pieces of 68 characters, blanks at their ends included;
    `stripped` is how software writes it that drops these.
    """
    primary = fits.PrimaryHDU(np.asarray(flux, np.float32))
    cards = {"CTYPE1": "MULTISPE", "CTYPE2": "MULTISPE", "CDELT1": 1.0, "CD1_1": 1.0}
    cards |= {"LTM1_1": 1.0, "WAT0_001": "system=multispec", "OBJECT": "HD 1"}
    cards["WAT1_001"] = f"wtype=multispec label=Wavelength units={units}"
    cards |= {f"BANDID{i + 1}": name for i, name in enumerate(bands)}
    primary.header.update(cards | (header or {}))
    words = " ".join(f'spec{i + 1} = "{spec}"' for i, spec in enumerate(specs))
    words = f"wtype=multispec {words}"
    for k, at in enumerate(range(0, len(words), WIDTH), start=1):
        piece = words[at : at + WIDTH]
        primary.header[f"WAT2_{k:03d}"] = piece.rstrip() if stripped else piece
    primary.writeto(path, overwrite=True)
    return path


def write_equispec(path, flux=FLUX, *, first=5000.0, step=0.1, bands=(), header=None):
    primary = fits.PrimaryHDU(np.asarray(flux, np.float32))
    cards = {"CTYPE1": "LINEAR", "CRVAL1": first, "CDELT1": step, "CD1_1": step, "CRPIX1": 1.0}
    cards |= {"WAT0_001": "system=equispec", "DC-FLAG": 0, "OBJECT": "HD 1"}
    cards["WAT1_001"] = "wtype=linear label=Wavelength units=Angstroms"
    cards |= {f"BANDID{i + 1}": name for i, name in enumerate(bands)}
    primary.header.update(cards | (header or {}))
    primary.writeto(path, overwrite=True)
    return path
