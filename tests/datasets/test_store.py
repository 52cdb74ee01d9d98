"""A store on disk: every bit comes back, whatever happened while it was written."""

import multiprocessing
import os
import pickle
import signal
import sys
import time

import numpy as np
import pandas as pd
import pytest
from helpers import PlainRidge, RidgeRegressor
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib import Parallel, delayed
from numpy.testing import assert_array_equal
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_predict

from skspec import Spectra
from skspec.base import as_spectra
from skspec.datasets import SpectraStore, _store
from skspec.model_selection import star_groups
from skspec.preprocessing import ContinuumNormalizer

pytest.importorskip("zarr")
SMALL = 2**9  # bytes of flux in a chunk: a few stars


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(_store, "CHUNK", SMALL)
    monkeypatch.setattr(_store, "COLUMN", 8)
    monkeypatch.setattr(os, "fsync", lambda file: None)  # no test cuts the power


def draw(start, stop, *, n_pixels=20, dtype=np.float32, ivar=True):
    """Stars, each a function of its number alone, and their labels."""
    rows = [np.random.default_rng(i).normal(size=(3, n_pixels)) for i in range(start, stop)]
    rows = np.array(rows).reshape(-1, 3, n_pixels)
    number = np.arange(start, stop)
    spectra = Spectra(
        rows[:, 0].astype(dtype),
        ivar=np.exp(rows[:, 1]).astype(dtype) if ivar else None,
        wavelength=np.linspace(4000, 5000, n_pixels),
        meta={"star_id": np.array([f"Gaia {i // 2}" for i in number]), "number": number},
    )
    return spectra, pd.DataFrame(rows[:, 2, :2], columns=["teff", "[Fe/H]"])


def assert_same(given, wanted):
    """Every bit, signs of zeros too."""
    for name in ("flux", "ivar", "wavelength", "order"):
        one, other = getattr(given, name), getattr(wanted, name)
        assert (one is None) == (other is None)
        if one is not None:
            assert one.dtype == other.dtype
            assert one.tobytes() == np.ascontiguousarray(other).tobytes()
    assert given.meta.keys() == wanted.meta.keys()
    for name, values in given.meta.items():
        if np.ndim(values) == 0:
            assert type(values) in (str, int, float)
            assert values == wanted.meta[name] or np.isnan(values)
            continue
        assert values.dtype.kind == np.asarray(wanted.meta[name]).dtype.kind
        assert_array_equal(values, wanted.meta[name])


@pytest.fixture
def store(tmp_path):
    """Ten stars."""
    return SpectraStore.write(tmp_path / "store", *draw(0, 10))


