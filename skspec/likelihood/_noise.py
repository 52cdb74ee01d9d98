r"""Noise of the pixels of many stars, and what is left of their spectra once it is integrated over.

.. math:: \Sigma_i = \mathrm{diag}(1 / w_i) + U^T U

Errors along the spectra `U` (a low-rank covariance: the components of a model's own error) have
amplitudes known to be 0 +- 1, so they are linear parameters like those of a continuum, and one
elimination (:mod:`~skspec.likelihood._normal_equations`) integrates over all of them. Where the noise is
autocorrelated, as resampling leaves it, the fit stays that of independent pixels and its covariance
becomes a sandwich (:mod:`skspec.solvers.spectra.correlated_noise`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from skspec._short_repr import ShortRepr
from skspec.likelihood._normal_equations import (
    NormalEquations,
    inverse_information,
    own_products,
    regularized,
)
from skspec.solvers.linear.weighted_gram import weighted_gram
from skspec.solvers.spectra.correlated_noise import autocorrelated, correlated_information

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

__all__ = ["LinearColumns", "LinearFit", "PixelNoise", "Polynomials", "one_product"]

GRAM_ROWS = 8  # stars whose own components are multiplied at a time


def one_product(stack, matrix) -> np.ndarray:
    """``stack (..., r) @ matrix (r, P)`` as one large product instead of many thin ones."""
    flat = stack.reshape(-1, len(matrix)) @ matrix
    return flat.reshape(*stack.shape[:-1], matrix.shape[1])


class Polynomials:
    """Rows (Q, P) that multiply the spectra of all stars; most pairs of orders have nothing in common.

    Parameters
    ----------
    rows : ndarray of shape (Q, P)
        Such as :func:`skspec.solvers.spectra.nuisance.continuum_basis`.
    """

    def __init__(self, rows: np.ndarray):
        self.rows = rows
        first, second = np.tril_indices(len(rows))
        present = (rows != 0).astype(float)
        meet = (present @ present.T)[first, second] > 0
        self._pairs = first[meet], second[meet]
        self._products = rows[first[meet]] * rows[second[meet]]

    def __len__(self) -> int:
        return len(self.rows)

    def times(self, factor: ArrayLike) -> LinearColumns:
        """Columns of stars with these model spectra (n, P)."""
        return LinearColumns(self, np.asarray(factor, dtype=float))

    def gram(self, weight: np.ndarray) -> np.ndarray:
        """``T diag(w) T^T`` (n, Q, Q)."""
        size = len(self.rows)
        out = np.zeros((len(weight), size, size))
        first, second = self._pairs
        out[:, first, second] = weight @ self._products.T
        out[:, second, first] = out[:, first, second]
        return out


@dataclass(frozen=True)
class LinearColumns(ShortRepr):
    """Columns ``factor (n, 1, P) * rows (Q, P)`` of a design: a multiplicative continuum."""

    polynomials: Polynomials
    factor: np.ndarray

    def __len__(self) -> int:
        return len(self.polynomials)

    @property
    def rows(self) -> np.ndarray:
        """Of the polynomials."""
        return self.polynomials.rows

    def dense(self) -> np.ndarray:
        """All columns, (n, Q, P)."""
        return self.factor[:, None] * self.rows

    def normal(self, weight: np.ndarray) -> np.ndarray:
        """``C W C^T`` (n, Q, Q)."""
        return self.polynomials.gram(weight * self.factor * self.factor)

    def on(self, weighted: np.ndarray) -> np.ndarray:
        """``C (W r)`` (n, Q) of weighted residuals (n, P)."""
        return (weighted * self.factor) @ self.rows.T


@dataclass(frozen=True)
class LinearFit(ShortRepr):
    """Linear parameters at their best values.

    Attributes
    ----------
    columns : LinearColumns
    coef : ndarray of shape (n, Q)
        0 for an order without a good pixel.
    information : ndarray of shape (n, Q, Q)
        Shared errors integrated over.
    on_shared : ndarray of shape (n, Q, q)
        ``C W U^T``.
    """

    columns: LinearColumns
    coef: np.ndarray
    information: np.ndarray
    on_shared: np.ndarray

    @cached_property
    def curve(self) -> np.ndarray:
        """The polynomials (n, P) that multiply the model."""
        return self.coef @ self.columns.rows

    @property
    def flux(self) -> np.ndarray:
        """The model times them, (n, P)."""
        return self.curve * self.columns.factor


@dataclass(frozen=True)
class PixelNoise(ShortRepr):
    r"""Covariance ``diag(1 / weight) + U^T U`` of the pixels of `n` stars.

    Parameters
    ----------
    weight : ndarray of shape (n, P)
        Inverse variance of each pixel alone; 0 at bad pixels.
    shared : ndarray of shape (q, P) or (n, q, P), optional
        Spectra `U` along which pixels err together, of all stars or of each; none by default.
    correlation_length : int
        Pixels over which the noise is autocorrelated; 0: not at all.
    order : ndarray of int of shape (P,), optional
        Pixels of different orders are not autocorrelated.
    """

    weight: np.ndarray
    shared: np.ndarray | None = None
    correlation_length: int = 0
    order: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self):
        if self.shared is None:
            object.__setattr__(self, "shared", np.zeros((0, self.weight.shape[1])))

    def __len__(self) -> int:
        return len(self.weight)

    def _repr_values(self):
        values = {"n_stars": len(self), "n_pixels": self.weight.shape[1], "n_shared": self.n_shared}
        return values | {"correlation_length": self.correlation_length or None}

    @property
    def n_shared(self) -> int:
        """Number of shared components."""
        return self.shared.shape[-2]

    def variance(self) -> np.ndarray:
        """Diagonal (n, P) of the covariance; ``inf`` at bad pixels."""
        with np.errstate(divide="ignore"):
            return 1.0 / self.weight + np.einsum("...qp,...qp->...p", self.shared, self.shared)

    def covariance(self) -> np.ndarray:
        """Of all pixels, (n, P, P), for small spectra; ``inf`` on the diagonal at bad pixels."""
        cov = np.zeros((*self.weight.shape, self.weight.shape[1]))
        cov += self.shared.swapaxes(-1, -2) @ self.shared
        pixels = np.arange(self.weight.shape[1])
        cov[:, pixels, pixels] = self.variance()
        return cov

    def __getitem__(self, stars: Any) -> PixelNoise:
        shared = self.shared if self.shared.ndim == 2 else self.shared[stars]
        some = replace(self, weight=self.weight[stars], shared=shared)
        for name in ("_root", "_inverse"):  # what is known already need not be found again
            if name in vars(self):
                known = vars(self)[name]
                some.__dict__[name] = known if len(known) == 1 else known[stars]
        return some

    def with_weight(self, weight: np.ndarray) -> PixelNoise:
        """With other weights (n, P), such as those of a robust loss."""
        return replace(self, weight=weight)

    def prepare(self) -> PixelNoise:
        """Find what all sums need before some of the stars are taken; returns itself."""
        self._root, self._inverse  # noqa: B018
        return self

    @cached_property
    def _root(self):
        return np.sqrt(self.weight)

    @cached_property
    def _inverse(self):
        """Covariance (n, q, q), or (1, q, q) of stars alike, of the amplitudes of `shared`."""
        if not self.n_shared:
            return np.zeros((1, 0, 0))
        if self.shared.ndim == 2:
            alike = np.array_equal(self.weight[:1], self.weight[-1:])
            alike = alike and np.all(self.weight == self.weight[:1])
            gram = weighted_gram(self.shared, self.weight[:1] if alike else self.weight)
        else:
            gram = np.empty((*self.shared.shape[:2], self.n_shared))
            for start in range(0, len(gram), GRAM_ROWS):
                at = slice(start, start + GRAM_ROWS)
                white = self.shared[at] * self._root[at, None]
                gram[at] = white @ np.swapaxes(white, 1, 2)
        return np.linalg.inv(gram + np.eye(self.n_shared))

    # -- sums over pixels --------------------------------------------------------------------------

    def on_shared(self, weighted: np.ndarray, real: DTypeLike = float) -> np.ndarray:
        """``A W U^T`` (n, M, q) of rows ``A W`` (n, M, P)."""
        shared: Any = self.shared
        if shared.ndim == 2:
            shared = shared.T.astype(weighted.dtype, copy=False)
            return one_product(weighted, shared).astype(float)
        weighted = weighted.astype(real, copy=False)
        if shared.dtype == real:
            return (weighted @ np.swapaxes(shared, 1, 2)).astype(float)
        out = np.empty((*weighted.shape[:2], self.n_shared))
        for star, (rows, own) in enumerate(zip(weighted, shared)):  # no copy of them all
            out[star] = rows @ own.astype(real).T
        return out

    def amplitudes(self, residual: np.ndarray, real: DTypeLike = float) -> np.ndarray:
        """Most likely amplitudes (n, q) of the shared errors in residuals (n, P)."""
        return (self._inverse @ self._on_residual(residual, real)[..., None])[..., 0]

    def _on_residual(self, residual, real=float):
        """``U W r`` (n, q) of residuals (n, P)."""
        return self.on_shared((self.weight * residual)[:, None], real)[:, 0]

    def shared_part(self, residual: np.ndarray) -> np.ndarray:
        """What of the residuals (n, P) the shared errors explain."""
        amplitude = self.amplitudes(residual)
        if self.shared.ndim == 2:
            return amplitude @ self.shared
        return (amplitude[:, None] @ self.shared)[:, 0]

    def chi2(self, residual: np.ndarray) -> np.ndarray:
        """``r Sigma^-1 r`` (n,)."""
        whole = np.einsum("np,np,np->n", self.weight, residual, residual)
        on_residual = self._on_residual(residual)
        best = (self._inverse @ on_residual[..., None])[..., 0]
        return whole - np.einsum("nq,nq->n", on_residual, best)

    def solve(self, rows: np.ndarray) -> np.ndarray:
        """``Sigma^-1`` times rows (n, M, P); 0 at bad pixels."""
        weighted = rows * self.weight[:, None]
        taken = (self.on_shared(weighted) @ self._inverse) @ self.shared
        return weighted - taken * self.weight[:, None]

    def integrated(
        self, normal: NormalEquations, on_design: np.ndarray, residual: np.ndarray
    ) -> NormalEquations:
        """Sums over all pixels, with the shared errors integrated over.

        Parameters
        ----------
        normal : NormalEquations
            Of pixels as if they were independent.
        on_design : ndarray of shape (n, M, q)
            ``A W U^T`` of the design.
        residual : ndarray of shape (n, P)
        """
        return normal.without(on_design, self._on_residual(residual), self._inverse)

    def fit_linear(
        self,
        columns: LinearColumns,
        flux: np.ndarray,
        real: DTypeLike = float,
        amplitude: np.ndarray | None = None,
    ) -> LinearFit:
        """Coefficients with which the columns come closest to spectra (n, P).

        `amplitude` is that of the shared errors in these spectra, where it is known.
        """
        weighted = self.weight * columns.factor
        normal = columns.polynomials.gram(weighted * columns.factor)
        right = (weighted * flux) @ columns.rows.T
        on_shared = np.zeros((len(flux), len(columns), self.n_shared))
        if self.n_shared:
            pulled = columns.rows.astype(real, copy=False) * weighted.astype(real)[:, None]
            on_shared = self.on_shared(pulled, real)
            amplitude = self.amplitudes(flux, real) if amplitude is None else amplitude
            right = right - (on_shared @ amplitude[..., None])[..., 0]
            normal = normal - on_shared @ self._inverse @ np.swapaxes(on_shared, 1, 2)
        normal = regularized(normal)
        coef = np.linalg.solve(normal, right[..., None])[..., 0]
        return LinearFit(columns, coef, normal, on_shared)

    def normal_equations(
        self,
        design: np.ndarray,
        residual: np.ndarray,
        linear: LinearFit | None = None,
        *,
        scale: np.ndarray | None = None,
        real: DTypeLike = float,
        overwrite_design: bool = False,
    ) -> tuple[NormalEquations, np.ndarray]:
        """What the spectra say of the parameters of a design, everything linear integrated over.

        Parameters
        ----------
        design : ndarray of shape (n, M, P)
            Derivatives of the model spectra.
        residual : ndarray of shape (n, P)
            Observed minus model flux, linear parameters at their best.
        linear : LinearFit, optional
            Those parameters, with a flat prior.
        scale : ndarray of shape (n, P), optional
            Multiplies the design: a continuum.
        real : dtype
            Precision of products with the design.
        overwrite_design : bool
            Whether the design may be spoilt, which saves a copy.

        Returns
        -------
        normal : NormalEquations
        slope : ndarray of shape (n, Q, M)
            How the linear parameters follow the others.
        """
        white = self._whitened(design, scale, real, overwrite_design)
        normal = NormalEquations.of_white(white, self._root * residual)
        on_design = self._on_design(white)
        if self.n_shared:
            on_residual = self._on_residual(residual, real)
            normal = normal.without(on_design, on_residual, self._inverse)
        cross, slope = self._cross(white, on_design, linear)
        # at the best linear parameters nothing is left to take off chi2 and score
        return normal._replace(information=normal.information + cross @ slope), slope

    def _whitened(self, design, scale, real, overwrite=False):
        """Design in units of the noise."""
        factor = self._root if scale is None else self._root * scale
        factor = factor.astype(real, copy=False)[:, None]
        if overwrite and design.dtype == real:
            return np.multiply(design, factor, out=design)
        return np.multiply(design, factor, dtype=real)

    def _on_design(self, white):
        """``A W U^T`` (n, M, q) of a design in units of the noise."""
        if not self.n_shared:
            return np.zeros((*white.shape[:2], 0))
        return self.on_shared(white * self._root.astype(white.dtype)[:, None], white.dtype)

    def _cross(self, white, on_design, linear):
        """``A W C^T`` (n, M, Q) of the linear parameters, and their slopes (n, Q, M).

        Spoils the design in units of the noise.
        """
        if linear is None:
            return np.zeros((*white.shape[:2], 0)), np.zeros((len(white), 0, white.shape[1]))
        white *= (self._root * linear.columns.factor).astype(white.dtype)[:, None]
        cross = (white @ linear.columns.rows.T.astype(white.dtype)).astype(float)
        if self.n_shared:
            cross -= on_design @ self._inverse @ np.swapaxes(linear.on_shared, 1, 2)
        return cross, -np.linalg.solve(linear.information, np.swapaxes(cross, 1, 2))

    def information(
        self,
        design: np.ndarray,
        residual: np.ndarray | None = None,
        linear: LinearFit | None = None,
        *,
        scale: np.ndarray | None = None,
        real: DTypeLike = float,
        overwrite_design: bool = False,
    ) -> np.ndarray:
        """Information (n, M, M) on the parameters of a design; see :meth:`normal_equations`.

        With `correlation_length` that of the sandwich, of the autocorrelation of the residuals;
        without residuals pixels are independent.
        """
        if self.correlation_length and residual is not None:
            white = self._white(design, linear, scale)
            white_residual = residual * self._root
            return correlated_information(
                white, white_residual, self.correlation_length, self.order
            )
        white = self._whitened(design, scale, real, overwrite_design)
        information, on_design = own_products(white).astype(float), self._on_design(white)
        if self.n_shared:
            information -= on_design @ self._inverse @ np.swapaxes(on_design, 1, 2)
        cross, slope = self._cross(white, on_design, linear)
        return information + cross @ slope

    def _white(self, design, linear=None, scale=None):
        """Design in units of the noise, less what the linear parameters can imitate."""
        white = self._whitened(design, scale, float)
        if linear is None:
            return white
        model = linear.columns.factor * self._root
        right = (white * model[:, None]) @ linear.columns.rows.T
        coef = np.linalg.solve(linear.information, np.swapaxes(right, 1, 2))
        return white - (np.swapaxes(coef, 1, 2) @ linear.columns.rows) * model[:, None]

    def pixel_shares(
        self, design: np.ndarray, residual: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        r"""What the noise of each pixel contributes to the covariance of the parameters.

        The least-squares estimate is :math:`H r` of the residuals `r`, so the variance of parameter
        `k` is :math:`\sum_j h_{kj} (\Sigma h_k)_j`.

        Parameters
        ----------
        design : ndarray of shape (n, M, P)
            Of all parameters, the linear ones too.
        residual : ndarray of shape (n, P), optional
            As in :meth:`information`.

        Returns
        -------
        marginal, conditional : ndarray of shape (n, M, P)
            Contributions to the variance when all parameters are free, and when the others are known;
            0 for a parameter that nothing is known of.
        """
        weighted = self.solve(design)
        fisher = weighted @ np.swapaxes(design, 1, 2)
        alone = np.diagonal(fisher, axis1=1, axis2=2)
        alone = np.divide(1.0, alone, out=np.zeros_like(alone), where=alone > 0)
        inverse = inverse_information(fisher)
        if self.correlation_length and residual is not None:
            white = design * self._root[:, None]
            both = inverse @ white, alone[:, :, None] * white
            args = residual * self._root, self.correlation_length, self.order
            return tuple(part * autocorrelated(part, *args) for part in both)
        return (inverse @ weighted) * (inverse @ design), alone[:, :, None] ** 2 * weighted * design
