r"""Components of spectra by weighted least squares, and how well each star knows its own.

With components `V`, weights :math:`W = \mathrm{diag}(1/e^2)` and photon variances :math:`\sigma^2`,

.. math:: \hat c = (V W V^T + \Lambda^{-1})^{-1} V W (y - \mu), \qquad
          \mathrm{cov}(\hat c) = A^{-1}\, V W \sigma^2 W V^T\, A^{-1}, \quad
          A = G + \Lambda^{-1}, \quad G = V W V^T,

and the weighted residuals of any two spectra within the subspace are :math:`(a-b)^T G (a-b)`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skspec.solvers.linear.weighted_gram import weighted_gram

__all__ = ["Projection", "project"]

BATCH = 512  # stars
REGULAR = 1e-9  # of the mean diagonal, added to a normal matrix


class Projection(NamedTuple):
    """Components of a batch of stars.

    Attributes
    ----------
    coef : ndarray of shape (n, q)
    gram : ndarray of shape (n, q, q)
    noise : ndarray of shape (n, q, q) or None
        ``L`` with ``L L^T`` the covariance of `coef`; None where no photon variance is known.
    """

    coef: np.ndarray
    gram: np.ndarray
    noise: np.ndarray | None


def project(
    residual: np.ndarray,
    error2: np.ndarray,
    variance: np.ndarray | None,
    components: np.ndarray,
    prior: np.ndarray,
) -> Projection:
    """Project spectra on components.

    Parameters
    ----------
    residual : ndarray of shape (n, P)
        Less the mean.
    error2 : ndarray of shape (n, P)
        Squared errors that the weights are of; ``inf`` at bad pixels.
    variance : ndarray of shape (n, P) or None
        Photon variances.
    components : ndarray of shape (q, P)
    prior : ndarray of shape (q,)
        Variance of the components over stars.
    """
    parts = [
        _project(
            residual[rows],
            1.0 / error2[rows],
            None if variance is None else variance[rows],
            components,
            prior,
        )
        for start in range(0, len(residual), BATCH)
        for rows in [slice(start, start + BATCH)]
    ]
    coef, gram, noise = zip(*parts)
    together = None if variance is None else np.concatenate(noise)
    return Projection(np.concatenate(coef), np.concatenate(gram), together)


def _project(residual, weight, variance, V, prior):
    gram = weighted_gram(V, weight)
    right = (residual * weight) @ V.T
    coef = np.linalg.solve(gram + np.diag(1.0 / prior), right[..., None])[..., 0]
    if variance is None:
        return coef, gram, None
    share = weight * np.where(weight > 0, variance * weight, 0.0)
    inverse = np.linalg.inv(gram + np.diag(1.0 / prior))
    covariance = inverse @ weighted_gram(V, share) @ inverse
    covariance += REGULAR * np.diag(prior)
    return coef, gram, np.linalg.cholesky(covariance)
