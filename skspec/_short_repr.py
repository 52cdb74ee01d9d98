"""Results that print in a few lines, however many stars and pixels they hold."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from textwrap import shorten

import numpy as np

__all__ = ["ShortRepr"]

FEW = 4  # numbers that are shown one by one
MANY = 10**6  # numbers whose median takes too long
WIDTH = 88  # columns of the whole
ITEM = 60  # and characters of one value


class ShortRepr:
    """Base of results, dataclasses or not: arrays are shown by their shape, and their median.

    Shown are the fields of a dataclass (but those of ``field(repr=False)``), the public attributes of
    any other class, or what ``_repr_values`` gives; what is None or empty is left out.
    """

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        cls.__repr__ = cls.__repr__  # its own, or that of its parent: `dataclass` makes none

    def _repr_values(self) -> dict:
        """What is shown, by name."""
        if is_dataclass(self):
            names = [each.name for each in fields(self) if each.repr]
        else:
            names = [name for name in vars(self) if not name.startswith("_")]
        return {name: getattr(self, name) for name in names}

    def __repr__(self):
        values = self._repr_values().items()
        parts = [f"{name}={_shown(value)}" for name, value in values if _says(value)]
        lines = [f"<{type(self).__name__}{':' if parts else ''}"]
        for k, part in enumerate(parts, start=1):
            more = f"{part}," if k < len(parts) else part
            if len(lines[-1]) + len(more) + 1 > WIDTH:
                lines.append("")
            lines[-1] += f" {more}"
        return "\n".join(lines) + ">"


def _says(value):
    return not (value is None or (isinstance(value, dict | list | tuple) and not value))


def _shown(value):
    """One value in at most a line."""
    if hasattr(value, "iloc"):
        return f"{type(value).__name__} {_sizes(value.shape)}"
    if hasattr(value, "shape") and hasattr(value, "dtype") and len(value.shape):
        return _array(value)
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    if isinstance(value, np.generic):
        return str(value)
    if isinstance(value, dict):
        return _brief("{}", (f"{key}: {_shown(each)}" for key, each in value.items()), value)
    if isinstance(value, list | tuple):
        items = (each if isinstance(each, str) else _shown(each) for each in value)
        return _brief("()" if isinstance(value, tuple) else "[]", items, value)
    if isinstance(value, str):
        return repr(shorten(value, ITEM, placeholder="..."))
    text = repr(value)
    return text if len(text) <= ITEM else f"<{type(value).__name__}>"


def _brief(brackets, items, value):
    """Items where they fit, else the keys of a dict, else their number."""
    for texts in (items, map(str, value)) if isinstance(value, dict) else (items,):
        text = _joined(texts)
        if text is not None:
            return text.join(brackets)
    return f"{len(value)} items".join(brackets)


def _joined(texts):
    """Texts of no objects, that together are no longer than a value may be; else None."""
    out = []
    for text in texts:
        out.append(text)
        if text.endswith(">") or sum(map(len, out)) + 2 * len(out) > ITEM:
            return None
    return ", ".join(out)


def _array(value):
    """Values of a few numbers; of more the shape, and the range or the median where one tells."""
    sizes = _sizes(value.shape)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        return sizes
    if value.size <= FEW and value.ndim == 1:
        return ", ".join(_shown(each) for each in value).join("[]")
    if value.dtype == bool:
        return f"{sizes} with {np.count_nonzero(value)} true"
    if value.ndim > 1 or value.size > MANY:  # several labels have no median in common
        return sizes
    if np.all(np.diff(value) > 0):
        return f"{sizes} from {_shown(value[0])} to {_shown(value[-1])}"
    known = value[np.isfinite(value)]
    if not known.size or value.dtype.kind != "f":
        return sizes
    return f"{sizes} of median {np.median(known):.4g}"


def _sizes(shape):
    return " x ".join(map(str, shape)).join("[]")
