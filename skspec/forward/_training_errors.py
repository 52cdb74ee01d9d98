"""Label errors that a forward model makes on its training stars, each seen by a model without it."""

from __future__ import annotations

import numpy as np

from skspec.likelihood import (
    HeldOut,
    HeldOutStars,
    LabelErrors,
    LabelErrorSum,
    OutOfSample,
    low_rank_errors,
)
from skspec.likelihood._spectrum_model import batch_rows
from skspec.model_selection import star_groups
from skspec.solvers.spectra.residual_components import ResidualComponents

__all__ = ["training_label_errors", "unseen_sums"]


def training_label_errors(
    model, x, spectra, keep, kept
) -> tuple[LabelErrors, ResidualComponents, np.ndarray]:
    """Label errors of all stars of a training set.

    Parameters
    ----------
    model : ForwardModel
        Trained on the stars that it keeps.
    x : ndarray of shape (n, K)
        Scaled labels.
    spectra : Spectra of shape (n, P)
    keep : ndarray of bool of shape (n,)
    kept : Spectra
        Those kept.

    Returns
    -------
    errors : LabelErrors
    model_errors : ResidualComponents
        Of the model in each pixel, and shared between pixels with ``coherence``.
    mse : ndarray of shape (P,)
        Mean squared flux error of the stars held out.
    """
    out, stars = model._out_of_sample(x[keep], kept), np.flatnonzero(keep)
    if out.rows is not None:
        stars, kept = stars[out.rows], kept[out.rows]
    model_errors, residual, photon = model._errors, None, model._photon_variance(kept)
    parts = [(slice(None), model_errors)]
    if model.coherence:
        trained = np.isfinite(model.scatter_)
        model_errors, parts, residual = low_rank_errors(
            out, photon, trained, model.coherence, star_groups(kept)
        )
    total = LabelErrorSum(len(x), x.shape[1], len(model._columns))
    sums, mse = _sums(model, x[stars], photon, out, parts, residual)
    total.merge(stars, sums)
    removed = np.flatnonzero(~keep)
    step = batch_rows(spectra.shape[1] * (x.shape[1] + 1))
    for start in range(0, len(removed), step):
        rows = removed[start : start + step]
        total.merge(rows, unseen_sums(model, x[rows], spectra[rows], model_errors))
    n_columns = x.shape[1] + model._columns.free.n_nonlinear
    return total.errors(n_columns), model_errors, mse


def unseen_sums(model, x, spectra, model_errors) -> LabelErrorSum:
    """Sums for the label errors of stars that the model has not seen."""
    (phi, slope), coef = model._features(x, derivative=True), model._coef
    residual = np.where(spectra.good, spectra.flux - phi @ coef, 0.0)
    unseen = HeldOut(residual, slope @ coef, lambda weighted, _: weighted @ coef.T)
    out, parts = OutOfSample(lambda _: unseen, [slice(None)]), [(slice(None), model_errors)]
    return _sums(model, x, model._photon_variance(spectra), out, parts, residual)[0]


def _sums(model, x, photon, out, parts, residual):
    phi, coef = (model._features(x), model._coef) if len(model._columns) else (None, None)
    stars = HeldOutStars(
        photon,
        model._flux_floor,
        x.shape[1],
        model._columns,
        lambda pixels: phi @ coef[:, pixels],
    )
    curvature = out.curvature or (lambda rows, weight: model._curvature(x[rows], weight))
    return stars.sums(out, parts, curvature, residual)
