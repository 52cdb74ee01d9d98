r"""Regression with errors in both variables, intrinsic scatter and outliers.

.. math:: y_i = L t_i + M \phi(t_i) + N(0, V + S^y_i), \qquad x_i = t_i + N(0, S^x_i), \qquad
          t_i \sim N(\mu, T),

with known `L`, known error covariances and :math:`\phi` the monomials up to second degree. A fit that
takes `x` for `t` finds slopes too flat by :math:`T (T + S^x)^{-1}`; one that lets every `t` be anything
finds them biased too. With the population :math:`N(\mu, T)` of the true values, found from the `x`,

.. math:: t_i \,|\, x_i \sim N(\hat t_i, C_i), \qquad
          y_i \,|\, x_i \sim N(L \hat t_i + M\, E[\phi(t_i)],\; J C_i J^T + V + S^y_i),

of which `M` is the generalised least-squares solution and `V` that of restricted maximum likelihood
(Fuller 1987, *Measurement Error Models*; Kelly 2007, ApJ 665, 1489; Bartlett & Desmond 2023,
arXiv:2309.00948). For quadratic :math:`\phi` the covariance is to first order in :math:`C_i`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2, norm

__all__ = ["Relation", "fit_errors_in_variables", "monomials"]

TINY = 1e-12  # least intrinsic variance, in units of the scaled variables
HEAVY = 4.0  # degrees of freedom of the Student distribution that the first fit assumes
MAX_CLIPS = 10
STEP = 0.1  # of the error of the population, for derivatives with respect to it


@dataclass(frozen=True)
class Relation:
    """What :func:`fit_errors_in_variables` finds.

    Attributes
    ----------
    coef : ndarray of shape (K, q)
        `M`; 0 where not free.
    coef_cov : ndarray of shape (K, q, K, q)
        Covariance of its errors, those from an uncertain population included.
    scatter_cov : ndarray of shape (K, K)
        `V`.
    mean, spread : ndarray of shape (D,), (D, D)
        Of the population of true `x`.
    distance2 : ndarray of shape (n,)
        Squared Mahalanobis distance of every star from the relation.
    kept : ndarray of bool of shape (n,)
        False for stars that were clipped.
    """

    coef: np.ndarray
    coef_cov: np.ndarray
    scatter_cov: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    distance2: np.ndarray
    kept: np.ndarray


def monomials(
    t: np.ndarray, degree: int, cov: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    r"""Monomials up to a degree and their derivative; expected ones with `cov`.

    Parameters
    ----------
    t : ndarray of shape (n, D)
    degree : {0, 1, 2}
    cov : ndarray of shape (n, D, D), optional
        Uncertainty of `t`: then :math:`E[t_a t_b] = t_a t_b + C_{ab}`.

    Returns
    -------
    phi : ndarray of shape (n, q)
        1, t, and the products of two in the order of ``numpy.triu_indices(D)``.
    derivative : ndarray of shape (n, q, D)
    """
    n, d = t.shape
    phi, slope = [np.ones((n, 1))], [np.zeros((n, 1, d))]
    if degree >= 1:
        phi.append(t)
        slope.append(np.broadcast_to(np.eye(d), (n, d, d)))
    if degree == 2:
        a, b = np.triu_indices(d)
        phi.append(t[:, a] * t[:, b] + (0.0 if cov is None else cov[:, a, b]))
        unit = np.eye(d)
        slope.append(t[:, a, None] * unit[b] + t[:, b, None] * unit[a])
    return np.concatenate(phi, axis=1), np.concatenate(slope, axis=1)


def fit_errors_in_variables(
    x: np.ndarray,
    y: np.ndarray,
    cov_x: np.ndarray,
    cov_y: np.ndarray,
    *,
    degree: int = 1,
    known: np.ndarray | None = None,
    free: np.ndarray | None = None,
    prior: float = 1.0,
    clip: float | None = 4.0,
    max_iter: int = 100,
    tol: float = 1e-4,
) -> Relation:
    """Fit the relation of the module's head to variables scaled to order one.

    Parameters
    ----------
    x, y : ndarray of shape (n, D), (n, K)
    cov_x, cov_y : ndarray of shape (n, D, D), (n, K, K)
        Covariances of their errors.
    degree : {0, 1, 2}
    known : ndarray of shape (K, D), optional
        `L`; default 0.
    free : ndarray of bool of shape (K, q), optional
        Coefficients that are fitted; default all.
    prior : float
        Standard deviation of the coefficients but the first, which are expected at 0: nothing beside
        a hundred stars, and what keeps a fit to a few of them in bounds.
    clip : float or None
        Stars beyond so many sigma (of a Gaussian of one dimension with the same tail) are left out,
        starting from a fit with Student's errors, until no star changes sides.
    max_iter : int
        Of the intrinsic scatter.
    tol : float
        Relative change of the intrinsic variances that ends the iteration.

    Returns
    -------
    Relation

    Examples
    --------
    >>> import numpy as np
    >>> from skspec.solvers.linear.errors_in_variables import fit_errors_in_variables
    >>> rng = np.random.default_rng(0)
    >>> t = rng.normal(size=(2000, 1))
    >>> x, y = t + 0.5 * rng.normal(size=t.shape), 2 * t + 0.3 * rng.normal(size=t.shape)
    >>> errors = np.full((2000, 1, 1), 0.25)
    >>> fit_errors_in_variables(x, y, errors, 0 * errors).coef.round(1)   # x for t: a slope of 1.6
    array([[0., 2.]])
    """
    n, K = y.shape
    q = monomials(x[:1], degree)[0].shape[1]
    known = np.zeros((K, x.shape[1])) if known is None else known
    free = np.ones((K, q), dtype=bool) if free is None else free
    data = _Data(x, y, cov_x, cov_y, degree, known, free, prior)
    fit = _iterate(data, _population(x, cov_x), max_iter, tol, heavy=clip is not None)
    kept = np.ones(n, dtype=bool)
    limit = np.inf if clip is None else chi2.isf(2 * norm.sf(clip), K)
    for _ in range(MAX_CLIPS):
        before, kept = kept, data.distance2(fit) <= limit
        if 2 * kept.sum() < n:
            kept = before  # nothing that deserves to be called a relation: clip no further
        part = data.take(kept)
        fit = _iterate(part, _population(part.x, part.cov_x), max_iter, tol, start=fit)
        if np.array_equal(kept, before):
            break
    coef, cov, scatter, (mean, spread) = fit
    cov = cov + _population_error(part, fit)
    full = np.zeros((K * q, K * q))
    full[np.ix_(free.ravel(), free.ravel())] = cov
    coef_cov = full.reshape(K, q, K, q)
    return Relation(coef, coef_cov, scatter, mean, spread, data.distance2(fit), kept)


@dataclass(frozen=True)
class _Data:
    x: np.ndarray
    y: np.ndarray
    cov_x: np.ndarray
    cov_y: np.ndarray
    degree: int
    known: np.ndarray
    free: np.ndarray
    prior: float

    def take(self, rows):
        parts = (values[rows] for values in (self.x, self.y, self.cov_x, self.cov_y))
        return _Data(*parts, self.degree, self.known, self.free, self.prior)

    def true(self, population):
        """Mean (n, D) and covariance (n, D, D) of the true values behind each `x`."""
        return _true_values(self.x, self.cov_x, *population)

    def distance2(self, fit):
        coef, _, scatter, population = fit
        t, C = self.true(population)
        weight, residual = self._weight_and_residual(t, C, coef, scatter)
        return np.einsum("nk,nkl,nl->n", residual, weight, residual)

    def _weight_and_residual(self, t, C, coef, scatter):
        phi, slope = monomials(t, self.degree, C)
        J = self.known + coef @ slope
        variance = J @ C @ np.swapaxes(J, 1, 2) + scatter + self.cov_y
        return np.linalg.inv(variance), self.y - t @ self.known.T - phi @ coef.T

    def solve(self, t, C, coef, scatter, star_weight=1.0):
        """Generalised least squares: coefficients, their covariance (of the free ones)."""
        weight, _ = self._weight_and_residual(t, C, coef, scatter)
        weight = weight * star_weight
        phi, _ = monomials(t, self.degree, C)
        size, free = self.free.size, self.free.ravel()
        pairs = (phi[:, :, None] * phi[:, None, :]).reshape(len(phi), -1)
        K, q = self.free.shape
        left = (weight.reshape(len(phi), -1).T @ pairs).reshape(K, K, q, q)
        left = left.transpose(0, 2, 1, 3).reshape(size, size)
        left += np.diag(np.tile((np.arange(q) > 0) / self.prior**2, K))
        target = self.y - t @ self.known.T
        right = (np.einsum("nkl,nl->nk", weight, target).T @ phi).ravel()
        cov = _inverse(left[np.ix_(free, free)])
        coef = np.zeros(self.free.shape)
        coef[self.free] = cov @ right[free]
        return coef, cov


def _iterate(data, population, max_iter, tol, heavy=False, start=None):
    """Coefficients and intrinsic scatter in turn; `heavy`: with Student's errors instead."""
    t, C = data.true(population)
    K, q = data.free.shape
    if start is None:
        coef, scatter = np.zeros((K, q)), np.diag(_square_scale(data.y - t @ data.known.T))
    else:
        coef, _, scatter, _ = start
    star_weight, full = 1.0, np.zeros((K * q, K * q))
    rows = np.ix_(*(np.flatnonzero(data.free),) * 2)
    phi, _ = monomials(t, data.degree, C)
    for _ in range(max_iter):
        coef, full[rows] = data.solve(t, C, coef, scatter, star_weight)
        weight, residual = data._weight_and_residual(t, C, coef, scatter)
        if heavy:
            distance2 = np.einsum("nk,nkl,nl->n", residual, weight, residual)
            star_weight = ((HEAVY + K) / (HEAVY + distance2))[:, None, None]
        # restricted likelihood: what the coefficients took from the residuals is given back
        half = np.tensordot(phi, full.reshape(K, q, K, q), (1, 1))  # (n, K, K, q)
        taken = np.einsum("nklr,nr->nkl", half, phi)
        square = residual[:, :, None] * residual[:, None, :] + taken
        before, scatter = scatter, _scoring(scatter, weight, square * star_weight)
        if np.abs(scatter - before).max() < tol * np.diag(scatter).max():
            break
    return coef, full[rows], scatter, population


