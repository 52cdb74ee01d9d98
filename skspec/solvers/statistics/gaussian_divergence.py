"""Kullback-Leibler divergence of Gaussians from the standard normal, as arrays or as tensors."""

from __future__ import annotations

from typing import Any

__all__ = ["gaussian_divergence"]


def gaussian_divergence(mean: Any, variance: Any, log_variance: Any) -> Any:
    r"""Kullback-Leibler divergence of each latent number from the standard normal [nat].

    .. math:: \tfrac12 \left[\mu^2 + \sigma^2 - 1 - \ln \sigma^2\right]

    Kingma & Welling 2014, appendix B.

    Parameters
    ----------
    mean, variance, log_variance : ndarray or tensor of shape (n, D)
        Of the Gaussians; the logarithm is what a network knows, the variance what others do.

    Returns
    -------
    ndarray or tensor of shape (n, D)

    Examples
    --------
    >>> import numpy as np
    >>> from skspec.solvers.statistics.gaussian_divergence import gaussian_divergence
    >>> variance = np.array([1.0, 1.0, 0.01])
    >>> gaussian_divergence(np.array([0.0, 2.0, 0.0]), variance, np.log(variance)).round(2).tolist()
    [0.0, 2.0, 1.81]
    """
    return 0.5 * (mean**2 + variance - 1.0 - log_variance)
