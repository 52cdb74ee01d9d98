"""Stars that a network is validated on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from skspec.model_selection import star_groups
from skspec.spectra import Spectra

if TYPE_CHECKING:
    pass

__all__ = ["split_stars"]

MIN_HELD_OUT = 20  # stars held out, where that is at most a quarter


def split_stars(
    spectra: Any, fraction: float, random_state: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to validate on, of the stars with good pixels.

    Parameters
    ----------
    spectra : Spectra or SpectraStore
        Several spectra of one star (``star_id`` or ``group_id`` in ``meta``) stay together. Of a store
        every star counts.
    fraction : float
        Held out, but at least 20 stars or a quarter of them, whichever is less.
    random_state : RandomState

    Raises
    ------
    ValueError
        When there are fewer than 3 stars.
    """
    seen = np.ones(len(spectra), dtype=bool)
    if isinstance(spectra, Spectra) and spectra.ivar is not None:
        seen = spectra.good.any(axis=1)
    star = star_groups(spectra)
    star = np.arange(len(spectra)) if star is None else star
    stars = random_state.permutation(np.unique(star[seen]))
    if len(stars) < 3:
        raise ValueError(
            f"A network needs at least 2 stars to train on and 1 to validate, got {len(stars)} "
            f"sample{'s'[: len(stars) != 1]}."
        )
    n = max(round(fraction * len(stars)), min(MIN_HELD_OUT, len(stars) // 4), 1)
    held_out = np.isin(star, stars[: min(n, len(stars) - 2)])
    return np.flatnonzero(seen & ~held_out), np.flatnonzero(seen & held_out)