def _square_scale(values):
    """Squared robust scale of each column, or the variance where that is 0."""
    scale = 1.4826 * np.median(np.abs(values - np.median(values, axis=0)), axis=0)
    return np.maximum(np.where(scale > 0, scale**2, values.var(axis=0)), TINY)


def _symmetric_basis(d):
    """Matrices (p, d, d) of which the symmetric ones are made."""
    a, b = np.triu_indices(d)
    basis = np.zeros((len(a), d, d))
    basis[np.arange(len(a)), a, b] = basis[np.arange(len(a)), b, a] = 1.0
    return basis


def _score_and_information(weight, square, basis):
    """Of a covariance that the residuals share: (n, p) and (p, p).

    `weight` (n, d, d) are the inverse total covariances, `square` (n, d, d) the residuals times
    themselves.
    """
    pull = weight @ square @ weight - weight
    score = 0.5 * np.tensordot(pull, basis, ((1, 2), (1, 2)))
    half = (weight[:, None] @ basis).reshape(len(weight), len(basis), -1)
    other = (basis @ weight[:, None]).reshape(half.shape)  # transposed: a sum for the trace
    return score, 0.5 * np.tensordot(half, other, ((0, 2), (0, 2)))


def _scoring(covariance, weight, square):
    """One step of Fisher scoring towards the most likely covariance, which stays one."""
    basis = _symmetric_basis(len(covariance))
    score, information = _score_and_information(weight, square, basis)
    step = _inverse(information) @ score.sum(axis=0)
    return _positive(covariance + np.tensordot(step, basis, 1))


