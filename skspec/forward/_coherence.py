"""Errors of a model that pixels have in common: found in its residuals, and carried to the labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from skspec.solvers.linear.coherent_errors import CoherentErrors
from skspec.solvers.linear.pixel_blocks import ignore_fp_errors, parallel_map
from skspec.solvers.spectra.residual_components import ResidualComponents, ResidualPCA

__all__ = ["Coherence", "HeldOut", "coherent_sums", "find_coherence"]

FOLDS = 5  # of the stars that components are found from, to try them on the others


class HeldOut(NamedTuple):
    """Some pixels of training stars, by models that have not seen them."""

    residual: np.ndarray  # (n, B)
    jacobian: np.ndarray  # (n, K, B)
    #: ``pull (m, B), rows of m stars -> pull @ coef.T (m, q)``, with the coefficients of those models
    project: Callable


class Coherence(NamedTuple):
    """What :func:`find_coherence` has found.

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


def find_coherence(held_out, blocks, photon, trained, strength) -> Coherence:
    """Components of the errors of a model.

    Parameters
    ----------
    held_out : callable ``pixels -> HeldOut``
    blocks : list of slices
        Of pixels.
    photon : ndarray of shape (n, P)
        Photon variance; ``inf`` at bad pixels.
    trained : ndarray of bool of shape (P,)
    strength : float
        Fraction of the error that is shared between pixels.
    """
    residual = np.empty(photon.shape, np.float32)

    def look(pixels):
        residual[:, pixels] = held_out(pixels).residual

    parallel_map(look, blocks)
    residual[:, ~trained] = 0.0
    found = ResidualPCA(residual, photon)

    def components(seen=None):
        spectra, rest = found.components(seen, strength)
        return ResidualComponents(spectra, np.where(trained, rest, np.inf))

    fold = np.random.default_rng(0).permutation(len(photon)) % min(FOLDS, len(photon))
    parts = [(np.flatnonzero(fold == k), components(fold != k)) for k in range(fold.max() + 1)]
    return Coherence(components(), parts, residual)


def coherent_sums(total, photon, floor, residual, parts, held_out, blocks, curvature):
    """Add all pixels of stars to the sums of their label errors, common errors integrated over.

    Parameters
    ----------
    total : LabelErrorSum
        Empty.
    photon, residual : ndarray of shape (n, P)
    floor : ndarray of shape (P,)
        Least variance of a pixel.
    parts : list of (rows, ResidualComponents)
        Components for some of the stars.
    held_out : callable ``pixels -> HeldOut``
    blocks : list of slices
        Of pixels.
    curvature : callable ``rows, weight (m, q) -> (m, K, K)``
        As `ForwardModel._curvature`.

    Returns
    -------
    LabelErrorSum
        `total`.
    """
    stars = [_Stars(rows, part, photon[rows] + floor, residual[rows]) for rows, part in parts]
    for pixels in blocks:
        seen = ignore_fp_errors(held_out, pixels)
        for some in stars:
            some.add(total, seen, pixels)
    for some in stars:
        total.take_off(some.rows, some.errors, some.on_residual, some.on_jacobian)
        total.curvature[some.rows] += curvature(some.rows, some.pull)
    return total


class _Stars:
    """Stars that share their components, and what has been added up of them."""

    def __init__(self, rows, components, variance, residual):
        self.rows, self.spectra = rows, components.spectra
        self.weight = 1.0 / (variance + components.rest)
        self.errors = CoherentErrors(self.spectra, self.weight)
        self.on_residual = (self.weight * residual) @ self.spectra.T
        self.amplitude = self.errors.amplitudes(self.on_residual)
        self.on_jacobian = self.pull = 0.0

    def add(self, total, seen, pixels):
        U, w = self.spectra[:, pixels], self.weight[:, pixels]
        residual, jacobian = seen.residual[self.rows], seen.jacobian[self.rows]
        total.add(self.rows, w, residual, jacobian, lambda pull: 0.0)
        self.on_jacobian = self.on_jacobian + (jacobian * w[:, None]) @ U.T
        beyond = w * (residual - self.amplitude @ U)
        self.pull = self.pull + seen.project(beyond, self.rows)
