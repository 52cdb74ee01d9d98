"""Damaged files are refused with a reason, or read without garbage: never anything else."""

import importlib
import inspect
import pkgutil
import time
import warnings

import numpy as np
import pytest
import survey_layouts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from survey_files import FILES

from skspec import Spectra
from skspec.datasets.readers import SpectrumFileError, SpectrumFileWarning, read_file

fits = pytest.importorskip("astropy.io.fits")
from survey_layouts.mutations import MUTATIONS  # noqa: E402


def layouts():
    """Functions of survey_layouts that write a file when they are given nothing but its path."""
    found = {}
    for module in pkgutil.iter_modules(survey_layouts.__path__):
        module = importlib.import_module(f"survey_layouts.{module.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("write_") and function.__module__ == module.__name__:
                needed = [
                    p.name
                    for p in inspect.signature(function).parameters.values()
                    if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
                ]
                if len(needed) == 1:
                    found[f"{module.__name__.rpartition('.')[2]}.{name}"] = function
    return found


def small_real_files():
    """One of each folder, not over 300 kB."""
    chosen = {}
    for path in sorted(FILES.glob("*/*")):
        if path.is_file() and path.stat().st_size < 300_000:
            chosen.setdefault(path.parent.name, path)
    return list(chosen.values())


def check(path):
    """What must be so whatever the file: an error that tells, or spectra that make sense."""
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", SpectrumFileWarning)
            found = read_file(path, exposures=True)
    except SpectrumFileError as error:
        assert str(error).startswith(str(path))
        return None
    finally:
        assert time.perf_counter() - start < 5
    assert found
    for spectra in found:
        assert isinstance(spectra, Spectra)
        assert len(spectra)
        wavelength, good = spectra.wavelength, spectra.good
        assert np.all(np.isfinite(wavelength))
        assert wavelength.min() >= 100
        assert wavelength.max() <= 1e7
        orders = np.zeros(len(wavelength)) if spectra.order is None else spectra.order
        for order in np.unique(orders):
            step = np.diff(wavelength[orders == order])
            assert np.all(step > 0) or np.all(step < 0)
        assert np.all(np.isfinite(spectra.flux))
        assert np.all(np.abs(spectra.flux[good]) < 1e30)
        if spectra.ivar is not None:
            assert np.all(spectra.ivar >= 0)
        for name in ("ra", "dec", "rv", "berv"):
            values = spectra.meta.get(name, np.zeros(1))
            assert not np.any(np.isinf(values))
    return found


def mutate(path, data, rng, times=1):
    for _ in range(times):
        if data:
            data = MUTATIONS[rng.integers(len(MUTATIONS))](data, rng)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Bytes of a file of every layout."""
    folder = tmp_path_factory.mktemp("layouts")
    out = {}
    for name, write in layouts().items():
        path = folder / f"{name}.fits"
        write(path)
        if path.is_file():
            out[name] = path.read_bytes()
    return out


def test_whole_files_are_read(originals, tmp_path):
    assert {"lamost.write_lrs_table", "lamost.write_lrs_image", "lamost.write_mrs"} <= set(
        originals
    )
    for data in originals.values():
        path = tmp_path / "whole"
        path.write_bytes(data)
        check(path)


@pytest.mark.parametrize("seed", range(20))
def test_mutations(originals, tmp_path, seed):
    rng = np.random.default_rng(seed)
    names = sorted(originals)
    for k in range(15):
        path = tmp_path / "damaged.fits"
        mutate(path, originals[names[(15 * seed + k) % len(names)]], rng, rng.integers(1, 3))
        check(path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 150))
def test_ten_thousand_mutations(originals, tmp_path, seed):
    rng = np.random.default_rng(seed)
    data = [*originals.values(), *(path.read_bytes() for path in small_real_files())]
    for _ in range(200):
        path = tmp_path / "damaged.fits"
        mutate(path, data[rng.integers(len(data))], rng, rng.integers(1, 4))
        try:
            check(path)
        except BaseException:
            print(f"seed {seed}: kept in {path}")
            raise


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_bytes_in_the_place_of_any(originals, tmp_path_factory, data):
    original = originals[data.draw(st.sampled_from(sorted(originals)))]
    start = data.draw(st.integers(0, len(original)))
    length = data.draw(st.integers(0, 400))
    piece = data.draw(st.binary(max_size=400))
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(original[:start] + piece + original[start + length :])
    check(path)
