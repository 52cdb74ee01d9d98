"""Catalogues in files: their columns, whatever the format; content decides which it is."""

from __future__ import annotations

import difflib
import gzip
import warnings
import zlib

import numpy as np
import pandas as pd

from skspec._label_values import filled, name_text
from skspec.datasets._files import _read
from skspec.datasets._identifiers import PACKED

__all__ = ["open_catalogue", "own_name"]

EXACT = 2**53  # integers up to here pass through a float


def open_catalogue(path, wanted, optional):
    """The table in a file; its content decides of which kind it is."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; check the name and the folder.")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*truncated.*")
            return _parsed(path, _first_bytes(path), wanted, optional)
    except ImportError as error:
        extra = 'pip install "skspec[fits]"' if error.name == "astropy" else "pip install pyarrow"
        raise ImportError(f"{path} needs {error.name or 'another package'}: {extra}.") from error
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        OSError,
        EOFError,
        zlib.error,
        Warning,
    ) as error:
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} cannot be read as a table: {told}") from None


def _first_bytes(path):
    with open(path, "rb") as file:
        start = file.read(512)
    if start[:2] == b"\x1f\x8b":
        with gzip.open(path) as file:
            start = file.read(512)
    return start


def _parsed(path, start, wanted, optional):
    name = PACKED.sub("", path.name.lower())
    if start.startswith(b"SIMPLE"):
        return _from_fits(path, wanted, optional)
    if start.startswith(b"PK"):
        return _from_npz(path)
    if start.startswith(b"PAR1"):
        return pd.read_parquet(path, dtype_backend="numpy_nullable")
    if start.lstrip().startswith(b"# %ECSV"):
        return _astropy_table(path, "ascii.ecsv")
    if b"<VOTABLE" in start or name.endswith((".vot", ".votable")):
        return _astropy_table(path, "votable")
    if not start.strip():
        raise ValueError("it is empty")
    if b"\0" in start:
        raise ValueError("it is neither text nor FITS, VOTable, ECSV, Parquet or .npz")
    if name.endswith((".csv", ".tsv")) and not start.lstrip().startswith(b"#"):
        return _from_csv(path, _delimiter(start))
    return _astropy_table(path, "ascii")


def _delimiter(start):
    """Between the names of a first line: some countries write the comma in numbers."""
    line = start.decode("utf-8", "replace").lstrip("\ufeff").splitlines()[0]
    return next((mark for mark in (",", ";", "\t", "|") if mark in line), ",")


def _from_csv(path, sep):
    """As text where a number would lose digits: identifiers with gaps become floats otherwise."""
    options = {"sep": sep, "skipinitialspace": True}
    table = pd.read_csv(path, **options, dtype_backend="numpy_nullable")
    names = [str(name) for name in table.columns]
    exact = [
        name
        for name, kind in zip(names, table.dtypes)
        if str(kind) == "Float64" and np.nanmax(np.abs(filled(table[name])), initial=0) >= EXACT
    ]
    if exact:  # numbers of 16 digits and more
        text = pd.read_csv(path, **options, usecols=exact, dtype=str)
        table = table.assign(**{name: text[name] for name in exact})
    return table.set_axis([name.strip() for name in names], axis=1)


def _from_npz(path):
    arrays = _read(path)
    n = max((len(array) for array in arrays.values() if array.ndim), default=0)
    columns = {key: array for key, array in arrays.items() if array.ndim == 1 and len(array) == n}
    if {"labels", "label_names"} <= arrays.keys() and arrays["labels"].ndim == 2:
        table = arrays["labels"]
        n = len(table)
        columns = {
            key: array for key, array in arrays.items() if array.ndim == 1 and len(array) == n
        }
        has = np.asarray(arrays.get("has_labels", np.ones(n)), dtype=bool)
        table = np.where(has[:, None], table, np.nan)
        columns |= dict(zip(map(str, arrays["label_names"]), table.T))
    return columns


def _astropy_table(path, kind):
    from astropy.table import Table
    from astropy.utils.exceptions import AstropyWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        return Table.read(path, format=kind)


def _from_fits(path, wanted, optional):
    """The columns wanted of the first table that has them."""
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        warnings.filterwarnings("error", message=".*truncated.*")
        with fits.open(path) as file:
            tables = [hdu for hdu in file[1:] if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)]
            if not tables:
                raise ValueError("it has no table, only images")
            lower = {name_text(name).lower() for name in wanted}
            hdu = next(
                (hdu for hdu in tables if lower <= {name.lower() for name in hdu.columns.names}),
                tables[0],
            )
            names = hdu.columns.names
            if lower:
                lower |= set(optional)
                chosen = [name for name in names if name.lower() in lower]
                if len(chosen) < len(set(map(str, wanted))):
                    for name in wanted:  # raises
                        own_name(name, names, "the table has no column")
                names = chosen
            return {name: _fits_column(hdu, name) for name in names}


def _fits_column(hdu, name):
    from astropy.table import MaskedColumn

    values, about = np.array(hdu.data[name]), hdu.columns[name]
    mask = np.zeros(values.shape, dtype=bool)
    if about.null is not None and values.dtype.kind in "iu":
        mask = values == about.null
    return MaskedColumn(
        values.astype(values.dtype.newbyteorder("=")), mask=mask, unit=_unit(about.unit)
    )


def _unit(text):
    from astropy.units import Unit

    return None if not text else Unit(text, parse_strict="silent")


def own_name(name, names, complaint):
    """A name among others, in capitals or not."""
    name = name_text(name)
    if name in names:
        return name
    alike = [own for own in names if own.lower() == name.lower()]
    if len(alike) == 1:
        return alike[0]
    close = (
        alike or difflib.get_close_matches(name, list(names), n=4, cutoff=0.4) or list(names)[:8]
    )
    raise ValueError(f"{complaint} {name!r}; there are {', '.join(close)}.")
