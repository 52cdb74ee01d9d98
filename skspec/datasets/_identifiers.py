"""Identifiers of stars, exactly as they are: integers or text, never floats."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from skspec._label_values import is_missing

__all__ = ["as_integers", "base_names", "identifiers"]

FILE_SUFFIX = re.compile(r"\.(fits?|fts|txt|dat|csv|asc|ascii)$", re.IGNORECASE)
PACKED = re.compile(r"\.(gz|bz2|fz|z)$", re.IGNORECASE)
EXACT = 2**53  # integers up to here pass through a float


def identifiers(values: Any, name: str = "identifiers") -> np.ndarray:
    """Identifiers (n,) as integers where all are, else as text; never through a float.

    Text is stripped, bytes are decoded; what is masked or missing is the empty text.

    Raises
    ------
    ValueError
        When they are floats that have lost digits, or not one per row.
    """
    mask = np.ma.getmaskarray(values) if np.ma.isMaskedArray(values) else None
    if mask is None and hasattr(values, "isna"):
        mask = np.asarray(values.isna())
    if hasattr(values, "null_count"):  # polars makes floats of integers with gaps
        values = np.array(values.to_list(), dtype=object)
    plain = values.data if np.ma.isMaskedArray(values) else values
    plain = np.asarray(plain.astype(object) if hasattr(values, "isna") else plain)
    if plain.ndim != 1:
        raise ValueError(f"{name} has shape {plain.shape}; give one identifier per row.")
    mask = np.zeros(len(plain), dtype=bool) if mask is None else mask
    if plain.dtype == object:
        mask = mask | np.array([is_missing(value) for value in plain], dtype=bool)
        known = plain[~mask]
        if len(known) and all(isinstance(value, int | np.integer) for value in known):
            plain = np.where(mask, 0, plain).astype(np.int64)
        elif len(known) and all(isinstance(value, float | np.floating) for value in known):
            plain = np.where(mask, np.nan, plain).astype(float)
    if plain.dtype.kind == "f":
        mask = mask | np.isnan(plain)
        plain = _whole(np.where(mask, 0, plain), name)
    if plain.dtype.kind in "iu" and not mask.any():
        return plain
    text = plain.astype(str) if plain.dtype.kind in "iu" else as_text(plain)
    return np.where(mask, "", text)


def _whole(values, name):
    if np.any(values != np.round(values)) or np.any(np.abs(values) >= EXACT):
        raise ValueError(
            f"{name} holds floats, in which long identifiers lose their last digits: read that column "
            "as integers or text (in pandas: dtype='Int64' or str)."
        )
    return values.astype(np.int64)


def as_text(values):
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    elif values.dtype.kind == "O":
        values = np.array(
            [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values]
        )
    return np.char.strip(values.astype(str))


def as_integers(values):
    """As text, in the one way in which an integer can be written; tables make 7.0 of 7."""
    if values.dtype.kind in "iu":
        return values.astype(str)
    found = (re.fullmatch(r"([+-]?\d+)(\.0*)?", text) for text in values)
    return np.array([str(int(m[1])) if m else t for m, t in zip(found, values)], dtype=str)


def base_names(values):
    last = (re.split(r"[/\\]", text)[-1] for text in values)
    return np.array([FILE_SUFFIX.sub("", PACKED.sub("", text)) for text in last], dtype=str)
