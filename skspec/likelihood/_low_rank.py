"""Low-rank covariance of a model's own errors, found in the residuals of held-out training stars."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skspec.likelihood._held_out import OutOfSample
from skspec.solvers.linear.pixel_blocks import parallel_map
from skspec.solvers.spectra.residual_components import ResidualComponents, ResidualPCA

__all__ = ["LowRankErrors", "low_rank_errors"]

FOLDS = 5  # of the stars that components are found from, to try them on the others


class LowRankErrors(NamedTuple):
    """What :func:`low_rank_errors` has found.

    Attributes
    ----------
    components : ResidualComponents
        Of all stars.
    parts : list of (rows, ResidualComponents)
        For each fold of the stars, of the others.
    residual : ndarray of shape (n, P)
        Of stars held out; 0 at bad pixels.
    """

    components: ResidualComponents
    parts: list
    residual: np.ndarray


def low_rank_errors(
    out_of_sample: OutOfSample,
    photon: np.ndarray,
    trained: np.ndarray,
    strength: float,
    groups: np.ndarray | None = None,
) -> LowRankErrors:
    """Components of the errors of a model.

    Parameters
    ----------
    out_of_sample : OutOfSample
    photon : ndarray of shape (n, P)
        Photon variance; ``inf`` at bad pixels.
    trained : ndarray of bool of shape (P,)
    strength : float
        Fraction of the error that is shared between pixels.
    groups : ndarray of int of shape (n,), optional
        Star of each spectrum, 0, 1, ...; default: all are different.
    """
    residual = np.empty(photon.shape, np.float32)

    def look(pixels):
        residual[:, pixels] = out_of_sample.held_out(pixels).residual

    parallel_map(look, out_of_sample.blocks)
    residual[:, ~trained] = 0.0
    found = ResidualPCA(residual, photon)

    def components(used=None):
        spectra, rest = found.components(used, strength)
        return ResidualComponents(spectra, np.where(trained, rest, np.inf))

    groups = np.arange(len(photon)) if groups is None else np.unique(groups, return_inverse=True)[1]
    n_stars = groups.max() + 1
    fold = (np.random.default_rng(0).permutation(n_stars) % min(FOLDS, n_stars))[groups]
    parts = [(np.flatnonzero(fold == k), components(fold != k)) for k in range(fold.max() + 1)]
    return LowRankErrors(components(), parts, residual)
