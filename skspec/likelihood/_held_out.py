"""Training stars seen by models that were trained without them: residuals, carried to the labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from skspec._short_repr import ShortRepr
from skspec.likelihood._free_parameters import FreeColumns
from skspec.likelihood._label_errors import LabelErrorSum
from skspec.likelihood._noise import PixelNoise, one_product
from skspec.likelihood._normal_equations import NormalEquations
from skspec.solvers.linear.pixel_blocks import ignore_fp_errors, parallel_map
from skspec.solvers.spectra.residual_components import ResidualComponents

__all__ = ["HeldOut", "HeldOutStars", "OutOfSample", "mean_square"]


class HeldOut(NamedTuple):
    """Some pixels of training stars, by models that have not seen them."""

    residual: np.ndarray  # (n, B)
    jacobian: np.ndarray  # (n, K, B)
    #: ``weighted (m, B), rows of m stars -> weighted @ coef.T (m, q)``, coef of those models
    project: Callable


@dataclass
class OutOfSample(ShortRepr):
    """What a forward model knows of training stars that it was not trained on.

    Attributes
    ----------
    held_out : callable ``pixels -> HeldOut``
        Of a slice of pixels; 0 is the residual of a bad one.
    blocks : list of slices
        All pixels, in pieces to call it with.
    rows : ndarray of int, optional
        The stars that were held out; default: all.
    curvature : callable ``rows, weight (m, q) -> (m, K, K)``, optional
        Second derivatives of the features summed with weights; default: those of the model.
    """

    held_out: Callable
    blocks: list
    rows: np.ndarray | None = None
    curvature: Callable | None = None


@dataclass
class HeldOutStars(ShortRepr):
    """Label errors of training stars, from their residuals.

    Parameters
    ----------
    photon : ndarray of shape (n, P)
        Photon variance; ``inf`` at bad pixels.
    floor : ndarray of shape (P,)
        Least variance of the model in a pixel.
    n_labels : int
    columns : FreeColumns
        What is fitted besides the labels.
    flux : callable ``pixels -> (n, B)``
        Model spectra that these columns are derivatives of.
    """

    photon: np.ndarray
    floor: np.ndarray
    n_labels: int
    columns: FreeColumns
    flux: Callable

    def sums(
        self,
        out_of_sample: OutOfSample,
        parts: Sequence[tuple[Any, ResidualComponents]],
        curvature: Callable,
        residual: np.ndarray | None = None,
    ) -> tuple[LabelErrorSum, np.ndarray]:
        """Add up all pixels at the true labels.

        Parameters
        ----------
        out_of_sample : OutOfSample
        parts : list of (rows, ResidualComponents)
            Errors of the model for some of the stars each.
        curvature : callable ``rows, weight (m, q) -> (m, K, K)``
        residual : ndarray of shape (n, P), optional
            Of all pixels at once; needed where pixels share errors.

        Returns
        -------
        LabelErrorSum
        mse : ndarray of shape (P,)
            Mean squared flux error of the stars held out.
        """
        n, n_pixels = self.photon.shape
        stars = [_Stars(self, rows, errors, residual) for rows, errors in parts]
        mse = np.empty(n_pixels)

        def add_up(pixels):
            part = out_of_sample.held_out(pixels)
            mse[pixels] = mean_square(part.residual, np.isfinite(self.photon[:, pixels]))
            if len(self.columns):
                more = self.columns(self.flux(pixels), pixels)
                part = part._replace(jacobian=np.concatenate([part.jacobian, more], axis=1))
            return [some.sums(part, pixels) for some in stars]

        # components of many pixels are large products, which use all threads themselves
        is_wide = any(len(some.errors.spectra) for some in stars)
        blocks = out_of_sample.blocks
        done = (
            (ignore_fp_errors(add_up, b) for b in blocks)
            if is_wide
            else parallel_map(add_up, blocks)
        )
        for block in done:
            for some, values in zip(stars, block):
                some.add(values)
        total = LabelErrorSum(n, self.n_labels, len(self.columns))
        for some in stars:
            some.finish(total, curvature)
        return total, mse


class _Stars:
    """Stars of one model error, and what has been added up of them."""

    def __init__(self, parent, rows, errors: ResidualComponents, residual):
        self.parent, self.rows, self.errors = parent, rows, errors
        self.residual = None if residual is None else residual[rows]
        self.noise, self.amplitude, self.total = None, np.zeros((1, 0)), None
        if len(errors.spectra):
            self.noise = PixelNoise(self._weight(slice(None)), errors.spectra)
            self.amplitude = self.noise.amplitudes(self.residual)

    def _weight(self, pixels):
        own = self.errors.rest[pixels] + self.parent.floor[pixels]
        return 1.0 / (self.parent.photon[:, pixels][self.rows] + own)

    def sums(self, part, pixels):
        """Of a block: normal equations, good pixels, design on shared errors, projected residuals."""
        residual, design = part.residual[self.rows], part.jacobian[self.rows]
        shared, on_design = self.errors.spectra[:, pixels], 0.0
        weight = self._weight(pixels) if self.noise is None else self.noise.weight[:, pixels]
        weighted, pull = design * weight[:, None], weight * residual
        normal = NormalEquations.of_weighted(design, residual, weighted, pull)
        if len(shared):
            on_design = one_product(weighted, shared.T)
            pull = weight * (residual - self.amplitude @ shared)
        n_good = np.count_nonzero(weight, axis=1)
        return normal, n_good, on_design, part.project(pull, self.rows)

    def add(self, values):
        """Another block."""
        self.total = values if self.total is None else [a + b for a, b in zip(self.total, values)]

    def finish(self, total, curvature):
        """Into the sums of all stars."""
        normal, n_good, on_design, weight = self.total
        if self.noise is not None:
            normal = self.noise.integrated(normal, on_design, self.residual)
        total.put(self.rows, normal, n_good, curvature(self.rows, weight))


def mean_square(values: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Mean square of each column over its good values; NaN where there are none."""
    if good.all():
        return np.einsum("np,np->p", values, values, dtype=float) / len(values)
    values, n_good = np.where(good, values, 0.0), good.sum(axis=0)
    return np.einsum("np,np->p", values, values) / np.where(n_good > 0, n_good, np.nan)
