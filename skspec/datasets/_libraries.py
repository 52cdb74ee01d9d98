"""Spectral libraries to train on: MILES and STELIB."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from skspec.datasets._mangadap import library_files
from skspec.datasets.readers import SpectrumFile, SpectrumFileError, card, text
from skspec.datasets.readers._file import missing_number
from skspec.datasets.readers._grids import header_grid
from skspec.spectra import Spectra

if TYPE_CHECKING:
    from skspec._typing import PathLike

__all__ = ["fetch_miles", "fetch_stelib"]

LABELS = ["teff", "logg", "feh"]
MILES_TABLE = "paramsMILES_v9.1.txt"
MILES_FWHM = 2.5  # Angstrom
#: columns of the table of MILES
MILES_COLUMNS = {
    "star_name": slice(0, 18),
    "number": slice(22, 28),
    "spectral_type": slice(36, 49),
    "teff": slice(49, 57),
    "logg": slice(57, 64),
    "feh": slice(64, 72),
}
#: HD 44691A has lost its last digit there; 221 is the only number that no star has
MILES_NUMBERS = {"022.": 221}
STELIB_CARDS = ("TEFF", "LOG_G", "FE_H")
STELIB_FWHM = 3.0  # Angstrom
#: each file has a grid of its own, of nearly 1 Angstrom; observed is at most 3198 to 9857
STELIB_GRID = np.arange(3200.0, 9851.0)


def fetch_miles(
    *,
    data_home: PathLike | None = None,
    download_if_missing: bool = True,
    n_retries: int = 3,
    labelled_only: bool = True,
) -> tuple[Spectra, pd.DataFrame]:
    r"""Load the MILES stellar library, version 9.1: 984 stars observed at 3540-7410 Angstrom.

    It is taken from the package ``sdss-mangadap`` where that is installed
    (``python -m pip install --no-deps sdss-mangadap``; it is not imported). Otherwise 985 files,
    37 MB, are downloaded once, from that package's public repository.

    Parameters
    ----------
    data_home : str or path-like, optional
        Folder to keep what is downloaded. By default the user's cache (``pooch.os_cache``).
    download_if_missing : bool, default=True
        With False an OSError is raised where files are missing, and no network is used.
    n_retries : int, default=3
        How often a file that could not be downloaded is tried again.
    labelled_only : bool, default=True
        Drop stars without all three labels. With False they stay, with NaN labels.

    Returns
    -------
    spectra : Spectra of shape (n, 4300)
        n is 945, or 984 with ``labelled_only=False``. Relative flux, of median about 1, without
        errors, in steps of 0.9 Angstrom, in air and at rest; ``resolution`` is
        :math:`\lambda / 2.5` Angstrom. ``meta`` has ``star_id`` ("m0001"), ``miles_number``,
        ``star_name`` and ``spectral_type``.
    labels : pandas.DataFrame of shape (n, 3)
        ``teff`` [K], ``logg`` [dex] and ``feh`` [dex]: literature values, on one scale. Errors are
        about 60 to 100 K, 0.2 and 0.1 dex.

    Raises
    ------
    OSError
        When the library is neither here nor to be downloaded: which files to put where.
    ImportError
        Without astropy or pooch (``pip install "skspec[fits]"``).
    ValueError
        When an installed file is damaged.

    See Also
    --------
    fetch_stelib : A smaller library with a longer wavelength range.
    load_spectra : Spectra of yours.

    Notes
    -----
    Please cite the papers below. The package's authors leave out star 970, whose spectrum is
    cut short. The table of labels misprints the number of HD 44691A as "022."; it is taken for
    221, the only one that has no star. Pixels that are zero or negative (30 stars, mostly cool, at
    the ends) are as in the library. The library's signal-to-noise ratio is mostly above 100.

    Downloaded files are compared with their SHA-256 hashes, every time they are read. A download
    that was interrupted goes on with the files that are missing.

    References
    ----------
    .. [1] Sanchez-Blazquez, P., Peletier, R. F., Jimenez-Vicente, J. et al. (2006). Medium-
       resolution Isaac Newton Telescope library of empirical spectra. MNRAS, 371, 703.
    .. [2] Cenarro, A. J., Peletier, R. F., Sanchez-Blazquez, P. et al. (2007). Medium-resolution
       Isaac Newton Telescope library of empirical spectra - II. The stellar atmospheric
       parameters. MNRAS, 374, 664.
    .. [3] Falcon-Barroso, J., Sanchez-Blazquez, P., Vazdekis, A. et al. (2011). An updated MILES
       stellar library and stellar population models. A&A, 532, A95.

    Examples
    --------
    >>> from skspec.datasets import fetch_miles
    >>> spectra, labels = fetch_miles()  # doctest: +SKIP
    >>> spectra.shape  # doctest: +SKIP
    (945, 4300)
    """
    files = library_files(
        "miles",
        data_home=data_home,
        download_if_missing=download_if_missing,
        n_retries=n_retries,
    )
    images = {_miles_number(name): path for name, path in files.items() if name.endswith(".fits")}
    table = _miles_table(files[MILES_TABLE])
    table = table.set_index("miles_number").loc[sorted(images)].reset_index()
    if labelled_only:
        table = table[table[LABELS].notna().all(axis=1)].reset_index(drop=True)
    flux, wavelength = _on_one_grid([images[number] for number in table["miles_number"]])
    meta = {
        "star_id": np.array([f"m{number:04d}" for number in table["miles_number"]]),
        **{
            key: table[key].to_numpy(dtype=kind)
            for key, kind in (("miles_number", int), ("star_name", str), ("spectral_type", str))
        },
    }
    return _at_rest_in_air(flux, wavelength, MILES_FWHM, meta), table[LABELS]


def fetch_stelib(
    *,
    data_home: PathLike | None = None,
    download_if_missing: bool = True,
    n_retries: int = 3,
    labelled_only: bool = True,
) -> tuple[Spectra, pd.DataFrame]:
    r"""Load the STELIB stellar library, version 3.2: 255 spectra at 3200-9850 Angstrom.

    It is taken from the package ``sdss-mangadap`` where that is installed
    (``python -m pip install --no-deps sdss-mangadap``; it is not imported). Otherwise 255 files,
    9 MB, are downloaded once, from that package's public repository.

    Parameters
    ----------
    data_home : str or path-like, optional
        Folder to keep what is downloaded. By default the user's cache (``pooch.os_cache``).
    download_if_missing : bool, default=True
        With False an OSError is raised where files are missing, and no network is used.
    n_retries : int, default=3
        How often a file that could not be downloaded is tried again.
    labelled_only : bool, default=True
        Drop stars without all three labels. With False they stay, with NaN labels.

    Returns
    -------
    spectra : Spectra of shape (n, 6651)
        n is 203, or 255 with ``labelled_only=False``. Flux corrected for interstellar extinction,
        without errors, linearly interpolated to steps of 1 Angstrom, in air and at rest;
        ``resolution`` is :math:`\lambda / 3` Angstrom. Pixels that were not observed are bad.
        ``meta`` has ``star_id``, ``star_name`` and ``spectral_type``.
    labels : pandas.DataFrame of shape (n, 3)
        ``teff`` [K], ``logg`` [dex] and ``feh`` [dex]: literature values.

    Raises
    ------
    OSError
        When the library is neither here nor to be downloaded: which files to put where.
    ImportError
        Without astropy or pooch (``pip install "skspec[fits]"``).
    ValueError
        When an installed file is damaged.

    See Also
    --------
    fetch_miles : A larger library.

    Notes
    -----
    Please cite the paper below. The spectra are at rest within some 20 km/s. Ranges differ from
    star to star, and much of the red is bad in some: choose a ``window`` and leave out stars that
    miss it.

    References
    ----------
    .. [1] Le Borgne, J.-F., Bruzual, G., Pello, R. et al. (2003). STELIB: a library of stellar
       spectra at R ~ 2000. A&A, 402, 433.

    Examples
    --------
    >>> from skspec.datasets import fetch_stelib
    >>> spectra, labels = fetch_stelib()  # doctest: +SKIP
    >>> spectra.shape  # doctest: +SKIP
    (203, 6651)
    """
    files = library_files(
        "stelib",
        data_home=data_home,
        download_if_missing=download_if_missing,
        n_retries=n_retries,
    )
    stars = {path.stem.split("_")[-1]: _read_image(path) for _, path in sorted(files.items())}
    labels = pd.DataFrame(
        [[card(header, name) for name in STELIB_CARDS] for *_, header in stars.values()],
        columns=LABELS,
    )
    names = np.array(list(stars), dtype=str)
    meta = {
        # HD 53929 was observed at both telescopes: "lp" and "ss" follow its name
        "star_id": np.array([re.sub("[a-z]+$", "", name) for name in names]),
        "star_name": names,
        "spectral_type": np.array([text(header.get("SPECTYPE")) for *_, header in stars.values()]),
    }
    flux = np.full((len(stars), len(STELIB_GRID)), np.nan)
    for row, (wavelength, values, _) in zip(flux, stars.values()):
        observed = np.interp(STELIB_GRID, wavelength, values > 0, left=0, right=0) == 1
        row[observed] = np.interp(STELIB_GRID, wavelength, values)[observed]
    spectra = _at_rest_in_air(flux, STELIB_GRID.copy(), STELIB_FWHM, meta)
    keep = labels.notna().all(axis=1).to_numpy() | (not labelled_only)
    return spectra[keep], labels[keep].reset_index(drop=True)


def _at_rest_in_air(flux, wavelength, fwhm, meta):
    about = {"medium": "air", "frame": "rest", "resolution": wavelength / fwhm}
    return Spectra(flux, wavelength=wavelength, meta=meta, **about)


def _miles_number(name):
    found = re.search(r"_m(\d{4})V\.fits$", name)
    if found is None:
        raise ValueError(f"{name} is no spectrum of MILES; its name ends with m0001V.fits.")
    return int(found[1])


def _miles_table(path):
    """The table that comes with the library: fixed columns below three lines of heading."""
    lines = Path(path).read_text(encoding="ascii").rstrip().split("\n")[3:]
    column = {
        name: [line[where].strip() for line in lines] for name, where in MILES_COLUMNS.items()
    }
    numbers = column.pop("number")
    table = pd.DataFrame(column)
    table["miles_number"] = [MILES_NUMBERS.get(digits) or int(digits) for digits in numbers]
    table[LABELS] = table[LABELS].map(missing_number)
    return table


def _on_one_grid(paths):
    """Flux (n, P) and wavelength (P,) of images that have one grid."""
    stars = [_read_image(path) for path in paths]
    grid = stars[0][0]
    for path, (wavelength, *_) in zip(paths, stars):
        if not np.array_equal(wavelength, grid):
            raise ValueError(
                f"{path} has {len(wavelength)} pixels from {wavelength[0]:g} Angstrom, not "
                f"{len(grid)} from {grid[0]:g}, as {paths[0].name}; install sdss-mangadap again."
            )
    return np.array([flux for _, flux, _ in stars]), grid


def _read_image(path):
    """Wavelength (P,), flux (P,) and header of a one-dimensional FITS image."""
    try:
        file = SpectrumFile(path)
        flux = file.image(0, ndim=1).astype(float)
        return header_grid(file.header, len(flux)), flux, file.header
    except SpectrumFileError as error:
        raise ValueError(
            f"{path} is damaged, or no spectrum: {error}; put the true file of sdss-mangadap there."
        ) from None
