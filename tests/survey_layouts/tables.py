"""Tables of anybody."""

import numpy as np
from astropy.table import Table

WAVELENGTH = np.linspace(5000, 5049, 50)


def _table():
    flux = np.linspace(1, 2, 50)
    return Table({"wavelength": WAVELENGTH, "flux": flux, "error": np.full(50, 0.01)})


def write_text(path):
    """Names in a comment, columns between white space."""
    _table().write(path, format="ascii.commented_header", overwrite=True)
    return path


def write_bare_text(path):
    _table().write(path, format="ascii.no_header", overwrite=True)
    return path


def write_csv(path):
    _table().write(path, format="ascii.csv", overwrite=True)
    return path


def write_fits(path):
    _table().write(path, format="fits", overwrite=True)
    return path


def write_votable(path):
    _table().write(path, format="votable", overwrite=True)
    return path
