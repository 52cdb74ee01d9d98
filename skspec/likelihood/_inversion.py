"""Likelihood inversion, written once for all models: starts, descent, robust loss, last steps."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

from skspec._short_repr import ShortRepr
from skspec._sklearn import Interval, StrOptions
from skspec.base import DocumentedEstimator
from skspec.likelihood._noise import PixelNoise
from skspec.likelihood._spectrum_model import Batch, Solution

__all__ = ["Descent", "Inversion", "influence", "minimize", "robust_weight"]

MAX_SWEEPS, TOL_SWEEP = 50, 1e-6  # of a robust loss; squared step in sigma between two of them


class Inversion(DocumentedEstimator):
    """How a forward model is inverted: options of the search for the labels of each star.

    Parameters
    ----------
    loss : {"linear", "soft_l1", "huber"}, default="linear"
        Loss of the squared residuals in units of sigma; the latter two give outlying pixels less
        weight.
    n_init : int, default=4
        Starts of the search: the best training labels that lie well apart.
    max_iter : int, default=50
        Levenberg-Marquardt steps at most.
    tol : float, default=1e-8
        Squared length of a step, in formal sigma, below which a star has converged.
    correlation_length : int, default=0
        Pixels over which the noise of a spectrum may be correlated, as resampling leaves it: formal
        errors then count the autocorrelation of each star's own residuals (Newey & West 1987,
        Econometrica 55, 703). 0: pixels are independent.
    clean_rounds : int, default=3
        Times at most that `clean_training` removes stars and fits again.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skspec.forward import TheCannon
    >>> from skspec.likelihood import Inversion
    >>> model = TheCannon(inversion=Inversion(loss="huber"))
    >>> search = GridSearchCV(model, {"inversion__loss": ["linear", "soft_l1"]})
    """

    _parameter_constraints: dict = {
        "loss": [StrOptions({"linear", "soft_l1", "huber"})],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "correlation_length": [Interval(Integral, 0, None, closed="left")],
        "clean_rounds": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        loss: str = "linear",
        *,
        n_init: int = 4,
        max_iter: int = 50,
        tol: float = 1e-8,
        correlation_length: int = 0,
        clean_rounds: int = 3,
    ):
        self.loss = loss
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.correlation_length = correlation_length
        self.clean_rounds = clean_rounds


@dataclass
class Descent(ShortRepr):
    """Where a descent has ended, of `n` stars and their nonlinear parameters.

    Attributes
    ----------
    p : ndarray of shape (n, M)
    chi2 : ndarray of shape (n,)
    information : ndarray of shape (n, M, M)
    converged : ndarray of bool of shape (n,)
    n_iter : ndarray of int of shape (n,)
    """

    p: np.ndarray
    chi2: np.ndarray
    information: np.ndarray
    converged: np.ndarray
    n_iter: np.ndarray

    def put(self, stars, other: Descent) -> None:
        """Some stars have gone further."""
        self.p[stars], self.chi2[stars] = other.p, other.chi2
        self.information[stars], self.converged[stars] = other.information, other.converged
        self.n_iter[stars] += other.n_iter


def minimize(batch: Batch, options: Inversion) -> Solution:
    """Parameters that minimise chi2, for a batch of stars.

    Parameters
    ----------
    batch : Batch
        Of a :class:`SpectrumModel`.
    options : Inversion

    Returns
    -------
    Solution
    """
    p, n_iter = batch.start(options)
    found = batch.descend(p, options)
    found.n_iter += n_iter
    noise = batch.noise
    if options.loss != "linear":
        batch = _reweighted(batch, found, options)
    return batch.finish(found, options, noise)


def _reweighted(batch, found: Descent, options: Inversion):
    """Iteratively reweighted least squares, each star until it moves no more.

    Updates `found`, and returns the stars with the noise of the last weights.
    """
    noise: PixelNoise = batch.noise
    rows, some, current = np.arange(len(noise)), batch, batch
    weight = noise.weight.copy()
    for _ in range(MAX_SWEEPS):
        residual = current.residual(found.p[rows])
        robust = robust_weight(some.noise.weight, residual, options.loss)
        current = some.with_noise(some.noise.with_weight(robust))
        new = current.descend(found.p[rows], options)
        step = new.p - found.p[rows]
        found.put(rows, new)
        moved = np.einsum("nk,nkl,nl->n", step, new.information, step)  # squared, in sigma
        going = moved > TOL_SWEEP
        weight[rows[~going]] = robust[~going]
        if not going.all():
            rows = rows[going]
            if not rows.size:
                break
            some, kept = some[going], current.noise[going]
            current = some.with_noise(kept)
    weight[rows] = current.noise.weight[: len(rows)]
    found.converged[rows] = False
    return batch.with_noise(noise.with_weight(weight))


def robust_weight(weight: np.ndarray, residual: np.ndarray, loss: str) -> np.ndarray:
    """Inverse variances with which least squares do what a loss of these residuals does."""
    # garbage in a bad pixel must not overflow
    return weight * influence((residual * np.sqrt(weight)) ** 2, loss)


def influence(z2: np.ndarray, loss: str) -> np.ndarray:
    """Derivative of the loss with respect to the squared residual in units of sigma."""
    if loss == "linear":
        return np.ones_like(z2)
    root = np.sqrt(1.0 + z2) if loss == "soft_l1" else np.maximum(np.sqrt(z2), 1.0)
    return np.divide(1.0, root, out=root)
