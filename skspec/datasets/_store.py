"""`SpectraStore`: spectra on disk, more than fit into memory, in a zarr folder chunked by star."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from skspec._label_values import label_frame
from skspec.base import as_spectra
from skspec.spectra import ABOUT, Spectra

if TYPE_CHECKING:
    from skspec._typing import PathLike, SpectraLike

try:
    import fcntl
except ImportError:  # Windows: there, writers are not kept apart
    fcntl = None  # type: ignore[assignment]

__all__ = ["SpectraStore"]

CHUNK = 2**22  # bytes of flux in a chunk
MAX_CHUNK_STARS = 1024  # in a chunk, where spectra are short
COLUMN = 2**14  # stars in a chunk of meta or labels
GRID = ("wavelength", "order", "resolution")
RESOLUTION = "star_resolution"  # of each star
#: what stands for an entry that stars came without; nothing can for one of meta
MISSING = {"ivar": np.inf, "labels": np.nan}


class SpectraStore:
    """Spectra of any number of stars in a folder, read a few at a time.

    The folder is a `zarr <https://zarr.dev>`_ group (format 3), which other programs can read. Flux
    and ``ivar`` lie in uncompressed chunks of whole stars, 4 MB each.

    Parameters
    ----------
    path : str or path-like
        Folder of the store.
    create : bool
        Begin an empty store where there is none.

    Attributes
    ----------
    path : pathlib.Path
    shape : tuple of int
        (stars, pixels).
    dtype : numpy.dtype
        Of the flux.
    chunk_size : int
        Stars in a chunk, which is read as a whole: what is wanted together should lie together.
    wavelength : ndarray of shape (P,) or None
        Angstrom.
    order : ndarray of int of shape (P,) or None
        Echelle order of each pixel.
    medium, frame, resolution, flux_unit
        As those of `Spectra`; of all stars but `resolution`, which may be of each.
    meta : mapping of str to ndarray or scalar
        What is known of each star, read when it is asked for, and of all of them.
    labels : pandas.DataFrame of shape (n, K), or None
        NaN for stars without.

    Raises
    ------
    FileNotFoundError
        When there is no store at `path`, without ``create=True``.
    ImportError
        Without zarr (``pip install skspec[store]``), once arrays are read or written.

    See Also
    --------
    save_spectra : Into one compressed file, for data that fit into memory.

    Notes
    -----
    ``store[rows]`` (a slice, integers or booleans) and ``store[rows, pixels]`` are `Spectra`. Every
    estimator takes a store in the place of spectra, and reads all of it; those that train on a stream
    of stars read it chunk by chunk. A pickle holds the path alone: worker processes open the folder
    themselves.

    An append counts from its last step on, which puts the new number of stars in the place of the
    old. A process that is killed before leaves the store as it was, and the next append writes over
    what it left. Appends of several processes wait for each other.

    Examples
    --------
    >>> import tempfile
    >>> from skspec.datasets import SpectraStore, make_spectra
    >>> spectra, labels = make_spectra(10, n_pixels=50, random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = SpectraStore.write(f"{folder}/survey", spectra[:6], labels[:6])
    ...     store = store.append(spectra[6:], labels[6:])
    ...     print(store[4:8])
    ...     bool((store[4:8].flux == spectra[4:8].flux).all()), store.labels.equals(labels)
    <Spectra: 4 stars x 50 pixels, 4800.0-5400.0 Angstrom (vacuum), median S/N ..., 0.0 % bad>
    (True, True)
    """

    ndim = 2

    def __init__(self, path: PathLike, *, create: bool = False):
        self.path = Path(path).absolute()
        self._load()
        if not (create or self._n):
            raise FileNotFoundError(
                f"There is no store of spectra at {path}; SpectraStore.write(path, spectra) makes "
                "one, SpectraStore(path, create=True) begins an empty one."
            )

    @classmethod
    def write(
        cls, path: PathLike, spectra: SpectraLike, labels: pd.DataFrame | None = None
    ) -> SpectraStore:
        """A new store of these spectra.

        Parameters
        ----------
        path : str or path-like
            Folder, without a store as yet.
        spectra, labels
            As in `append`.

        Raises
        ------
        FileExistsError
            When there is a store already.
        """
        store = cls(path, create=True)
        if len(store):
            raise FileExistsError(
                f"{path} is a store of {len(store)} stars already; SpectraStore(path).append(...) "
                "adds to it."
            )
        return store.append(spectra, labels)

    # -- reading ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._n

    @property
    def shape(self) -> tuple[int, int]:
        """(stars, pixels)."""
        return self._n, self._array("flux").shape[1] if self._n else 0

    @property
    def size(self) -> int:
        """Number of stars times number of pixels."""
        return self.shape[0] * self.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """Data type of the flux."""
        return self._array("flux").dtype

    @property
    def chunk_size(self) -> int:
        """Stars in a chunk."""
        return self._array("flux").chunks[0]

    @property
    def wavelength(self) -> np.ndarray | None:
        """Wavelength of each pixel [Angstrom]."""
        return self._grid("wavelength")

    @property
    def order(self) -> np.ndarray | None:
        """Echelle order of each pixel."""
        return self._grid("order")

    @property
    def medium(self) -> str | None:
        """What the wavelengths are of: "air", "vacuum" or None."""
        return self._known.get("medium")

    @property
    def frame(self) -> str | None:
        """Whose rest frame the wavelengths are of."""
        return self._known.get("frame")

    @property
    def flux_unit(self) -> str | None:
        """Unit of the flux."""
        return self._known.get("flux_unit")

    @property
    def resolution(self) -> float | np.ndarray | None:
        """Resolving power: one, per pixel (P,), or per star (n, 1) or (n, P)."""
        return self._about(np.arange(self._n))["resolution"]

    def _about(self, rows):
        about = {name: self._known.get(name) for name in ABOUT}
        if RESOLUTION in self._names:
            about["resolution"] = self._whole(RESOLUTION)[rows]
        elif "resolution" in self._names:
            about["resolution"] = self._whole("resolution")
        return about

    @property
    def meta(self) -> Mapping[str, Any]:
        """What is known of each star, and of all of them."""
        return _Columns(self, "meta", np.arange(self._n))

    @property
    def labels(self) -> pd.DataFrame | None:
        """Labels of each star (n, K)."""
        table = dict(_Columns(self, "labels", np.arange(self._n)))
        return pd.DataFrame(table) if table else None

    def __getitem__(self, key: Any) -> Spectra:
        """Rows (always a `Spectra`, also for one integer), or ``[rows, pixels]``."""
        key = key if isinstance(key, tuple) else (key,)
        rows = np.atleast_1d(np.arange(self._n)[key[0]])
        if len(key) > 2 or rows.ndim > 1:
            raise IndexError("Index a store by [rows] or [rows, pixels], each of one dimension.")
        spectra = Spectra._from_clean(
            self._read("flux", rows),
            self._read("ivar", rows) if "ivar" in self._names else None,
            self.wavelength,
            self.order,
            dict(_Columns(self, "meta", rows)),
            self._about(rows),
        )
        return spectra[:, key[1]] if len(key) == 2 else spectra

    def __spectra__(self) -> Spectra:
        return self[:]

    def __array__(self, dtype=None, copy=None):
        return np.array(self._read("flux", np.arange(self._n)), dtype=dtype, copy=copy)

    def __reduce__(self):
        return type(self), (self.path,)

    def __repr__(self) -> str:
        parts = ["{} stars x {} pixels".format(*self.shape)]
        if self._n:
            grid = self.wavelength
            if grid is not None and grid.size:
                parts.append(f"{grid.min():.1f}-{grid.max():.1f} Angstrom")
            parts.append(str(self.dtype))
        return f"<SpectraStore: {', '.join(parts)}, in {self.path}>"

    def _load(self):
        """What was committed last: the number of stars, and the names of the arrays."""
        state = _metadata(self.path).get("attributes", {}).get("skspec", {})
        self._n, self._names = state.get("n_stars", 0), state.get("arrays", [])
        self._scalars, self._known = state.get("meta", {}), state.get("about", {})
        self._arrays, self._columns = {}, {}

    def _array(self, name):
        """A zarr array, opened once per process; it may hold more stars than count."""
        if not self._n:
            raise ValueError(f"The store {self.path} is empty: append spectra first.")
        if name not in self._arrays:
            zarr = _zarr()
            with zarr.config.set({"array.write_empty_chunks": True}):  # else zeros have no file
                self._arrays[name] = zarr.open_array(self.path / _folder(name), mode="r+")
        return self._arrays[name]

    def _read(self, name, rows):
        """Rows (not negative) of an array."""
        if name not in ("flux", "ivar"):
            return self._whole(name)[rows]
        array = self._array(name)
        out = np.empty((len(rows), array.shape[1]), array.dtype.newbyteorder("<"))
        if len(rows):
            ends = np.flatnonzero(np.diff(rows // array.chunks[0])) + 1
            for start, stop in itertools.pairwise([0, *ends, len(rows)]):
                number, first = divmod(rows[start], array.chunks[0])
                file = self.path / name / "c" / str(number) / "0"
                _read_chunk(file, rows[start:stop] - rows[start] + first, out[start:stop], name)
        return out

    def _whole(self, name):
        """An array of all stars or pixels, read once per process."""
        if name not in self._columns:
            values = self._array(name)[:]
            self._columns[name] = np.array(values.tolist(), str) if _is_text(values) else values
        return self._columns[name]

    def _grid(self, name):
        return self._whole(name) if name in self._names else None

    # -- writing ---------------------------------------------------------------------------------

    def append(self, spectra: SpectraLike, labels: pd.DataFrame | None = None) -> SpectraStore:
        """Add stars at the end: all of them or, if the process is killed, none.

        The last chunk is written anew each time: better some hundred stars at once than one by one.

        Parameters
        ----------
        spectra : Spectra or array-like of shape (m, P)
            On the grid of the store. Every bit is kept. Once some stars have errors, those that came
            without have an `ivar` of infinity. Of `meta`, arrays of numbers or text with one entry per
            star are kept, and single numbers or texts, which hold for all stars; each append must bring
            the same.
        labels : pandas.DataFrame of shape (m, K), optional
            Numbers, in float64. Where some stars have labels that others lack, these have NaN.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            When the spectra do not fit to those stored, with what to mend.
        """
        spectra = as_spectra(spectra)
        columns, scalars = _columns(spectra, labels), _scalars(spectra.meta)
        with self._alone():
            self._load()
            if self._n:
                self._check_fits(spectra, columns, scalars)
            if len(spectra):
                self._extend(spectra, columns, scalars)
                self._load()
        return self

    @contextmanager
    def _alone(self):
        """One writer at a time; the lock of a process that is killed opens by itself."""
        self.path.mkdir(parents=True, exist_ok=True)
        if fcntl is None:
            yield
            return
        folder = os.open(self.path, os.O_RDONLY)
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _check_fits(self, spectra, columns, scalars):
        """Refuse what does not go with the stars stored, before anything is written."""
        if spectra.shape[1] != self.shape[1]:
            raise ValueError(
                f"These spectra have {spectra.shape[1]} pixels, those in {self.path} "
                f"{self.shape[1]}; put them on one grid, with skspec.preprocessing.Resampler."
            )
        for name in GRID:
            if not np.array_equal(_on_grid(spectra, name), self._grid(name)):
                raise ValueError(
                    f"The {name} of these spectra is not that in {self.path}, and a store has one "
                    "grid; put them on it, with skspec.preprocessing.Resampler."
                )
        given, stored = (sorted(_of_kind("meta", names)) for names in (columns, self._names))
        if given != stored:
            raise ValueError(
                f"These spectra have meta {given}, those in {self.path} {stored}, and a store has "
                "the same of each star; change it with spectra.replace(meta=...)."
            )
        if json.dumps(scalars, sort_keys=True) != json.dumps(self._scalars, sort_keys=True):
            raise ValueError(
                f"The meta of all these spectra is {scalars}, that in {self.path} {self._scalars}, and "
                "a store has one for all stars; change it with spectra.replace(meta=...), or give an "
                "entry per star."
            )
        if (given := _known(spectra)) != self._known or (RESOLUTION in columns) != (
            RESOLUTION in self._names
        ):
            raise ValueError(
                f"These spectra are in {given}, those in {self.path} in {self._known}, and a store has "
                "one for all stars; convert them (spectra.to_medium, "
                "skspec.preprocessing.to_rest_frame), or say what they are with spectra.replace(...)."
            )
        for name, values in columns.items():
            if name in self._names:
                _check_type(name, values, self._array(name))

    def _extend(self, spectra, columns, scalars):
        """Write behind the stars that count; count the new ones when all is on the disk."""
        start, stop = self._n, self._n + len(spectra)
        group = _zarr().open_group(self.path, mode="a")
        chunk = self.chunk_size if start else _chunk_size(spectra)
        grid = [name for name in GRID if _on_grid(spectra, name) is not None]
        if not start:
            for name in grid:
                group.create_array(name, data=_on_grid(spectra, name), overwrite=True)
        for name in self._names:
            if name not in (*grid, *columns):
                missing = (len(spectra), *self._array(name).shape[1:])
                columns[name] = np.broadcast_to(MISSING[_kind(name)], missing)
        for name, values in columns.items():
            if name in self._names:
                array = self._drop_unfinished(name)
                array.resize((stop, *values.shape[1:]))
            else:
                array = _new_array(group, name, values, stop, chunk)
            array[start:] = values
            _to_disk(self.path / _folder(name), start // array.chunks[0], stop // array.chunks[0])
        names = list(dict.fromkeys([*self._names, *grid, *columns]))
        self._commit(n_stars=stop, arrays=names, meta=scalars, about=_known(spectra))

    def _drop_unfinished(self, name):
        """The array, without what an interrupted append has left."""
        array = self._array(name)
        if array.shape[0] != self._n:
            array.resize((self._n, *array.shape[1:]))
            for file in (self.path / _folder(name)).rglob("*.partial"):
                file.unlink()
        return array

    def _commit(self, **state):
        """The one step by which an append counts: a file takes the place of another."""
        metadata = _metadata(self.path)
        metadata["attributes"]["skspec"] = state
        fresh = self.path / "zarr.json.partial"
        with open(fresh, "w") as file:
            json.dump(metadata, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path / "zarr.json")


class _Columns(Mapping):
    """Arrays of one kind with an entry per star, read when they are asked for; scalars for all."""

    def __init__(self, store, kind, rows):
        self._store, self._kind, self._rows = store, kind, rows
        self._scalars = store._scalars if kind == "meta" else {}
        self._names = [*_of_kind(kind, store._names), *self._scalars]

    def __getitem__(self, name):
        if name in self._scalars:
            return self._scalars[name]
        if name not in self._names:
            raise KeyError(name)
        return self._store._read(f"{self._kind}/{name}", self._rows)

    def __iter__(self):
        return iter(self._names)

    def __len__(self):
        return len(self._names)

    def __repr__(self):
        return f"<{self._kind} of {len(self._rows)} stars: {', '.join(self._names)}>"


def _columns(spectra, labels):
    """What is to be stored of each star, by name."""
    out = {"flux": spectra.flux}
    if spectra.ivar is not None:
        out["ivar"] = spectra.ivar
    if np.ndim(spectra.resolution) == 2:
        out[RESOLUTION] = spectra.resolution
    for name, value in spectra.meta.items():
        value = None if isinstance(value, dict) else np.asarray(value)
        if value is None or not value.ndim or len(value) != len(spectra):
            continue
        if value.dtype == object and all(isinstance(entry, str) for entry in value.flat):
            value = value.astype(str)
        if value.dtype.kind not in "biufUT":
            raise ValueError(
                f"meta[{name!r}] cannot be stored: it holds {value.dtype}; turn it into numbers or "
                "text."
            )
        out[f"meta/{name}"] = value
    if labels is not None:
        labels = label_frame(labels)
        if len(labels) != len(spectra):
            raise ValueError(
                f"labels has {len(labels)} rows for {len(spectra)} stars; give one row per star."
            )
        out |= {f"labels/{name}": column.to_numpy(dtype=float) for name, column in labels.items()}
    return out


def _on_grid(spectra, name):
    """Values per pixel that all stars share, or None."""
    values = getattr(spectra, name)
    return values if np.ndim(values) == 1 else None


def _known(spectra):
    """What the numbers mean, where it is one word or number, as JSON has them."""
    return {name: v for name, v in spectra.about.items() if v is not None and np.ndim(v) == 0}


def _scalars(meta):
    """Entries of meta that hold for all stars: single numbers and texts, as JSON has them."""
    plain = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in meta.items()
    }
    return {
        name: value for name, value in plain.items() if isinstance(value, (str, bool, int, float))
    }


def _check_type(name, values, array):
    """Refuse what `array` cannot hold exactly."""
    text = _is_text(values)
    exact = text == _is_text(array) and (text or np.can_cast(values.dtype, array.dtype))
    if not exact or values.shape[1:] != array.shape[1:]:
        raise ValueError(
            f"{name} is {values.dtype} of shape {values.shape}, which the store cannot hold exactly: "
            f"there it is {array.dtype} of shape {array.shape}. Convert it, or write another store."
        )


def _chunk_size(spectra):
    n_bytes = spectra.shape[1] * spectra.dtype.itemsize
    return int(np.clip(CHUNK // max(n_bytes, 1), 1, MAX_CHUNK_STARS))


def _new_array(group, name, values, n, chunk):
    """Array of `n` stars, of which those that are not written have what stands for missing."""
    if name not in ("flux", "ivar"):
        chunk = max(COLUMN // int(np.prod(values.shape[1:])), 1)
    if "/" in name:
        group.require_group(_kind(name))
    return group.create_array(
        _folder(name),
        shape=(n, *values.shape[1:]),
        chunks=(chunk, *values.shape[1:]),
        dtype="string" if _is_text(values) else values.dtype,
        fill_value=MISSING.get(_kind(name)),
        compressors=None,
        overwrite=True,
        config={"write_empty_chunks": True},
    )


def _read_chunk(file, rows, out, name):
    """Rows of a plain file, of which no more is read than from the first to the last."""
    if name in MISSING and not file.exists():
        out[:] = MISSING[name]
        return
    first = rows.min()
    in_order = np.array_equal(rows, np.arange(first, first + len(rows)))
    part = out if in_order else np.empty((rows.max() - first + 1, out.shape[1]), out.dtype)
    with open(file, "rb", buffering=0) as stream:
        stream.seek(first * out[:1].nbytes)
        if stream.readinto(part) < part.nbytes:
            raise OSError(f"{file} is damaged: it ends before the stars that it should hold.")
    if part is not out:
        np.take(part, rows - first, axis=0, out=out, mode="clip")  # unlike "raise", straight to out


def _to_disk(folder, first, last):
    """Have the system write the chunks of some stars, and the metadata, to the disk."""
    files = [folder / "zarr.json"]
    for number in range(first, last + 1):
        chunk = folder / "c" / str(number)
        files += chunk.rglob("*") if chunk.is_dir() else [chunk]
    for file in files:
        if file.is_file():
            with open(file, "r+b") as stream:
                os.fsync(stream.fileno())


def _metadata(folder):
    file = folder / "zarr.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def _is_text(array):
    return array.dtype.kind not in "biuf"


def _kind(name):
    return name.partition("/")[0]


def _of_kind(kind, names):
    return [name.partition("/")[2] for name in names if name.startswith(f"{kind}/")]


def _folder(name):
    """Folder of an array; names such as [Fe/H] are not for file systems."""
    kind, slash, rest = name.partition("/")
    return kind + slash + quote(rest, safe="")


def _zarr():
    try:
        import zarr
    except ImportError as error:
        raise ImportError(
            "A store of spectra needs zarr: python -m pip install 'skspec[store]'."
        ) from error
    return zarr
