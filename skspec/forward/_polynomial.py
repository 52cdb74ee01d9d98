"""Monomials of the labels and their derivatives: the vectorizer of The Cannon."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np

__all__ = ["Monomials"]


class Monomials:
    """A list of products of labels; the first is the constant.

    Parameters
    ----------
    exponents : array-like of int of shape (D, K)
        Power of each label in each term.
    """

    def __init__(self, exponents):
        self.exponents = np.asarray(exponents, dtype=int)
        # the derivative of a monomial is a number times a lower monomial: tabulate which
        n_labels = self.exponents.shape[1]
        lower = self.exponents[None] - np.eye(n_labels, dtype=int)[:, None]
        self._factor = np.where(lower.min(axis=2) >= 0, self.exponents.T, 0).astype(float)
        flat = np.maximum(lower, 0).reshape(-1, n_labels)
        self._lower, index = np.unique(flat, axis=0, return_inverse=True)
        self._index = index.reshape(n_labels, -1)
        self._second = None

    @classmethod
    def of_degree(cls, n_labels: int, degree: int) -> Monomials:
        """All products of up to `degree` labels: 1, x_k, x_k x_m (k <= m), ..."""
        terms = [()]
        for d in range(1, degree + 1):
            terms += combinations_with_replacement(range(n_labels), d)
        return cls([np.bincount(term, minlength=n_labels) for term in map(_as_index, terms)])

    @classmethod
    def of_terms(cls, terms, label_names) -> Monomials:
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
                row[_label_index(label, label_names)] += 1
            if row.any() and not any(np.array_equal(row, known) for known in rows):
                rows.append(row)
        return cls(rows)

    def __len__(self):
        return len(self.exponents)

    def __call__(self, x, derivative=False):
        """Values (m, D) at scaled labels (m, K); with `derivative` also (m, K, D)."""
        values = _products(x, self.exponents)
        if not derivative:
            return values
        lower = _products(x, self._lower)
        return values, lower[:, self._index] * self._factor

    def curvature(self, x, weight):
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

    def names(self, label_names):
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


def _products(x, exponents):
    out = np.ones((len(x), len(exponents)))
    for k, powers in enumerate(exponents.T):
        table = x[:, k, None] ** np.arange(powers.max(initial=0) + 1)
        out *= table[:, powers]
    return out


def _as_index(term):
    return np.array(term, dtype=int)


def _label_index(label, label_names):
    if isinstance(label, str):
        if label not in label_names:
            raise ValueError(f"Term with unknown label {label!r}; there are {list(label_names)}.")
        return label_names.index(label)
    if not 0 <= label < len(label_names):
        raise ValueError(f"Term with label number {label}; there are {len(label_names)} labels.")
    return label
