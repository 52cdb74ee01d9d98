"""Spectra with known labels: made here, or read from files.

Start with `make_spectra`, which needs no data; `fetch_miles` has real stars with labels,
`read_spectra` and `load_spectra` read spectra of yours, and `read_labels` and `match_labels` their
labels from a catalogue.
"""

from skspec.datasets._files import load_spectra, save_spectra
from skspec.datasets._label_tables import read_labels
from skspec.datasets._libraries import fetch_miles, fetch_stelib
from skspec.datasets._make_spectra import make_spectra, synthesize
from skspec.datasets._match_labels import match_labels
from skspec.datasets._read_spectra import FileReport, UnreadFilesWarning, read_spectra
from skspec.datasets._store import SpectraStore
from skspec.datasets.readers.gaia import XPCoefficients, read_xp_coefficients

__all__ = [
    "FileReport",
    "SpectraStore",
    "UnreadFilesWarning",
    "XPCoefficients",
    "fetch_miles",
    "fetch_stelib",
    "load_spectra",
    "make_spectra",
    "match_labels",
    "read_labels",
    "read_spectra",
    "read_xp_coefficients",
    "save_spectra",
    "synthesize",
]
