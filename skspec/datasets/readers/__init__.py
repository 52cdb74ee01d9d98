"""Readers of survey files, one module per survey; `reader` registers your own.

:func:`skspec.datasets.read_spectra` reads any number of files onto one grid.
"""

from skspec.datasets.readers import (  # noqa: F401
    apogee,
    desi,
    eso,
    fits_1d,
    gaia,
    galah,
    harps,
    igrins,
    iraf,
    keck,
    lamost,
    libraries,
    libre_esprit,
    sdss,
    sdss_v,
    table,
)
from skspec.datasets.readers._file import (
    SpectrumFile,
    SpectrumFileError,
    SpectrumFileWarning,
    card,
    text,
)
from skspec.datasets.readers._registry import Format, formats, read_file, reader

__all__ = [
    "Format",
    "SpectrumFile",
    "SpectrumFileError",
    "SpectrumFileWarning",
    "card",
    "formats",
    "read_file",
    "reader",
    "text",
]
