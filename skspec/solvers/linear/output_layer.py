"""The linear output layer of a network, refitted in closed form for all pixels at once."""

from __future__ import annotations

import numpy as np

__all__ = ["refit_output_layer"]

#: strengths of the penalty that are tried, in units of the mean eigenvalue of the normal matrix
PENALTIES = np.logspace(-6, 1, 8)
FILLINGS = 4  # passes in which bad pixels take the flux of the last


def refit_output_layer(
    phi: np.ndarray,
    Y: np.ndarray,
    weight: np.ndarray,
    coef: np.ndarray,
    phi_valid: np.ndarray,
    Y_valid: np.ndarray,
    weight_valid: np.ndarray,
) -> tuple[np.ndarray, float]:
    r"""Output layer by penalised least squares, the penalty chosen on a validation set.

    .. math:: \min_W \sum_{ij} w_i m_{ij} (y_{ij} - \phi_i W_j)^2 + \lambda \|W - W^0\|^2

    with features that stay as they are, bad pixels left out (:math:`m`), and the network's own layer
    :math:`W^0` kept where no penalty does better.

    Parameters
    ----------
    phi : ndarray of shape (n, q)
        Features of the training stars.
    Y : ndarray of shape (n, P)
    weight : ndarray of shape (n, P)
        0 marks a bad pixel. Of the others the mean of each star counts, so that all pixels share
        one normal matrix.
    coef : ndarray of shape (q, P)
        The layer :math:`W^0` as trained.
    phi_valid, Y_valid, weight_valid : ndarrays with v rows
        The validation set; there every weight counts.

    Returns
    -------
    coef : ndarray of shape (q, P)
    penalty : float
        In units of the mean eigenvalue; ``inf`` where the layer was kept.
    """
    good = weight > 0
    star = weight.sum(axis=1) / np.maximum(good.sum(axis=1), 1)
    value, vector = np.linalg.eigh((phi * star[:, None]).T @ phi)
    value, unit = np.maximum(value, 0.0), value.mean()
    psi, psi_valid = phi @ vector, phi_valid @ vector
    residual = np.where(good, Y - phi @ coef, 0.0)
    left = np.where(weight_valid > 0, Y_valid - phi_valid @ coef, 0.0)
    best, chosen, change = np.vdot(weight_valid * left, left), np.inf, 0.0
    n_passes = 1 if good.all() else FILLINGS
    for penalty in PENALTIES:
        step = np.zeros_like(coef)
        for number in range(n_passes):
            missed = residual if number == 0 else np.where(good, residual - psi @ step, 0.0)
            pull = psi.T @ (star[:, None] * missed) + value[:, None] * step
            step = pull / (value + penalty * unit)[:, None]
        error = left - psi_valid @ step
        score = np.vdot(weight_valid * error, error)
        if score < best:
            best, chosen, change = score, penalty, step
    return (coef if chosen == np.inf else coef + vector @ change), chosen
