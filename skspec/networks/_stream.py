"""Batches of stars that do not fit into memory: read chunk by chunk, ahead of the training."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["StarStream"]

CHUNK = 2**22  # bytes of flux read at once, of a source that does not say
BUFFER = 2**26  # bytes of flux, in float32, of the chunks that are mixed


class StarStream(Dataset):
    r"""Batches for :func:`~skspec.networks.fit_network`, read while it trains.

    Every chunk is read once in an epoch. In training they come in random order, several at a time: the
    stars of the chunk at place :math:`c` of that order are sorted among the others by

    .. math:: c + m u, \quad u \sim U(0, 1),

    so that a batch has stars of :math:`m` chunks, and as one chunk ends another is read.

    Parameters
    ----------
    source : SpectraStore, Spectra on a memory map, or anything with a shape and ``source[rows]``
        What ``source[rows]`` gives goes to `arrays`. Its ``chunk_size`` is the number of stars that
        are read at once; without it, 4 MB of flux are.
    rows : array-like of int of shape (n,)
        Stars of an epoch.
    arrays : callable
        From `Spectra` to a tuple (inputs, target, ...) of arrays with a row per star, as
        `fit_network` takes it. What a star gets must not depend on the others: it is called for the
        stars of each chunk, by several threads.
    device : str
    n_mixed : int or None
        Chunks :math:`m` that are mixed. By default, as many as hold 64 MB of flux in float32; each of
        `arrays` takes as much memory.
    n_ahead : int
        Batches that are ready before they are asked for.
    n_threads : int
        Threads that read chunks.

    Notes
    -----
    Without a generator, as in validation, stars come in the order of their rows. With one, the order
    depends on nothing else, so that an epoch can be taken up in the middle.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec.datasets import make_spectra
    >>> from skspec.networks import StarStream
    >>> spectra, _ = make_spectra(100, n_pixels=50, random_state=0)
    >>> stream = StarStream(spectra, np.arange(90), lambda part: (part.flux, part.good))
    >>> [tuple(inputs.shape) for inputs, _ in stream.batches(2, np.random.default_rng(0))]
    [(45, 50), (45, 50)]
    """

    def __init__(
        self,
        source: Any,
        rows: ArrayLike,
        arrays: Callable[..., Any],
        device: str = "cpu",
        *,
        n_mixed: int | None = None,
        n_ahead: int = 2,
        n_threads: int = 2,
    ):
        self.source, self.rows, self.arrays = source, np.sort(rows), arrays
        self.device, self.n_ahead, self.n_threads = torch.device(device), n_ahead, n_threads
        n_bytes = 4 * max(source.shape[1], 1)
        self.chunk_size = getattr(source, "chunk_size", max(CHUNK // n_bytes, 1))
        self.n_mixed = n_mixed or max(BUFFER // (n_bytes * self.chunk_size), 2)

    def __len__(self) -> int:
        return len(self.rows)

    def batches(
        self, n_batches: int, generator: np.random.Generator | None = None, skip: int = 0
    ) -> Iterator[tuple[Any, Any]]:
        """All but the first `skip` of so many batches; shuffled if a generator is given.

        Parameters
        ----------
        n_batches : int
            Of an epoch; equal in size but for one star.
        generator : numpy Generator, optional
        skip : int
            Batches that are not even read.

        Yields
        ------
        inputs, targets
            Tensors on the device: inputs as `arrays` has them, one target as it is, several as a tuple.
        """
        rows = self.rows
        if generator is not None and n_batches > 1:
            chunk = np.unique(rows // self.chunk_size, return_inverse=True)[1]
            place = generator.permutation(chunk[-1] + 1)[chunk]
            rows = rows[np.argsort(place + self.n_mixed * generator.random(len(rows)))]
        batches = np.array_split(rows, n_batches)[skip:]
        with closing(self._batches(batches)) as made:
            yield from _ahead(lambda _: next(made), batches, self.n_ahead, 1)

    def _batches(self, batches):
        """The batches of these rows. A chunk is there from its first star to its last one."""
        stars = np.concatenate([*batches, self.rows[:0]])
        numbers = dict.fromkeys((stars // self.chunk_size).tolist())
        stars.sort()
        chunks = {}

        def read(number):
            limits = np.array([number, number + 1]) * self.chunk_size
            rows = stars[slice(*np.searchsorted(stars, limits))]
            return _Chunk(number, rows, self.arrays(self.source[rows]))

        with closing(_ahead(read, numbers, self.n_threads, self.n_threads)) as coming:
            for batch in batches:
                batch, parts = np.sort(batch), []
                ends = np.flatnonzero(np.diff(batch // self.chunk_size)) + 1
                for rows in np.split(batch, ends):
                    number = rows[0] // self.chunk_size
                    while number not in chunks:
                        chunk = next(coming)
                        chunks[chunk.number] = chunk
                    parts.append(chunks[number].take(rows))
                    if not chunks[number].n_left:
                        del chunks[number]
                yield self._tensors(parts)

    def _tensors(self, parts):
        """Rows of the arrays of several chunks, as one batch on the device."""

        def joined(select):
            array = np.concatenate([select(arrays)[rows] for arrays, rows in parts])
            tensor = torch.from_numpy(np.asarray(array, dtype=np.float32))
            if self.device.type != "cuda":
                return tensor.to(self.device)
            return tensor.pin_memory().to(self.device, non_blocking=True)

        inputs, *targets = parts[0][0]
        if isinstance(inputs, Mapping):
            inputs = {key: joined(lambda arrays, key=key: arrays[0][key]) for key in inputs}
        else:
            inputs = joined(lambda arrays: arrays[0])
        targets = [joined(lambda arrays, k=k: arrays[k]) for k in range(1, len(targets) + 1)]
        return inputs, targets[0] if len(targets) == 1 else tuple(targets)


class _Chunk:
    """Arrays of the stars of a chunk, and how many of these are to come."""

    def __init__(self, number, rows, arrays):
        self.number, self.rows, self.arrays, self.n_left = number, rows, arrays, len(rows)

    def take(self, rows):
        """The arrays, and where in them these rows are."""
        self.n_left -= len(rows)
        return self.arrays, np.searchsorted(self.rows, rows)


def _ahead(function, items, n_ahead, n_threads):
    """``function(item)`` of each item, in their order; `n_ahead` are begun before they are asked for."""
    threads = ThreadPoolExecutor(n_threads, thread_name_prefix="skspec-stream")
    try:
        items = iter(items)
        begun = deque(threads.submit(function, item) for item in islice(items, n_ahead))
        while begun:
            result = begun.popleft().result()
            begun.extend(threads.submit(function, item) for item in islice(items, 1))
            yield result
    finally:  # whoever stops early waits for what is being made, and for no more
        threads.shutdown(cancel_futures=True)
