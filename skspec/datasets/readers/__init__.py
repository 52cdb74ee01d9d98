"""Readers of survey files, one module per survey; `reader` registers your own.

:func:`skspec.datasets.read_spectra` reads any number of files onto one grid.
"""

from skspec.datasets.readers import apogee, desi, lamost, sdss, sdss_v  # noqa: F401
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
