"""Labels in whatever form they come, as plain numbers with names; the one place that looks at the form.

Forms are told by what they offer, so that none of their packages is imported here: arrays, masked
arrays, lists, pandas, polars, astropy tables, columns and quantities, record arrays, mappings.
What is masked or missing is NaN. Columns are found by name wherever both sides know names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from skspec._typing import Labels

__all__ = [
    "columns_of",
    "filled",
    "has_mask",
    "label_covariance",
    "is_missing",
    "known_names",
    "label_features",
    "label_frame",
    "label_names",
    "label_table",
    "label_values",
    "name_text",
    "refuse_sentinels",
    "refuse_unknown",
    "same_labels",
]

SHOWN = 5  # rows that an error names
_NINES = [9.99, 99.0, 99.9, 99.99, 99.999, 999.0, 999.9, 999.99, 9999.0, 9999.9, 9999.99, 99999.0]
_POWERS = [1e10, 1e20, 1e30, 9.96921e36, 9.9e37, 3.4028235e38, 1e38, 1e40, 1.7976931348623157e308]
_INTEGERS = [32767.0, 32768.0, 2147483647.0, 2147483648.0, 9.223372036854775807e18]
SENTINELS = np.array(_NINES + _POWERS + _INTEGERS)  # sizes; of either sign
MODEST = 100.0  # up to here a sentinel may well be a velocity or an age


# -- names -----------------------------------------------------------------------------------------


def name_text(name: Any) -> str:
    """A column name as text: numbers as they print, the levels of a MultiIndex joined by ``_``."""
    if isinstance(name, tuple):
        return "_".join(str(part) for part in name if str(part))
    return str(name)


def label_names(labels: Any) -> list[str] | None:
    """Names of the labels, as text: of columns, fields or keys, or of one column; None without any.

    Raises
    ------
    ValueError
        When two have the same name.
    """
    names = _names(labels)
    if names is None:
        return None
    names = [name_text(name) for name in names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"Two labels have the same name ({', '.join(twice)}): rename or drop one of these columns."
        )
    return names


def _names(labels):
    fields = getattr(getattr(labels, "dtype", None), "names", None)  # of a record array
    tables = (getattr(labels, name, None) for name in ("colnames", "columns", "label_names"))
    for names in (fields, *tables):
        if names is not None and not callable(names):
            return list(names)
    if isinstance(labels, Mapping):
        return list(labels)
    series = hasattr(labels, "to_numpy") or hasattr(labels, "parent_table")  # Series; Column
    holder = labels if series else getattr(labels, "info", None)  # Quantity in a QTable
    name = getattr(holder, "name", None)
    return [name] if isinstance(name, str | int | np.integer | tuple) else None


def known_names(names: Sequence[str] | None) -> bool:
    """Whether names say anything: those that labels without names are given do not."""
    return names is not None and list(names) != [f"label_{k}" for k in range(len(names))]


# -- values ----------------------------------------------------------------------------------------


def label_table(labels: Any, what: str = "The labels") -> tuple[np.ndarray, list[str] | None]:
    """Labels as float64, in the shape in which they came, NaN where masked or missing; their names.

    Parameters
    ----------
    labels : array-like, table, column or mapping
    what : str
        What they are called in errors.

    Raises
    ------
    ValueError
        When two have the same name, or they are no real numbers.
    """
    if type(labels) is np.ndarray and labels.dtype == np.float64:
        return labels, None
    names = label_names(labels)
    columns = columns_of(labels)
    if columns is None:
        return filled(labels, what), names
    values = [filled(column, f"{what} ({name})") for column, name in zip(columns, names or [])]
    for value, name in zip(values, names or []):
        if value.ndim != 1:
            raise ValueError(
                f"{what}: {name} has shape {value.shape}; a label is one number per star, so take "
                "columns of their own out of it."
            )
    return (np.column_stack(values) if values else np.empty((len(labels), 0))), names


def label_frame(labels: Labels, what: str = "The labels") -> pd.DataFrame:
    """Labels (n, K) as a DataFrame of floats; without names they are ``label_0``, ``label_1``..."""
    import pandas as pd

    values, names = label_table(labels, what)
    values = values.reshape(len(values), -1)
    return pd.DataFrame(values, columns=names or [f"label_{k}" for k in range(values.shape[1])])


def label_features(labels: Any, names: Sequence[str] | None = None, *, finite: bool = False) -> Any:
    """Labels as scikit-learn takes features: a DataFrame or Series where they have names, else an array.

    Columns are in the order of `names`, where both sides know names. With `finite`, NaN is refused.
    """
    import pandas as pd

    if (
        labels is None
        or hasattr(labels, "tocsr")
        or (type(labels) is np.ndarray and labels.dtype == object)
    ):
        return labels  # scikit-learn has its own words for these
    own, values = label_names(labels), label_values(labels, names)
    if finite:
        refuse_unknown(values, own if names is None else names)
    if own is None:
        return values
    if values.ndim == 1:
        return pd.Series(values, name=own[0])
    return pd.DataFrame(values, columns=own if names is None else list(names))


def columns_of(labels):
    """The columns of a table, one after another; None for anything else."""
    fields = getattr(getattr(labels, "dtype", None), "names", None)
    if fields is not None:
        return [labels[name] for name in fields]
    if hasattr(labels, "iloc") and hasattr(labels, "columns"):  # pandas: names may be anything
        return [labels.iloc[:, k] for k in range(labels.shape[1])]
    for names in (getattr(labels, "colnames", None), getattr(labels, "columns", None)):
        if names is not None and not callable(names):
            return [labels[name] for name in names]
    return list(labels.values()) if isinstance(labels, Mapping) else None


def filled(values: Any, what: str = "values", *, width: bool = False) -> np.ndarray:
    """One array or column as float64: NaN where masked or missing; quantities in the usual units.

    Temperatures are in K and velocities in km/s, whatever the unit in which they come. A `width`, such
    as an error, has no zero point: one of 50 deg_C is 50 K.

    Raises
    ------
    ValueError
        When they are no real numbers.
    """
    unit = getattr(values, "unit", None)
    try:
        if hasattr(values, "isna") and hasattr(values, "to_numpy"):
            numbers = values.to_numpy(dtype=float, na_value=np.nan)
        elif has_mask(values):
            numbers = np.where(values.mask, np.nan, _plain(values))
        elif isinstance(values, list | tuple) and any(map(has_mask, values)):
            numbers = np.array([filled(each, what, width=width) for each in values])
        else:
            numbers = _plain(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} must hold real numbers ({error}).") from None
    return numbers if unit is None else _in_usual_unit(numbers, unit, width)


def _plain(values):
    """Numbers of an array, whatever its mask says; None and NA are NaN."""
    values = getattr(values, "unmasked", values)
    values = values.data if isinstance(values, np.ma.MaskedArray) else values
    values = values.to_numpy() if hasattr(values, "to_numpy") else np.asarray(values)
    if values.dtype == object:
        missing = np.vectorize(is_missing, otypes=[bool])(values)
        values = np.where(missing, np.nan, values)
    if values.dtype.kind in "SU":
        values = np.where(np.char.strip(values) == np.array("", values.dtype), "nan", values)
    if values.dtype.kind == "c":
        raise TypeError("Complex data not supported")
    if values.dtype.kind in "mM":
        raise TypeError(f"they are {values.dtype}")
    return np.asarray(values, dtype=float)


def is_missing(value: Any) -> bool:
    """Whether an entry is None, masked, pandas' NA, or NaN."""
    if value is None or value is np.ma.masked:
        return True
    return type(value).__name__ in ("NAType", "NaTType") or (
        isinstance(value, float) and value != value
    )


