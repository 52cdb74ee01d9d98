"""Gaia: mean spectra of RVS, XP spectra (sampled, and as coefficients), flux standards of GaiaXPy.

Tables of the archive in any container: one row per star with arrays (RAW), or one per wavelength, of
one star (INDIVIDUAL) or several (COMBINED).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from skspec._short_repr import ShortRepr
from skspec.datasets.readers._file import SpectrumFile, SpectrumFileError, text
from skspec.datasets.readers._grids import ivar_from_sigma
from skspec.datasets.readers._registry import AFTER_HEADERS, one_grid_together, reader
from skspec.datasets.readers._tables import is_vector, numbers, unit_of, vectors
from skspec.spectra import Spectra

if TYPE_CHECKING:
    from astropy.table import Table

    from skspec._typing import PathLike

__all__ = ["XPCoefficients", "read_xp_coefficients"]

# as in the data model of DR3; both in vacuum [nm]
RVS_GRID = 846.0 + 0.01 * np.arange(2401)
XP_GRID = 336.0 + 2.0 * np.arange(343)
RVS_RESOLUTION = 11_500.0
XP_UNIT = "W m-2 nm-1"
ON_GRID = 1e-3  # nm
BANDS = ("bp", "rp")
N_COEFFICIENTS = 55  # of each band
EXTRAS = ("solution_id", "ra", "dec", "combined_transits", "combined_ccds", "deblended_ccds")


def _columns(file, *needed):
    """Whether a table has these columns, and those of all sampled spectra of Gaia."""
    return any(
        {"flux", "flux_error", *needed} <= {name.lower() for name in names}
        for names in file.column_names
    )


def _is_on(file, grid):
    """Whether the first spectrum lies on this grid, or has as many samples without wavelengths."""
    if not _columns(file):
        return False
    table, names = _sampled_table(file)
    if "wavelength" not in names:
        known = "source_id" in names and is_vector(table, names["flux"])
        return known and len(table) and len(vectors(table[:1], names["flux"])[0]) == len(grid)
    place, off = _place(_nanometres(table[:100], names["wavelength"])[0], grid)
    return len(off) > 0 and np.all(off < ON_GRID) and place.min() >= 0 and place.max() < len(grid)


def _is_rvs(file):
    return _is_on(file, RVS_GRID)


def _is_xp(file):
    if _columns(file, "source_id"):
        table, names = _sampled_table(file)
        if not {"wavelength", "wl"} & names.keys() and is_vector(table, names["flux"]):
            return not _is_rvs(file)  # also those of another length, which are refused
    return _is_on(file, XP_GRID)


@reader("gaia_rvs", "Gaia RVS mean spectra", _is_rvs, priority=AFTER_HEADERS)
def read_gaia_rvs(file: SpectrumFile) -> Spectra:
    """Normalised, vacuum, in the rest frame of the star."""
    return _read_on(file, RVS_GRID, frame="rest", resolution=RVS_RESOLUTION)


@reader("gaia_xp_sampled", "Gaia XP spectra, sampled", _is_xp, priority=AFTER_HEADERS)
def read_gaia_xp(file: SpectrumFile) -> Spectra:
    """Vacuum; nobody's velocity is taken out, which one in a thousand of a sample is."""
    table, names = _sampled_table(file)
    unit = unit_of(table, names["flux"])
    unit = unit if "ph" in unit.lower() else XP_UNIT  # spelled in several ways, or left out
    return _read_on(file, XP_GRID, flux_unit=unit)


@reader(
    "gaia_spss",
    "Spectrophotometric standard stars, as tables of GaiaXPy",
    lambda file: _columns(file, "source_id", "wl"),
    priority=AFTER_HEADERS,
)
def read_gaia_spss(file: SpectrumFile) -> list[Spectra]:
    """One row per star, wavelengths in nm."""
    table, names = _sampled_table(file)
    out = []
    wavelength = _nanometres(table, names["wl"])
    fluxes, errors = (vectors(table, names[name]) for name in ("flux", "flux_error"))
    for row, star in enumerate(_source_ids(file, table, names)):
        sizes = {len(wavelength[row]), len(fluxes[row]), len(errors[row])}
        if len(sizes) > 1:
            raise SpectrumFileError(f"the arrays of star {star} have different lengths: {sizes}")
        out.append(
            Spectra(
                fluxes[row],
                ivar=ivar_from_sigma(errors[row]),
                wavelength=wavelength[row] * 10,
                wavelength_unit="Angstrom",
                flux_unit=XP_UNIT,
                meta={"star_id": [str(star)], "source_id": [star]},
            )
        )
    return one_grid_together(out)


def _is_continuous(file):
    return any(
        {"bp_coefficients", "rp_coefficients"} & {name.lower() for name in names}
        for names in file.column_names
    )


