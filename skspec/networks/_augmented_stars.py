"""Stars that are augmented anew for every batch of a training."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import Dataset

from skspec.networks._training import _Rows

__all__ = ["AugmentedStars"]


class AugmentedStars(Dataset):
    """Batches for :func:`~skspec.networks.fit_network`, of spectra changed before they are scaled.

    Every batch of a training takes one number from torch's generator, as the seed of its augmentation,
    so that a training that was interrupted goes on as it would have. Without shuffling, as in
    validation, stars are as they came.

    Parameters
    ----------
    spectra : Spectra
    y : DataFrame, Series or None
        Labels.
    augmentation : augmentation of :mod:`skspec.augmentation`
        Or anything with its method ``augment``.
    arrays : callable
        From `Spectra` and labels to a tuple (inputs, target, ...), as `fit_network` takes it.
    device : str

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

    def __init__(self, spectra, y, augmentation, arrays, device="cpu"):
        self.spectra, self.y, self.augmentation = spectra, y, augmentation
        self.arrays, self.device = arrays, device

    def __len__(self):
        return len(self.spectra)

    def batches(self, n_batches, generator=None, skip=0):
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
        rows = np.arange(len(self))
        if generator is not None and n_batches > 1:
            generator.shuffle(rows)
        for part in np.array_split(rows, n_batches)[skip:]:
            spectra, y = self.spectra[part], None if self.y is None else self.y.iloc[part]
            if generator is not None:
                spectra, y = self._augmented(spectra, y)
            yield _Rows(self.arrays(spectra, y), self.device)[slice(None)]

    def _augmented(self, spectra, y):
        seed = int(torch.randint(2**31 - 1, ()))
        out = self.augmentation.augment(spectra, y, random_state=seed)
        return (out, None) if y is None else out
