"""Training stars seen by models that were trained without them, for any forward model."""

from __future__ import annotations

import copy

import numpy as np

from skspec.likelihood import HeldOut, OutOfSample
from skspec.likelihood._spectrum_model import batch_rows
from skspec.model_selection import check_cv, star_groups

__all__ = ["has_repeats", "refit_without"]


def has_repeats(spectra) -> bool:
    """Whether some are known to be of one star: a model without one of them has seen the others."""
    groups = star_groups(spectra)
    return groups is not None and len(np.unique(groups)) < len(groups)


def refit_without(model, x, spectra, n_folds: int = 5) -> OutOfSample:
    """Fit a forward model once for each fold of the stars, without it.

    Parameters
    ----------
    model : ForwardModel
        Copies of it are trained.
    x : ndarray of shape (n, K)
        Scaled labels.
    spectra : Spectra of shape (n, P)
        Spectra of one star stay together.
    n_folds : int

    Returns
    -------
    OutOfSample
    """
    groups = star_groups(spectra)
    folds = check_cv(n_folds, len(x), groups, shuffle=True).split(x, None, groups)
    parts, fold = [], np.empty(len(x), dtype=int)
    for number, (seen, rows) in enumerate(folds):
        other = copy.copy(model)
        other._fit_flux(x[seen], spectra[seen], None)
        fold[rows] = number
        parts.append((other, rows, *other._features(x[rows], derivative=True), other._coef))
    n_features = max(len(coef) for *_, coef in parts)

    def held_out(pixels):
        part = spectra[:, pixels]
        residual, jacobian = np.empty(part.shape), np.empty((*x.shape, part.shape[1]))
        for other, rows, phi, slope, coef in parts:
            # a pixel that a fold could not train says nothing of its stars
            trained = np.isfinite(other.scatter_[pixels])
            residual[rows] = np.where(trained, part.flux[rows] - phi @ coef[:, pixels], 0.0)
            jacobian[rows] = np.where(trained, slope @ coef[:, pixels], 0.0)

        def project(weighted, rows):
            out = np.zeros((len(weighted), n_features))
            for number, (*_, coef) in enumerate(parts):
                mine = fold[rows] == number
                out[mine, : len(coef)] = weighted[mine] @ coef[:, pixels].T
            return out

        return HeldOut(np.where(part.good, residual, 0.0), jacobian, project)

    def curvature(rows, weight):
        stars, out = np.arange(len(x))[rows], np.zeros((len(weight), *2 * x.shape[1:]))
        for number, (other, *_, coef) in enumerate(parts):
            mine = np.flatnonzero(fold[stars] == number)
            if not mine.size:
                continue
            out[mine] = other._curvature(x[stars[mine]], weight[mine, : len(coef)])
        return out

    step = max(1, batch_rows(len(x) * (x.shape[1] + 2)))
    blocks = [slice(a, a + step) for a in range(0, spectra.shape[1], step)]
    return OutOfSample(held_out, blocks, curvature=curvature)
