"""An opened file: its bytes, checked, as FITS, table or text, whichever a reader asks for."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import re
import warnings
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from astropy.io.fits import HDUList, Header
    from astropy.table import Table

    from skspec._typing import PathLike

__all__ = [
    "SpectrumFile",
    "SpectrumFileError",
    "SpectrumFileWarning",
    "card",
    "column_names",
    "identifier",
    "missing_number",
    "text",
]

BLOCK = 2880  # bytes of a FITS record
CARD = 80
STRUCTURE = (b"BITPIX", b"NAXIS", b"PCOUNT", b"GCOUNT", b"TFIELDS")
MAX_COLUMNS = 999  # FITS standard 4.0, section 7.3.1
MAX_AXES = 20
MAX_BYTES = 2**31  # of one file
INFLATED = 100  # times the bytes in a compressed file, beyond 64 MB
COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
#: how surveys spell that a number is missing
MISSING = {"", "none", "indef", "-", "--", "nan", "null", "n/a", "na", "unknown", "masked"}
SENTINELS = (-9999.0, -999.0, -9999.99)


class SpectrumFileError(ValueError):
    """A file that holds no spectrum that can be read, with the reason."""


class SpectrumFileWarning(UserWarning):
    """Something in a file is not as it should be, and is left out."""


class SpectrumFile:
    """A file opened for the readers of :mod:`skspec.datasets.readers`.

    Compressed files (gz, bz2, xz) are opened as others. Files that end too early are refused, also
    where astropy would only warn.

    Parameters
    ----------
    path : str or path-like

    Attributes
    ----------
    path : pathlib.Path
    name : str
        File name without folders.
    data : bytes
        Contents, decompressed.
    is_fits : bool
        Whether it begins as a FITS file does.
    hdus : astropy.io.fits.HDUList
        All of a FITS file, in memory.
    lines : list of str
        All of a text file.
    column_names : list of list of str
        Of each table.
    tables : list of astropy.table.Table
        Of FITS, CSV, ECSV and VOTable files, and of text with columns between white space.

    Raises
    ------
    SpectrumFileError
        When the file cannot be opened, is cut off, or is not what is asked for.
    """

    def __init__(self, path: PathLike):
        self.path = Path(path)
        self.name = self.path.name
        self.data = _read(self.path)

    def __repr__(self) -> str:
        return f"<SpectrumFile {self.name}, {len(self.data)} bytes>"

    # -- FITS ------------------------------------------------------------------------------------

    @property
    def is_fits(self) -> bool:
        return self.data.startswith(b"SIMPLE  =")

    @cached_property
    def hdus(self) -> HDUList:
        if not self.is_fits:
            raise SpectrumFileError("it is no FITS file")
        fits = _fits()
        if re.match(rb"[^\n]{10,80}\n", self.data):
            raise SpectrumFileError("it is a FITS header written out as text, without its data")
        _check_structure(self.data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            hdus = fits.open(io.BytesIO(self.data), memmap=False, lazy_load_hdus=False)
            for hdu in hdus:  # compressed images tell their size alone
                if isinstance(hdu, fits.CompImageHDU) and _image_bytes(hdu) > self._most_bytes:
                    raise SpectrumFileError(f"HDU {hdu.name!r} is too large for a spectrum")
        return hdus

    @property
    def _most_bytes(self):
        return _inflated_limit(len(self.data))

    @cached_property
    def header(self) -> Header:
        """The primary header."""
        return self.hdus[0].header

    @cached_property
    def extensions(self) -> dict[str, Any]:
        """Named HDUs, by their names in capitals; the first of each."""
        out: dict[str, Any] = {}
        for hdu in self.hdus:
            out.setdefault(hdu.name.upper(), hdu)
        return out

    def image(self, hdu: int | str, ndim: int | tuple[int, ...] | None = None) -> np.ndarray:
        """Numbers of an image HDU, in native byte order.

        Parameters
        ----------
        hdu : int or str
            Position, or name.
        ndim : int or tuple of int, optional
            The dimensions it must have.

        Raises
        ------
        SpectrumFileError
            When there is no such image.
        """
        data = getattr(self._hdu(hdu), "data", None)
        if data is None or getattr(data, "dtype", None) is None or data.dtype.names:
            raise SpectrumFileError(f"HDU {hdu!r} holds no image")
        allowed = (ndim,) if isinstance(ndim, int) else ndim
        if allowed is not None and data.ndim not in allowed:
            raise SpectrumFileError(f"HDU {hdu!r} has {data.ndim} axes, not {ndim}")
        return native(data)

    def columns(self, hdu: int | str) -> dict[str, np.ndarray]:
        """Columns of a table HDU by their names in capitals, in native byte order.

        A table of one row with cells of vectors gives the vectors.
        """
        table = self._hdu(hdu)
        data = getattr(table, "data", None)
        if data is None or not data.dtype.names:
            raise SpectrumFileError(f"HDU {hdu!r} holds no table")
        if table.columns.dtype.itemsize != table.header.get("NAXIS1"):  # astropy reads on, shifted
            raise SpectrumFileError(
                f"the columns of HDU {hdu!r} have {table.columns.dtype.itemsize} bytes a row, and its "
                f"NAXIS1 is {table.header.get('NAXIS1')}: its header is damaged"
            )
        if not len(data):
            raise SpectrumFileError(f"the table of HDU {hdu!r} is empty")
        out = {}
        for name in data.dtype.names:
            values = data[name]
            if len(data) == 1 and getattr(values, "ndim", 1) == 2:
                values = values[0]
            out[name.upper()] = native(np.asarray(values))
        return out

    def row(self, hdu: int | str) -> dict[str, Any]:
        """First row of a table HDU by the names of the columns in capitals; {} without that table.

        Numbers and text are scalars, cells of vectors arrays.
        """
        try:
            data = self._hdu(hdu).data
        except SpectrumFileError:
            return {}
        if data is None or not data.dtype.names or not len(data):
            return {}
        return {name.upper(): data[name][0] for name in data.dtype.names}

    def _hdu(self, hdu):
        try:
            return self.hdus[hdu] if isinstance(hdu, int) else self.extensions[hdu.upper()]
        except (IndexError, KeyError):
            raise SpectrumFileError(f"it has no HDU {hdu!r}") from None

    # -- text and tables -------------------------------------------------------------------------

    @cached_property
    def lines(self) -> list[str]:
        if self.is_fits or b"\0" in self.data[:4096]:
            raise SpectrumFileError("it is no text")
        return self.data.decode("utf-8", errors="replace").splitlines()

    @property
    def is_votable(self) -> bool:
        return b"<VOTABLE" in self.data[:2048].upper()

    @cached_property
    def column_names(self) -> list[list[str]]:
        """Names of the columns of each table, which tell formats apart."""
        from skspec.datasets.readers._tables import column_names

        return column_names(self)

    @cached_property
    def tables(self) -> list[Table]:
        _fits()  # names the install line where there is no astropy
        from skspec.datasets.readers._tables import tables_of

        return tables_of(self)


def native(values: np.ndarray) -> np.ndarray:
    """Values in the byte order of the machine, which torch, numba and pandas ask for."""
    if values.dtype.kind in "fiu" and not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
        if values.dtype.kind == "f":
            values[np.isnan(values)] = np.nan  # damaged files have NaNs that signal when converted
    return values


def column_names(hdu: Any) -> set[str]:
    """Columns of a table HDU, in capitals; none of others."""
    names = getattr(getattr(hdu.data, "dtype", None), "names", None)
    return {name.upper() for name in names or ()}


def card(header: Any, *names: str, default: float = np.nan) -> float:
    """The first of these header cards that holds a number; `default` for none.

    'None', 'INDEF', '-' and the other spellings of surveys for a missing value are missing.
    """
    for name in names:
        value = missing_number(_value(header, name))
        if np.isfinite(value):
            return value
    return default


def _value(header, name):
    """A header card; None where it is none that the standard knows, as NaN without quotes."""
    try:
        return header.get(name)
    except Exception:  # astropy's VerifyError, which is no ValueError
        return None


def missing_number(value: Any) -> float:
    """`value` as a float; NaN for whatever spells that there is none."""
    if value is None or isinstance(value, bool):
        return np.nan
    if isinstance(value, (str, bytes)):
        value = text(value)
        if value.lower() in MISSING:
            return np.nan
    try:
        number = float(value)
    except (TypeError, ValueError):
        return np.nan
    return np.nan if round(number, 2) in SENTINELS else number  # in single precision, too


def identifier(value: Any) -> int:
    """A survey's number of a star or an observation, all of its digits; -1 for none."""
    try:
        number = int(text(value)) if isinstance(value, (str, bytes)) else int(value)
        return number if -(2**63) <= number < 2**63 else -1
    except (TypeError, ValueError, OverflowError):
        return -1


