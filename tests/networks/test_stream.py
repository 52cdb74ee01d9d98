"""Batches read from disk: each star once, in an order that can be taken up again, little in memory."""

import threading
import time
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

torch = pytest.importorskip("torch")
pytest.importorskip("skorch")

from skspec import Spectra  # noqa: E402
from skspec.datasets import SpectraStore, _store  # noqa: E402
from skspec.networks import DenseNetwork, StarStream, WeightedLoss, fit_network  # noqa: E402


class Shelf:
    """Stars whose flux is their number, and a record of what was read."""

    def __init__(self, n, chunk_size):
        self.shape, self.chunk_size, self.read = (n, 3), chunk_size, []

    def __getitem__(self, rows):
        self.read.append(np.array(rows))
        return Spectra(np.repeat(rows, 3).reshape(-1, 3).astype(float))


def arrays(spectra):
    return {"x": spectra.flux}, spectra.flux[:, :1], spectra.good


def numbers(batches):
    return [inputs["x"][:, 0].numpy().astype(int) for inputs, _ in batches]


def stream_threads():
    return [t for t in threading.enumerate() if t.name.startswith("skspec-stream")]


@given(
    n=st.integers(1, 80),
    chunk_size=st.integers(1, 30),
    n_batches=st.integers(1, 12),
    n_mixed=st.integers(1, 9),
    skip=st.integers(0, 12),
    shuffled=st.booleans(),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_each_star_once(n, chunk_size, n_batches, n_mixed, skip, shuffled, data):
    rows = data.draw(st.lists(st.integers(0, n - 1), min_size=1, unique=True))
    shelf = Shelf(n, chunk_size)
    stream = StarStream(shelf, rows, arrays, n_mixed=n_mixed)
    n_batches, skip = min(n_batches, len(rows)), min(skip, n_batches)

    def epoch(seed, **options):
        generator = np.random.default_rng(seed) if shuffled else None
        return numbers(stream.batches(n_batches, generator, **options))

    batches = epoch(0)
    assert len(stream) == len(rows)
    assert [len(batch) for batch in batches] == [len(b) for b in np.array_split(rows, n_batches)]
    assert_array_equal(np.sort(np.concatenate(batches)), np.sort(rows))
    assert len(shelf.read) == len(np.unique(np.array(rows) // chunk_size))
    if not shuffled:
        assert_array_equal(np.concatenate(batches), np.sort(rows))
    shelf.read.clear()
    for batch, again in zip(batches[skip:], epoch(0, skip=skip), strict=True):
        assert_array_equal(batch, again)
    left = np.concatenate([*batches[skip:], np.empty(0, int)])
    assert_array_equal(np.sort(np.concatenate([*shelf.read, np.empty(0, int)])), np.sort(left))


def test_epochs_differ_and_chunks_are_mixed():
    stream = StarStream(Shelf(400, 10), np.arange(400), arrays, n_mixed=8)
    generator = np.random.default_rng(0)
    first, second = (numbers(stream.batches(20, generator)) for _ in range(2))
    assert not np.array_equal(first[0], second[0])
    n_chunks = [len(np.unique(batch // 10)) for batch in first]
    assert min(n_chunks) >= 4 and np.mean(n_chunks) > 7
    for batch in (first[3], second[7]):  # stars of a chunk are spread over batches
        assert max(np.bincount(batch // 10)) < 8


@pytest.mark.parametrize("n_mixed", [1, 4])
def test_few_chunks_are_in_memory(n_mixed):
    chunks, alive = [], []

    def tracked(spectra):
        chunks.append(weakref.ref(spectra.flux))
        alive.append(sum(chunk() is not None for chunk in chunks))
        return spectra.flux, spectra.good

    stream = StarStream(Shelf(600, 6), np.arange(600), tracked, n_mixed=n_mixed)
    for _ in stream.batches(200, np.random.default_rng(0)):
        pass
    assert len(alive) == 100
    assert max(alive) <= n_mixed + 6  # and those read ahead
    assert not any(chunk() is not None for chunk in chunks)


def test_batches_are_made_ahead_but_not_far():
    shelf = Shelf(100, 1)
    batches = StarStream(shelf, np.arange(100), arrays, n_ahead=3).batches(100)
    next(batches)
    for _ in range(500):
        if len(shelf.read) >= 6:
            break
        time.sleep(0.01)
    batches.close()
    assert 6 <= len(shelf.read) <= 8


def test_a_failure_reaches_the_training_and_nothing_runs_on():
    def failing(spectra):
        if spectra.flux.max() > 30:
            raise OSError("the disk is gone")
        return arrays(spectra)

    stream = StarStream(Shelf(100, 5), np.arange(100), failing)
    seen = []
    with pytest.raises(OSError, match="the disk is gone"):
        for inputs, _ in stream.batches(50):
            seen.append(inputs)
    assert len(seen) > 10
    assert not stream_threads()
    batches = StarStream(Shelf(100, 5), np.arange(100), arrays).batches(50)
    next(batches)
    assert stream_threads()
    batches.close()
    assert not stream_threads()


def test_forms_of_arrays():
    shelf = Shelf(7, 3)
    inputs, target = next(StarStream(shelf, range(7), lambda s: (s.flux, s.good)).batches(1))
    assert (inputs.dtype, target.dtype) == (torch.float32, torch.float32)
    assert_array_equal(inputs[:, 0], np.arange(7))
    inputs, targets = next(StarStream(shelf, range(7), arrays).batches(1))
    assert isinstance(targets, tuple)
    assert [t.shape[1] for t in (inputs["x"], *targets)] == [3, 1, 3]


def test_from_a_memory_map(tmp_path):
    flux = np.lib.format.open_memmap(tmp_path / "flux.npy", "w+", np.float32, (50, 3))
    flux[:] = np.arange(50)[:, None]
    stream = StarStream(Spectra(flux), np.arange(0, 50, 2), arrays)
    assert stream.chunk_size == 2**22 // 12
    batches = numbers(stream.batches(4, np.random.default_rng(0)))
    assert_array_equal(np.sort(np.concatenate(batches)), np.arange(0, 50, 2))


# -- in training -----------------------------------------------------------------------------------


@pytest.fixture
def waves(tmp_path, monkeypatch):
    """A store whose "flux" is two numbers and seven sines of them, and the same in memory."""
    pytest.importorskip("zarr")
    monkeypatch.setattr(_store, "CHUNK", 300)  # a chunk of 8
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2))
    spectra = Spectra(np.hstack([x, np.sin(x @ rng.normal(size=(2, 7)))]).astype(np.float32))
    return SpectraStore.write(tmp_path / "waves", spectra), spectra


def parts(spectra):
    return spectra.flux[:, :2], spectra.flux[:, 2:], spectra.good[:, 2:]


def train(data, valid, **options):
    settings = {"n_epochs": 30, "batch_size": 16, "learning_rate": 0.02, "patience": 40}
    return fit_network(
        DenseNetwork,
        WeightedLoss,
        data,
        valid,
        n_threads=1,
        **(settings | options),
        module__n_in=2,
        module__n_out=7,
        module__hidden=(20,),
        module__activation="silu",
    )


def weights(net):
    return np.concatenate([p.detach().numpy().ravel() for p in net.module_.parameters()])


def test_training_from_a_store(waves):
    store, spectra = waves
    rows = np.random.default_rng(1).permutation(60)
    streams = [StarStream(store, part, parts, n_mixed=3) for part in (rows[:45], rows[45:])]
    in_memory = [parts(spectra[np.sort(part)]) for part in (rows[:45], rows[45:])]
    streamed, usual = train(*streams), train(*in_memory)
    losses = [net.history[:, "valid_loss"] for net in (streamed, usual)]
    assert_allclose(losses[0][-1], losses[1][-1], rtol=0.2)
    assert losses[0][-1] < 0.5 * losses[0][0]
    # a single batch is the same in whatever order it was read
    once = [train(*data, batch_size=60, n_epochs=4) for data in (streams, in_memory)]
    assert_allclose(weights(once[0]), weights(once[1]), atol=1e-6)
    assert_array_equal(weights(train(*streams, n_epochs=3)), weights(train(*streams, n_epochs=3)))
    assert not stream_threads()


def test_an_interrupted_training_goes_on_in_the_middle_of_an_epoch(waves, tmp_path):
    store, _ = waves
    streams = [StarStream(store, part, parts, n_mixed=2) for part in (range(45), range(45, 60))]
    calls = []

    def augment(inputs):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return inputs + 0.01 * torch.randn_like(inputs)

    options = {"n_epochs": 5, "augment": augment, "batch_size": 8}
    kept = {"checkpoint": tmp_path / "training.pt", "checkpoint_every": 0.0}
    with pytest.raises(KeyboardInterrupt):
        train(*streams, **options, **kept)
    assert not stream_threads()
    resumed = train(*streams, **options, **kept)
    assert 20 < len(calls) - 8 < 30  # 5 epochs of 6 batches, less those done before
    assert_array_equal(weights(resumed), weights(train(*streams, **options)))
