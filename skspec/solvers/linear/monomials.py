"""Monomials of the labels and their derivatives: the vectorizer of The Cannon."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["LogMonomials", "Monomials", "label_index"]

LEAST_RATIO = 0.01  # of a label to its pivot: its logarithm goes no lower


class Monomials:
    """A list of products of labels; the first is the constant.

    Parameters
    ----------
    exponents : array-like of int of shape (D, K)
        Power of each label in each term.
    """

    def __init__(self, exponents: ArrayLike):
        self.exponents = np.asarray(exponents, dtype=int)
        # the derivative of a monomial is a number times a lower monomial: tabulate which
        n_labels = self.exponents.shape[1]
        lower = self.exponents[None] - np.eye(n_labels, dtype=int)[:, None]
        self._factor = np.where(lower.min(axis=2) >= 0, self.exponents.T, 0).astype(float)
        flat = np.maximum(lower, 0).reshape(-1, n_labels)
        self._lower, index = np.unique(flat, axis=0, return_inverse=True)
        self._index = index.reshape(n_labels, -1)
        self._second: Monomials | None = None

    @classmethod
    def of_degree(cls, n_labels: int, degree: int) -> Monomials:
        """All products of up to `degree` labels: 1, x_k, x_k x_m (k <= m), ..."""
        terms = [()]
        for d in range(1, degree + 1):
            terms += combinations_with_replacement(range(n_labels), d)
        return cls([np.bincount(term, minlength=n_labels) for term in map(_as_index, terms)])

    @classmethod
    def of_terms(
        cls, terms: Iterable[str | int | tuple[str | int, ...]], label_names: Sequence[str]
    ) -> Monomials:
        """The constant and the given terms, each a tuple of label names or indices.

        Raises
        ------
        ValueError
            For an unknown label.
        """
        rows = [np.zeros(len(label_names), dtype=int)]
        for term in terms:
            labels = (term,) if isinstance(term, (str, int)) else tuple(term)
            row = np.zeros(len(label_names), dtype=int)
            for label in labels:
                row[label_index(label, label_names)] += 1
            if row.any() and not any(np.array_equal(row, known) for known in rows):
                rows.append(row)
        return cls(rows)

    def __len__(self) -> int:
        return len(self.exponents)

    def __call__(
        self, x: np.ndarray, derivative: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Values (m, D) at scaled labels (m, K); with `derivative` also (m, K, D)."""
        values = _products(x, self.exponents)
        if not derivative:
            return values
        lower = _products(x, self._lower)
        return values, lower[:, self._index] * self._factor

    def curvature(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """``sum_d weight_d v_d''`` at scaled labels (m, K) for weights (m, D): (m, K, K)."""
        if self._second is None:
            self._second = Monomials(self._lower)
        _, slope = self._second(x, derivative=True)  # of the lower monomials, (m, K, D_lower)
        m, n_labels = x.shape
        out = np.empty((m, n_labels, n_labels))
        for k in range(n_labels):
            out[:, k] = np.einsum(
                "mkd,md->mk", slope[:, :, self._index[k]], weight * self._factor[k]
            )
        return out

    def names(self, label_names: Sequence[str]) -> list[str]:
        """Readable names of the terms, such as ``teff*logg`` and ``feh^2``."""
        out = []
        for row in self.exponents:
            parts = [
                name if power == 1 else f"{name}^{power}"
                for name, power in zip(label_names, row)
                if power
            ]
            out.append("*".join(parts) or "1")
        return out


class LogMonomials:
    r"""Monomials in which some labels enter by their logarithm.

    :math:`t_k = a_k \ln(1 + x_k / a_k)`, with the pivot `a` of the label in units of its scale, equals
    :math:`x_k` and has slope 1 at the pivot.

    Parameters
    ----------
    monomials : Monomials
    logarithmic : ndarray of bool of shape (K,)
    pivot : ndarray of shape (K,)
        Pivot over scale of each label; positive where `logarithmic`.
    """

    def __init__(self, monomials: Monomials, logarithmic: np.ndarray, pivot: np.ndarray):
        self.monomials, self.exponents = monomials, monomials.exponents
        self._which, self._pivot = np.flatnonzero(logarithmic), pivot[logarithmic]

    def __len__(self) -> int:
        return len(self.monomials)

    def names(self, label_names: Sequence[str]) -> list[str]:
        names = list(label_names)
        for k in self._which:
            names[k] = f"log({names[k]})"
        return self.monomials.names(names)

    def _transform(self, x):
        """Labels of which some are logarithms, with first and second derivative of those."""
        t, a = x.copy(), self._pivot
        ratio = np.maximum(1 + x[:, self._which] / a, LEAST_RATIO)
        t[:, self._which] = a * np.log(ratio)
        return t, 1 / ratio, -1 / (a * ratio**2)

    def __call__(
        self, x: np.ndarray, derivative: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        t, first, _ = self._transform(x)
        if not derivative:
            return self.monomials(t)
        values, slope = self.monomials(t, derivative=True)
        slope[:, self._which] *= first[:, :, None]
        return values, slope

    def curvature(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        t, first, second = self._transform(x)
        unit = np.ones_like(t)
        unit[:, self._which] = first
        out = self.monomials.curvature(t, weight) * (unit[:, :, None] * unit[:, None, :])
        _, slope = self.monomials(t, derivative=True)
        pull = np.einsum("mkd,md->mk", slope[:, self._which], weight)
        out[:, self._which, self._which] += second * pull
        return out


def _products(x, exponents):
    out = np.ones((len(x), len(exponents)))
    for k, powers in enumerate(exponents.T):
        table = x[:, k, None] ** np.arange(powers.max(initial=0) + 1)
        out *= table[:, powers]
    return out


def _as_index(term):
    return np.array(term, dtype=int)


def label_index(label: str | int, label_names: Sequence[str]) -> int:
    """Number of a label given by name or number."""
    if isinstance(label, str):
        if label not in label_names:
            raise ValueError(f"Term with unknown label {label!r}; there are {list(label_names)}.")
        return label_names.index(label)
    if not 0 <= label < len(label_names):
        raise ValueError(f"Term with label number {label}; there are {len(label_names)} labels.")
    return label