@reader(
    "gaia_xp_continuous",
    "Gaia XP coefficients (are refused)",
    _is_continuous,
    priority=AFTER_HEADERS,
)
def refuse_xp_coefficients(file: SpectrumFile) -> Spectra:
    raise SpectrumFileError(
        "it holds coefficients of Gaia XP spectra, no fluxes: "
        "skspec.datasets.read_xp_coefficients(file) reads them, and GaiaXPy makes spectra of them"
    )


# -- sampled spectra -------------------------------------------------------------------------------


def _sampled_table(file) -> tuple[Table, dict[str, str]]:
    """The table of fluxes, and its names by those in lower case."""
    for table in file.tables:
        names = {name.lower(): name for name in table.colnames}
        if {"flux", "flux_error"} <= names.keys():
            if not len(table):
                raise SpectrumFileError("its table is empty")
            return table, names
    raise SpectrumFileError("it has no table with the columns flux and flux_error")


def _nanometres(table, name) -> list[np.ndarray]:
    """Wavelengths of each star, or of the whole table as one."""
    values = vectors(table, name) if is_vector(table, name) else [numbers(table, name)]
    factor = {"Angstrom": 0.1, "micron": 1e3}.get(unit_of(table, name), 1.0)
    return [factor * one for one in values]


def _place(wavelength, grid):
    """Place of each wavelength in a grid, and how far from it [nm] it is."""
    step = grid[1] - grid[0]
    wavelength = np.where(np.isfinite(wavelength), wavelength, -1.0)
    place = np.rint((wavelength - grid[0]) / step).astype(int)
    return place, np.abs(grid[0] + step * place - wavelength)


def _read_on(file, grid, **about):
    table, names = _sampled_table(file)
    stars = _source_ids(file, table, names)
    if is_vector(table, names["flux"]):
        flux, sigma = (_matrix(table, names[name], grid) for name in ("flux", "flux_error"))
        first = np.arange(len(table))
    else:
        stars, first, row = np.unique(stars, return_index=True, return_inverse=True)
        by = np.argsort(first)  # as in the file
        stars, first, row = stars[by], first[by], np.argsort(by)[row.ravel()]
        place, off = _place(_nanometres(table, names["wavelength"])[0], grid)
        if np.any(off > ON_GRID) or place.min() < 0 or place.max() >= len(grid):
            raise SpectrumFileError("some of its wavelengths are not those of the others")
        if len(np.unique(row * len(grid) + place)) < len(place):
            raise SpectrumFileError("it has some wavelengths of a star twice")
        flux, sigma = np.full((2, len(stars), len(grid)), np.nan)
        flux[row, place] = numbers(table, names["flux"])
        sigma[row, place] = numbers(table, names["flux_error"])
    return Spectra(
        flux,
        ivar=ivar_from_sigma(sigma),
        wavelength=10 * grid,
        medium="vacuum",
        meta=_meta(table, names, stars, first),
        **about,
    )


def _matrix(table, name, grid):
    rows = vectors(table, name)
    wrong = sorted({len(row) for row in rows} - {len(grid), 0})
    if wrong:
        raise SpectrumFileError(
            f"its arrays {name!r} have {wrong[0]} samples without wavelengths; those of Gaia XP have "
            f"{len(XP_GRID)}, those of RVS {len(RVS_GRID)}"
        )
    return np.array([row if len(row) else np.full(len(grid), np.nan) for row in rows])


def _source_ids(file, table, names):
    """Of each row; of the header or the file's name, where a file of one star leaves it out there."""
    if "source_id" in names:
        return _integers(table[names["source_id"]])
    known = {key.lower(): value for key, value in table.meta.items()}
    source = text(known.get("source_id", known.get("sourceid", "")))
    if not source.isdigit():
        found = re.search(r"(?<!\d)\d{10,19}(?!\d)", file.name)
        source = found.group() if found else "-1"
    return np.full(len(table), int(source), dtype=np.int64)


def _integers(column):
    values = np.asarray(np.ma.filled(column, -1) if hasattr(column, "mask") else column)
    if values.dtype.kind in "USO":
        values = np.array([text(value) for value in values])
    elif values.dtype.kind == "f" and np.any(np.abs(values) >= 2**53):
        raise SpectrumFileError("its source_id are no integers: their last digits are lost")
    try:
        return values.astype(np.int64)
    except ValueError:
        raise SpectrumFileError("its source_id are no integers") from None


def _meta(table, names, stars, first) -> dict[str, Any]:
    known = stars >= 0
    meta: dict[str, Any] = {
        "star_id": np.where(known, stars.astype(str), ""),
        "source_id": stars,
    }
    for name in EXTRAS:
        if name in names:
            whole = table[names[name]].dtype.kind in "iu" or name == "solution_id"
            meta[name] = (_integers(table[names[name]]) if whole else numbers(table, names[name]))[
                first
            ]
    return meta