@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    dtype=st.sampled_from([np.float32, np.float64]),
    ivar=st.sampled_from([None, "same", "each"]),
    n_pixels=st.sampled_from([1, 5, 40, 300]),
    zeros=st.sampled_from([None, 0.0, -0.0]),
    data=st.data(),
)
@settings(max_examples=15, deadline=None)
def test_every_bit_comes_back(tmp_path_factory, sizes, dtype, ivar, n_pixels, zeros, data):
    rng = np.random.default_rng(sum(sizes))
    n = sum(sizes) + 1
    flux = rng.normal(size=(n, n_pixels)).astype(dtype)
    flux[rng.random(flux.shape) < 0.3] = -0.0
    flux = flux if zeros is None else np.full_like(flux, zeros)
    errors = rng.choice([0, 1.5, np.inf], n_pixels if ivar == "same" else flux.shape).astype(dtype)
    spectra = Spectra(
        flux,
        ivar=None if ivar is None else errors,
        wavelength=5000 + np.sort(rng.random(n_pixels)) if n_pixels > 1 else None,
        order=rng.integers(0, 3, n_pixels) if n_pixels > 5 else None,
        meta={
            "name": np.array(["é" * (i % 7) for i in range(n)]),
            "flag": np.arange(n) % 2 == 0,
            "error": rng.normal(size=(n, 2)).astype(np.float32),
            "weight": pd.Series(rng.random(n)),
            "medium": "air",
            "resolution": np.float64(1800.5),
            "nights": 3,
            "unknown": np.nan,
        },
    )
    store = SpectraStore(tmp_path_factory.mktemp("store") / "a", create=True)
    for start, stop in zip(np.cumsum([0, 1, *sizes]), np.cumsum([1, *sizes])):
        store.append(spectra[start:stop])
    store = SpectraStore(store.path)
    assert (store.shape, store.dtype, store.ndim, store.size) == (flux.shape, dtype, 2, flux.size)
    assert_same(store[:], spectra)
    for _ in range(3):
        rows = data.draw(
            st.lists(st.integers(-n, n - 1), max_size=12)
            | st.slices(n)
            | st.integers(-n, n - 1)
            | st.lists(st.booleans(), min_size=n, max_size=n).map(np.array)
        )
        assert_same(store[rows], spectra[rows])
    assert_same(store[::2, n_pixels // 2 :], spectra[::2, n_pixels // 2 :])


def test_labels_of_some_stars(tmp_path):
    store = SpectraStore.write(tmp_path / "a", draw(0, 6)[0])
    assert store.labels is None
    store.append(*draw(6, 9)).append(draw(9, 12)[0])
    spectra, table = draw(12, 15)
    store.append(spectra, table[["teff"]].rename(columns={"teff": "a/b"}))
    labels = store.labels
    assert list(labels) == ["teff", "[Fe/H]", "a/b"]
    assert_array_equal(labels.iloc[6:9, :2], draw(6, 9)[1])
    assert_array_equal(labels["a/b"][12:], table["teff"])
    assert labels.isna().sum().tolist() == [12, 12, 12]


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_stars_without_errors_have_unknown_ones(tmp_path, order):
    store = SpectraStore(tmp_path / "a", create=True)
    for start, ivar in zip((0, 7), order):
        store.append(draw(start, start + 7, ivar=ivar)[0])
    for start, ivar in zip((0, 7), order):
        part = draw(start, start + 7)[0]
        assert_same(
            store[start : start + 7], part if ivar else part.replace(ivar=np.float32("inf"))
        )


def test_only_what_is_asked_for_is_read(store):
    os.unlink(store.path / "flux" / "c" / "1" / "0")
    assert store.chunk_size == 6
    assert_same(store[:6], draw(0, 6)[0])
    with pytest.raises(FileNotFoundError, match="flux"):
        store[5:7]


def test_other_programs_can_read_it(store):
    import zarr

    group = zarr.open_group(store.path, mode="r")
    spectra, labels = draw(0, 10)
    assert_array_equal(group["flux"][:], spectra.flux)
    assert_array_equal(group["ivar"][:], spectra.ivar)
    assert_array_equal(group["labels/teff"][:], labels["teff"])


# -- what goes wrong while it is written ---------------------------------------------------------


def fork(function, *args):
    process = multiprocessing.get_context("fork").Process(target=function, args=args)
    process.start()
    return process


def append_for_ever(path, size):
    store = SpectraStore(path)
    while True:
        store.append(*draw(len(store), len(store) + size))


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded")
def test_a_killed_append_leaves_what_was_there(store):
    interrupted, before = 0, len(store)
    for attempt in range(60):
        process = fork(append_for_ever, store.path, 1 + 5 * (attempt % 4))
        time.sleep(0.02 + 0.01 * (attempt % 7))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        after = SpectraStore(store.path)
        assert len(after) >= before
        assert_same(after[:], draw(0, len(after))[0])
        assert_array_equal(after.labels, draw(0, len(after))[1])
        interrupted += after._array("flux").shape[0] != len(after)
        after.append(*draw(len(after), len(after) + 2))
        assert_same(SpectraStore(store.path)[:], draw(0, len(after))[0])
        before = len(after)
        if interrupted > 2 and attempt > 5:
            break
    assert interrupted


def spoilt(store, monkeypatch):
    """The store after an append of garbage that never came to its last step."""
    spectra, labels = draw(0, 17)
    garbage = spectra.replace(flux=np.full_like(spectra.flux, 7e7), ivar=np.float32(1e-9))
    with monkeypatch.context() as patch:
        patch.setattr(SpectraStore, "_commit", lambda self, **state: None)
        store.append(garbage, labels.rename(columns={"teff": "rv"}) + 1e5)
    return SpectraStore(store.path)


@pytest.mark.parametrize("size", [1, 3, 9, 40])
@pytest.mark.parametrize("with_errors", [True, False])
def test_what_an_unfinished_append_left_never_shows(store, monkeypatch, size, with_errors):
    store = spoilt(store, monkeypatch)
    assert_same(store[:], draw(0, 10)[0])
    later, table = draw(10, 10 + size, ivar=with_errors)
    store.append(later, table.rename(columns={"[Fe/H]": "rv"}))
    store.append(*draw(10 + size, 40 + size))
    assert_same(store[:10], draw(0, 10)[0])
    if not with_errors:
        later = later.replace(ivar=np.float32("inf"))
    assert_same(store[10 : 10 + size], later)
    assert_same(store[10 + size :], draw(10 + size, 40 + size)[0])
    assert_array_equal(store.labels["teff"], draw(0, 40 + size)[1]["teff"])
    assert store.labels["rv"].notna().sum() == size
    assert not store.labels[["rv", "[Fe/H]"]].notna().all(axis=1).any()


def test_torn_files_of_an_unfinished_append(store, monkeypatch):
    store = spoilt(store, monkeypatch)
    for number in (2, 3, 4):
        file = store.path / "flux" / "c" / str(number) / "0"
        file.write_bytes(file.read_bytes()[:50])
    half = store.path / "flux" / "c" / "1" / "0.abc.partial"
    half.write_bytes(b"half a chunk")
    (store.path / "zarr.json.partial").write_text("{")
    store.append(*draw(10, 14)).append(*draw(14, 45))
    assert_same(SpectraStore(store.path)[:], draw(0, 45)[0])
    assert not list(store.path.rglob("*.partial"))


def test_a_first_append_that_did_not_end(tmp_path, monkeypatch):
    empty = SpectraStore(tmp_path / "a", create=True)
    with pytest.raises(FileNotFoundError):
        spoilt(empty, monkeypatch)
    other = draw(0, 5, n_pixels=7, dtype=np.float64, ivar=False)[0]
    assert_same(SpectraStore.write(tmp_path / "a", other)[:], other)


def test_a_damaged_chunk_is_not_read_as_spectra(store):
    file = store.path / "flux" / "c" / "0" / "0"
    file.write_bytes(file.read_bytes()[:100])
    assert_same(store[:1], draw(0, 1)[0])
    with pytest.raises(OSError, match="is damaged"):
        store[:3]


def append_some(path, start):
    store = SpectraStore(path)
    for k in range(start, start + 4):
        store.append(*draw(k, k + 1))


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded")
def test_two_writers_wait_for_each_other(store):
    for process in [fork(append_some, store.path, start) for start in (10, 14)]:
        process.join(60)
        assert process.exitcode == 0
    store = SpectraStore(store.path)
    number = store.meta["number"]
    assert sorted(number) == list(range(18))
    assert_same(store[np.argsort(number)], draw(0, 18)[0])


# -- processes, estimators -----------------------------------------------------------------------


def test_worker_processes_read_it(store):
    tasks = (delayed(SpectraStore.__getitem__)(store, slice(k, k + 5)) for k in (0, 5))
    for k, part in zip((0, 5), Parallel(n_jobs=2)(tasks)):
        assert_same(part, draw(k, k + 5)[0])
    assert len(pickle.dumps(store)) < 300


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded")
def test_it_reads_after_a_fork(store):
    assert_same(store[:2], draw(0, 2)[0])  # zarr's own thread runs by now

    def read(store):
        assert_same(store[3:], draw(3, 10)[0])
        assert_array_equal(store.labels, draw(0, 10)[1])

    process = fork(read, store)
    process.join(60)
    assert process.exitcode == 0


def test_estimators_take_a_store(tmp_path):
    spectra, labels = draw(0, 40)
    store = SpectraStore.write(tmp_path / "a", spectra, labels)
    wanted, given = (RidgeRegressor().fit(X, labels) for X in (spectra, store))
    assert given.uses_ivar_
    assert_array_equal(given.wavelength_, spectra.wavelength)
    assert_array_equal(wanted.predict(spectra), given.predict(store))
    teff = labels["teff"]
    predicted = [cross_val_predict(PlainRidge(), X, teff, cv=3) for X in (spectra, store)]
    assert_array_equal(*predicted)
    assert_array_equal(Ridge().fit(store, labels).coef_, Ridge().fit(spectra, labels).coef_)
    normalizer = ContinuumNormalizer().fit(spectra)
    assert_same(normalizer.transform(store), normalizer.transform(spectra))
    assert_same(as_spectra(store), spectra)
    assert_array_equal(star_groups(store), star_groups(spectra))
    assert_array_equal(np.asarray(store), spectra.flux)


# -- mistakes ------------------------------------------------------------------------------------


def changed(**parts):
    return draw(10, 12)[0].replace(**parts)


META = draw(10, 12)[0].meta


@pytest.mark.parametrize(
    "spectra, message",
    [
        (lambda: draw(10, 12, n_pixels=21)[0], "have 21 pixels, those in .* 20; .*Resampler"),
        (lambda: changed(wavelength=None), "The wavelength of these .*one grid; .*Resampler"),
        (lambda: changed(wavelength=5000 + np.arange(20.0)), "The wavelength of these"),
        (lambda: changed(order=np.arange(20)), "The order of these"),
        (lambda: changed(meta={}), r"have meta \[\], .*'number', 'star_id'.*replace\(meta"),
        (lambda: changed(meta=META | {"snr": np.ones(2)}), "'snr', 'star_id'"),
        (
            lambda: changed(meta=META | {"survey": "mine"}),
            "{'survey': 'mine'}.*or give an entry per",
        ),
        (
            lambda: draw(10, 12, dtype=float)[0],
            "flux is float64 .* cannot hold exactly: .* float32",
        ),
        (lambda: changed(ivar=1.0), "ivar is float64 .* cannot hold exactly"),
        (lambda: changed(meta=META | {"star_id": [1, 2]}), "meta/star_id is int64 .* cannot hold"),
        (lambda: changed(meta=META | {"number": ["a", "b"]}), "meta/number is <U1 .* cannot hold"),
        (lambda: changed(meta=META | {"number": np.ones((2, 2), int)}), r"of shape \(2, 2\)"),
        (lambda: changed(meta=META | {"number": [1, None]}), r"meta\['number'\] cannot be stored"),
    ],
)
def test_what_does_not_fit_is_refused(store, spectra, message):
    with pytest.raises(ValueError, match=message):
        store.append(spectra())
    assert_same(SpectraStore(store.path)[:], draw(0, 10)[0])


def test_other_mistakes(store, tmp_path):
    with pytest.raises(ValueError, match="labels has 2 rows for 3 stars"):
        store.append(draw(10, 13)[0], draw(0, 2)[1])
    with pytest.raises(FileExistsError, match=r"a store of 10 stars already; .*append"):
        SpectraStore.write(store.path, *draw(0, 3))
    with pytest.raises(FileNotFoundError, match=r"no store of spectra at .*nowhere; .*write"):
        SpectraStore(tmp_path / "nowhere")
    empty = SpectraStore(tmp_path / "empty", create=True)
    assert (len(empty), empty.shape, empty.labels) == (0, (0, 0), None)
    with pytest.raises(ValueError, match="is empty: append spectra first"):
        empty[:]
    for key in ((0, 0, 0), np.zeros((2, 2), int)):
        with pytest.raises(IndexError, match=r"\[rows\] or \[rows, pixels\]"):
            store[key]
    for key in (10, -11, [3, 10], np.ones(9, bool)):
        with pytest.raises(IndexError):
            store[key]
    with pytest.raises(KeyError):
        store.meta["nonsense"]


def test_without_zarr_the_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match=r"needs zarr: .*pip install 'skspec\[store\]'"):
        SpectraStore.write(tmp_path / "a", draw(0, 3)[0])


def test_it_tells_what_it_is(store, tmp_path):
    assert repr(store).startswith(
        "<SpectraStore: 10 stars x 20 pixels, 4000.0-5000.0 Angstrom, float32"
    )
    assert repr(SpectraStore(tmp_path / "b", create=True)).startswith("<SpectraStore: 0 stars")
    assert "star_id" in repr(store.meta)
    assert list(store.meta) == ["star_id", "number"] and len(store.meta) == 2