def has_mask(values: Any) -> bool:
    """Whether an array hides values behind a mask: numpy's, or astropy's."""
    mask = getattr(values, "mask", None)
    masked = isinstance(values, np.ma.MaskedArray) or hasattr(values, "unmasked")
    return masked and mask is not None and bool(np.any(mask))


def _in_usual_unit(values, unit, width):
    kind = getattr(unit, "physical_type", None)
    if kind is None or hasattr(unit, "function_unit"):  # not known, or a logarithm
        return values
    usual = next((u for name, u in (("temperature", "K"), ("speed", "km/s")) if kind == name), None)
    if usual is None or unit == usual:
        return values
    from astropy.units import temperature  # the unit is one of its own

    zero = unit.to(usual, 0.0, equivalencies=temperature()) if width else 0.0
    return unit.to(usual, values, equivalencies=temperature()) - zero


# -- labels against others -------------------------------------------------------------------------


def label_values(
    labels: Labels,
    names: Sequence[str] | None = None,
    *,
    what: str = "The labels",
    among_others: bool = False,
    sentinels: bool = True,
) -> np.ndarray:
    """Labels as float64, NaN where missing, with columns in the order of `names`.

    Parameters
    ----------
    labels : array-like, table, column or mapping
    names : sequence of str, optional
        Names that the columns must have, where both sides know names; otherwise they are taken by
        place.
    what : str
        What they are called in errors.
    among_others : bool
        The table may have more columns.
    sentinels : bool
        Refuse values such as -9999.

    Raises
    ------
    ValueError
        When the names differ, two are the same, or the values are no real numbers or sentinels.
    """
    values, own = label_table(labels, what)
    if (
        values.ndim == 1 and names is not None and len(names) > 1
    ):  # one star, perhaps a row of a table
        own = _index_names(labels, names)
    if own is not None and names is not None and known_names(own) and known_names(names):
        values = _in_order(values, own, list(names), what, among_others)
        own = list(names)
    if sentinels:
        refuse_sentinels(values, own if names is None else names, what)
    return values


def label_covariance(
    cov: Any, names: Sequence[str] | None = None, what: str = "The covariances"
) -> np.ndarray:
    """Covariance of labels (K, K), as ``labels.cov()`` gives it, in the order of `names`.

    Raises
    ------
    ValueError
        When the names differ.
    """
    own, values = label_names(cov), label_values(cov, names, what=what, sentinels=False)
    if own is None or names is None or not (known_names(own) and known_names(names)):
        return values
    return values[[own.index(name) for name in names]]