# -- coefficients ----------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class XPCoefficients(ShortRepr):
    """Coefficients of the continuous representation of Gaia XP spectra.

    Attributes
    ----------
    source_id : ndarray of int64 of shape (n,)
    coefficients : ndarray of shape (n, 110)
        Of the 55 bases of BP and the 55 of RP; NaN where a star has none in a band.
    errors : ndarray of shape (n, 110)
        Their standard deviations.
    correlations : ndarray of shape (n, 110, 110)
        Between them; 0 between BP and RP, NaN where the table does not have them.
    """

    source_id: np.ndarray
    coefficients: np.ndarray
    errors: np.ndarray
    correlations: np.ndarray

    def __len__(self) -> int:
        return len(self.source_id)

    def cov(self) -> np.ndarray:
        """Covariance (n, 110, 110) of the coefficients."""
        return self.errors[:, :, None] * self.correlations * self.errors[:, None, :]


def read_xp_coefficients(file: PathLike) -> XPCoefficients:
    """Coefficients of Gaia XP spectra: the table XP_CONTINUOUS of the archive, in any container.

    They are no spectra, and `read_spectra` refuses them. As features of a regressor they are usually
    divided by the flux of the star in G; GaiaXPy makes spectra of them.

    Parameters
    ----------
    file : str or path-like
        CSV, ECSV, FITS or VOTable, compressed or not, with one row per star.

    Returns
    -------
    XPCoefficients

    Raises
    ------
    SpectrumFileError
        When the file is damaged, or has no such table.
    ImportError
        Without astropy (``pip install "skspec[fits]"``).

    Notes
    -----
    Correlations are in the table as the upper triangle without the diagonal, column by column.

    References
    ----------
    De Angeli et al. 2023, A&A 674, A2; Montegriffo et al. 2023, A&A 674, A3.

    Examples
    --------
    >>> from skspec.datasets import read_xp_coefficients
    >>> xp = read_xp_coefficients("XP_CONTINUOUS_RAW.fits")  # doctest: +SKIP
    >>> xp.coefficients.shape  # doctest: +SKIP
    (2, 110)
    """
    try:
        return _coefficients(SpectrumFile(file))
    except SpectrumFileError as error:
        raise SpectrumFileError(f"{file}: {error}.") from error.__cause__
    except ImportError:
        raise
    except Exception as error:  # whatever a damaged file makes a library stumble over
        raise SpectrumFileError(
            f"{file}: it is damaged ({type(error).__name__}: {error})."
        ) from error


def _coefficients(file):
    if not _is_continuous(file):
        raise SpectrumFileError("it has no columns bp_coefficients and rp_coefficients")
    for table in file.tables:
        names = {name.lower(): name for name in table.colnames}
        if {"bp_coefficients", "rp_coefficients"} & names.keys():
            break
    missing = {"source_id", *(f"{band}_coefficients" for band in BANDS)} - names.keys()
    missing |= {f"{band}_coefficient_errors" for band in BANDS} - names.keys()
    if missing:
        raise SpectrumFileError(f"it has no columns {sorted(missing)}")
    if not len(table):
        raise SpectrumFileError("its table is empty")
    n, size = len(table), 2 * N_COEFFICIENTS
    values, errors = np.full((2, n, size), np.nan)
    correlations = np.full((n, size, size), np.nan)
    for k, band in enumerate(BANDS):
        block = slice(k * N_COEFFICIENTS, (k + 1) * N_COEFFICIENTS)
        values[:, block] = _block(table, names[f"{band}_coefficients"], N_COEFFICIENTS)
        errors[:, block] = _block(table, names[f"{band}_coefficient_errors"], N_COEFFICIENTS)
        name = names.get(f"{band}_coefficient_correlations")
        if name is not None:
            correlations[:, block, block] = _symmetric(table, name)
    apart = np.ix_(np.arange(N_COEFFICIENTS), np.arange(N_COEFFICIENTS, size))
    known = np.isfinite(values[:, 0]) & np.isfinite(values[:, N_COEFFICIENTS])
    for row in np.flatnonzero(known):
        correlations[row][apart] = correlations[row].T[apart] = 0.0
    source_id = _integers(table[names["source_id"]])
    return XPCoefficients(source_id, values, errors, correlations)


def _block(table, name, size):
    """Vectors of one length (n, size); NaN for empty ones."""
    rows = vectors(table, name)
    for row in rows:
        if len(row) not in (0, size) and np.isfinite(row).any():
            raise SpectrumFileError(f"its arrays {name!r} have {len(row)} numbers, not {size}")
    return np.array([row if len(row) == size else np.full(size, np.nan) for row in rows])


def _symmetric(table, name):
    """Matrices with a diagonal of 1 from their upper triangles, column by column."""
    size = N_COEFFICIENTS
    upper = _block(table, name, size * (size - 1) // 2)
    out = np.full((len(upper), size, size), np.nan)
    lower = np.tril_indices(size, k=-1)  # row by row is the upper one column by column
    known = np.isfinite(upper).all(axis=1)
    out[known] = np.eye(size)
    for row in np.flatnonzero(known):
        out[row][lower] = out[row].T[lower] = upper[row]
    return out
