"""What the fit of a forward model makes of its training stars, once the flux is learned."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from skspec.likelihood import (
    HeldOut,
    HeldOutStars,
    LabelErrors,
    LabelErrorSum,
    LabelLikelihood,
    LabelPopulation,
    LabelScale,
    LocalCovariance,
    OutOfSample,
    TrainingLabels,
    low_rank_errors,
    mean_square,
)
from skspec.likelihood._spectrum_model import batch_rows
from skspec.model_selection import star_groups
from skspec.solvers.spectra.residual_components import ResidualComponents
from skspec.spectra import Spectra

__all__ = [
    "TrainingSpectra",
    "learned_likelihood",
    "training_label_errors",
    "training_mse",
    "unseen_sums",
]

TYPICAL = 0.99  # share of training stars whose chi2 says nothing against them


class TrainingSpectra(Spectra):
    """Spectra that compute their variance only once; they live no longer than a fit."""

    @classmethod
    def of(cls, spectra):
        return cls._from_clean(
            spectra.flux,
            spectra.ivar,
            spectra.wavelength,
            spectra.order,
            spectra.meta,
            spectra.about,
        )

    @cached_property
    def variance(self):
        variance = super().variance
        variance.flags.writeable = False
        return variance


def training_mse(model, x, spectra) -> np.ndarray:
    """Mean squared flux error (P,) on the training stars of scaled labels (n, K)."""
    phi, coef = model._features(x), model._coef
    mse, step = np.empty(spectra.shape[1]), max(1, batch_rows(len(x)) // 16)
    for start in range(0, len(mse), step):
        pixels = slice(start, start + step)
        part = spectra[:, pixels]
        mse[pixels] = mean_square(phi @ coef[:, pixels] - part.flux, part.good)
    return mse


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


def learned_likelihood(model, x, keep, errors: LabelErrors | None) -> LabelLikelihood:
    """What spectra say of labels, given all that a fit has found.

    Parameters
    ----------
    model : ForwardModel
        Trained on the stars that it keeps.
    x : ndarray of shape (n, K)
        Scaled labels.
    keep : ndarray of bool of shape (n,)
    errors : LabelErrors or None
        Of all stars, where they were held out.

    Returns
    -------
    LabelLikelihood
    """
    training, labels = TrainingLabels(x[keep]), slice(x.shape[1])
    own = model._errors.rest + model._flux_floor
    noise = np.sqrt(own + model.training_variance_)
    found = LabelLikelihood(
        model._exact,
        model._compressed(training.spanning_points(), noise),
        model._columns,
        training,
        LabelScale(model.label_names_in_, model.label_pivot_, model.label_scale_),
        model._errors,
        model._flux_floor,
        model.training_variance_ if model.uses_ivar_ else None,
    )
    if errors is None:
        return found
    reduced = np.asarray(errors.reduced_chi2, dtype=float)
    known = reduced[keep & np.isfinite(reduced)]
    found.typical_chi2 = np.quantile(known, TYPICAL) if known.size else np.nan
    if model.label_covariance:
        found.local_cov = LocalCovariance.around(x[keep], x, errors)
    if model.label_prior == "training":  # stars that were removed validate it as well
        seen = errors.informed
        at = np.clip(x[seen] + errors.error[seen, labels], training.lower, training.upper)
        cov = (errors.formal[seen] + found.model_cov_near(at))[:, labels, labels]
        box = training.lower, training.upper
        found.population = LabelPopulation.learn(training.x, *box, x[seen], at, cov)
    return found
