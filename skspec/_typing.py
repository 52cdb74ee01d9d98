"""What is asked for again and again, under the names that signatures use."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: flux of stars: a `Spectra`, a `SpectraStore`, or an array of shape (n, P); all are array-likes
SpectraLike: TypeAlias = ArrayLike
#: labels of stars: a table of any kind, or an array of shape (n, K) or (n,); masked is missing
Labels: TypeAlias = ArrayLike
#: what `cv` may be besides a number is a `Splitter`, or the splits themselves
CrossValidation: TypeAlias = "int | Splitter | Iterable[tuple[np.ndarray, np.ndarray]]"
RandomState: TypeAlias = int | np.random.RandomState | np.random.Generator
PathLike: TypeAlias = str | os.PathLike[str]
#: a number, or the interval from which it is drawn
Range: TypeAlias = float | tuple[float, float]
#: intervals of the wavelength
Windows: TypeAlias = Sequence[tuple[float, float]]
#: where to draw: one panel, or several
AxesLike: TypeAlias = "Axes | Sequence[Axes] | np.ndarray"


class Splitter(Protocol):
    """What scikit-learn's cross-validation splitters have."""

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterable[Any]: ...

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int: ...
