"""What is known of each star, as numbers or classes to colour by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skspec._short_repr import ShortRepr

__all__ = ["Column", "columns_of", "star_names"]

MAX_CLASSES = 9  # colours that can be told apart; rarer classes share one more
NAME_KEYS = ("star_name", "star_id", "name", "object", "target", "source_id", "group_id")


@dataclass(frozen=True)
class Column(ShortRepr):
    """A label or another property of n stars.

    Attributes
    ----------
    name : str
    values : ndarray of shape (n,)
        Numbers, or positions in `classes` with -1 where unknown.
    classes : tuple of str
        Names of the classes, the most common one first; empty for numbers.
    """

    name: str
    values: np.ndarray
    classes: tuple = ()

    def text(self, row) -> str:
        """The value of one star, as it is printed."""
        value = self.values[row]
        if self.classes:
            return self.classes[int(value)] if value >= 0 else "–"
        return f"{value:.4g}".replace("-", "−") if np.isfinite(value) else "–"


def columns_of(labels, meta, n):
    """Columns of the labels, then of what `meta` holds per star; constant ones are left out."""
    table = {} if labels is None else {str(name): labels[name] for name in labels}
    n_labels = len(table)
    table |= {str(name): values for name, values in meta.items() if str(name) not in table}
    found = []
    for k, (name, values) in enumerate(table.items()):
        column = _column(name, values, n, any_number=k < n_labels)
        if column is not None:
            found.append(column)
    return found


def _column(name, values, n, any_number):
    if np.ndim(values) != 1 or len(values) != n:
        return None
    values = np.asarray(values)
    if values.dtype.kind == "f":
        known = values[np.isfinite(values)]
        some = known.size and (any_number or known.min() < known.max())
        return Column(name, values.astype(float)) if some else None
    if values.dtype.kind in "iu" and (any_number or len(np.unique(values)) > MAX_CLASSES):
        return None if name in NAME_KEYS else Column(name, values.astype(float))
    return _classes(name, values) if values.dtype.kind in "biuUSO" else None


def _classes(name, values):
    """Classes by how common they are; None for one class only, or a name for every star."""
    names, code, count = np.unique(_as_text(values), return_inverse=True, return_counts=True)
    unknown = np.isin(names, ("", "nan", "None"))
    order = np.argsort(np.where(unknown, 0, -count), kind="stable")
    order = order[~unknown[order]]
    if len(order) < 2 or count[order[:MAX_CLASSES]].sum() < 0.5 * len(values):
        return None
    rank = np.full(len(names), -1)
    rank[order] = np.minimum(np.arange(len(order)), MAX_CLASSES)
    kept = tuple(names[order[:MAX_CLASSES]])
    if len(order) > MAX_CLASSES:
        kept += (f"{len(order) - MAX_CLASSES} others",)
    return Column(name, rank[code].astype(float), kept)


def star_names(meta, n):
    """What each star is called: the first name that `meta` has, or its number."""
    for key in NAME_KEYS:
        values = np.asarray(meta.get(key, ()))
        if values.shape == (n,):
            return _as_text(values)
    return np.array([f"star {k}" for k in range(n)])


def _as_text(values):
    if values.dtype.kind == "S":
        return np.char.decode(values, "utf-8", "replace")
    return values.astype(str)
