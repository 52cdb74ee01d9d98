"""`read_labels`: labels from a catalogue, a file or a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skspec._label_values import columns_of, filled, label_names, name_text, refuse_sentinels
from skspec.datasets._catalogue_files import open_catalogue, own_name
from skspec.datasets._identifiers import as_text, identifiers

__all__ = ["read_labels"]

SAME = 1e-6  # relative difference of a missing value from its sentinel, in single precision


def read_labels(
    table: Any,
    labels: Sequence[str] | Mapping[str, Any] | None = None,
    errors: Sequence[str] | Mapping[str, Any] | None = None,
    *,
    missing: Any = None,
    id: str | None = None,
) -> pd.DataFrame | tuple[pd.DataFrame, pd.DataFrame]:
    """Labels of stars from a catalogue: numbers, NaN where there are none.

    Parameters
    ----------
    table : path or table
        A file (CSV, FITS, ECSV, VOTable, Parquet, ``.npz``, text with a line of names), or a
        DataFrame, a Table of astropy, a record array, a polars DataFrame, a mapping of columns.
    labels : sequence of str or mapping, optional
        Columns, or ``{"teff": "TEFF"}``: label and column; ``{"teff": ("FPARAM", 0)}`` is an entry of
        a column of vectors. Names are found in capitals or not. Default: all columns of numbers.
    errors : sequence of str or mapping, optional
        Columns of the labels' standard deviations, in the order of `labels`, or a mapping of labels.
    missing : float, str or sequence of these, optional
        Values that stand for a missing one, such as ``-9999``.
    id : str, optional
        Column of identifiers, which become the index: integers, or text without spaces around it.

    Returns
    -------
    labels : pandas.DataFrame of shape (n, K)
        Temperatures in K and velocities in km/s where the table has units.
    errors : pandas.DataFrame of shape (n, K)
        Only with `errors`; NaN for a label that has none.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When the file cannot be read, a column is missing or holds no numbers, identifiers have
        passed through floats, errors are negative, or values such as -9999 are left (see `missing`).

    See Also
    --------
    match_labels : Labels of given spectra.

    Examples
    --------
    >>> from skspec.datasets import read_labels
    >>> catalogue = {"OBSID": [11, 12], "TEFF": [5777.0, -9999.0], "E_TEFF": [50.0, -9999.0]}
    >>> labels, errors = read_labels(catalogue, {"teff": "TEFF"}, ["E_TEFF"], missing=-9999, id="OBSID")
    >>> labels["teff"].tolist(), labels.index.tolist()
    ([5777.0, nan], [11, 12])
    """
    catalogue = Catalogue.of(table, wanted_columns(labels, errors, id))
    return catalogue.read(labels, errors, missing, id)


def wanted_columns(labels, errors, id):
    """Columns that are needed; without `labels` all are."""
    if labels is None:
        return []
    columns = [*_pairs(labels).values(), *({} if errors is None else _pairs(errors)).values()]
    names = [column[0] if isinstance(column, tuple) else column for column in columns]
    return [*names, *([] if id is None else [id])]


def _pairs(columns):
    """``{label: column}`` of a mapping, or of columns that are named like their labels."""
    if isinstance(columns, str):
        columns = [columns]
    return dict(columns) if isinstance(columns, Mapping) else {name: name for name in columns}


class Catalogue:
    """The columns of a table, by name."""

    def __init__(self, columns, index=None):
        self.columns, self.index = columns, index

    @classmethod
    def of(cls, table, wanted, optional=()):
        path = table if isinstance(table, str | Path) or hasattr(table, "__fspath__") else None
        if path is not None:
            table = open_catalogue(Path(path), wanted, optional)
        names, columns = label_names(table), columns_of(table)
        if names is None or columns is None:
            raise ValueError(
                f"A table with named columns is needed, or a file, not {type(table).__name__}."
            )
        index = getattr(table, "index", None) if hasattr(table, "iloc") else None
        if len({len(column) for column in columns}) > 1:
            raise ValueError("The columns of the table have different numbers of rows.")
        return cls(dict(zip(names, columns)), index)

    def take(self, rows):
        return Catalogue(_Taken(self.columns, rows))

    def name_of(self, name):
        """The column's own name; in capitals or not."""
        return own_name(name, self.columns, "The table has no column")

    def __getitem__(self, name):
        if isinstance(name, tuple):
            name, entry = name
            values = np.ma.asanyarray(self.columns[self.name_of(name)])
            return values[..., entry]
        return self.columns[self.name_of(name)]

    def is_index(self, name):
        """Whether the rows are named by it, as `read_labels` does."""
        own = getattr(self.index, "name", None)
        return own is not None and name_text(own).lower() == name_text(name).lower()

    def identifiers(self, name):
        if self.is_index(name):
            return identifiers(self.index, name)
        return identifiers(self[name], name)

    def read(self, labels, errors, missing, id, skip=()):
        index = None if id is None else pd.Index(self.identifiers(id), name=id)
        if labels is None:
            errors_of = [] if errors is None else _pairs(errors).values()
            columns = [each[0] if isinstance(each, tuple) else each for each in errors_of]
            left_out = [self.name_of(each) for each in (*columns, *skip, *([id] if id else []))]
            labels = self._of_numbers(left_out)
        table = self._frame(_pairs(labels), missing, "The labels", index)
        if errors is None:
            return table
        if not isinstance(errors, Mapping):
            columns = [errors] if isinstance(errors, str) else list(errors)
            if len(columns) != table.shape[1]:
                raise ValueError(
                    f"{len(columns)} columns of errors for the labels {', '.join(table)}: give one "
                    "each, or a mapping such as {'teff': 'E_TEFF'}."
                )
            errors = dict(zip(table, columns))
        unknown = [name for name in errors if name not in table]
        if unknown:
            raise ValueError(
                f"errors are given of {', '.join(unknown)}, which no label is; labels: "
                f"{', '.join(table)}."
            )
        noise = self._frame(dict(errors), missing, "The errors", index, width=True)
        return table, noise.reindex(columns=table.columns)

    def _of_numbers(self, left_out):
        names = []
        for name, column in self.columns.items():
            kind = np.ma.asanyarray(column).dtype.kind if np.ndim(column) == 1 else ""
            kind = "f" if hasattr(column, "to_numpy") and _is_number(column) else kind
            if kind and kind in "iuf" and name not in left_out:
                names.append(name)
        return names

    def _frame(self, pairs, missing, what, index, width=False):
        columns = {}
        for name, column in pairs.items():
            values = _numbers(self[column], missing, f"{what} ({name})", width)
            if values.ndim != 1:
                raise ValueError(
                    f"Column {column} has shape {values.shape}; a label is one number per star: give "
                    f"{{{name!r}: ({column!r}, 0)}} for its first entry."
                )
            if width and np.any(values < 0):
                row = np.flatnonzero(values < 0)[0]
                raise ValueError(
                    f"{what} of {name} are negative ({values[row]:g} in row {row}): give "
                    f"missing={values[row]:g} where that means that there is none."
                )
            columns[name] = values
        table = pd.DataFrame(columns, index=index)
        refuse_sentinels(table.to_numpy(dtype=float), list(table), what)
        return table


class _Taken(Mapping):
    """Some rows of the columns of a table, taken when they are asked for."""

    def __init__(self, columns, rows):
        self._columns, self._rows = columns, rows

    def __getitem__(self, name):
        column = self._columns[name]
        column = column if hasattr(column, "dtype") else np.asarray(column)
        return column.iloc[self._rows] if hasattr(column, "iloc") else column[self._rows]

    def __iter__(self):
        return iter(self._columns)

    def __len__(self):
        return len(self._columns)


def _is_number(column):
    return str(column.dtype).lower().startswith(("int", "uint", "float", "double"))


def _numbers(column, missing, what, width):
    given = [] if missing is None else [missing] if np.ndim(missing) == 0 else list(missing)
    words = [word.strip() for word in given if isinstance(word, str)]
    kind = getattr(getattr(column, "dtype", None), "kind", "O")
    if words and kind in "OSU":
        text = as_text(np.asarray(column, dtype=object))
        column = np.where(np.isin(text, words), "nan", text)
    values = filled(column, what, width=width)
    for value in given:
        if not isinstance(value, str):
            values = np.where(np.isclose(values, value, rtol=SAME, atol=0), np.nan, values)
    return values
