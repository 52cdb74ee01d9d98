"""Stars that are augmented anew for every batch of a training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Dataset

from skspec.networks._stream import _ahead
from skspec.networks._training import _Rows

if TYPE_CHECKING:
    from skspec.augmentation._base import Augmentation
    from skspec.spectra import Spectra

__all__ = ["AugmentedStars"]


class AugmentedStars(Dataset):
    """Batches for :func:`~skspec.networks.fit_network`, of spectra changed before they are scaled.

    The generator that shuffles the stars of an epoch also draws a seed for each of its batches: these
    can be made ahead of the training, by several threads, and one that was interrupted goes on as it
    would have. Without shuffling, as in validation, stars are as they came.

    Parameters
    ----------
    spectra : Spectra
    y : DataFrame, Series or None
        Labels.
    augmentation : augmentation of :mod:`skspec.augmentation`
        Or anything with its method ``augment``.
    arrays : callable
        From `Spectra` and labels to a tuple (inputs, target, ...), as `fit_network` takes it. It is
        called by several threads.
    device : str
    n_ahead : int
        Batches that are begun before they are asked for.
    n_threads : int
        Threads that make them.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec.augmentation import GaussianNoise
    >>> from skspec.datasets import make_spectra
    >>> from skspec.networks import AugmentedStars
    >>> spectra, labels = make_spectra(100, n_pixels=50, random_state=0)
    >>> stars = AugmentedStars(spectra, labels, GaussianNoise(20), lambda X, y: (X.flux, y.to_numpy()))
    >>> [tuple(target.shape) for _, target in stars.batches(2, np.random.default_rng(0))]
    [(50, 3), (50, 3)]
    """

    def __init__(
        self,
        spectra: Spectra,
        y: Any,
        augmentation: Augmentation,
        arrays: Callable[..., Any],
        device: str = "cpu",
        *,
        n_ahead: int = 4,
        n_threads: int = 2,
    ):
        self.spectra, self.y, self.augmentation = spectra, y, augmentation
        self.arrays, self.device = arrays, device
        self.n_ahead, self.n_threads = n_ahead, n_threads

    def __len__(self) -> int:
        return len(self.spectra)

    def batches(
        self, n_batches: int, generator: np.random.Generator | None = None, skip: int = 0
    ) -> Iterator[tuple[Any, Any]]:
        """All but the first `skip` of so many batches; shuffled and augmented if a generator is given.

        Parameters
        ----------
        n_batches : int
            Of an epoch; equal in size but for one star.
        generator : numpy Generator, optional
        skip : int
            Batches that are not even augmented.

        Yields
        ------
        inputs, targets
            Tensors on the device: inputs as `arrays` has them, one target as it is, several as a tuple.
        """
        rows, seeds = np.arange(len(self)), [None] * n_batches
        if generator is not None:
            generator.shuffle(rows)
            seeds = generator.integers(2**32, size=n_batches).tolist()
        wanted = list(zip(np.array_split(rows, n_batches), seeds))[skip:]
        yield from _ahead(self._batch, wanted, self.n_ahead, self.n_threads)

    def _batch(self, wanted):
        """Tensors of some rows, augmented if there is a seed."""
        rows, seed = wanted
        spectra, y = self.spectra[rows], None if self.y is None else self.y.iloc[rows]
        if seed is not None:
            out = self.augmentation.augment(spectra, y, random_state=seed)
            spectra, y = (out, None) if y is None else out
        return _Rows(self.arrays(spectra, y), self.device)[slice(None)]