def _inverse(matrix):
    """Of a positive matrix whose rows may differ in unit."""
    unit = 1 / np.sqrt(np.diag(matrix))
    return np.linalg.inv(matrix * unit[:, None] * unit) * unit[:, None] * unit


def _positive(matrix):
    value, vector = np.linalg.eigh(matrix)
    return (vector * np.maximum(value, TINY)) @ vector.T


# -- the population of true values -----------------------------------------------------------------


def _population(x, cov_x, max_iter=100, tol=1e-6):
    """Mean and covariance of the true values, by maximum likelihood."""
    mean, spread = x.mean(axis=0), np.atleast_2d(np.cov(x, rowvar=False, bias=True))
    if not cov_x.any():
        return mean, spread
    for _ in range(max_iter):
        weight = np.linalg.inv(spread + cov_x + TINY * np.eye(len(mean)))
        mean = np.linalg.solve(weight.sum(axis=0), np.einsum("nde,ne->d", weight, x))
        off, before = x - mean, spread
        spread = _scoring(spread, weight, off[:, :, None] * off[:, None, :])
        if np.abs(spread - before).max() < tol * np.diag(before).max():
            break
    return mean, spread


def _true_values(x, cov_x, mean, spread):
    if not cov_x.any():
        return x, cov_x
    total = spread + cov_x
    total = total + TINY * np.eye(len(mean))  # a label that is constant and exact
    gain = np.swapaxes(np.linalg.solve(total, np.broadcast_to(spread, total.shape)), 1, 2)
    C = spread - gain @ spread
    t = mean + np.einsum("nde,ne->nd", gain, x - mean)
    return t, 0.5 * (C + np.swapaxes(C, 1, 2))