def text(value: Any) -> str:
    """A header card or table cell as text, stripped; '' for None."""
    if isinstance(value, bytes):
        value = value.decode("ascii", errors="replace")
    return "" if value is None else str(value).strip()


def _fits():
    try:
        from astropy.io import fits
    except ImportError as error:
        raise ImportError(
            'Reading spectra from files needs astropy: python -m pip install "skspec[fits]".'
        ) from error
    return fits


def _read(path):
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SpectrumFileError(f"it has {path.stat().st_size} bytes: no spectrum is so large")
        data = path.read_bytes()
    except OSError as error:
        raise SpectrumFileError(f"it cannot be opened ({error.strerror or error})") from error
    opener = next((o for magic, o in COMPRESSED.items() if data.startswith(magic)), None)
    if opener is not None:
        try:
            with opener(io.BytesIO(data)) as stream:
                limit = _inflated_limit(len(data))
                data = stream.read(limit + 1)
        except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
            raise SpectrumFileError(f"its compressed data are damaged ({error})") from error
        if len(data) > limit:
            raise SpectrumFileError("decompressed it is too large for a spectrum")
    if not data:
        raise SpectrumFileError("it is empty")
    return data


def _inflated_limit(n_bytes):
    """Bytes that so many may become: spectra have noise, which cannot be compressed so much."""
    return max(2**26, min(INFLATED * n_bytes, MAX_BYTES))


