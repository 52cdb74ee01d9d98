"""Tables of anybody: CSV, ECSV, VOTable, FITS tables and text, by the names of their columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from skspec._containers import NAMES, POWERS, find_name, medium_of_name, plain_name
from skspec._wavelengths import FRAMES, MEDIA, SHORTEST, to_angstrom
from skspec.datasets.readers._cards import frame_of
from skspec.datasets.readers._file import SpectrumFile, SpectrumFileError, missing_number, text
from skspec.datasets.readers._grids import ivar_from_sigma, split_orders
from skspec.datasets.readers._registry import one_grid_together, reader
from skspec.datasets.readers._tables import flags, is_vector, numbers, unit_of, vectors
from skspec.spectra import Spectra

LONGEST = 3e5
EVEN = 0.9  # share of steps within a factor of 3 of the usual one: a grid, and no dates
STARS = (
    *("source_id", "star_id", "sourceid", "starid", "apogee_id", "sobject_id", "obsid", "targetid"),
    *("target_id", "object_id", "objid", "obj_id", "star", "star_name", "object", "target", "id"),
    *("name", "sdss_id", "kic", "tic", "hip", "hd"),
)
VELOCITIES = ("rv", "radial_velocity", "vrad", "rv_kms")
RESERVED = {"file", "format", "exposure", "part", "berv", "frame"}


def _wavelength_name(names):
    return find_name("wavelength", names) or find_name("log_wavelength", names)


def _is_table(file):
    """A name of a wavelength or a flux; or text of bare numbers, which is read or refused."""
    if any(_wavelength_name(names) or find_name("flux", names) for names in file.column_names):
        return True
    return not file.is_fits and file.column_names == [[]]


@reader(
    "table", "Tables and text with columns named wavelength, flux, ...", _is_table, priority=-10
)
def read_table(file: SpectrumFile) -> list[Spectra]:
    """One row per wavelength, of one star or, with a column such as source_id, of several; or per star.

    Columns are found by their names (`skspec._containers.NAMES`), units by what the container or the
    name says: ``wave [nm]``. Medium and frame are known where the table says so.
    """
    if file.column_names == [[]]:
        return [_bare(file.tables[0])]
    table = _table(file)
    if not len(table):
        raise SpectrumFileError("its table is empty")
    columns = _Columns(table)
    if is_vector(table, columns["flux"]):
        parts = [columns.of_row(row) for row in range(len(table))]
    else:
        parts = [columns.of_rows(rows) for rows in columns.stars()]
    return one_grid_together(parts)


def _table(file):
    """The first table with both; what the best of the others lacks is told."""
    reason = ""
    for names, table in zip(file.column_names, file.tables):
        missing = []
        if not _wavelength_name(names):
            missing.append("of wavelengths (wavelength, wave, lambda, loglam, ...)")
        if not find_name("flux", names):
            missing.append("of fluxes (flux, f_lambda, counts, ...)")
        if not missing:
            return table
        if len(missing) == 1 and not reason:
            reason = f"it has no column {missing[0]}; its columns are {names}"
    raise SpectrumFileError(reason or "it has no table of wavelengths and fluxes")


class _Columns:
    """Names of the columns of a table by what they hold, and what they hold of each star."""

    def __init__(self, table):
        self.table = table
        names = table.colnames
        self.names = {kind: name for kind in NAMES if (name := find_name(kind, names))}
        if "wavelength" in self.names:
            self.names.pop("log_wavelength", None)
        plain = {plain_name(name)[0]: name for name in reversed(names)}
        # a name that holds something else, or not numbers
        for kind in ("order", "resolution", "mask", "good"):
            name = self.names.get(kind)
            if name is not None and table[name].dtype.kind in "USO" and not is_vector(table, name):
                if kind in ("order", "resolution"):
                    del self.names[kind]
        self.star = next((plain[name] for name in STARS if name in plain), None)
        self.about = _about(table)
        self.about["medium"] = self.about.get("medium") or medium_of_name(self.length)
        unit = unit_of(table, self["flux"])
        if unit:
            self.about["flux_unit"] = unit

    def __getitem__(self, kind):
        return self.names[kind]

    @property
    def length(self):
        """Name of the column of wavelengths."""
        return self.names.get("wavelength") or self.names["log_wavelength"]

    def stars(self):
        """Rows of each star, in the order of the table."""
        table = self.table
        if self.star is None or is_vector(table, self.star):
            return [np.arange(len(table))]
        _, first, inverse = np.unique(
            _texts(table[self.star]), return_index=True, return_inverse=True
        )
        if len(first) == len(table) > 1:  # no star has one wavelength: it counts the rows
            self.star = None
            return [np.arange(len(table))]
        by = np.argsort(inverse.ravel(), kind="stable")
        groups = np.split(by, np.cumsum(np.bincount(inverse.ravel()))[:-1])
        return [groups[k] for k in np.argsort(first)]

    def of_rows(self, rows) -> Spectra:
        """A star with one row per wavelength."""
        part = {kind: self._numbers(name)[rows] for kind, name in self.names.items()}
        return self._spectra(part, self._constants(rows))

    def of_row(self, row) -> Spectra:
        """A star with an array in each cell of one row."""
        part: dict[str, np.ndarray] = {}
        for kind, name in self.names.items():
            if is_vector(self.table, name):
                part[kind] = vectors(self.table[row : row + 1], name)[0]
            elif kind == "resolution":
                part[kind] = numbers(self.table[row : row + 1], name)
        sizes = {self.names[kind]: len(v) for kind, v in part.items() if len(v) != 1}
        if len(set(sizes.values())) > 1:
            raise SpectrumFileError(f"the arrays of its row {row + 1} differ in length: {sizes}")
        return self._spectra(part, self._constants([row]))

    def _numbers(self, name):
        if not hasattr(self, "_cache"):
            self._cache: dict[str, np.ndarray] = {}
        if name not in self._cache:
            self._cache[name] = numbers(self.table, name)
        return self._cache[name]

    def _spectra(self, part, meta):
        wavelength = self._angstrom(part)
        if len(wavelength) != len(part["flux"]):
            raise SpectrumFileError("it has no wavelengths for its fluxes")
        if "order" not in part and not _in_orders(wavelength):
            by = np.argsort(wavelength, kind="stable")  # as a database hands them out
            size = len(wavelength)
            wavelength = wavelength[by]
            part = {kind: v[by] if len(v) == size else v for kind, v in part.items()}
        flux = part["flux"]
        order = part.get("order")
        order = None if order is None or np.isnan(order).any() else order.astype(int)
        if order is None:
            order = split_orders(wavelength)
        bad = np.zeros(len(flux), dtype=bool)
        if "mask" in part:
            bad |= flags(part["mask"])
        if "good" in part:
            bad |= ~flags(np.nan_to_num(part["good"]))
        resolution = part.get("resolution", self.about.get("resolution"))
        if resolution is not None and not np.all(np.asarray(resolution) > 0):
            resolution = None
        return Spectra(
            flux,
            ivar=self._ivar(part),
            mask=bad if bad.any() else None,
            wavelength=wavelength,
            order=order,
            meta=meta,
            wavelength_unit="Angstrom",
            **self.about | {"resolution": resolution},
        )

    def _angstrom(self, part):
        name = self.length
        if "wavelength" not in part and "log_wavelength" not in part:
            raise SpectrumFileError(f"its column {name!r} holds no arrays, as that of fluxes does")
        if "log_wavelength" in part:
            return _finite(10.0 ** part["log_wavelength"], name)
        values, unit = _finite(part["wavelength"], name), unit_of(self.table, name)
        if not unit and len(values) and values.min() < SHORTEST:
            raise SpectrumFileError(
                f"its wavelengths {name!r} run from {values.min():g} to {values.max():g} without a "
                f"unit: name the column '{name} [nm]', or what it is"
            )
        try:
            return to_angstrom(values, unit or "Angstrom")
        except ValueError:
            raise SpectrumFileError(
                f"its column {name!r} is in {unit!r}, which is no unit of wavelengths"
            ) from None

    def _ivar(self, part):
        """Inverse variances in the unit of the flux."""
        kind = next((kind for kind in POWERS if kind in part), None)
        if kind is None:
            return None
        values = part[kind] * self._factor(kind)
        if kind == "ivar":
            return np.where(np.isfinite(values) & (values > 0), values, 0.0)
        if kind == "variance":
            values = np.sqrt(np.where(values > 0, values, np.nan))
        return ivar_from_sigma(values)

    def _factor(self, kind):
        unit, flux_unit = unit_of(self.table, self[kind]), self.about.get("flux_unit", "")
        if not unit or not flux_unit or unit == flux_unit:
            return 1.0
        from astropy import units

        try:
            wanted = units.Unit(flux_unit) ** POWERS[kind]
            return units.Unit(unit).to(wanted)
        except units.UnitConversionError:
            raise SpectrumFileError(
                f"its column {self[kind]!r} is in {unit!r}, the flux in {flux_unit!r}"
            ) from None
        except (ValueError, TypeError):
            return 1.0  # spelled in a way that astropy does not know

    def _constants(self, rows) -> dict[str, Any]:
        """Columns that are one number or text for all rows of a star."""
        table = self.table
        meta: dict[str, Any] = {}
        for name in table.colnames:
            plain = plain_name(name)[0]
            if name in self.names.values() or plain in RESERVED or is_vector(table, name):
                continue
            column = table[name][rows]
            if column.ndim != 1 or not np.all(column[:1] == column):
                continue
            values = _texts(column[:1]) if column.dtype.kind in "US" else column[:1]
            if np.ma.is_masked(values):
                continue
            meta[plain] = [np.asarray(values)[0]]
        if self.star is not None and not is_vector(table, self.star):
            meta["star_id"] = [_texts(table[self.star][rows[:1]])[0]]
        for name in VELOCITIES:
            if name in meta:
                velocity = missing_number(meta[name][0])
                meta["rv"] = [velocity]
                break
        return meta


def _in_orders(wavelength):
    """Whether wavelengths rise or fall throughout, or in orders; or cannot be sorted."""
    try:
        split_orders(wavelength)
    except SpectrumFileError:
        return len(np.unique(wavelength)) < len(wavelength)
    return True


def _texts(column):
    """Identifiers as text: integers without a point."""
    values = np.asarray(np.ma.filled(column, 0) if column.dtype.kind in "iu" else column)
    if values.dtype.kind == "f" and np.all(values == np.rint(values)):
        values = values.astype(np.int64)
    return np.array([text(value) for value in values], dtype=str)


def _finite(values, name):
    wrong = np.flatnonzero(~np.isfinite(values))
    if wrong.size:
        raise SpectrumFileError(f"its wavelengths {name!r} are missing in row {wrong[0] + 1}")
    return values


def _about(table) -> dict[str, Any]:
    """Medium, frame and resolution, where the header says so."""
    cards = {str(key).lower(): value for key, value in table.meta.items()}
    out: dict[str, Any] = {}
    for name, allowed in (("medium", MEDIA), ("frame", FRAMES)):
        value = text(cards.get(name)).lower()
        if value in allowed:
            out[name] = value
    out.setdefault("frame", frame_of({"SPECSYS": cards.get("specsys")}))
    resolution = missing_number(cards.get("resolution"))
    return out | ({"resolution": resolution} if resolution > 0 else {})


def _bare(table) -> Spectra:
    """Two or three columns without names, where they can be nothing but a spectrum."""
    columns = [numbers(table, name) for name in table.colnames]
    if len(columns) not in (2, 3):
        raise SpectrumFileError(
            f"it has {len(columns)} columns without names: begin with a line such as "
            "'# wavelength flux flux_err'"
        )
    wavelength = columns[0]
    steps = np.diff(wavelength)
    why = ""
    if not np.isfinite(wavelength).all() or len(steps) < 2 or np.any(steps <= 0):
        why = "the first does not rise throughout"
    elif wavelength[0] < SHORTEST or wavelength[-1] > LONGEST:
        why = f"the first runs from {wavelength[0]:g} to {wavelength[-1]:g}, which may be anything"
    elif np.mean(np.abs(np.log(steps / np.median(steps))) < np.log(3)) < EVEN:
        why = "the first has uneven steps"
    elif len(columns) == 3 and not np.all(columns[2][np.isfinite(columns[1])] >= 0):
        why = "the third is no error, being negative or missing in places"
    if why:
        raise SpectrumFileError(
            f"its columns have no names, and {why}: begin with a line such as "
            "'# wavelength flux flux_err'"
        )
    return Spectra(
        columns[1],
        ivar=ivar_from_sigma(columns[2]) if len(columns) == 3 else None,
        wavelength=wavelength,
    )
