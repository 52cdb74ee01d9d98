"""`match_labels`: the labels of given spectra, from a catalogue."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from skspec._label_values import filled, name_text
from skspec.datasets._catalogue_files import own_name
from skspec.datasets._identifiers import FILE_SUFFIX, PACKED, as_integers, base_names, identifiers
from skspec.datasets._label_tables import Catalogue, wanted_columns

if TYPE_CHECKING:
    from skspec.spectra import Spectra

__all__ = ["match_labels"]

FILE_KEYS = {"file", "filename", "file_name", "path"}
RA, DEC = ("ra", "raj2000", "ra_icrs", "_ra"), ("dec", "dej2000", "de_icrs", "_de", "decj2000")


def match_labels(
    spectra: Spectra,
    table: Any,
    on: str | Mapping[str, str],
    labels: Sequence[str] | Mapping[str, Any] | None = None,
    errors: Sequence[str] | Mapping[str, Any] | None = None,
    *,
    missing: Any = None,
    max_distance: float = 2.0,
) -> tuple[Any, ...]:
    """Spectra that a catalogue knows, and their labels, in one order.

    Parameters
    ----------
    spectra : Spectra of shape (n, P)
        With an identifier of each star, or its position, in ``spectra.meta``.
    table : path or table
        As for `read_labels`.
    on : str or mapping
        What both have: a key of ``spectra.meta`` that is a column, too (``"obsid"``, ``"source_id"``,
        ``"APOGEE_ID"``; in capitals or not), ``{key: column}`` where the names differ, or ``"sky"``:
        ``ra`` and ``dec`` in degrees (``{"ra": column, "dec": column}`` where the columns have other
        names).
    labels, errors, missing
        As for `read_labels`.
    max_distance : float
        Of a match on the sky [arcsec].

    Returns
    -------
    spectra : Spectra of shape (m, P)
        Those with a row in the catalogue, in the order in which they came.
    labels : pandas.DataFrame of shape (m, K)
        Their labels, indexed by identifier.
    errors : pandas.DataFrame of shape (m, K)
        Only with `errors`.

    Warns
    -----
    UserWarning
        When spectra are not in the catalogue: how many, and some of them.

    Raises
    ------
    ValueError
        When none is, or several rows of the catalogue are one spectrum's; and what `read_labels` raises.

    Notes
    -----
    Text is compared without spaces around it, integers as integers, names of files without folder and
    without ``.fits`` and ``.gz``. Several spectra may be of one row. An empty text, and -1 as the number
    of a spectrum, mean that there is none.

    Examples
    --------
    >>> from skspec.datasets import make_spectra, match_labels
    >>> spectra, labels = make_spectra(3, n_pixels=50, random_state=0)
    >>> spectra.meta["obsid"] = [103, 101, 102]
    >>> catalogue = {"OBSID": [101, 102, 103], "TEFF": [4500.0, 5000.0, 5500.0]}
    >>> spectra, labels = match_labels(spectra, catalogue, on="obsid", labels={"teff": "TEFF"})
    >>> labels["teff"].tolist()
    [5500.0, 4500.0, 5000.0]
    """
    pairs = dict(on) if isinstance(on, Mapping) else {on: on}
    on_sky = on == "sky" or set(map(str.lower, pairs)) == {"ra", "dec"}
    wanted = wanted_columns(labels, errors, None)
    if wanted and on != "sky":
        wanted = [*wanted, *pairs.values()]
    catalogue = Catalogue.of(table, wanted, RA + DEC if on_sky else ())
    if on_sky:
        columns = {} if on == "sky" else {key.lower(): column for key, column in pairs.items()}
        positions = [
            _position(catalogue.columns, (columns[key],) if key in columns else names, "the table")
            for key, names in (("ra", RA), ("dec", DEC))
        ]
        rows = _rows_on_sky(spectra, [catalogue.columns[name] for name in positions], max_distance)
        names = None
    elif len(pairs) == 1:
        rows, names = _rows_by_name(spectra, catalogue, *next(iter(pairs.items())))
    else:
        raise ValueError(f"on={on!r}: give one key of meta and its column, 'sky', or ra and dec.")
    _tell_unmatched(rows, names, on)
    found = np.flatnonzero(rows >= 0)
    index = None if names is None else pd.Index(names[found], name=next(iter(pairs)))
    if on_sky:
        skip = list(positions)
    else:
        skip = [name for name in pairs.values() if not catalogue.is_index(name)]
    out = catalogue.take(rows[found]).read(labels, errors, missing, None, skip)
    out = out if isinstance(out, tuple) else (out,)
    if index is not None:
        out = tuple(frame.set_axis(index, axis=0) for frame in out)
    return spectra[found], *out


def _tell_unmatched(rows, names, on):
    lost = np.flatnonzero(rows < 0)
    if not len(lost):
        return
    some = lost[:3] if names is None else names[lost[:3]]
    told = f"{'rows' if names is None else 'such as'} {', '.join(map(str, some))}"
    if len(lost) == len(rows):
        raise ValueError(
            f"None of the {len(rows)} spectra is in the catalogue (on={on!r}; {told}): are the "
            "identifiers written alike?"
        )
    warnings.warn(
        f"{len(lost)} of {len(rows)} spectra are not in the catalogue (on={on!r}; {told}) and are "
        "left out.",
        UserWarning,
        stacklevel=3,
    )


def _of_meta(spectra, key):
    if not spectra.meta:
        raise ValueError(f"The spectra know no {key!r}: their meta is empty.")
    values = spectra.meta[own_name(key, spectra.meta, "meta of the spectra has no")]
    values = values if hasattr(values, "dtype") else np.asarray(values)
    values = values[None] if np.ndim(values) == 0 else values
    if len(values) != len(spectra):
        raise ValueError(f"meta[{key!r}] has {len(values)} entries for {len(spectra)} spectra.")
    return values


def _rows_by_name(spectra, catalogue, key, column):
    """Row of the catalogue of each spectrum, -1 for none; what the spectra are called."""
    own = identifiers(_of_meta(spectra, key), key)
    names, keys = own, catalogue.identifiers(column)
    is_none = (
        own == -1 if own.dtype.kind == "i" else np.zeros(len(own), bool)
    )  # as of `read_spectra`
    if "i" in (own.dtype.kind, keys.dtype.kind) or "u" in (own.dtype.kind, keys.dtype.kind):
        own, keys = as_integers(own), as_integers(keys)
    elif key.lower() in FILE_KEYS or any(FILE_SUFFIX.search(PACKED.sub("", t)) for t in own):
        own, keys = base_names(own), base_names(keys)
    order = np.argsort(keys, kind="stable")
    first = np.searchsorted(keys[order], own, side="left")
    count = np.searchsorted(keys[order], own, side="right") - first
    count = np.where((own == "") | is_none, 0, count)
    if np.any(count > 1):
        twice = np.unique(own[count > 1])
        raise ValueError(
            f"The catalogue has several rows of {', '.join(twice[:3])} ({column}"
            f"{f', {len(twice)} such' if len(twice) > 3 else ''}): keep one row per identifier."
        )
    rows = order[np.minimum(first, len(order) - 1)] if len(order) else np.zeros(len(own), int)
    return np.where(count == 1, rows, -1), names


def _rows_on_sky(spectra, columns, max_distance):
    """Row of the catalogue of each spectrum, -1 for none."""
    try:
        from astropy import units
        from astropy.coordinates import SkyCoord
    except ImportError as error:
        raise ImportError('Matches on the sky need astropy: pip install "skspec[fits]".') from error
    names = [_position(spectra.meta, names, "meta") for names in (RA, DEC)]
    own = [_degrees(_of_meta(spectra, name)) for name in names]
    there = [_degrees(column) for column in columns]
    here = np.isfinite(own).all(axis=0) & (np.abs(own[1]) <= 90)
    known = np.flatnonzero(np.isfinite(there).all(axis=0) & (np.abs(there[1]) <= 90))
    rows = np.full(len(spectra), -1)
    if not here.any() or not len(known):
        return rows
    stars = SkyCoord(own[0][here], own[1][here], unit="deg")
    others = SkyCoord(there[0][known], there[1][known], unit="deg")
    limit = max_distance * units.arcsec
    nearest, distance, _ = stars.match_to_catalog_sky(others)
    if len(known) > 1:
        second = stars.match_to_catalog_sky(others, nthneighbor=2)[1] <= limit
        if second.any():
            which = np.flatnonzero(here)[second]
            raise ValueError(
                f"Several rows of the catalogue lie within {max_distance:g} arcsec of "
                f"{len(which)} spectra, such as spectrum {which[0]}: keep one row per star, or make "
                "max_distance smaller."
            )
    rows[here] = np.where(distance <= limit, known[nearest], -1)
    return rows


def _position(columns, names, where):
    """Name of the column of a coordinate."""
    lower = {name_text(name).lower(): name for name in columns}
    found = next((lower[name.lower()] for name in names if name.lower() in lower), None)
    if found is None:
        raise ValueError(
            f"There is no {names[0]} in {where}: a match on the sky needs ra and dec in degrees."
        )
    return found


def _degrees(values):
    unit = getattr(values, "unit", None)
    numbers = filled(values, "positions")
    if unit is not None and getattr(unit, "physical_type", None) == "angle":
        return unit.to("deg", numbers)
    return numbers
