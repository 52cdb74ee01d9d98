"""Readers of survey files, one module per survey; `reader` registers your own.

:func:`skspec.datasets.read_spectra` reads any number of files onto one grid.
"""

from skspec.datasets.readers import (  # noqa: F401
    apogee,
    desi,
    gaia,
    lamost,
    libre_esprit,
    sdss,
    sdss_v,
    table,
)
from skspec.datasets.readers._file import SpectrumFile, SpectrumFileError, card, text
from skspec.datasets.readers._registry import Format, formats, read_file, reader

__all__ = [
    "Format",
    "SpectrumFile",
    "SpectrumFileError",
    "card",
    "formats",
    "read_file",
    "reader",
    "text",
]