def same_labels(own: Sequence[str], names: Sequence[str], what: str = "The labels") -> None:
    """Refuse labels whose names are not those expected, in whatever order.

    Raises
    ------
    ValueError
        Naming what is missing and what is not known.
    """
    missing = [name for name in names if name not in own]
    others = [name for name in own if name not in names]
    if missing or others:
        lack = f" no column {', '.join(missing)}" if missing else ""
        more = f" {', '.join(others)}, which {'is' if len(others) == 1 else 'are'} not expected"
        raise ValueError(
            f"{what} have{lack}{' but' if lack and others else ''}{more if others else ''}; give "
            f"columns named {', '.join(names)}."
        )


def _in_order(values, own, names, what, among_others):
    if own == names:
        return values
    same_labels([name for name in own if name in names] if among_others else own, names, what)
    return values[..., [own.index(name) for name in names]]


def _index_names(labels, names):
    """Names of the entries of a Series that is a row of a table of labels."""
    index = getattr(labels, "index", None)
    if index is None or callable(index):
        return None
    own = [name_text(name) for name in index]
    return own if set(own) & set(names) else None


# -- what cannot be a label ------------------------------------------------------------------------


def refuse_unknown(
    values: np.ndarray, names: Sequence[str] | None = None, what: str = "The labels"
) -> None:
    """Refuse NaN and infinite labels, with their rows.

    Raises
    ------
    ValueError
        When any is not finite.
    """
    if not np.all(np.isfinite(values)):
        raise ValueError(
            f"{what} hold NaN or infinite values ({_where(~np.isfinite(values), names)}): leave those "
            "stars out."
        )


def refuse_sentinels(
    values: np.ndarray, names: Sequence[str] | None = None, what: str = "The labels"
) -> None:
    """Refuse labels that stand for a missing value: -9999, 99.99, 1e10 and the like.

    Such is a value that catalogues use so and that lies far outside all other values of its label.

    Raises
    ------
    ValueError
        With the label, the value and the rows.
    """
    if values.ndim not in (1, 2) or not values.size:
        return
    columns = values.reshape(len(values), -1)
    known = _shown_names(names, columns.shape[1])
    for k, column in enumerate(columns.T):
        for value in _sentinels(column):
            rows = np.isclose(column, value, rtol=5e-7, atol=0)
            label = "" if known is None else f"{known[k]} "
            raise ValueError(
                f"{what} hold {label}{value:g} ({_where(rows[:, None], None)}), which stands for a "
                "missing value: leave those stars out, or put NaN there (read_labels(..., "
                f"missing={value:g}) does)."
            )


def _sentinels(column):
    """Values of a label that stand for missing ones."""
    finite = column[np.isfinite(column)]
    if not finite.size:
        return []
    size = np.abs(finite)
    place = np.clip(np.searchsorted(_SORTED, size * (1 - 5e-7)), 0, len(_SORTED) - 1)
    usual = np.abs(size - _SORTED[place]) <= 5e-7 * _SORTED[place]
    if not usual.any():
        return []
    rest = finite[~usual]
    return [value for value in np.unique(finite[usual]) if _far(value, rest)]


_SORTED = np.sort(SENTINELS)


def _far(value, rest):
    """Whether a usual sentinel lies far outside the other values of its label."""
    if not rest.size:  # nothing to compare with: only what no label is
        return value <= -999 or value >= 1e10
    low, high = np.quantile(rest, [0.05, 0.95])
    below_zero = value < 0 < low  # a negative temperature, gravity, distance
    if rest.size < 3:
        return below_zero or abs(value) > 10 * np.abs(rest).max()
    if below_zero and (abs(value) > MODEST or rest.min() > 0):
        return True
    if abs(value) > MODEST * max(np.quantile(np.abs(rest), 0.95), 1e-300):
        return True  # even if a few others are as bad
    if 0 < value < min(0.1 * low, rest.min()):
        return True
    gap = max(rest.min() - value, value - rest.max())
    return gap > (3.0 if abs(value) < MODEST else 0.5) * max(high - low, np.ptp(rest) / 4)


def _where(bad, names):
    """``teff of rows 3, 17; logg of row 5`` of a boolean array (n,) or (n, K)."""
    bad = np.reshape(bad, (len(bad), -1)) if np.ndim(bad) else np.reshape(bad, (1, 1))
    known = _shown_names(names, bad.shape[1])
    if known is None:
        return _rows(np.flatnonzero(bad.any(axis=1)))
    each = [(name, np.flatnonzero(column)) for name, column in zip(known, bad.T)]
    return "; ".join(f"{name} of {_rows(rows)}" for name, rows in each if len(rows))


def _shown_names(names, n_labels):
    """Names for an error; None where there is one label without."""
    if names is not None and len(names) == n_labels:
        return list(names)
    return [f"label_{k}" for k in range(n_labels)] if n_labels > 1 else None


def _rows(rows):
    shown = ", ".join(map(str, rows[:SHOWN]))
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return f"row{'s' * (len(rows) > 1)} {shown}{more}"
