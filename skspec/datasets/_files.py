"""Read and write spectra with labels as one compressed ``.npz`` file of plain arrays."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from skspec._containers import NAMES, medium_of_name, plain_name
from skspec._label_values import label_table
from skspec._pixel_values import ivar_from_error
from skspec._wavelengths import to_angstrom
from skspec.spectra import ABOUT, Spectra

if TYPE_CHECKING:
    from skspec._typing import PathLike

__all__ = ["load_spectra", "save_spectra"]

UNREADABLE = (
    ValueError,
    TypeError,
    AttributeError,
    EOFError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)
UNKNOWN_ERROR = 5.0  # a flux error above this many times the median flux marks a bad pixel
#: kinds of arrays that are there for every pixel, and the name that each has in the layout
USUAL = {
    "wavelength": "wavelength",
    "log_wavelength": "wavelength",
    "ivar": "ivar",
    "flux_err": "flux_err",
    "variance": "flux_err",
    "mask": "mask",
    "good": "mask",
}
MOSTLY = 0.9  # a mask that leaves less than the rest may have been meant the other way round
RESERVED = {
    "flux",
    "flux_norm",
    "ivar",
    "ivar_norm",
    "flux_err",
    "labels",
    "label_names",
    "has_labels",
    "order",
    "noise_shape",
    "wavelength_unit",
    *ABOUT,
    "wavelength",
    "wavelength_air",
}


def load_spectra(
    path: PathLike,
    labels: Sequence[str] | None = None,
    *,
    flux: str = "auto",
    wavelength_range: tuple[float, float] | None = None,
    labelled_only: bool = True,
    return_groups: bool = False,
) -> tuple[Any, ...]:
    """Read spectra, their errors and labels from an ``.npz`` file.

    Parameters
    ----------
    path : str or path-like
        An ``.npz`` file with the layout in Notes.
    labels : sequence of str, optional
        The labels wanted, in this order. All of the file by default.
    flux : {"auto", "flux", "flux_norm"}, default="auto"
        Which flux: as observed, or divided by its continuum. "auto" takes ``flux_norm`` if the
        file has it.
    wavelength_range : (float, float), optional
        Keep pixels within this range [Angstrom].
    labelled_only : bool, default=True
        Drop stars without all of the labels wanted. With False they stay, with NaN labels.
    return_groups : bool, default=False
        Also return the identity of each star, for group-wise cross-validation.

    Returns
    -------
    spectra : Spectra of shape (n, P)
        Everything else that the file knows per star (``snr``, ``survey``, ``label_err``, ...) is in
        ``spectra.meta``, and follows when rows are taken.
    labels : pandas.DataFrame of shape (n, n_labels)
        Without columns when the file has no labels.
    groups : ndarray of shape (n,)
        Only if `return_groups`: ``group_id`` if there is one, otherwise ``star_id``.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When arrays are missing or do not fit together, with what to mend.

    See Also
    --------
    save_spectra : Writes such a file.

    Notes
    -----
    The layout, to be written with ``numpy.savez_compressed`` or `save_spectra`:

    =================== ================= =====================================================
    key                 shape             meaning
    =================== ================= =====================================================
    ``flux``            (n, P)            flux in any unit
    ``flux_norm``       (n, P)            flux divided by its continuum; one of the two suffices
    ``ivar``            (n, P)            inverse variance of ``flux``, 0 = bad pixel; optional
    ``ivar_norm``       (n, P)            inverse variance of ``flux_norm``; optional
    ``flux_err``        (n, P)            standard deviation of ``flux``, instead of ``ivar``; also
                                          ``error``, ``err``, ``sigma``, ``uncertainty``; ``variance``
    ``mask``            (n, P) or (P,)    bool or bits, not 0 = bad pixel; also ``quality``, ``flags``;
                                          ``good``, the other way round; optional
    ``wavelength``      (P,)              Angstrom, or ``wave``, ``wavelength_nm``, ``wavelength_air``,
                                          ``loglam`` (log10 of Angstrom) and the like; optional
    ``wavelength_unit`` ()                text, where it is another, or numbers are below 2000; optional
    ``order``           (P,)              echelle order; optional
    ``medium``          ()                "air" or "vacuum"; as ``frame``, ``flux_unit``, text; optional
    ``resolution``      () or (P,)        or (n, 1), (n, P): wavelength / FWHM; optional
    ``labels``          (n, n_labels)     optional
    ``label_names``     (n_labels,)       text; needed with ``labels``
    ``has_labels``      (n,)              bool; False where the row of ``labels`` means nothing
    ``star_id``         (n,)              text or integer; optional
    ``noise_shape``     (P,)              with ``snr`` (n,) instead of errors: noise_shape / snr
    anything else       (n, ...)          goes to ``spectra.meta``
    =================== ================= =====================================================

    No object arrays: files are opened with ``allow_pickle=False``. Where ``flux_norm`` has no
    errors of its own they come from those of ``flux``, ``ivar (flux / flux_norm)^2``, and the
    reverse. Errors that are zero, negative, not finite or five times the median flux mark bad
    pixels.
    """
    data = _read(path)
    which = _choose_flux(data, flux, path)
    values = data[which]
    n, n_pixels = values.shape
    data = _under_usual_names(data, path, n, n_pixels)
    ivar = _ivar_of(data, which)
    if ivar is not None and ivar.shape != values.shape:
        raise ValueError(
            f"{path}: the errors have shape {ivar.shape} but {which} has {values.shape}; "
            "they must agree."
        )
    wavelength = data.get("wavelength")
    _check_length(path, "wavelength", wavelength, n_pixels, "pixels")
    _check_length(path, "order", data.get("order"), n_pixels, "pixels")
    names, table, has = _labels_of(data, path, n, labels)
    about = _about(data)
    meta = {
        key: array
        for key, array in data.items()
        if key not in RESERVED and array.ndim and len(array) == n and not _image(array, n_pixels)
    }
    spectra = Spectra(
        values,
        ivar=ivar,
        wavelength=wavelength,
        wavelength_unit="Angstrom",
        mask=data.get("mask"),
        order=data.get("order"),
        meta=meta,
        **about,
    )
    frame = pd.DataFrame(table, columns=names)
    if labelled_only and names and not has.all():
        spectra, frame = spectra[has], frame[has].reset_index(drop=True)
    if wavelength_range is not None:
        spectra = spectra.window(*wavelength_range)
    if not return_groups:
        return spectra, frame
    key = next((key for key in ("group_id", "star_id") if key in spectra.meta), None)
    if key is None:
        raise ValueError(f"{path} has no star_id, so stars cannot be grouped; add one per star.")
    return spectra, frame, spectra.meta[key]


def save_spectra(path: PathLike, spectra: Spectra, labels: pd.DataFrame | None = None) -> Path:
    """Write spectra and labels in the layout that `load_spectra` reads.

    Parameters
    ----------
    path : str or path-like
        File to write; ``.npz`` is added if it is missing.
    spectra : Spectra of shape (n, P)
        Flux, errors, wavelength, order, and what they mean, are stored exactly; of ``meta``, the
        arrays with one entry per star.
    labels : pandas.DataFrame of shape (n, n_labels), optional
        Rows that are NaN throughout are stored as unlabelled (``has_labels`` False).

    Returns
    -------
    pathlib.Path
        The file written.

    Raises
    ------
    ValueError
        When `labels` has not one row per star, or ``meta`` holds objects or a reserved name.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from skspec.datasets import load_spectra, make_spectra, save_spectra
    >>> spectra, labels = make_spectra(3, n_pixels=50, random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_spectra(pathlib.Path(folder) / "stars.npz", spectra, labels)
    ...     again, labels_again = load_spectra(path)
    >>> bool((again.flux == spectra.flux).all()), labels_again.equals(labels)
    (True, True)
    """
    path = Path(path)
    if path.suffix != ".npz":
        path = path.with_name(path.name + ".npz")
    n = len(spectra)
    arrays = {"flux": spectra.flux}
    for name in ("ivar", "wavelength", "order", *ABOUT):
        if getattr(spectra, name) is not None:
            arrays[name] = np.asarray(getattr(spectra, name))
    if spectra.wavelength is not None:
        arrays["wavelength_unit"] = np.array("Angstrom")
    for key, value in spectra.meta.items():
        value = None if isinstance(value, dict) else np.asarray(value)
        if value is None or not value.ndim or len(value) != n:
            continue
        if key in RESERVED or _of_pixels(key, value, *spectra.shape) or value.dtype.hasobject:
            raise ValueError(
                f"meta[{key!r}] cannot be stored: the name is reserved or it holds Python objects; "
                "rename it, or turn it into numbers or text."
            )
        arrays[key] = value
    if labels is not None:
        arrays |= _label_arrays(labels, n)
    _write(path, arrays)
    return path


def _write(path, arrays):
    """As `numpy.savez_compressed`, which has no array of the name "file"."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=False)


def _label_arrays(labels, n):
    table, names = label_table(labels)
    table = table.reshape(len(table), -1)
    if len(table) != n:
        raise ValueError(f"labels has {len(table)} rows for {n} stars; give one row per star.")
    names = names or [f"label_{k}" for k in range(table.shape[1])]
    return {
        "labels": table,
        "label_names": np.array(names, dtype=str),
        "has_labels": ~np.isnan(table).all(axis=1),
    }


def _read(path):
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; check the name and the folder.")
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except UNREADABLE as error:
        raise ValueError(
            f"{path} is not an .npz file of plain arrays ({error}); write it with "
            "numpy.savez_compressed or skspec.datasets.save_spectra."
        ) from None


def _about(data):
    """Medium, frame, resolution and flux unit, where the file knows them."""
    about = {name: data[name] for name in ABOUT if name in data}
    texts = {name: str(value) for name, value in about.items() if name != "resolution"}
    return about | texts


def _kind(key):
    """What an array of this name holds for every pixel, by the names of tables; None for others."""
    name = plain_name(key)[0]
    return next((kind for kind in USUAL if name in NAMES[kind]), None)


def _of_pixels(key, array, n, n_pixels):
    """Whether an array of this name is one of errors, bad pixels or wavelengths."""
    return _kind(key) is not None and array.shape in {(n, n_pixels), (n_pixels,)}


def _under_usual_names(data, path, n, n_pixels):
    """The arrays of a file, those of pixels under the names, and as, the layout has them."""
    out, origin = {}, {}
    for key, array in data.items():
        kind = _kind(key)
        if key == "wavelength_air" and "wavelength" in data:
            continue
        if kind is None or not _of_pixels(key, array, n, n_pixels):
            table = array.ndim == 2 and (len(array) != n or _image(array, n_pixels))
            if kind is not None and table and key not in RESERVED:
                raise ValueError(
                    f"{path}: {key} has shape {array.shape} but {n} spectra of {n_pixels} pixels; it "
                    f"must be ({n}, {n_pixels}) or ({n_pixels},)."
                )
            out[key] = array
            continue
        name = USUAL[kind]
        if name != key and n == n_pixels and array.ndim == 1 and name != "wavelength":
            raise ValueError(
                f"{path}: {key} of shape {array.shape} may be of {n} stars or of {n_pixels} pixels; "
                f"call it {name} and give it the shape of the flux, or rename it."
            )
        if name in origin:
            raise ValueError(
                f"{path} holds both {origin[name]} and {key}: each is a name of {name}; keep one."
            )
        origin[name] = key
        out[name] = _as_usual(path, key, kind, array, data.get("wavelength_unit"))
    for name in ("flux_err", "ivar"):
        if name in out and out[name].ndim == 1:
            out[name] = np.broadcast_to(out[name], (n, n_pixels))
    if "medium" not in out and medium_of_name(origin.get("wavelength", "")):
        out["medium"] = np.array(medium_of_name(origin["wavelength"]))
    return out


def _as_usual(path, key, kind, array, unit):
    """Wavelengths [Angstrom] of one grid, standard deviations, True at bad pixels."""
    if USUAL[kind] == "wavelength":
        array = _one_grid(path, key, array)
        if kind == "log_wavelength":
            return _from_logarithm(path, array)
        unit = plain_name(key)[1] or None if unit is None else str(unit)
        try:
            return to_angstrom(array, unit)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    if kind == "variance":
        return np.sqrt(np.where(array > 0, array, 0))
    return _bad_pixels(path, key, kind, array) if USUAL[kind] == "mask" else array


def _one_grid(path, name, values):
    """One wavelength per pixel: tables of stars may repeat it."""
    if values.ndim == 1:
        return values
    if not np.all(values == values[:1]):
        raise ValueError(
            f"{path}: {name} differs from star to star; bring the spectra to one grid before they are "
            "saved, with skspec.concatenate(..., grid='common')."
        )
    return values[0]


def _from_logarithm(path, values):
    if not (values.min() > 2.9 and values.max() < 5.5):
        raise ValueError(
            f"{path}: loglam runs from {values.min():g} to {values.max():g}, which is not log10 of "
            "Angstrom; save wavelength in Angstrom instead."
        )
    return 10.0 ** values.astype(float)


def _bad_pixels(path, name, kind, values):
    if values.dtype.kind not in "biu" and not np.isin(values, (0, 1)).all():
        raise ValueError(
            f"{path}: {name} holds {values.dtype} other than 0 and 1; a mask is bool, or bits, not 0 at "
            "bad pixels."
        )
    bad = (values == 0) if kind == "good" else (values != 0)
    if bad.size and bad.mean() > MOSTLY:
        raise ValueError(
            f"{path}: {name} marks {100 * bad.mean():.0f} % of the pixels as bad; a mask must be True "
            "(or not 0) at bad pixels, good at good ones. If it is the other way round, save ~mask."
        )
    return bad


def _choose_flux(data, flux, path):
    if flux not in ("auto", "flux", "flux_norm"):
        raise ValueError(f'flux={flux!r} is not known; use "auto", "flux" or "flux_norm".')
    wanted = ("flux_norm", "flux") if flux == "auto" else (flux,)
    which = next((key for key in wanted if key in data), None)
    if which is None:
        raise ValueError(
            f"{path} has no {' or '.join(wanted)}, only {sorted(data)}; a file of spectra needs "
            "flux or flux_norm of shape (stars, pixels)."
        )
    if data[which].ndim != 2:
        raise ValueError(f"{path}: {which} has shape {data[which].shape}, not (stars, pixels).")
    return which


def _ivar_of(data, which):
    """Inverse variance of the chosen flux, from whichever errors the file has; or None."""
    own, other = ("ivar", "ivar_norm") if which == "flux" else ("ivar_norm", "ivar")
    if own in data:
        ivar = data[own]
    elif other in data and {"flux", "flux_norm"} <= data.keys():
        ivar = _rescaled_ivar(data[other], data["flux"], data["flux_norm"], to=which)
    else:
        ivar = data.get(other)
    if "flux_err" in data:
        from_error = _ivar_of_error(data["flux_err"], data.get("flux", data[which]))
        if ivar is None and which == "flux_norm" and "flux" in data:
            return _rescaled_ivar(from_error, data["flux"], data["flux_norm"], to=which)
        return from_error if ivar is None else np.where(from_error > 0, ivar, 0)
    if ivar is None and {"snr", "noise_shape"} <= data.keys():
        return np.square(data["snr"][:, None] / data["noise_shape"])
    return ivar


def _rescaled_ivar(ivar, flux, flux_norm, to):
    """Errors of flux as errors of flux_norm, or the reverse: both scale by the continuum."""
    upper, lower = (flux, flux_norm) if to == "flux_norm" else (flux_norm, flux)
    known = (lower != 0) & np.isfinite(upper) & np.isfinite(lower)
    ratio = np.where(known, upper, 0) / np.where(known, lower, 1)
    return np.where(known, ivar * np.square(ratio, dtype=float), 0)


def _ivar_of_error(error, flux):
    limit = UNKNOWN_ERROR * np.nanmedian(np.abs(flux)) if flux.size else np.inf
    return ivar_from_error(np.where(error < max(limit, np.finfo(float).tiny), error, 0))


def _labels_of(data, path, n, wanted):
    """Names, table (n, k) and the rows that have labels."""
    if "labels" not in data:
        if wanted is not None:
            raise ValueError(f"{path} has no labels, so {list(wanted)} cannot be read from it.")
        return [], np.empty((n, 0)), np.zeros(n, dtype=bool)
    table = np.asarray(data["labels"], dtype=float)
    if "label_names" not in data:
        raise ValueError(f"{path} has labels but no label_names; add one name per column.")
    names = [str(name) for name in data["label_names"]]
    if table.shape != (n, len(names)):
        raise ValueError(
            f"{path}: labels has shape {table.shape}; with {n} spectra and label_names {names} it "
            f"must be ({n}, {len(names)})."
        )
    has = np.asarray(data.get("has_labels", np.ones(n)), dtype=bool)
    _check_length(path, "has_labels", has, n, "stars")
    if wanted is not None:
        missing = [name for name in wanted if name not in names]
        if missing:
            raise ValueError(f"{path} has no labels {missing}; it has {names}.")
        table = table[:, [names.index(name) for name in wanted]]
        names = list(wanted)
    return names, np.where(has[:, None], table, np.nan), has & np.isfinite(table).all(axis=1)


def _check_length(path, name, values, length, what):
    if values is not None and values.shape != (length,):
        raise ValueError(
            f"{path}: {name} has shape {values.shape} but there are {length} {what}; "
            f"it must be ({length},)."
        )


def _image(array, n_pixels):
    """Whether an array is another image of all spectra, too large to carry along."""
    return array.ndim >= 2 and array.shape[1] >= max(n_pixels // 2, 16)
