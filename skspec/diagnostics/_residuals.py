"""Tables of label errors: per label, and split by S/N in the layout of the SLAM paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from skspec import metrics
from skspec._label_values import label_names as names_of
from skspec.distributions import MultivariateNormal
from skspec.metrics import by_name

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

    from skspec.diagnostics._cramer_rao import CramerRaoBound

__all__ = ["attenuation_slope", "error_table", "snr_bins", "snr_table"]

SLAM_EDGES = (20.0, 60.0, 100.0, 200.0, 300.0)  # S/N bins of Zhang, Liu & Deng 2020
_MIN_BIN = 5  # stars below which a bin says nothing


def error_table(
    y_true: ArrayLike,
    y_pred: MultivariateNormal | ArrayLike,
    *,
    label_names: Sequence[str] | None = None,
    formal_cov: np.ndarray | None = None,
    slope: bool = True,
) -> pd.DataFrame:
    """Errors and calibration of each label.

    Parameters
    ----------
    y_true : array-like of shape (n, K)
        True labels.
    y_pred : MultivariateNormal or array-like of shape (n, K)
        Predictions. Coverage, NLL and CRPS need a distribution; they are NaN for plain values.
    label_names : list of str, optional
        Names of the labels.
    formal_cov : ndarray of shape (n, K, K), optional
        Formal covariances of a forward model, whose coverage is listed next to the total's.
    slope : bool
        Also the slope of predicted against true labels.

    Returns
    -------
    pandas.DataFrame
        Indexed by label, with the words of :mod:`skspec.metrics`; ``slope`` is the
        :func:`attenuation_slope`. All errors in label units.
    """
    import pandas as pd

    dist = y_pred if isinstance(y_pred, MultivariateNormal) else None
    names = label_names or getattr(dist, "label_names", None) or names_of(y_pred)
    y_true, mean = by_name(y_true, y_pred)
    names = names or [f"label_{k}" for k in range(y_true.shape[1])]
    columns = {
        "n": len(mean) - metrics.n_failed(mean),
        "bias": metrics.bias(y_true, mean),
        "mae": metrics.mae(y_true, mean),
        "std": metrics.std(y_true, mean),
        "mad": metrics.mad(y_true, mean),
        "robust_std": metrics.robust_std(y_true, mean),
        "rmse": metrics.rmse(y_true, mean),
    }
    columns |= _calibration(y_true, dist)
    columns["formal_coverage_1"] = _formal_coverage(y_true, mean, formal_cov)
    if slope:
        columns["slope"] = attenuation_slope(y_true, mean)
    return pd.DataFrame(columns, index=pd.Index(list(names), name="label"))


def _calibration(y_true, dist):
    if dist is None or not np.isfinite(dist.std()).all(axis=1).any():
        nan = np.nan
        return {"coverage_1": nan, "coverage_2": nan, "nll": nan, "crps": nan, "sharpness": nan}
    return {
        "coverage_1": metrics.coverage(y_true, dist, 1),
        "coverage_2": metrics.coverage(y_true, dist, 2),
        "nll": metrics.neg_log_likelihood(y_true, dist, marginal=True),
        "crps": metrics.crps(y_true, dist),
        "sharpness": metrics.sharpness(dist),
    }


def _formal_coverage(y_true, mean, formal_cov):
    if formal_cov is None or not np.isfinite(formal_cov).all(axis=(1, 2)).any():
        return np.nan
    return metrics.coverage(y_true, MultivariateNormal(mean, cov=formal_cov), 1)


def attenuation_slope(y_true: ArrayLike, y_pred: ArrayLike) -> np.ndarray:
    """Least-squares slope of predicted against true labels, per label.

    Below 1, the range of the labels is compressed towards the training mean: such an estimator is
    biased and may lie below the Cramer-Rao bound. NaN where all true labels are equal.
    """
    y_true, y_pred = by_name(y_true, y_pred)
    keep = np.isfinite(y_pred).all(axis=1)
    x = y_true[keep] - y_true[keep].mean(axis=0)
    y = y_pred[keep] - y_pred[keep].mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sum(x * y, axis=0) / np.sum(x * x, axis=0)


def snr_bins(
    snr: ArrayLike, edges: ArrayLike | None = None, *, n_quantiles: int = 4
) -> list[tuple[str, np.ndarray]]:
    """Stars by S/N: ``[(name, boolean mask), ...]``, highest S/N first.

    Parameters
    ----------
    snr : array-like of shape (n,)
        S/N of each star; NaN where unknown.
    edges : sequence of float, optional
        Bin edges. Default: those of the SLAM paper, 20, 60, 100, 200, 300 (open at both ends when
        stars lie beyond), or quantiles when fewer than two of those bins hold five stars.
    n_quantiles : int
        Number of quantile bins.

    Returns
    -------
    list of (str, ndarray of bool)
        Bins with at least one star; empty when no S/N is known or all are equal.
    """
    snr = np.asarray(snr, dtype=float)
    known = snr[np.isfinite(snr)]
    if known.size == 0 or np.ptp(known) < 1e-3 * np.abs(known).max():
        return []
    if edges is None:
        edges = SLAM_EDGES
        filled = np.histogram(known, np.concatenate([[-np.inf], edges, [np.inf]]))[0]
        if np.sum(filled >= _MIN_BIN) < 2:
            edges = np.unique(np.quantile(known, np.linspace(0, 1, n_quantiles + 1)))
    ends = _open_ended(np.asarray(edges, dtype=float), known)
    last = ends[-1]
    bins = [
        (_bin_name(low, high), (snr >= low) & ((snr < high) | ((high == last) & (snr == high))))
        for low, high in zip(ends[:-1], ends[1:])
    ]
    return [(name, mask) for name, mask in reversed(bins) if mask.any()]


def _open_ended(edges: np.ndarray, known: np.ndarray) -> np.ndarray:
    low = [-np.inf] if known.min() < edges[0] else []
    high = [np.inf] if known.max() > edges[-1] else []
    return np.concatenate([low, edges, high])


def _bin_name(low, high):
    if np.isneginf(low):
        return f"< {high:.0f}"
    return f"> {low:.0f}" if np.isposinf(high) else f"{low:.0f}-{high:.0f}"


def snr_table(
    y_true: ArrayLike,
    y_pred: MultivariateNormal | ArrayLike,
    snr: ArrayLike,
    *,
    edges: ArrayLike | None = None,
    label_names: Sequence[str] | None = None,
    bound: CramerRaoBound | None = None,
) -> pd.DataFrame:
    """Errors of each label in bins of S/N.

    Parameters
    ----------
    y_true, y_pred, label_names
        As in :func:`error_table`.
    snr : array-like of shape (n,)
        S/N of each star.
    edges : sequence of float, optional
        See :func:`snr_bins`.
    bound : CramerRaoBound, optional
        Its median marginal standard deviation is listed in each bin.

    Returns
    -------
    pandas.DataFrame
        Columns ``snr``, ``label``, those of :func:`error_table` and ``bound``; bins without a
        finite prediction are left out. A ``slope`` that sinks below 1 with the S/N is the
        attenuation of discriminative methods: what the noise hides they replace by the training
        mean.
    """
    import pandas as pd

    y_true, mean = by_name(y_true, y_pred)
    predicted = y_pred if isinstance(y_pred, MultivariateNormal) else mean
    label_names = label_names or names_of(y_pred)
    sigma = None if bound is None else bound.std()
    rows = []
    for name, inside in snr_bins(snr, edges):
        if metrics.n_failed(mean[inside]) == inside.sum():
            continue
        part = error_table(y_true[inside], predicted[inside], label_names=label_names)
        part = part.drop(columns="formal_coverage_1")
        part["bound"] = np.nan if sigma is None else _median(sigma[inside])
        rows.append(part.reset_index().assign(snr=name))
    if not rows:
        return pd.DataFrame(columns=["snr", "label"])
    frame = pd.concat(rows, ignore_index=True)
    return frame[["snr", "label", *(c for c in frame if c not in ("snr", "label"))]]


def _median(values):
    """Median over stars, NaN where none is finite."""
    some = np.isfinite(values).any(axis=0)
    return np.where(some, np.nanmedian(np.where(some, values, 0), axis=0), np.nan)
