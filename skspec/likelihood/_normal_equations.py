r"""Normal equations of many stars, and the one elimination that all nuisance parameters go through.

Continuum, errors that pixels share and label errors with velocity free all ask the same: what do the
spectra say of some parameters when others, in which the model is linear, are integrated over,

.. math:: F_{kk} - F_{kf} (F_{ff} + \Lambda)^{-1} F_{fk},

with a prior :math:`N(0, \Lambda^{-1})` of the others: :math:`\Lambda = 0` for coefficients of a
continuum (variable projection), 1 for amplitudes of a low-rank covariance (Woodbury), 0 for parameters
that are marginalised (Schur complement).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = [
    "NormalEquations",
    "inverse_information",
    "marginal_information",
    "own_products",
    "regularized",
    "with_least_information",
]

#: information that rounding alone leaves, as a fraction of what was there
ROUNDING = 1e-12
#: added to every scaled label: one (1000 label scales)^-2
TINY_INFORMATION = 1e-6
MANY_ROWS = 16  # of which BLAS forms one triangle of the products faster than all of them


def own_products(rows) -> np.ndarray:
    """``A A^T`` (n, M, M) of rows (n, M, P).

    The routine that BLAS has for a matrix times itself is several times slower than that for two
    matrices where there are few rows.
    """
    n_rows, columns = rows.shape[1], np.swapaxes(rows, 1, 2)
    if not 1 < n_rows < MANY_ROWS:
        return rows @ columns
    out = np.empty((len(rows), n_rows, n_rows), dtype=rows.dtype)
    np.matmul(rows[:, :-1], columns, out=out[:, :-1])
    last = rows[:, -1]
    out[:, -1, :-1] = out[:, :-1, -1]
    out[:, -1, -1] = (last[:, None] @ last[:, :, None])[:, 0, 0]
    return out


class NormalEquations(NamedTuple):
    """What `n` spectra say of `M` parameters: ``r W r``, ``A W r`` and ``A W A^T``.

    Attributes
    ----------
    chi2 : ndarray of shape (n,)
    score : ndarray of shape (n, M)
        Half the negative derivative of chi2.
    information : ndarray of shape (n, M, M)
    """

    chi2: np.ndarray
    score: np.ndarray
    information: np.ndarray

    @classmethod
    def zeros(cls, n: int, n_parameters: int) -> NormalEquations:
        """Of spectra without pixels."""
        shape = (n, n_parameters, n_parameters)
        return cls(np.zeros(n), np.zeros(shape[:2]), np.zeros(shape))

    @classmethod
    def of(cls, design: np.ndarray, residual: np.ndarray, weight: np.ndarray) -> NormalEquations:
        """Of a design (n, M, P), residuals (n, P) and weights (n, P)."""
        return cls.of_weighted(design, residual, design * weight[:, None], weight * residual)

    @classmethod
    def of_weighted(
        cls,
        design: np.ndarray,
        residual: np.ndarray,
        weighted_design: np.ndarray,
        weighted: np.ndarray,
    ) -> NormalEquations:
        """The same, both also given times their weights."""
        return cls(
            np.einsum("np,np->n", weighted, residual),
            np.einsum("nmp,np->nm", design, weighted),
            weighted_design @ np.swapaxes(design, 1, 2),
        )

    @classmethod
    def of_white(cls, design: np.ndarray, residual: np.ndarray) -> NormalEquations:
        """Of design and residuals in units of the noise.

        Products with the design are formed in its own precision: whitened values fit into single
        precision whatever the units of flux and weights.
        """
        chi2 = np.einsum("np,np->n", residual, residual)
        score = (design @ residual.astype(design.dtype, copy=False)[:, :, None])[..., 0]
        return cls(chi2, score.astype(float), own_products(design).astype(float))

    def __add__(self, other) -> NormalEquations:
        """With other pixels of the same stars."""
        return NormalEquations(*(a + b for a, b in zip(self, other)))

    def __getitem__(self, stars: Any) -> NormalEquations:  # type: ignore[override]  # not by field
        return NormalEquations(*(part[stars] for part in self))

    def add_to(self, stars: Any, other: NormalEquations) -> None:
        """Add other pixels of some stars, in place."""
        for mine, more in zip(self, other):
            mine[stars] += more

    def without(self, cross: np.ndarray, score: np.ndarray, inverse: np.ndarray) -> NormalEquations:
        """With further parameters integrated over.

        Parameters
        ----------
        cross : ndarray of shape (n, M, L)
            ``A W B^T`` of the columns B of those parameters.
        score : ndarray of shape (n, L)
            ``B W r``.
        inverse : ndarray of shape (n, L, L) or (1, L, L)
            Of ``B W B^T`` plus the precision of their prior.
        """
        best = (inverse @ score[..., None])[..., 0]
        return NormalEquations(
            self.chi2 - np.einsum("nl,nl->n", score, best),
            self.score - (cross @ best[..., None])[..., 0],
            self.information - cross @ inverse @ np.swapaxes(cross, 1, 2),
        )

    def linear(self, kept: int, precision: ArrayLike = 0.0) -> np.ndarray:
        """Best values (n, L) of the parameters behind `kept`, of prior ``N(0, 1 / precision)``."""
        inner = _with_precision(self.information[:, kept:, kept:], precision)
        return np.linalg.solve(inner, self.score[:, kept:, None])[..., 0]

    def marginal(self, kept: int, precision: ArrayLike = 0.0) -> NormalEquations:
        """Of the first `kept` parameters, the others integrated over ``N(0, 1 / precision)``."""
        inner = _with_precision(self.information[:, kept:, kept:], precision)
        kept_part = NormalEquations(
            self.chi2, self.score[:, :kept], self.information[:, :kept, :kept]
        )
        cross, score = self.information[:, :kept, kept:], self.score[:, kept:]
        return kept_part.without(cross, score, np.linalg.inv(inner))

    def pulled_back(self, value: np.ndarray, slope: np.ndarray) -> NormalEquations:
        """In `K` other parameters, of which these are functions: `value` (n, M), `slope` (n, K, M)."""
        there = (self.information @ value[..., None])[..., 0]
        return NormalEquations(
            self.chi2 + np.einsum("nm,nm->n", value, there - 2 * self.score),
            (slope @ (self.score - there)[..., None])[..., 0],
            slope @ self.information @ np.swapaxes(slope, 1, 2),
        )


def _with_precision(information, precision):
    """Matrices that can be inverted: with the precision of a prior, or a ridge where it is flat."""
    if np.any(precision):
        size = information.shape[-1]
        return information + np.eye(size) * np.broadcast_to(precision, size)
    return regularized(information)


def regularized(information) -> np.ndarray:
    """Normal matrices (n, L, L) of linear parameters, made regular.

    A parameter that no pixel knows gets the value 0; the ridge of the others is far below rounding of
    what they change.
    """
    diagonal = np.diagonal(information, axis1=1, axis2=2)
    least = ROUNDING * diagonal.max(axis=1, keepdims=True, initial=0.0)
    ridge = np.where(diagonal > least, ROUNDING * diagonal, 1.0)
    return information + ridge[:, :, None] * np.eye(information.shape[-1])


def with_least_information(information, n_labels: int) -> np.ndarray:
    """Information (n, M, M) on scaled labels and other parameters, such that it can be inverted.

    A parameter that the spectrum says nothing about gets a huge but finite error: 1000 of its units,
    however much is known of the others.
    """
    size = information.shape[-1]
    diagonal = np.diagonal(information, axis1=1, axis2=2)
    least = ROUNDING * diagonal.max(axis=1, keepdims=True, initial=0.0)
    known = diagonal > np.maximum(least, TINY_INFORMATION)
    information = np.where(known[:, :, None] & known[:, None, :], information, 0.0)
    ridge = np.where(known, ROUNDING * diagonal, TINY_INFORMATION)
    ridge[:, :n_labels] = TINY_INFORMATION
    return _positive(information + ridge[:, :, None] * np.eye(size))


def _positive(information):
    """Matrices (n, M, M) that rounding may have left with a negative eigenvalue, without it."""
    try:
        np.linalg.cholesky(information)
        return information
    except np.linalg.LinAlgError:
        unit = np.sqrt(np.diagonal(information, axis1=1, axis2=2))
        unit = unit[:, :, None] * unit[:, None, :]
        value, vector = np.linalg.eigh(information / unit)
        fixed = (vector * np.maximum(value, ROUNDING)[:, None]) @ np.swapaxes(vector, 1, 2) * unit
        return np.where(value[:, :1, None] < ROUNDING, fixed, information)


def inverse_information(fisher: np.ndarray) -> np.ndarray:
    """Pseudo-inverse of Fisher matrices (n, M, M), in units in which their diagonal is one.

    Parameters (or combinations of them) that the spectrum says nothing about are left out.
    """
    unit = np.sqrt(np.diagonal(fisher, axis1=1, axis2=2))
    unit = np.where(unit > 0, unit, 1.0)
    unit = unit[:, :, None] * unit[:, None, :]
    return np.linalg.pinv(fisher / unit, rcond=ROUNDING, hermitian=True) / unit


def marginal_information(fisher: ArrayLike, keep: ArrayLike) -> np.ndarray:
    r"""Fisher information of some parameters when all others are free too.

    The Schur complement :math:`F_{kk} - F_{kf} F_{ff}^{-1} F_{fk}` of the free block.

    Parameters
    ----------
    fisher : ndarray of shape (n, M, M)
    keep : sequence of int
        Parameters whose information is asked for.

    Returns
    -------
    ndarray of shape (n, len(keep), len(keep))
        NaN where `fisher` is not finite; 0 for a parameter that the others can imitate.
    """
    fisher = np.asarray(fisher, dtype=float)
    keep = np.asarray(keep)
    free = np.setdiff1d(np.arange(fisher.shape[-1]), keep)
    kept = fisher[:, keep[:, None], keep].copy()
    usable = np.flatnonzero(np.isfinite(fisher).all(axis=(1, 2)))
    if not free.size or not usable.size:
        return kept
    inverse = inverse_information(fisher[usable[:, None, None], free[:, None], free])
    cross = fisher[usable[:, None, None], keep[:, None], free]
    before = np.diagonal(kept[usable], axis1=1, axis2=2)
    zero = np.zeros((len(usable), len(keep)))
    start = NormalEquations(zero[:, 0], zero, kept[usable])
    left = start.without(cross, np.zeros((len(usable), len(free))), inverse).information
    gone = np.diagonal(left, axis1=1, axis2=2) <= 1e2 * ROUNDING * before
    left[gone] = 0.0
    np.swapaxes(left, 1, 2)[gone] = 0.0
    kept[usable] = left
    return kept
