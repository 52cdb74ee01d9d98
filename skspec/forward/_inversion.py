r"""Likelihood inversion of forward models, written once: labels of all stars at the same time.

Every model here is linear in features of the labels, :math:`f(x) = \phi(x) W` with `q` features and
`P` pixels. With weights :math:`w` the objective of one star,

.. math:: \chi^2(x) = \sum_j w_j (y_j - f_j(x))^2
          = \sum_j w_j y_j^2 - 2\, b\cdot\psi(x) + \psi(x)^T G\, \psi(x),

needs the pixels once, in :math:`b = V(w \circ y)` and :math:`G = V \mathrm{diag}(w) V^T`; no
iteration touches them again. :math:`\psi = \phi A` are the features themselves when they are few.
Kernel models have as many features as training stars, but their spectra fill a small subspace: there
`V` holds its principal components, enough of them that nothing is lost. `G` costs the square of their
number for each star unless all stars share one pattern of weights; where they do not, a few components
lead near the minimum and Gauss-Newton steps with all of them finish.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np

from skspec.solvers.linear.coherent_errors import CoherentErrors
from skspec.solvers.linear.levenberg_marquardt import levenberg_marquardt
from skspec.solvers.linear.weighted_gram import weighted_gram
from skspec.solvers.spectra.correlated_noise import correlated_information

__all__ = [
    "FluxBasis",
    "FluxModel",
    "LabelFit",
    "batch_rows",
    "compress",
    "influence",
    "minimise",
    "one_product",
    "spread_rows",
]

MAX_LOSSLESS = 40  # up to this many features the compression would cost more than it saves
SWEEPS, STILL = 50, 1e-6  # of a robust loss: at most so many, until no step is longer (sigma^2)
RACE = 6  # steps from every start before only the best goes on
BATCH_BYTES = 2**26  # working memory of one array of one batch of stars
#: information added to every scaled label: one (1000 label scales)^-2, so that a label the spectrum
#: says nothing about gets a huge but finite error
TINY_INFORMATION = 1e-6


@dataclass(frozen=True)
class FluxBasis:
    """Reduced features ``psi(x) = (phi(x) - origin) @ mix`` and spectra ``reference + psi @ flux``.

    Attributes
    ----------
    origin : ndarray of shape (q,)
        Features at the centre of the labels.
    reference : ndarray of shape (P,)
        Model flux there; taken off everything, so that chi2 keeps its digits.
    mix : ndarray of shape (q, r) or None
        None when `psi` are the features themselves.
    flux : ndarray of shape (r, P)
        Most important first.
    n_leading : int
        So many lead near the minimum.
    """

    origin: np.ndarray
    reference: np.ndarray
    mix: np.ndarray | None
    flux: np.ndarray
    n_leading: int

    def leading(self) -> FluxBasis:
        """The basis of the most important components alone."""
        if self.n_leading == len(self.flux):
            return self
        r = self.n_leading
        return replace(self, mix=self.mix[:, :r], flux=self.flux[:r])

    def reduce(self, features, is_derivative=False):
        """Reduced features (..., r) of features (..., q)."""
        shifted = features if is_derivative else features - self.origin
        if self.mix is None:
            return shifted
        return one_product(shifted, self.mix)


@dataclass(frozen=True)
class FluxModel:
    """A fitted model as the inversion sees it: its features, and the basis that holds its spectra.

    Its errors are shared between pixels along `components` (q, P), if any.
    """

    features: Callable
    basis: FluxBasis
    components: np.ndarray | None = None


def compress(features, points, coef, noise, *, tol=1e-3, leading_tol=0.3) -> FluxBasis:
    """Find the subspace of pixel space that holds the model spectra of `points`.

    Parameters
    ----------
    features : callable ``x (m, K) -> phi (m, q)``
    points : ndarray of shape (m, K)
        Scaled labels that span the box.
    coef : ndarray of shape (q, P)
    noise : ndarray of shape (P,)
        Typical standard deviation of a pixel; ``inf`` where the pixel is not used.
    tol : float
        Root-mean-square error of the reduced spectra, in units of the total noise (square root of
        chi2 over all pixels): no label moves by more than this fraction of its formal error.
    leading_tol : float
        The same for the leading components.
    """
    origin = features(np.zeros((1, points.shape[1])))[0]
    reference = origin @ coef
    if len(coef) <= MAX_LOSSLESS:
        return FluxBasis(origin, reference, None, coef, len(coef))
    spectra = (features(points) - origin) @ coef
    spectra /= noise
    value, vector = np.linalg.eigh(spectra @ spectra.T)
    value, vector = np.maximum(value[::-1], 0), vector[:, ::-1]
    left_out = np.sqrt((value.sum() - np.cumsum(value)).clip(0) / len(points))
    usable = max(1, int(np.sum(value > 1e-13 * value[0])))
    rank = min(int(np.searchsorted(-left_out, -tol)) + 1, usable)
    n_leading = min(int(np.searchsorted(-left_out, -leading_tol)) + 1, rank)
    root = np.sqrt(np.where(value[:rank] > 0, value[:rank], 1.0))
    basis = (vector[:, :rank] / root).T @ spectra  # orthonormal rows, in units of the noise
    with np.errstate(invalid="ignore"):
        flux = np.where(np.isfinite(noise), basis * noise, 0.0)
    mix = coef @ (basis / noise).T
    return FluxBasis(origin, reference, mix, flux, n_leading)


@dataclass
class LabelFit:
    """Minima of a batch of stars.

    Attributes
    ----------
    x : ndarray of shape (n, K)
        Scaled labels.
    fisher : ndarray of shape (n, K, K)
        ``J^T W J`` there; less what correlated residuals cost, where these are counted.
    chi2 : ndarray of shape (n,)
    converged : ndarray of bool of shape (n,)
    n_iter, n_good : ndarray of int of shape (n,)
    """

    x: np.ndarray
    fisher: np.ndarray
    chi2: np.ndarray
    converged: np.ndarray
    n_iter: np.ndarray
    n_good: np.ndarray

    n_linear = 0  # parameters that `fisher` has marginalised

    @classmethod
    def concatenate(cls, parts):
        names = [field.name for field in fields(cls)]
        return cls(**{n: np.concatenate([getattr(part, n) for part in parts]) for n in names})


def batch_rows(n_columns: int) -> int:
    """Stars per batch, so that one (stars, n_columns) array stays within the working memory."""
    return max(16, BATCH_BYTES // (8 * max(n_columns, 1)))


def one_product(stack, matrix) -> np.ndarray:
    """``stack (..., r) @ matrix (r, P)`` as one large product instead of many thin ones."""
    flat = stack.reshape(-1, stack.shape[-1]) @ matrix
    return flat.reshape(*stack.shape[:-1], -1)


def spread_rows(x, n_rows) -> np.ndarray:
    """Numbers of `n_rows` rows of `x`, evenly taken along its first principal direction."""
    _, _, direction = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    order = np.argsort(x @ direction[0], kind="stable")
    return order[np.linspace(0, len(x) - 1, n_rows).astype(int)]


class _Objective:
    """chi2, gradient and normal matrix of a batch of stars in the reduced features."""

    def __init__(self, model: FluxModel, flux, weight, *, rough=False):
        level = weight.sum(axis=1)
        brightest = int(np.argmax(level))
        pattern = weight[brightest] / level[brightest] if level[brightest] > 0 else weight[0]
        # looking whether all stars share one pattern of weights costs more than few components do
        many = len(model.basis.flux) > MAX_LOSSLESS or model.components is not None
        self.is_shared = many and _is_outer(weight, level, pattern)
        basis = model.basis if self.is_shared and not rough else model.basis.leading()
        self.features, self.basis = model.features, basis
        self.is_complete = basis is model.basis
        residual = flux - basis.reference
        weighted = residual * weight
        self.constant = np.einsum("np,np->n", weighted, residual)
        self.projection = weighted @ basis.flux.T
        if model.components is not None:
            self._integrate(model.components, weighted, weight, level, pattern)
        elif self.is_shared:
            self.gram, self.gram_scale = ((basis.flux * pattern) @ basis.flux.T)[None], level
        else:
            # single precision will do where the last steps are taken with all pixels
            real = float if self.is_complete else np.float32
            self.gram, self.gram_scale = (
                weighted_gram(basis.flux, weight, real),
                np.ones(len(flux)),
            )

    def _integrate(self, components, weighted, weight, level, pattern):
        """The same sums with the amplitudes of the components integrated over."""
        rank, stack = len(self.basis.flux), np.vstack([self.basis.flux, components])
        if self.is_shared:
            level = level if np.ptp(level) > 0 else level[:1]
            gram = level[:, None, None] * ((stack * pattern) @ stack.T)
        else:
            gram = weighted_gram(stack, weight)
        errors = CoherentErrors.of_gram(components, gram[:, rank:, rank:])
        self.constant, self.projection, self.gram = errors.take_off(
            self.constant,
            self.projection,
            gram[:, :rank, :rank],
            weighted @ components.T,
            gram[:, :rank, rank:],
        )
        self.gram_scale = np.ones(len(weight))

    def coarse(self, points):
        """chi2 (n, m) of all stars at the same `m` points."""
        psi = self.basis.reduce(self.features(points))
        if len(self.gram) == 1:
            quadratic = np.einsum("mr,rs,ms->m", psi, self.gram[0], psi, optimize=True)
            quadratic = self.gram_scale[:, None] * quadratic
        else:
            pairs = psi[:, :, None] * psi[:, None, :]
            quadratic = self.gram.reshape(len(self.gram), -1) @ pairs.reshape(len(psi), -1).T
        return self.constant[:, None] - 2 * self.projection @ psi.T + quadratic

    def __call__(self, x, rows):
        m, n_starts, n_labels = x.shape
        phi, slope = self.features(x.reshape(-1, n_labels), derivative=True)
        stack = np.concatenate(
            [self.basis.reduce(phi)[:, None], self.basis.reduce(slope, is_derivative=True)], axis=1
        )
        rank = stack.shape[-1]
        by_star = stack.reshape(m, n_starts * (n_labels + 1), rank)
        if len(self.gram) == 1:
            left = (by_star @ self.gram[0]) * self.gram_scale[rows, None, None]
        else:
            left = by_star @ self.gram[rows]
        left = left.reshape(m, n_starts, n_labels + 1, rank)
        stack = stack.reshape(m, n_starts, n_labels + 1, rank)
        quadratic = left @ np.swapaxes(stack, -1, -2)
        linear = (stack @ self.projection[rows][:, None, :, None])[..., 0]
        chi2 = self.constant[rows, None] - 2 * linear[..., 0] + quadratic[..., 0, 0]
        return chi2, quadratic[..., 1:, 0] - linear[..., 1:], quadratic[..., 1:, 1:]


def _is_outer(weight, level, shape):
    """Whether ``weight`` is ``level[:, None] * shape``; a few pixels say no for most data."""
    for pixels in (slice(None, None, max(1, len(shape) // 16)), slice(None)):
        expected = level[:, None] * shape[pixels]
        if np.any(np.abs(weight[:, pixels] - expected) > 1e-12 * expected):
            return False
    return True


def minimise(
    model,
    flux,
    weight,
    candidates,
    lower,
    upper,
    *,
    n_starts,
    max_iter,
    tol,
    loss,
    correlation_length=0,
    order=None,
):
    """Labels that minimise chi2 for a batch of stars.

    Parameters
    ----------
    model : FluxModel
    flux, weight : ndarrays of shape (n, P)
    candidates : ndarray of shape (m, K)
        Scaled labels among which the starts of each star are chosen.
    lower, upper : ndarrays of shape (K,)
        Box of the scaled labels.
    n_starts, max_iter : int
    tol : float
    loss : {"linear", "soft_l1", "huber"}
    correlation_length : int
        Pixels over which the residuals of a star may be correlated.
    order : ndarray of int of shape (P,), optional
        Pixels of different orders are independent.

    Returns
    -------
    LabelFit
    """
    star = np.arange(len(flux))
    objective = _Objective(model, flux, weight, rough=True)
    starts = _choose_starts(objective.coarse(candidates), candidates, n_starts)
    # a few steps with the leading components tell which start leads to the lowest minimum
    race = levenberg_marquardt(objective, starts, lower, upper, max_iter=RACE, tol=tol)
    best = np.argmin(race.chi2, axis=1)
    if objective.is_shared and not objective.is_complete:
        objective = _Objective(model, flux, weight)
    box = (lower, upper, max_iter, tol)
    x, fisher, chi2, converged, steps = _descend(
        model, objective, flux, weight, race.x[star, best], box
    )
    n_iter = race.n_iter[star, best] + steps
    if loss != "linear":
        _reweight(model, flux, weight, x, fisher, chi2, converged, n_iter, box, loss)
    if correlation_length:
        fisher = _correlated(model, flux, weight, x, loss, correlation_length, order)
    return LabelFit(x, fisher, chi2, converged, n_iter, np.sum(weight > 0, axis=1))


def _descend(model, objective, flux, weight, x, box):
    """From near the minimum into it: labels, Fisher matrices, chi2, convergence, steps."""
    lower, upper, max_iter, tol = box
    found = levenberg_marquardt(objective, x[:, None], lower, upper, max_iter=max_iter, tol=tol)
    x, converged, n_iter = found.x[:, 0], found.converged[:, 0], found.n_iter[:, 0]
    if objective.is_complete:
        chi2, _, fisher = (part[:, 0] for part in objective(found.x, np.arange(len(x))))
    else:
        x, fisher, chi2, converged = _polish(model, flux, weight, x, lower, upper)
    return x, fisher, chi2, converged, n_iter


def _choose_starts(chi2, candidates, n_starts, apart=1.0):
    """The best candidates of each star that lie at least `apart` label scales from each other."""
    n, n_labels = len(chi2), candidates.shape[1]
    chi2 = chi2.copy()
    starts = np.empty((n, n_starts, n_labels))
    for s in range(n_starts):
        starts[:, s] = candidates[np.argmin(chi2, axis=1)]
        if s + 1 < n_starts:
            distance2 = _distance2(starts[:, s], candidates)
            chi2[distance2 < apart**2] = np.inf
    return starts


def _distance2(first, second):
    cross = first @ second.T
    return np.sum(first**2, axis=1)[:, None] - 2 * cross + np.sum(second**2, axis=1)


def _reweight(model, flux, weight, x, fisher, chi2, converged, n_iter, box, loss):
    """Iteratively reweighted least squares, in place; each star until it moves no more.

    `fisher` is that of the final weights, `chi2` that of the true ones.
    """
    basis, rows = model.basis, np.arange(len(x))
    robust = weight
    for _ in range(SWEEPS):
        residual = flux[rows] - basis.reference - basis.reduce(model.features(x[rows])) @ basis.flux
        if model.components is not None:  # what the pixels share is no outlier
            errors = CoherentErrors(model.components, robust)
            amplitude = errors.amplitudes((residual * robust) @ model.components.T)
            residual -= amplitude @ model.components
        robust = weight[rows] * influence(residual**2 * weight[rows], loss)
        objective = _Objective(model, flux[rows], robust)
        new, fisher[rows], chi2[rows], converged[rows], steps = _descend(
            model, objective, flux[rows], robust, x[rows], box
        )
        step, x[rows] = new - x[rows], new
        n_iter[rows] += steps
        moved = np.einsum("nk,nkl,nl->n", step, fisher[rows], step)  # squared, in sigma
        rows, robust = rows[moved > STILL], robust[moved > STILL]
        if rows.size == 0:
            break
    converged[rows] = False
    residual = flux - basis.reference - basis.reduce(model.features(x)) @ basis.flux
    chi2[:] = np.einsum("np,np,np->n", weight, residual, residual)
    if model.components is not None:
        on_residual = (residual * weight) @ model.components.T
        chi2[:] = CoherentErrors(model.components, weight).take_off_chi2(chi2, on_residual)


def _correlated(model, flux, weight, x, loss, length, order):
    """Information (n, K, K) left where the residuals of each star are correlated."""
    basis, fisher = model.basis, np.empty((*x.shape, x.shape[1]))
    step = batch_rows(4 * flux.shape[1] * (x.shape[1] + 1))
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        phi, slope = model.features(x[rows], derivative=True)
        residual = flux[rows] - (basis.reference + basis.reduce(phi) @ basis.flux)
        root = np.sqrt(weight[rows] * influence(residual**2 * weight[rows], loss))
        jacobian = (basis.reduce(slope, is_derivative=True) @ basis.flux) * root[:, None]
        fisher[rows] = correlated_information(jacobian, residual * root, length, order)
    return fisher


def influence(z2, loss):
    """Derivative of the loss with respect to the squared residual in units of sigma."""
    if loss == "linear":
        return np.ones_like(z2)
    if loss == "soft_l1":
        return 1.0 / np.sqrt(1.0 + z2)
    return 1.0 / np.maximum(np.sqrt(z2), 1.0)


def _polish(model, flux, weight, x, lower, upper, *, good_enough=1e-4, max_steps=20):
    """The last steps, Fisher matrix and chi2 with all components and all pixels."""
    n, n_labels = x.shape
    x, fisher, chi2 = x.copy(), np.empty((n, n_labels, n_labels)), np.empty(n)
    converged = np.empty(n, dtype=bool)
    step = batch_rows(flux.shape[1] * (n_labels + 1))
    for start in range(0, n, step):
        part = slice(start, start + step)
        y, w, shared = flux[part], weight[part], None
        if model.components is not None:
            shared = CoherentErrors(model.components, w)

        def evaluate(x, rows, y=y, w=w, shared=shared):
            errors = None if shared is None else shared[rows]
            found = _normal_equations(model, x[:, 0], y[rows], w[rows], errors)
            return tuple(value[:, None] for value in found)

        found = levenberg_marquardt(
            evaluate, x[part, None], lower, upper, max_iter=max_steps, tol=good_enough
        )
        x[part], chi2[part], fisher[part] = found.x[:, 0], found.chi2[:, 0], found.normal[:, 0]
        converged[part] = found.converged[:, 0]
    return x, fisher, chi2, converged


def _normal_equations(model, x, flux, weight, shared=None):
    """chi2 (m,), half gradient (m, K) and ``J^T W J`` (m, K, K) from every pixel.

    Derivatives are in single precision. Errors that pixels have in common are integrated over.
    """
    basis = model.basis
    phi, slope = model.features(x, derivative=True)
    residual = basis.reference + basis.reduce(phi) @ basis.flux - flux
    slope = basis.reduce(slope, is_derivative=True).astype(np.float32)
    jacobian = one_product(slope, basis.flux.astype(np.float32))
    root = np.sqrt(weight)
    residual *= root
    jacobian *= root.astype(np.float32)[:, None]  # in units of the noise: no overflow
    gradient = (jacobian @ residual.astype(np.float32)[:, :, None])[..., 0].astype(float)
    normal = (jacobian @ np.swapaxes(jacobian, 1, 2)).astype(float)
    chi2 = np.einsum("np,np->n", residual, residual)
    if shared is None:
        return chi2, gradient, normal
    jacobian *= root.astype(np.float32)[:, None]
    on_jacobian = one_product(jacobian, shared.components.T.astype(np.float32)).astype(float)
    on_residual = (residual * root) @ shared.components.T
    return shared.take_off(chi2, gradient, normal, on_residual, on_jacobian)
