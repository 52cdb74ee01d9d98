"""Weights that let every target, and every class of stars, count alike."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["balancing_weights", "codes"]


def balancing_weights(
    target: ArrayLike | None = None, group: ArrayLike | None = None, *, cap: float | None = 10.0
) -> np.ndarray:
    r"""Weights of spectra that balance targets and classes.

    Archives hold thousands of spectra of a few stars, and few spectra of rare kinds. With :math:`n_{tc}`
    spectra of target `t` in class `c`, and :math:`T_c` targets in that class,

    .. math:: w_i \propto \frac{1}{n_{t_i c_i}\,T_{c_i}} :

    a target counts once in its class, however often it was observed, and all classes count alike. With
    targets alone, :math:`w_i \propto 1 / n_{t_i}`; with classes alone, :math:`w_i \propto 1 / n_{c_i}`.
    No weight exceeds `cap` times the mean, so that a few spectra of rare kinds, with their noise, do not
    outweigh all others.

    Parameters
    ----------
    target : array-like of shape (n,), optional
        Star of each spectrum: names or numbers. A spectrum whose target is missing (None, NaN or an
        empty string) is a target of its own.
    group : array-like of shape (n,), optional
        Class of each spectrum, such as its spectral type or survey. A target of a missing class counts
        as much as the average target of known class.
    cap : float or None
        Largest weight, in units of the mean. 1 makes all alike, None leaves them as they are.

    Returns
    -------
    ndarray of shape (n,)
        With a mean of 1. They go into ``spectra.meta["weight"]``.

    Raises
    ------
    ValueError
        Without target and group, when these differ in length, or on a `cap` below 1.

    References
    ----------
    Sedaghat et al. 2021, MNRAS 501, 6026: their findings hold for some choices of weights, not for all.
    Compare the latents with and without.

    Examples
    --------
    >>> from skspec.latent import balancing_weights
    >>> balancing_weights(["Sun", "Sun", "Sun", "Vega"])
    array([0.66666667, 0.66666667, 0.66666667, 2.        ])
    >>> balancing_weights(["Sun", "Sun", "Arcturus", "Vega"], ["cool", "cool", "cool", "hot"])
    array([0.5, 0.5, 1. , 2. ])
    """
    if cap is not None and not (isinstance(cap, Real) and cap >= 1):
        raise ValueError(f"cap must be a number of at least 1, or None, got {cap!r}.")
    target, group = _matched(target, group)
    n_pairs = pd.Series(target).groupby([target, group]).transform("size").to_numpy()
    once = 1.0 / n_pairs
    n_targets = np.bincount(group + 1, weights=once)  # the first is that of missing classes
    known = n_targets[1:] > 0
    missing = n_targets[1:].sum() / max(known.sum(), 1)
    share = np.concatenate([[missing or 1.0], np.where(known, n_targets[1:], 1.0)])
    weight = once / share[group + 1]
    weight = _capped(weight, cap) if cap is not None else weight
    return weight / weight.mean()


def _matched(target, group):
    """Codes of target and class of every spectrum; a class that is missing is -1."""
    if target is None and group is None:
        raise ValueError("Give the target of each spectrum, its class (group), or both.")
    n = len(target if group is None else group)
    target = np.arange(n) if target is None else codes(target)
    group = np.zeros(n, dtype=int) if group is None else codes(group)
    if len(target) != len(group):
        raise ValueError(
            f"{len(target)} targets for {len(group)} classes; give one of each a spectrum."
        )
    alone = target < 0
    return np.where(alone, len(target) + np.arange(len(target)), target), group


def codes(values) -> np.ndarray:
    """Number of the class of each value (n,); -1 where it is missing: None, NaN or empty."""
    values = pd.Series(np.asarray(values) if not isinstance(values, pd.Series) else values)
    if values.dtype == object or isinstance(values.dtype, pd.StringDtype):
        values = values.where(values != "", None)
    return pd.factorize(values, sort=False, use_na_sentinel=True)[0]


def _capped(weight, cap):
    """The weights, none above `cap` times their mean.

    With the `m` largest cut at `c`, ``c = cap (rest + m c) / n``: the least `m` for which no other is
    above `c`.
    """
    n, falling = len(weight), np.sort(weight)[::-1]
    m = np.arange(min(n, int(np.ceil(n / cap))))  # if n / cap of them are cut, all are alike
    rest = falling.sum() - np.concatenate([[0.0], np.cumsum(falling)])[m]
    level = cap * rest / (n - cap * m)
    enough = falling[m] <= level * (1 + 1e-12)
    return np.minimum(weight, level[np.argmax(enough)] if enough.any() else falling[-1])
