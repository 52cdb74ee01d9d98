"""Tables with named columns, in whatever container, and the numbers in them."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from skspec._containers import UNITS_OF_NAMES, find_name, plain_name
from skspec._short_repr import ShortRepr
from skspec.datasets.readers._file import (
    MISSING,
    SENTINELS,
    SpectrumFile,
    SpectrumFileError,
    missing_number,
    native,
    text,
)

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = [
    "column_names",
    "flags",
    "is_number",
    "is_vector",
    "numbers",
    "tables_of",
    "unit_of",
    "vectors",
]

COMMENTS = ("#", "%", "!", "//")
BOOLEANS = {"true": 1.0, "false": 0.0, "t": 1.0, "f": 0.0, "yes": 1.0, "no": 0.0}


def column_names(file: SpectrumFile) -> list[list[str]]:
    """Names of the columns of each table of a file, found without reading the tables."""
    if file.is_fits:
        return [list(hdu.columns.names) for hdu in file.hdus if hasattr(hdu, "columns")]
    if file.is_votable:
        tables = re.split(rb"<TABLE[\s>]", file.data)[1:]
        fields = [re.findall(rb"<FIELD\s[^>]*>", part) for part in tables]
        names = [[re.search(rb"\bname\s*=\s*[\"']([^\"']*)", tag) for tag in f] for f in fields]
        return [[m.group(1).decode("utf-8", "replace") for m in f if m] for f in names]
    if _is_ecsv(file):
        lines = (line for line in file.lines if line.strip() and not line.startswith("#"))
        head = next(lines, "")
        return [next(csv.reader([head], delimiter="," if "," in head else " "), [])]
    layout = text_layout(file.lines)
    return [] if layout is None else [layout.names]


def tables_of(file: SpectrumFile) -> list[Table]:
    """All tables of a file; in ``meta`` the header cards, params or ``key: value`` of comments."""
    from astropy.table import Table

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if file.is_fits:
            found = [hdu for hdu in file.hdus if hasattr(hdu, "columns") and hdu.data is not None]
            return [Table.read(hdu, format="fits") for hdu in found]
        if file.is_votable:
            return list(_votables(file.data))
        if _is_ecsv(file):
            return [Table.read([s for s in file.lines if s.strip()], format="ascii.ecsv")]
    layout = text_layout(file.lines)
    return [] if layout is None else [_text_table(layout)]


def _votables(data):
    from astropy.io.votable import parse

    for one in parse(io.BytesIO(data), verify="ignore").iter_tables():
        table = one.to_table(use_names_over_ids=True)
        table.meta |= {str(param.name): param.value for param in one.params}
        yield table


def _is_ecsv(file):
    return file.lines[:1] != [] and file.lines[0].startswith("# %ECSV")


# -- text ------------------------------------------------------------------------------------------


@dataclass(repr=False)
class TextLayout(ShortRepr):
    """How a table of text is laid out.

    Attributes
    ----------
    names : list of str
        Of the columns; empty where the table has none.
    rows : list of str
        Lines of numbers.
    delimiter : str
        "" is white space.
    units : list of str
        In a line of their own below the names.
    meta : dict of str to str
    """

    names: list[str]
    rows: list[str]
    delimiter: str
    units: list[str] = field(default_factory=list)
    meta: dict[str, str] = field(default_factory=dict)

    def cells(self, lines: Iterable[str]) -> list[list[str]]:
        return split_cells(lines, self.delimiter)


def split_cells(lines: Iterable[str], delimiter: str) -> list[list[str]]:
    """Cells of each line; quoted ones may hold the delimiter."""
    if not delimiter:
        return [line.split() for line in lines]
    rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    return [[cell.strip() for cell in row] for row in rows]


def text_layout(lines: Sequence[str]) -> TextLayout | None:
    """Layout of a text that may be a table; None where it cannot be one."""
    lines = [line.lstrip("\ufeff") for line in lines if line.strip()]
    comments = [line for line in lines if line.lstrip().startswith(COMMENTS)]
    body = [line for line in lines if not line.lstrip().startswith(COMMENTS)]
    if not body:
        return None
    delimiter = next((mark for mark in (",", ";", "\t", "|") if mark in body[0]), "")
    meta = dict(filter(None, map(_key_and_value, comments)))
    [first] = split_cells(body[:1], delimiter)
    if all(is_number(cell) for cell in first):
        names = _names_in_comments(comments, len(first))
        return TextLayout(names, body, delimiter, meta=meta)
    names, rows, units = _names(body[0], delimiter), body[1:], []
    if len(names) < 2:
        return None
    if rows:
        [second] = split_cells(rows[:1], delimiter)
        if not delimiter and len(second) != len(names):
            return None  # prose
        if len(second) == len(names) and not any(_is_vector_text(cell) for cell in second):
            if not any(is_number(cell) for cell in second if cell):
                units, rows = second, rows[1:]
    return TextLayout(names, rows, delimiter, units, meta)


def _names(line, delimiter):
    """``wave (nm)`` is one name, also where white space parts them."""
    if not delimiter:
        line = re.sub(r"\s+(?=[\[({])", "", line)
    return split_cells([line], delimiter)[0]


def _names_in_comments(comments, n_columns):
    """Of the last comment that names a wavelength and a flux in as many columns as there are."""
    for line in reversed(comments):
        line = line.lstrip(" #%!/\t")
        for delimiter in (",", ";", "\t", "|", ""):
            names = _names(line, delimiter) if line else []
            if len(names) == n_columns and find_name("flux", names):
                if find_name("wavelength", names) or find_name("log_wavelength", names):
                    return names
    return []


def _key_and_value(comment):
    match = re.fullmatch(r"[\s#%!/]*([A-Za-z]\w*)\s*[:=]\s*(\S.*?)\s*", comment)
    return match.groups() if match else None


def is_number(cell: str) -> bool:
    """Whether a text is a number, or one of the words for a missing one."""
    cell = cell.strip().lower()
    if cell in MISSING:
        return True
    try:
        float(_without_fortran(cell))
    except ValueError:
        return False
    return True


def _without_fortran(cell):
    """1.0E-3 for 1.0D-3."""
    return re.sub(r"(?<=[\d.])[dD](?=[+-]?\d)", "e", cell)


def _is_vector_text(cell):
    return cell[:1] in ("(", "[") and cell[-1:] in (")", "]")


def _text_table(layout):
    from astropy.table import Table

    rows = layout.cells(layout.rows)
    n_columns = len(layout.names) or (len(rows[0]) if rows else 0)
    for i, row in enumerate(rows):
        if len(row) != n_columns:
            raise SpectrumFileError(
                f"its row {i + 1} has {len(row)} columns, not {n_columns} as the others: it is cut off "
                "or damaged"
            )
    names = layout.names or [f"column {k + 1}" for k in range(n_columns)]
    if len(set(names)) < len(names):
        raise SpectrumFileError(f"two of its columns have the same name: {names}")
    columns = zip(*rows) if rows else [()] * n_columns
    table = Table({name: _typed(values) for name, values in zip(names, columns)})
    for name, unit in zip(names, layout.units):
        table[name].meta["unit"] = unit
    table.meta |= layout.meta
    return table


def _typed(cells):
    """Integers, numbers (NaN where missing) or text."""
    cells = np.array(cells, dtype=str)
    if cells.size and any(re.fullmatch(r"0\d+", cell) for cell in cells):
        return cells  # identifiers such as 007; where numbers are asked for, they are read as such
    for kind in (np.int64, float):
        try:
            return cells.astype(kind)
        except (ValueError, OverflowError):
            continue
    if cells.size and all(map(is_number, cells)):  # 1.0D-3 of Fortran
        cells = np.array([_without_fortran(cell) for cell in cells])
    missing = np.isin(np.char.lower(np.char.strip(cells)), list(MISSING))
    for kind in (np.int64, float):
        try:
            values = np.where(missing, "0", cells).astype(kind)
        except (ValueError, OverflowError):
            continue
        return (
            np.ma.array(values, mask=missing)
            if kind is np.int64
            else np.where(missing, np.nan, values)
        )
    return cells


# -- columns ---------------------------------------------------------------------------------------


def unit_of(table: Table, name: str) -> str:
    """Unit of a column: its own, that of a line below the names, or one in its name; else ''."""
    column = table[name]
    unit = text(getattr(column, "unit", None)) or text(column.meta.get("unit"))
    wrapped = re.fullmatch(r"[\[({]\s*(.*?)\s*[\])}]", unit)
    unit = (wrapped.group(1) if wrapped else unit) or plain_name(name)[1]
    return UNITS_OF_NAMES.get(unit.lower(), unit)


def is_vector(table: Table, name: str) -> bool:
    """Whether each cell of a column holds a spectrum."""
    column = table[name]
    if column.ndim > 1 or column.dtype.kind == "O":
        return True
    cells = [text(cell) for cell in column[:3]] if column.dtype.kind in "US" else []
    return any(_is_vector_text(cell) for cell in cells)


def numbers(table: Table, name: str) -> np.ndarray:
    """A column of one number per row, as float64; NaN where it is missing.

    Raises
    ------
    SpectrumFileError
        When a cell holds anything else.
    """
    return _as_floats(table[name], name)


def _as_floats(values, name):
    mask = np.ma.getmaskarray(values) if hasattr(values, "mask") else None
    values = np.asarray(np.ma.getdata(values))
    if values.dtype.kind in "fiub":
        out = native(values).astype(float)
    elif values.dtype.kind in "USO":
        out = np.array([_cell_number(cell, name) for cell in values.ravel()], dtype=float)
        out = out.reshape(values.shape)
    else:
        raise SpectrumFileError(f"its column {name!r} holds no numbers")
    out[np.isin(out, SENTINELS)] = np.nan
    if mask is not None:
        out[mask] = np.nan
    return out


def _cell_number(cell, name):
    number = missing_number(cell)
    if np.isnan(number) and isinstance(cell, (str, bytes)):
        word = text(cell).lower()
        if word in BOOLEANS:
            return BOOLEANS[word]
        if word not in MISSING and not word.lstrip("+-") == "nan" and not is_number(word):
            raise SpectrumFileError(f"its column {name!r} holds {text(cell)!r}, which is no number")
    return number


def vectors(table: Table, name: str) -> list[np.ndarray]:
    """The vector in each cell of a column, as float64; empty where the cell is."""
    column = table[name]
    missing = np.ma.getmaskarray(column) if hasattr(column, "mask") else None
    out = []
    for row in range(len(column)):
        cell = column[row]
        whole = missing is not None and missing.ndim == 1 and bool(missing[row])
        if whole or cell is None or cell is np.ma.masked:
            out.append(np.empty(0))
        elif isinstance(cell, (str, bytes)):
            words = text(cell).strip("()[]{} ").replace(",", " ").split()
            out.append(np.array([_cell_number(word, name) for word in words], dtype=float))
        else:
            out.append(np.atleast_1d(_as_floats(cell, name)).ravel())
    return out


def flags(values: np.ndarray) -> np.ndarray:
    """Numbers of a mask as booleans: what is missing or not 0 is flagged."""
    return ~(np.asarray(values) == 0)
