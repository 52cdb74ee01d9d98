"""latent_traversal: what one latent number does to a spectrum."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skspec._short_repr import ShortRepr
from skspec.base import unwrap
from skspec.latent._nodes import node_dispersion

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from sklearn.base import BaseEstimator

    from skspec._typing import SpectraLike

__all__ = ["LatentTraversal", "latent_traversal", "latent_traversals"]

RANGE = (1, 99)  # percentiles of the latent numbers that are run through


@dataclass(frozen=True)
class LatentTraversal(ShortRepr):
    """Spectra of one star while one of its latent numbers is varied.

    Attributes
    ----------
    node : int
        Which number.
    values : ndarray of shape (m,)
        That it takes.
    flux : ndarray of shape (m, P)
        Decoded spectra; NaN at pixels that the model does not know.
    reference : ndarray of shape (P,)
        Decoded spectrum of the star as it is.
    latents : ndarray of shape (D,)
        Of the star as it is.
    wavelength : ndarray of shape (P,) or None
        [Angstrom]
    order : ndarray of int of shape (P,) or None
        Echelle order of each pixel.
    medium : {"air", "vacuum"} or None
        Of the wavelengths, where the spectra say so.
    """

    node: int
    values: np.ndarray
    flux: np.ndarray
    reference: np.ndarray
    latents: np.ndarray
    wavelength: np.ndarray | None = None
    order: np.ndarray | None = None
    medium: str | None = None

    @property
    def difference(self) -> np.ndarray:
        """Decoded spectra less that of the star as it is (m, P)."""
        return self.flux - self.reference


def latent_traversal(
    model: BaseEstimator,
    X: SpectraLike,
    node: int,
    values: ArrayLike | None = None,
    n_values: int = 9,
    *,
    star: int | None = None,
) -> LatentTraversal:
    r"""Vary one latent number of a star, hold the others, and decode.

    .. math:: f(v) = g(z_1, \dots, z_{d-1}, v, z_{d+1}, \dots, z_D)

    for a star at :math:`z` and the decoder :math:`g`. A node that has learned the radial velocity shifts
    the lines, one of temperature changes their strengths.

    Parameters
    ----------
    model : fitted transformer with ``inverse_transform``
        Such as :class:`BetaVAE` or scikit-learn's PCA, or a Pipeline that ends in one.
    X : Spectra or array-like of shape (n, P)
        The star, or many: then the one nearest to their median is taken, and `values` run over their
        range. An array of as many columns as the model has latent numbers, or a vector (D,), is taken
        for latents.
    node : int
        The number to vary, from 0.
    values : array-like of shape (m,), optional
        For it to take. Default: `n_values`, evenly from the 1st to the 99th percentile of the stars.
    n_values : int
    star : int, optional
        Row of the star to take instead.

    Returns
    -------
    LatentTraversal

    Raises
    ------
    sklearn.exceptions.NotFittedError
    TypeError
        When the model cannot decode.
    ValueError
        When there is no such node or star, or no range to run over.

    References
    ----------
    Sedaghat et al. 2021, MNRAS 501, 6026.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.decomposition import PCA
    >>> from skspec.datasets import make_spectra
    >>> from skspec.latent import latent_traversal
    >>> spectra, _ = make_spectra(n_samples=100, n_pixels=200, random_state=0)
    >>> model = PCA(3).fit(spectra)
    >>> found = latent_traversal(model, spectra, node=0)
    >>> found.flux.shape
    (9, 200)
    >>> step = found.values - found.latents[0]  # linear: the difference is the loading times the step
    >>> bool(np.allclose(found.difference, np.outer(step, model.components_[0])))
    True
    """
    stars = _Stars(model, X, star)
    return stars.traverse(node, values, n_values)


def latent_traversals(
    model: BaseEstimator,
    X: SpectraLike,
    nodes: Iterable[int] | None = None,
    n_values: int = 9,
    *,
    star: int | None = None,
    threshold: float = 0.02,
) -> dict[int, LatentTraversal]:
    """:func:`latent_traversal` along several nodes, encoding only once.

    Parameters
    ----------
    model, X, n_values, star
        See :func:`latent_traversal`.
    nodes : sequence of int, optional
        Default: the informative ones, the most dispersed first.
    threshold : float
        See :func:`informative_nodes`.

    Returns
    -------
    dict of int to LatentTraversal
        By node.

    Raises
    ------
    ValueError
        When no node is informative.
    """
    stars = _Stars(model, X, star)
    if nodes is None:
        mad = node_dispersion(stars.latents)["mad"].to_numpy()
        order = np.argsort(-mad, kind="stable")
        nodes = order[mad[order] > threshold]
        if not len(nodes):
            raise ValueError(
                f"No node has a median absolute deviation above {threshold}: name the nodes to vary "
                "in `nodes`, or fit with a smaller beta."
            )
    return {int(node): stars.traverse(node, None, n_values) for node in nodes}


class _Stars:
    """Latents of stars, and the one of them that is varied."""

    def __init__(self, model, X, star):
        model, X = unwrap(model, X)
        check_is_fitted(model)
        if not hasattr(model, "inverse_transform"):
            raise TypeError(
                f"{type(model).__name__} has no inverse_transform: it cannot decode latent numbers."
            )
        self.model = model
        spectra, self.latents = _encoded(model, X)
        known = np.isfinite(self.latents).all(axis=1)
        if not known.any():
            raise ValueError("No star has latent numbers: every pixel of them is bad.")
        self.star = _nearest_to_median(self.latents, known) if star is None else star
        if not (isinstance(self.star, Integral) and 0 <= self.star < len(known)):
            raise ValueError(
                f"star={star!r} is none of the {len(known)} rows, 0 to {len(known) - 1}."
            )
        if not known[self.star]:
            raise ValueError(f"Every pixel of star {star} is bad: choose another.")
        self.spectrum = None if spectra is None else spectra[self.star : self.star + 1]

    def traverse(self, node, values, n_values):
        """The chosen star along one node."""
        n_latent = self.latents.shape[1]
        if not (isinstance(node, Integral) and 0 <= node < n_latent):
            raise ValueError(f"node={node!r} is none of the {n_latent} nodes, 0 to {n_latent - 1}.")
        values = self._range(node, n_values) if values is None else np.asarray(values, dtype=float)
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
            raise ValueError("values must be a vector of finite numbers.")
        here = self.latents[self.star]
        points = np.tile(here, (len(values) + 1, 1))
        points[1:, node] = values
        flux = np.asarray(self.model.inverse_transform(points), dtype=float)
        wavelength = getattr(self.model, "wavelength_", None)
        order, medium = None, getattr(self.model, "medium_", None)
        if self.spectrum is not None:
            wavelength = getattr(self.spectrum, "wavelength", wavelength)
            order = getattr(self.spectrum, "order", None)
            medium = getattr(self.spectrum, "medium", medium)
        return LatentTraversal(
            int(node), values, flux[1:], flux[0], here.copy(), wavelength, order, medium
        )

    def _range(self, node, n_values):
        if not (isinstance(n_values, Integral) and n_values > 0):
            raise ValueError(f"n_values must be a whole number from 1, got {n_values!r}.")
        seen = self.latents[np.isfinite(self.latents).all(axis=1), node]
        lower, upper = np.percentile(seen, RANGE)
        if len(seen) < 2:
            raise ValueError(
                "The latent numbers of one star have no range to run over: give `values`, or many stars "
                "and `star`."
            )
        if not upper > lower:
            raise ValueError(f"Node {node} is the same in all stars (collapsed): give `values`.")
        return np.linspace(lower, upper, n_values)


def _encoded(model, X):
    """Spectra (None where `X` holds latents), and latents (n, D)."""
    if not hasattr(X, "ndim") or isinstance(X, np.ndarray):
        X = np.atleast_2d(np.asarray(X))
        n_latent = getattr(model, "n_latent", getattr(model, "n_components_", None))
        if X.shape[1] == n_latent != getattr(model, "n_features_in_", None):
            return None, np.asarray(X, dtype=float)
    return X, np.asarray(model.transform(X), dtype=float)


def _nearest_to_median(latents, known):
    """Row of the star nearest to the median of all; nodes that have collapsed count for nothing."""
    distance = np.square(latents - np.median(latents[known], axis=0)).sum(axis=1)
    return int(np.argmin(np.where(known, distance, np.inf)))
