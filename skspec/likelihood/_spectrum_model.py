r"""Model spectra as a likelihood sees them: a function of a few parameters, in a small subspace.

Every model here is linear in features of the labels, :math:`f(x) = \phi(x) W` with `q` features and
`P` pixels. Kernel models have as many features as training stars, but their spectra fill a small
subspace: its principal components, enough of them that nothing is lost, are the :class:`FluxBasis`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from skspec._short_repr import ShortRepr
from skspec.likelihood._noise import LinearColumns, PixelNoise, one_product

__all__ = [
    "FluxBasis",
    "Linearization",
    "NoiseBudget",
    "Solution",
    "SpectrumModel",
    "batch_rows",
    "compress",
    "inverse_variance",
    "spread_rows",
]

MAX_LOSSLESS = 40  # up to this many features the compression would cost more than it saves
BATCH_BYTES = 2**26  # working memory of one array of one batch of stars


def batch_rows(n_columns: int) -> int:
    """Stars per batch, so that one (stars, n_columns) array stays within the working memory."""
    return max(16, BATCH_BYTES // (8 * max(n_columns, 1)))


def spread_rows(x, n_rows) -> np.ndarray:
    """Numbers of `n_rows` rows of `x`, evenly taken along its first principal direction."""
    _, _, direction = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    order = np.argsort(x @ direction[0], kind="stable")
    return order[np.linspace(0, len(x) - 1, n_rows).astype(int)]


def inverse_variance(photon, model, curve=None) -> np.ndarray:
    """Of a model under a continuum; 0 at bad pixels, and where no variance is known at all."""
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = photon + (model if curve is None else curve**2 * model)
        np.divide(1.0, weight, out=weight)
    weight[~np.isfinite(weight)] = 0.0
    return weight


@dataclass(frozen=True)
class NoiseBudget(ShortRepr):
    """What photons and what the model contribute to the noise of `n` spectra.

    Attributes
    ----------
    photon : ndarray of shape (n, P)
        Variance of the observed flux; ``inf`` at bad pixels.
    model : ndarray of shape (P,) or (n, P)
        Variance of the model in each pixel at rest, in the unit of its own flux.
    shared : ndarray of shape (q, P)
        Errors of the model along which pixels err together, at rest.
    correlation_length : int
    order : ndarray of int of shape (P,), optional
        As in :class:`PixelNoise`.
    """

    photon: np.ndarray
    model: np.ndarray
    shared: np.ndarray
    correlation_length: int = 0
    order: np.ndarray | None = None

    def at_rest(self) -> PixelNoise:
        """Of stars at rest, whose continuum is that of the model."""
        weight = inverse_variance(self.photon, self.model)
        return PixelNoise(weight, self.shared, self.correlation_length, self.order)

    def __getitem__(self, stars: Any) -> NoiseBudget:
        model = self.model if self.model.ndim == 1 else self.model[stars]
        return replace(self, photon=self.photon[stars], model=model)


@dataclass(frozen=True)
class Linearization(ShortRepr):
    """Some stars near given parameters: gradient spectra, and the noise they are held against.

    Attributes
    ----------
    stars : slice
        Which of all stars.
    design : ndarray of shape (n, M, P)
        Derivatives of the flux with respect to labels, radial velocity [km/s] and squared width of
        the broadening [(km/s)^2], where these are free.
    continuum : ndarray of shape (n, Q, P)
        With respect to the coefficients of the continuum.
    noise : PixelNoise
    residual : ndarray of shape (n, P) or None
        Observed minus model flux.
    """

    stars: slice
    design: np.ndarray
    continuum: np.ndarray
    noise: PixelNoise
    residual: np.ndarray | None

    @property
    def columns(self) -> np.ndarray:
        """All derivatives (n, M + Q, P)."""
        return np.concatenate([self.design, self.continuum], axis=1)

    def information(self) -> np.ndarray:
        """Fisher matrices (n, M + Q, M + Q) of all parameters."""
        return self.noise.information(self.columns, self.residual)


@dataclass
class Solution(ShortRepr):
    """Parameters of `n` stars at the minimum of chi2.

    Attributes
    ----------
    x : ndarray of shape (n, K)
        Scaled labels.
    rv, width2 : ndarray of shape (n,)
        Radial velocity [km/s] and squared width of the broadening [(km/s)^2]; 0 where not fitted.
    continuum : ndarray of shape (n, Q)
        Coefficients of its polynomials.
    chi2 : ndarray of shape (n,)
    information : ndarray of shape (n, M, M)
        On scaled labels, radial velocity [km/s] and squared width [`WIDTH2_UNIT`], where these are
        free; everything linear integrated over.
    converged : ndarray of bool of shape (n,)
    n_iter, n_good : ndarray of int of shape (n,)
    """

    x: np.ndarray
    rv: np.ndarray | None = None
    width2: np.ndarray | None = None
    continuum: np.ndarray | None = None
    chi2: np.ndarray | None = None
    information: np.ndarray | None = None
    converged: np.ndarray | None = None
    n_iter: np.ndarray | None = None
    n_good: np.ndarray | None = None

    def __post_init__(self):
        for name in ("rv", "width2"):
            if getattr(self, name) is None:
                setattr(self, name, np.zeros(len(self.x)))

    @property
    def n_linear(self) -> int:
        """Parameters that `information` has integrated over."""
        return 0 if self.continuum is None else self.continuum.shape[1]

    def __getitem__(self, stars: Any) -> Solution:
        parts = (None if part is None else part[stars] for part in vars(self).values())
        return Solution(*parts)

    @classmethod
    def concatenate(cls, parts: Iterable[Solution]) -> Solution:
        """Of several batches, one after the other."""
        columns = zip(*(vars(part).values() for part in parts))
        return cls(*(None if c[0] is None else np.concatenate(c) for c in columns))


class Batch(Protocol):
    """Some stars seen by a :class:`SpectrumModel`."""

    @property
    def model(self) -> Any:
        """Of their spectra."""

    @property
    def observed(self) -> np.ndarray:
        """Their flux (n, P), in units of `level`."""

    @property
    def level(self) -> np.ndarray:
        """Unit (n, 1) of the flux."""

    @property
    def noise(self) -> PixelNoise | None:
        """Of `observed`; None before the start is known."""

    @property
    def is_correlated(self) -> bool:
        """Whether the noise is autocorrelated."""

    def __getitem__(self, stars): ...
    def with_noise(self, noise): ...
    def independent(self): ...
    def start(self, options): ...
    def descend(self, p, options): ...
    def residual(self, p): ...
    def finish(self, found, options, true_noise): ...
    def at(self, solution): ...
    def information(self, solution, loss="linear"): ...
    def target(self, solution, loss="linear"): ...


class SpectrumModel(Protocol):
    """Model spectra as functions of parameters `p` (n, M): labels first, then what else is free."""

    @property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest value (M,) of each parameter."""

    def spectra(self, p: np.ndarray) -> np.ndarray:
        """Model spectra (n, P)."""

    def design(self, p: np.ndarray) -> np.ndarray:
        """Their derivatives (n, M, P)."""

    def linear(self, p: np.ndarray) -> LinearColumns | None:
        """Columns of parameters in which the spectra are linear, with a flat prior."""

    def steps_per_unit(self, solution: Solution) -> np.ndarray:
        """Of each parameter (n, M) of `design`: per scaled label, km/s and (km/s)^2."""

    def theta_of(self, solution: Solution) -> np.ndarray:
        """Parameters (n, M) of a solution, in the units of its information."""

    def best_fit(self, solution: Solution) -> np.ndarray:
        """Model spectra (n, P) as observed; NaN where the model ends."""

    def batch(self, flux: np.ndarray, budget: NoiseBudget) -> Batch:
        """Some stars, ready to be inverted."""

    def batch_size(self, n_stars: int) -> int:
        """Stars of a batch, where there are so many."""

    def map(self, function: Callable, batches: list) -> list:
        """`function` of all batches."""