def _image_bytes(hdu):
    return math.prod(hdu.shape) * abs(hdu.header.get("BITPIX", 8)) // 8


def _check_structure(data: bytes) -> None:
    """Refuse a FITS file that is shorter than its headers say; astropy gives garbage then."""
    start = stop = 0
    for count, (end, size, kind) in enumerate(_headers(data)):
        stop, padded = end + size, end + -(-size // BLOCK) * BLOCK
        if padded > len(data) != stop:  # some leave out the padding, none a part of it
            raise SpectrumFileError(
                f"it is truncated: HDU {count} ({kind}) needs {padded} bytes, the file has {len(data)}"
            )
        if _sum_is_wrong(data[start:end], data[end:padded]):
            raise SpectrumFileError(
                f"it is damaged: the data of HDU {count} have not the sum of its DATASUM card"
            )
        start = padded
    if (len(data) % BLOCK and len(data) != stop) or data[start:].strip(b"\0 "):
        raise SpectrumFileError(
            f"it is damaged: {len(data) - stop} bytes follow the last HDU, which are no padding; were "
            "its line ends changed, as by a transfer as text?"
        )
    if not start:
        raise SpectrumFileError("it is no FITS file: there is no complete header")


def _sum_is_wrong(header: bytes, data: bytes) -> bool:
    """Whether data differ from those that a header was written for.

    Programs copy headers, and change cards, without new sums (half of the files in archives): a sum
    counts where CHECKSUM shows that the header is as it was written (FITS standard 4.0, appendix J).
    """
    card = re.search(rb"DATASUM = '? *(\d+)", header)
    if card is None or b"CHECKSUM= " not in header:
        return False
    written = int(card.group(1))
    as_written = _ones_complement(_word_sum(header) + written) in (0, 2**32 - 1)
    return as_written and _word_sum(data) != written


def _word_sum(data: bytes) -> int:
    """Ones' complement sum of 32-bit words."""
    words = np.frombuffer(data + b"\0" * (-len(data) % 4), dtype=">u4")
    return _ones_complement(int(words.sum(dtype=np.uint64)))


def _ones_complement(total):
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def _headers(data: bytes) -> Iterator[tuple[int, int, str]]:
    """End of each header, bytes of its data, and what it is of."""
    start = 0
    while start + CARD <= len(data):
        if start and not data[start : start + 8] == b"XTENSION":
            break  # special records, or padding
        cards, end = _cards(data, start)
        size = _data_size(cards)
        yield end, size, cards["kind"]
        start = end + -(-size // BLOCK) * BLOCK


def _cards(data, start):
    """The structural cards of a header, and where it ends."""
    cards: dict[str, Any] = {"kind": "primary"}
    for at in range(start, len(data), CARD):
        line = data[at : at + CARD]
        key = line[:8].rstrip()
        if key == b"END":
            end = at + CARD
            return cards, start + -(-(end - start) // BLOCK) * BLOCK
        if key in STRUCTURE or re.fullmatch(rb"NAXIS\d+", key):
            try:
                cards[key.decode()] = int(line[10:].split(b"/")[0])
            except ValueError:
                raise SpectrumFileError(f"its card {key.decode()} holds no number") from None
        elif key == b"XTENSION":
            cards["kind"] = line[10:30].decode("ascii", "replace").strip("' ").lower()
    raise SpectrumFileError("a header has no END: the file is cut off or damaged")


def _data_size(cards):
    """Bytes of the data that follow a header (FITS standard 4.0, sections 4.4.1 and 7)."""
    number = cards.get("NAXIS", 0)
    sizes = [cards.get(name, 0) for name in ("PCOUNT", "GCOUNT")]
    if not 0 <= number <= MAX_AXES or min(sizes) < 0:
        raise SpectrumFileError("a header has an impossible NAXIS, PCOUNT or GCOUNT")
    if not 0 <= cards.get("TFIELDS", 0) <= MAX_COLUMNS:
        raise SpectrumFileError("a header has an impossible TFIELDS")
    axes = [cards.get(f"NAXIS{k + 1}", 0) for k in range(number)]
    if not axes:
        return 0
    if min(axes) < 0:
        raise SpectrumFileError("a header has an axis of negative length")
    pixels = 1
    for axis in axes:
        pixels *= axis
    return (
        abs(cards.get("BITPIX", 8))
        // 8
        * cards.get("GCOUNT", 1)
        * (cards.get("PCOUNT", 0) + pixels)
    )