def _population_error(data, fit):
    r"""What the error of :math:`\mu, T` adds to the covariance of the free coefficients.

    Given the `x`, the coefficients err by the `y`; the population errs by the `x` alone, so that
    the two parts add up.
    """
    coef, cov, scatter, (mean, spread) = fit
    if not data.cov_x.any():
        return np.zeros_like(cov)
    d = len(mean)
    basis = _symmetric_basis(d)
    error = _population_covariance(data, mean, spread, basis)
    value, vector = np.linalg.eigh(error)
    value = np.sqrt(np.maximum(value, 0.0))
    change = np.zeros((len(value), len(cov)))
    for k, (size, direction) in enumerate(zip(value, vector.T)):
        if size == 0:
            continue
        ends = []
        for sign in (STEP, -STEP):
            move = sign * size * direction
            moved = mean + move[:d], _positive(spread + np.tensordot(move[d:], basis, 1))
            ends.append(data.solve(*data.true(moved), coef, scatter)[0][data.free])
        change[k] = (ends[0] - ends[1]) / (2 * STEP)
    return change.T @ change


def _population_covariance(data, mean, spread, basis):
    """Covariance of mean and spread, without assuming that the population is Gaussian."""
    weight = np.linalg.inv(spread + data.cov_x + TINY * np.eye(len(mean)))
    pull = np.einsum("nde,ne->nd", weight, data.x - mean)
    off = data.x - mean
    score, curvature = _score_and_information(weight, off[:, :, None] * off[:, None, :], basis)
    score = np.concatenate([pull, score], axis=1)
    d = len(mean)
    information = np.zeros((score.shape[1],) * 2)
    information[:d, :d], information[d:, d:] = weight.sum(axis=0), curvature
    inverse = _inverse(information)
    return inverse @ (score.T @ score) @ inverse
