"""Folds that keep the spectra of a star together.

Which star a spectrum belongs to is said in ``X.meta`` (``star_id``, or ``group_id``); every method
that cross-validates asks :func:`star_groups` and takes its folds from :func:`check_cv`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn import model_selection
from sklearn.model_selection import GroupKFold, GroupShuffleSplit, KFold, ShuffleSplit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from skspec._typing import CrossValidation, RandomState, SpectraLike, Splitter

__all__ = ["GroupCheckedCV", "check_cv", "star_groups", "star_splits"]


def star_groups(X: SpectraLike, groups: ArrayLike | None = None) -> np.ndarray | None:
    """Star that each spectrum belongs to: `groups`, else ``group_id`` or ``star_id`` in ``X.meta``.

    Parameters
    ----------
    X : Spectra or array-like of shape (n, P)
    groups : array-like of shape (n,), optional

    Returns
    -------
    ndarray of int of shape (n,), or None
        None when nothing is known, so that every spectrum is a star of its own.

    Raises
    ------
    ValueError
        When there is not one group per spectrum.
    """
    if groups is None:
        meta = getattr(X, "meta", {})
        groups = next((meta[key] for key in ("group_id", "star_id") if key in meta), None)
    if groups is None:
        return None
    groups = np.asarray(groups)
    n_spectra = len(X)  # type: ignore[arg-type]  # an ArrayLike may be a number
    if groups.shape != (n_spectra,):
        raise ValueError(
            f"groups of shape {groups.shape} for {n_spectra} spectra; give the star of each spectrum."
        )
    return np.unique(groups, return_inverse=True)[1]


def check_cv(
    cv: CrossValidation | None,
    max_splits: int,
    groups: ArrayLike | None = None,
    *,
    shuffle: bool = False,
) -> Splitter:
    """Cross-validation splitter of the parameter `cv`, as scikit-learn's, by star.

    Parameters
    ----------
    cv : int, None, splitter or iterable of (train, test)
        None: 5 folds.
    max_splits : int
        A number of folds is no larger than this (nor than the number of stars).
    groups : array-like of shape (n,), optional
        Star of each spectrum: a number of folds keeps each star on one side, and a splitter warns
        when it does not.
    shuffle : bool
        Of a number of folds: shuffled, with a fixed seed.

    Returns
    -------
    splitter

    Raises
    ------
    ValueError
        When all spectra are of one star.
    """
    cv = 5 if cv is None else cv
    if not isinstance(cv, Integral):
        splitter = model_selection.check_cv(cv)
        return splitter if groups is None else GroupCheckedCV(splitter, groups)
    order = {"shuffle": True, "random_state": 0} if shuffle else {}
    if groups is None:
        return KFold(min(cv, max_splits), **order)
    n_groups = len(np.unique(groups))
    if n_groups < 2:
        raise ValueError("All spectra are of one star (star_id): folds need at least 2 stars.")
    return GroupKFold(min(cv, max_splits, n_groups), **order)


class GroupCheckedCV:
    """A splitter of the caller's that warns when spectra of one star are on both sides of a fold.

    Parameters
    ----------
    cv : splitter
    groups : array-like of shape (n,)
        Star of each spectrum.
    """

    def __init__(self, cv: Splitter, groups: ArrayLike):
        self.cv, self.groups = cv, np.asarray(groups)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Number of folds."""
        return self.cv.get_n_splits(X, y, self.groups)

    def split(
        self, X: Any, y: Any = None, groups: Any = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Train and test rows of each fold."""
        with warnings.catch_warnings():  # whether stars are torn apart matters, not how
            warnings.filterwarnings("ignore", "The groups parameter is ignored")
            folds = list(self.cv.split(X, y, self.groups))
        both = [len(np.intersect1d(self.groups[fit], self.groups[out])) for fit, out in folds]
        if any(both):
            warnings.warn(
                f"cv={self.cv} puts spectra of {max(both)} stars (star_id) on both sides of a fold: "
                "errors out of fold are then too small. GroupKFold, or a number, keeps them apart.",
                stacklevel=2,
            )
        return iter(folds)


def star_splits(
    n_stars: int,
    test_size: float = 0.2,
    cv: CrossValidation | None = None,
    groups: ArrayLike | None = None,
    random_state: RandomState | None = 0,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Train and test rows, by star: ``[(train, test), ...]``.

    Parameters
    ----------
    n_stars : int
        Number of spectra.
    test_size : float or int
        Used without `cv`: one split.
    cv : int or splitter, optional
        Folds.
    groups : array-like of shape (n_stars,), optional
        Star of each spectrum.
    random_state : int, RandomState instance or None
        Of the shuffle.
    """
    if cv is None:
        kind = ShuffleSplit if groups is None else GroupShuffleSplit
        cv = kind(n_splits=1, test_size=test_size, random_state=random_state)
    elif isinstance(cv, (int, np.integer)):
        kind = KFold if groups is None else GroupKFold
        cv = kind(n_splits=int(cv), shuffle=True, random_state=random_state)
    return [
        (np.asarray(train), np.asarray(test))
        for train, test in check_cv(cv, n_stars, groups).split(
            np.zeros((n_stars, 1)), groups=groups
        )
    ]
