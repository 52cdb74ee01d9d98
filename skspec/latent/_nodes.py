"""Which nodes of a latent space are used: how far each moves from star to star."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.utils import check_array

from skspec.solvers.statistics.gaussian_divergence import gaussian_divergence

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["informative_nodes", "node_dispersion"]


def informative_nodes(
    latents: ArrayLike,
    threshold: float = 0.02,
    *,
    deviation: str = "median",
    weight: ArrayLike | None = None,
) -> np.ndarray:
    r"""Nodes that differ from star to star.

    A node `d` is informative when the deviation of its latent means :math:`\mu_d` is large,

    .. math:: {\rm median}_i\,|\mu_{id} - {\rm median}_j\,\mu_{jd}| > {\rm threshold};

    nodes that a variational autoencoder does not use stay at 0 in all stars. The deviation carries no
    factor of 1.4826. The threshold is an absolute one: it holds for latents that a prior N(0, 1) keeps
    to that scale, not for principal components and the like.

    Parameters
    ----------
    latents : array-like of shape (n, D)
        Latent means of `n` stars. Those that are not finite (of spectra without a good pixel) are left
        out.
    threshold : float
    deviation : {"median", "mean"}
        "mean" takes the mean absolute deviation from the mean: it also sees nodes that only a few
        stars move.
    weight : array-like of shape (n,), optional
        Weights of the stars.

    Returns
    -------
    ndarray of bool of shape (D,)

    Raises
    ------
    ValueError
        Without a star whose latents are finite, on negative weights, weights of another length, or an
        unknown `deviation`.

    References
    ----------
    Sedaghat et al. 2021, MNRAS 501, 6026.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec.latent import informative_nodes
    >>> latents = np.random.default_rng(0).normal(size=(500, 4)) * [1, 0.01, 0.5, 0]
    >>> informative_nodes(latents)
    array([ True, False,  True, False])
    """
    if deviation not in ("median", "mean"):
        raise ValueError(f"deviation must be 'median' or 'mean', got {deviation!r}.")
    latents, weight, _ = _checked(latents, weight)
    spread = _median_deviation if deviation == "median" else _mean_deviation
    return spread(latents, weight) > threshold


def node_dispersion(
    latents: ArrayLike, std: ArrayLike | None = None, *, weight: ArrayLike | None = None
) -> pd.DataFrame:
    r"""How far each node moves from star to star, and what it costs.

    Parameters
    ----------
    latents : array-like of shape (n, D)
        Latent means :math:`\mu` of `n` stars; those that are not finite are left out.
    std : array-like of shape (n, D), optional
        Their posterior standard deviations :math:`\sigma`, from ``transform(X, return_std=True)``.
    weight : array-like of shape (n,), optional
        Weights of the stars.

    Returns
    -------
    pandas.DataFrame
        A row per node, with columns

        ``mad``
            Median absolute deviation from the median, without factor: see :func:`informative_nodes`.
        ``mean_deviation``
            Mean absolute deviation from the mean.
        ``std``
            Standard deviation over the stars.
        ``kl``
            Only with `std`: mean over stars of the Kullback-Leibler divergence from the prior,
            :math:`\frac{1}{2}(\mu^2 + \sigma^2 - 1 - \ln \sigma^2)` [nat], what the node costs in the
            loss of a variational autoencoder.

    Raises
    ------
    ValueError
        As :func:`informative_nodes`, and on a `std` of another shape or that is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec.latent import node_dispersion
    >>> latents = np.random.default_rng(0).normal(size=(500, 3)) * [1, 0.01, 0]
    >>> node_dispersion(latents, std=np.tile([0.2, 1, 1], (500, 1))).round(2)
           mad  mean_deviation   std    kl
    node
    0     0.63            0.77  0.98  1.62
    1     0.01            0.01  0.01  0.00
    2     0.00            0.00  0.00  0.00
    """
    latents, weight, seen = _checked(latents, weight)
    mean = np.average(latents, axis=0, weights=weight)
    table = {
        "mad": _median_deviation(latents, weight),
        "mean_deviation": _mean_deviation(latents, weight),
        "std": np.sqrt(np.average((latents - mean) ** 2, axis=0, weights=weight)),
    }
    if std is not None:
        std = np.asarray(std, dtype=float)
        if std.shape != (len(seen), latents.shape[1]) or not np.all(std[seen] > 0):
            raise ValueError(
                f"std has shape {std.shape}, latents {(len(seen), latents.shape[1])}; give one "
                "positive standard deviation for each latent."
            )
        std = std[seen]
        divergence = gaussian_divergence(latents, std**2, 2 * np.log(std))
        table["kl"] = np.average(divergence, axis=0, weights=weight)
    return pd.DataFrame(table).rename_axis("node")


def _checked(latents, weight):
    """Latents and weights of the stars that have any, and which these are."""
    latents = check_array(
        latents, dtype=float, input_name="latents", ensure_all_finite=False, ensure_min_samples=0
    )
    seen = np.isfinite(latents).all(axis=1)
    if not seen.any():
        raise ValueError("No star has finite latents.")
    if weight is None:
        return latents[seen], None, seen
    weight = np.asarray(weight, dtype=float)
    if weight.shape != seen.shape:
        raise ValueError(f"weight has shape {weight.shape} for {len(seen)} stars; give one each.")
    if not (np.all(np.isfinite(weight)) and np.all(weight >= 0) and weight[seen].sum() > 0):
        raise ValueError("Weights must be finite and not negative, and some must be positive.")
    return latents[seen], weight[seen], seen


def _mean_deviation(values, weight):
    centre = np.average(values, axis=0, weights=weight)
    return np.average(np.abs(values - centre), axis=0, weights=weight)


def _median_deviation(values, weight):
    return _median(np.abs(values - _median(values, weight)), weight)


def _median(values, weight):
    """Median of each column; where half of the weight lies on either side, the mean of the two."""
    if weight is None:
        return np.median(values, axis=0)
    order = np.argsort(values, axis=0, kind="stable")
    below = np.cumsum(weight[order], axis=0) / weight.sum()
    slack = 1e-9  # the sum of weights is not exact
    middle = np.stack([np.argmax(below > 0.5 + sign * slack, axis=0) for sign in (-1, 1)])
    middle = np.take_along_axis(order, middle, axis=0)
    return np.take_along_axis(values, middle, axis=0).mean(axis=0)
