"""Spectra with known labels: made here, or read from files.

Start with `make_spectra`, which needs no data; `load_spectra` reads real ones.
"""

from skspec.datasets._files import load_spectra, save_spectra
from skspec.datasets._make_spectra import make_spectra, synthesize
from skspec.datasets._store import SpectraStore

__all__ = ["SpectraStore", "load_spectra", "make_spectra", "save_spectra", "synthesize"]
