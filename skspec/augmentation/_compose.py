"""`Compose` and `OneOf`: augmentations one after the other, and one out of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from skspec.augmentation._base import Augmentation

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["Compose", "OneOf"]


class _Several(Augmentation):
    """Augmentations that share one stream of random numbers."""

    _parameter_constraints: dict = {"augmentations": [list, tuple]}

    def __init__(self, augmentations: Sequence[Augmentation] = (), **shared):
        super().__init__(**shared)
        self.augmentations = augmentations

    def _check_parts(self):
        for part in self.augmentations:
            if not isinstance(part, Augmentation):
                raise ValueError(
                    f"{type(self).__name__} takes augmentations of skspec.augmentation, not {part!r}."
                )
            part._validate_params()

    @property
    def moves_stars(self) -> bool:
        """Whether any of them gives stars velocities that they did not have."""
        return any(part.moves_stars for part in self.augmentations)

    def _changed_label(self, y):
        changed = (part._changed_label(y) for part in self.augmentations)
        return next((label for label in changed if label is not None), None)


class Compose(_Several):
    """Augment by one after the other.

    Parameters
    ----------
    augmentations : list of augmentations
        In the order of nature: rotation, velocity, instrument, continuum, noise, bad pixels. (Broadening
        after the noise would smooth it.) Their own `p` holds, their `random_state` does not.
    random_state : int, RandomState instance or None
        Of all of them.

    Examples
    --------
    >>> from skspec.augmentation import BadPixels, Compose, GaussianNoise, RotationalBroadening
    >>> from skspec.datasets import make_spectra
    >>> spectra, _ = make_spectra(5, n_pixels=500, snr=None, random_state=0)
    >>> survey = Compose(
    ...     [RotationalBroadening((0, 50)), GaussianNoise((20, 80)), BadPixels(0.02, p=0.5)],
    ...     random_state=0)
    >>> survey.augment(spectra).has_errors
    True
    """

    def _augmented(self, spectra, y, among, rng):
        self._check_parts()
        if self.p == 0:
            return spectra, y
        among = among & (rng.random(len(spectra)) < self.p)
        for part in self.augmentations:
            spectra, y = part._augmented(spectra, y, among, rng)
        return spectra, y


class OneOf(_Several):
    """Augment each star by one augmentation, drawn at random.

    Parameters
    ----------
    augmentations : list of augmentations
        Their own `p` holds, their `random_state` does not.
    probabilities : array-like, optional
        Of each, with the sum 1; by default the same for all.

    Raises
    ------
    ValueError
        Without augmentations, or when the probabilities do not fit them.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec import Spectra
    >>> from skspec.augmentation import ContinuumJitter, GaussianNoise, OneOf
    >>> either = OneOf([GaussianNoise(50), ContinuumJitter()], probabilities=[0.8, 0.2], random_state=0)
    >>> either.augment(Spectra(np.ones((4, 100)))).shape
    (4, 100)
    """

    _parameter_constraints: dict = {"probabilities": ["array-like", None]}

    def __init__(
        self,
        augmentations: Sequence[Augmentation] = (),
        *,
        probabilities: ArrayLike | None = None,
        **shared,
    ):
        super().__init__(augmentations, **shared)
        self.probabilities = probabilities

    def _augmented(self, spectra, y, among, rng):
        self._check_parts()
        number = len(self.augmentations)
        if number == 0:
            raise ValueError("OneOf needs at least one augmentation.")
        shares = np.full(number, 1 / number) if self.probabilities is None else self.probabilities
        shares = np.asarray(shares, dtype=float)
        if shares.shape != (number,) or np.any(shares < 0) or abs(shares.sum() - 1) > 1e-6:
            raise ValueError(
                f"probabilities={self.probabilities!r} must be {number} numbers of sum 1, one for each "
                "augmentation."
            )
        if self.p == 0:
            return spectra, y
        among = among & (rng.random(len(spectra)) < self.p)
        which = rng.choice(number, size=len(spectra), p=shares / shares.sum())
        for k, part in enumerate(self.augmentations):
            spectra, y = part._augmented(spectra, y, among & (which == k), rng)
        return spectra, y