@dataclass(frozen=True)
class FluxBasis(ShortRepr):
    """Reduced features ``psi(x) = (phi(x) - origin) @ mix`` and spectra ``reference + psi @ flux``.

    Attributes
    ----------
    features : callable ``x (m, K), derivative=False -> phi (m, q)``
        With ``derivative=True`` also their derivatives (m, K, q).
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

    features: Callable
    origin: np.ndarray
    reference: np.ndarray
    mix: np.ndarray | None
    flux: np.ndarray
    n_leading: int

    @classmethod
    def of_features(cls, features: Callable, coef: np.ndarray) -> FluxBasis:
        """Not compressed: ``phi(x) @ coef``."""
        n_features, n_pixels = coef.shape
        nothing = np.zeros(n_features), np.zeros(n_pixels)
        return cls(features, *nothing, None, coef, n_features)

    def leading(self) -> FluxBasis:
        """The basis of the most important components alone."""
        if self.n_leading == len(self.flux):
            return self
        r = self.n_leading
        return replace(self, mix=self.mix[:, :r], flux=self.flux[:r])

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Reduced features (m, r) of scaled labels (m, K)."""
        return self._reduced(self.features(x) - self.origin)

    def with_slope(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reduced features (m, r), and their derivatives (m, K, r)."""
        phi, slope = self.features(x, derivative=True)
        return self._reduced(phi - self.origin), self._reduced(slope)

    def with_leading_slope(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same, the derivatives (m, K, n_leading) of the leading features alone."""
        phi, slope = self.features(x, derivative=True)
        return self._reduced(phi - self.origin), self.leading()._reduced(slope)

    def _reduced(self, features):
        return features if self.mix is None else one_product(features, self.mix)

    def spectra(self, x: np.ndarray) -> np.ndarray:
        """Model spectra (m, P)."""
        return self.reference + self(x) @ self.flux

    @property
    def is_lossless(self) -> bool:
        """Whether the features are so few that they were not compressed."""
        return len(self.flux) <= MAX_LOSSLESS


def compress(
    features: Callable,
    points: np.ndarray,
    coef: np.ndarray,
    noise: np.ndarray,
    *,
    tol: float = 1e-3,
    leading_tol: float = 0.3,
) -> FluxBasis:
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
        return FluxBasis(features, origin, reference, None, coef, len(coef))
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
    return FluxBasis(features, origin, reference, mix, flux, n_leading)
