"""Spectral libraries that the package sdss-mangadap (BSD) ships: where their files are."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pooch

    from skspec._typing import PathLike

__all__ = ["library_files"]

PACKAGE = "mangadap"
INSIDE = "data/spectral_templates"
#: version 4.5.0; the files have not changed since 2015, and their hashes are in registry/
COMMIT = "996b46cb9739126fe0fbe69c1a50d8490d924853"
URL = f"https://raw.githubusercontent.com/sdss/mangadap/{COMMIT}/{PACKAGE}/{INSIDE}"
REGISTRY = Path(__file__).with_name("registry")
N_THREADS = 8  # files are small: nearly all of a download is waiting


def library_files(
    library: str, *, data_home: PathLike | None, download_if_missing: bool, n_retries: int
) -> dict[str, Path]:
    """Files of a library, by name: of the installed package, else downloaded once.

    Parameters
    ----------
    library : str
        Its folder in the package, and its registry of SHA-256 hashes here.
    data_home : path-like or None
        Folder for what is downloaded; None is the user's cache.
    download_if_missing : bool
        Without, nothing is asked of the network.
    n_retries : int
        Further attempts at a file that failed.

    Returns
    -------
    dict of str to pathlib.Path

    Raises
    ------
    OSError
        When files are neither here nor to be had; those that came are kept for the next call.
    """
    hashes = _read_registry(library)
    for root in _installed_roots():
        folder = root / INSIDE / library
        if all((folder / name).is_file() for name in hashes):
            return {name: folder / name for name in hashes}
    return _downloaded(library, hashes, data_home, download_if_missing, n_retries)


def _read_registry(library):
    lines = (REGISTRY / f"{library}.txt").read_text(encoding="ascii").split("\n")
    return dict(line.split() for line in lines if line)


def _installed_roots():
    """Where the package lies, which is not imported: it needs much that we do not."""
    try:
        spec = importlib.util.find_spec(PACKAGE)
    except (ImportError, ValueError):
        return []
    places = None if spec is None else spec.submodule_search_locations
    return [Path(place) for place in places or ()]


def _downloaded(library, hashes, data_home, download_if_missing, n_retries):
    pooch = _import_pooch()
    home = Path(pooch.os_cache("skspec")) if data_home is None else Path(data_home).expanduser()
    folder = home / PACKAGE / library
    store = pooch.create(
        folder,
        base_url=f"{URL}/{library}/",
        registry={name: f"sha256:{digest}" for name, digest in hashes.items()},
        retry_if_failed=n_retries,
    )
    missing = [name for name in hashes if not _is_here(folder / name, hashes[name], pooch)]
    if missing and not download_if_missing:
        raise OSError(
            f"{len(missing)} of {len(hashes)} files of {library} are missing, and "
            f"download_if_missing is False; {_by_hand(library, folder)}."
        )
    if missing:
        _fetch(store, missing, library, folder)
    return {name: folder / name for name in hashes}


def _is_here(path, digest, pooch):
    return path.is_file() and pooch.file_hash(str(path), alg="sha256") == digest


def _fetch(store: pooch.Pooch, names: list[str], library: str, folder: Path) -> None:
    """Download side by side; the first failure ends it, and what is complete stays."""
    pool = ThreadPoolExecutor(N_THREADS)
    futures = []
    try:
        with _one_line_of_log(f"Downloading {len(names)} files from {store.base_url} to {folder}"):
            futures = [pool.submit(store.fetch, names[0])]
            futures[0].result()  # alone: without a network one file is tried, not eight
            futures += [pool.submit(store.fetch, name) for name in names[1:]]
            for future in futures:
                future.result()
    except (OSError, ValueError) as error:  # those of requests are OSErrors; ValueError: wrong hash
        pool.shutdown(cancel_futures=True)
        done = sum(f.done() and not f.cancelled() and not f.exception() for f in futures)
        reason = " ".join(str(error).split())[:200]
        raise OSError(
            f"{done} of {len(names)} missing files of {library} were downloaded, then came "
            f"{type(error).__name__}: {reason}. Call again to go on where it stopped; if that "
            f"address cannot be reached, {_by_hand(library, folder)}."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)  # also when the user stops it


def _by_hand(library, folder):
    return (
        f"python -m pip install --no-deps sdss-mangadap, or put the files of its folder "
        f"{PACKAGE}/{INSIDE}/{library} (a wheel is a zip file) into {folder}"
    )


@contextmanager
def _one_line_of_log(text: str) -> Iterator[None]:
    """Of pooch, which would write one for every file."""
    logger = _import_pooch().get_logger()
    logger.info(text)
    # not by its level: pooch's logger keeps what it once found enabled
    logger.addFilter(_warnings_only)
    try:
        yield
    finally:
        logger.removeFilter(_warnings_only)


def _warnings_only(record):
    return record.levelno >= logging.WARNING


def _import_pooch():
    try:
        import pooch
    except ImportError:
        raise ImportError(
            'Downloads need pooch: python -m pip install "skspec[fits]".', name="pooch"
        ) from None
    return pooch
