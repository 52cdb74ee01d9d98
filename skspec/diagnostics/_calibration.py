"""Do error bars hold what they promise? Coverage, PIT and proper scores in one report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import chdtr

from skspec import metrics
from skspec._label_values import label_values
from skspec._short_repr import ShortRepr
from skspec.base import as_spectra, last_step, predict_dist, unwrap
from skspec.diagnostics._compare import known_snr
from skspec.diagnostics._format import DASH, TextTable, decimals_of, number
from skspec.diagnostics._residuals import snr_bins
from skspec.distributions import MultivariateNormal

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike
    from sklearn.base import BaseEstimator

    from skspec._typing import Labels, SpectraLike

__all__ = ["CalibrationReport", "calibration_report", "interval_coverage"]

LEVELS = (0.5, 0.6827, 0.9, 0.9545, 0.99)
JOINT = "joint"


@dataclass(frozen=True)
class CalibrationReport(ShortRepr):
    """Promised against kept.

    Attributes
    ----------
    levels : tuple of float
        Promised coverages.
    table : pandas.DataFrame
        A row per label, and ``joint`` for all labels at once (ellipsoids). Columns: ``n`` stars; for
        each level the observed coverage of the Gaussian; ``pit_distance``, the largest distance of
        the distribution of the PIT from the uniform one (Kolmogorov and Smirnov); ``z_mean`` and
        ``z_std`` of the errors over their error bars; ``nll``, ``crps`` and ``sharpness`` as in
        :mod:`skspec.metrics`.
    by_snr : pandas.DataFrame
        The same in bins of S/N, which is the first column; empty without S/N.
    intervals : pandas.DataFrame or None
        Coverage of the model's own ``predict_interval`` and, for ``joint``, ``contains``: that of
        the conformal intervals of a :class:`~skspec.calibration.CalibratedRegressor`.
    pit : ndarray of shape (n, K)
        Probability integral transform of the true labels: uniform when calibrated.
    joint_pit : ndarray of shape (n,)
        The same of the Mahalanobis distance.
    label_names : list of str
    """

    levels: tuple[float, ...]
    table: pd.DataFrame
    by_snr: pd.DataFrame
    intervals: pd.DataFrame | None
    pit: np.ndarray
    joint_pit: np.ndarray
    label_names: list[str]

    def tables(self) -> list[TextTable]:
        """The report as text tables."""
        n = len(self.pit)
        tables = [_coverage_table("coverage [%]", self.table, self.levels, n)]
        if self.intervals is not None:
            title = "coverage of predict_interval [%]"
            tables.append(_coverage_table(title, self.intervals, self.levels, n))
        tables.append(_score_table(self.table, n))
        for label, part in self.by_snr.groupby("label", sort=False):
            tables.append(_snr_table(label, part, self.levels))
        return tables

    def __str__(self) -> str:
        return "\n\n".join(str(table) for table in self.tables())


def calibration_report(
    model: BaseEstimator | MultivariateNormal,
    X: SpectraLike | None,
    y: Labels,
    *,
    levels: ArrayLike = LEVELS,
    snr: ArrayLike | None = None,
    snr_edges: ArrayLike | None = None,
) -> CalibrationReport:
    r"""Judge the error bars of a fitted model, or of distributions, on stars with known labels.

    Parameters
    ----------
    model : fitted estimator or MultivariateNormal
        Distributions, or an estimator that :func:`skspec.predict_dist` understands.
    X : Spectra or array-like of shape (n, P), or None
        Test spectra, not those of the training; with distributions they are only asked for their
        S/N, and may be None.
    y : array-like of shape (n, K) or (n,)
        True labels.
    levels : sequence of float
        Coverages to be checked, between 0 and 1.
    snr : array-like of shape (n,), optional
        S/N of each star; default: ``snr`` in ``X.meta``, else from the flux errors.
    snr_edges : sequence of float, optional
        Bins of S/N; see :func:`snr_bins`.

    Returns
    -------
    CalibrationReport
        Printed as tables. Stars without a finite prediction are left out.

    Raises
    ------
    ValueError
        When a level is not between 0 and 1, true labels are not finite, or no star has a finite
        prediction.

    Notes
    -----
    The coverage of `n` stars has a standard error of :math:`\sqrt{p (1 - p) / n}`, the last row of
    the first table: 1.5 % at 68.27 % for 1000 stars.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec import MultivariateNormal
    >>> from skspec.diagnostics import calibration_report
    >>> rng = np.random.default_rng(0)
    >>> y = rng.normal(size=(2000, 1))
    >>> dist = MultivariateNormal(np.zeros((2000, 1)), scale=[0.5], label_names=["feh"])
    >>> report = calibration_report(dist, None, y)            # error bars of half the true size
    >>> print(report.tables()[0])
    coverage [%]
                        50  68.27    90  95.45    99
      feh             25.9   37.5  59.3   67.3  80.5
      standard error   1.1    1.0   0.7    0.5   0.2
    """
    levels = tuple(np.asarray(levels, dtype=float).tolist())
    if not all(0 < level < 1 for level in levels):
        raise ValueError(f"levels must lie between 0 and 1, got {levels}.")
    given = isinstance(model, MultivariateNormal)
    dist = model if given else predict_dist(model, X)  # type: ignore[arg-type]
    names = dist.label_names or [f"label_{k}" for k in range(dist.n_labels)]
    y = label_values(y, dist.label_names).reshape(len(dist), -1)
    pit = metrics.pit(y, dist)  # raises where nothing is finite
    if snr is None:
        snr = np.full(len(dist), np.nan) if X is None else known_snr(as_spectra(X))
    return CalibrationReport(
        levels=levels,
        table=_judged(y, dist, names, levels),
        by_snr=_by_snr(y, dist, names, levels, snr, snr_edges),
        intervals=None if given else _intervals(model, X, y, names, levels),
        pit=pit,
        joint_pit=_joint_pit(*_finite(y, dist)),
        label_names=list(names),
    )


def _judged(y, dist, names, levels):
    """One row per label, and one for all together."""
    import pandas as pd

    y, dist = _finite(y, dist)
    z = (dist.mean() - y) / dist.std()
    pit, joint_pit = dist.pit(y), _joint_pit(y, dist)
    inside = np.abs(2 * pit - 1)
    columns = {"n": len(y)}
    columns |= {level: np.mean(inside <= level, axis=0) for level in levels}
    columns |= {
        "pit_distance": _uniform_distance(pit),
        "z_mean": z.mean(axis=0),
        "z_std": z.std(axis=0),
        "nll": metrics.neg_log_likelihood(y, dist, marginal=True),
        "crps": metrics.crps(y, dist),
        "sharpness": metrics.sharpness(dist),
    }
    frame = pd.DataFrame(columns, index=pd.Index(list(names), name="label"))
    if len(names) > 1:
        frame.loc[JOINT] = pd.Series(
            {
                "n": len(y),
                "pit_distance": _uniform_distance(joint_pit[:, None])[0],
                "nll": metrics.neg_log_likelihood(y, dist),
                **{level: np.mean(joint_pit <= level) for level in levels},
            }
        )
    return frame.astype({"n": int})


def _by_snr(y, dist, names, levels, snr, edges):
    import pandas as pd

    snr = np.asarray(snr, dtype=float)
    if snr.shape != (len(dist),):
        raise ValueError(f"snr of shape {snr.shape} for {len(dist)} stars.")
    frames = []
    for name, inside in snr_bins(snr, edges):
        if metrics.n_failed(dist[inside].mean()) < inside.sum():
            part = _judged(y[inside], dist[inside], names, levels).reset_index()
            part.insert(0, "snr", name)
            frames.append(part)
    empty = pd.DataFrame(columns=["snr", "label"])
    return pd.concat(frames, ignore_index=True) if frames else empty


def _intervals(model, X, y, names, levels):
    """Coverage of the model's own intervals; None where it has no others than its Gaussian's."""
    import pandas as pd

    last, inner = unwrap(model, X)
    if not hasattr(last, "predict_interval"):
        return None
    observed = interval_coverage(last, inner, y, levels)
    frame = pd.DataFrame(observed.T, columns=list(levels), index=pd.Index(names, name="label"))
    if len(names) > 1 and hasattr(last, "contains"):
        frame.loc[JOINT] = [np.mean(last.contains(inner, y, level)) for level in levels]
    return frame


def interval_coverage(
    model: BaseEstimator, X: SpectraLike, y: Labels, levels: ArrayLike
) -> np.ndarray:
    """Fraction of stars within ``model.predict_interval``, shape (L, K).

    Parameters
    ----------
    model : fitted estimator
    X : Spectra or array-like of shape (n, P)
    y : array-like of shape (n, K) or (n,)
    levels : sequence of L floats
    """
    y = label_values(y, getattr(last_step(model), "label_names_in_", None))
    y = y.reshape(len(y), -1)
    each = np.asarray(levels, dtype=float)
    ends = [np.reshape(model.predict_interval(X, level), (2, *y.shape)) for level in each]
    known = ~np.isnan(ends[0][0]).any(axis=1)
    inside = [((low <= y) & (y <= high))[known] for low, high in ends]
    return np.mean(inside, axis=1)


def _finite(y, dist):
    keep = np.isfinite(dist.mean()).all(axis=1) & np.isfinite(dist.std()).all(axis=1)
    return y[keep], dist[keep]


def _joint_pit(y, dist):
    """Probability of a smaller Mahalanobis distance than that of the true labels."""
    return chdtr(dist.n_labels, dist.mahalanobis(y) ** 2)


def _uniform_distance(pit):
    """Largest difference between the distribution of each column (n, K) and the uniform one."""
    pit, n = np.sort(pit, axis=0), len(pit)
    rank = np.arange(n)[:, None]
    return np.max(np.maximum((rank + 1) / n - pit, pit - rank / n), axis=0)


# -- text ------------------------------------------------------------------------------------------


def _coverage_table(title, frame, levels, n):
    rows = [[name, *(_percent(row[level]) for level in levels)] for name, row in frame.iterrows()]
    error = [_percent(np.sqrt(level * (1 - level) / n)) for level in levels]
    return TextTable(title, ["", *map(_heading, levels)], [*rows, ["standard error", *error]])


def _score_table(frame, n):
    header = ["", "stars", "PIT distance", "mean z", "std z", "NLL", "CRPS", "sharpness"]
    rows = []
    for name, row in frame.iterrows():
        decimals = decimals_of([row["crps"]])
        rows.append(
            [
                name,
                f"{row['n']:.0f}",
                number(row["pit_distance"], 3),
                number(row["z_mean"], 2),
                number(row["z_std"], 2),
                number(row["nll"], 2),
                number(row["crps"], decimals),
                number(row["sharpness"], decimals),
            ]
        )
    title = f"scores (of a calibrated method, 95 % have a PIT distance below {1.36 / n**0.5:.3f})"
    return TextTable(title, header, rows)


def _snr_table(label, part, levels):
    decimals = decimals_of(part["crps"])
    header = ["S/N", "stars", *map(_heading, levels), "PIT distance"]
    header += ["CRPS", "sharpness"] if label != JOINT else []
    rows = []
    for _, row in part.iterrows():
        cells = [row["snr"], f"{row['n']:.0f}", *(_percent(row[level]) for level in levels)]
        cells.append(number(row["pit_distance"], 3))
        if label != JOINT:
            cells += [number(row["crps"], decimals), number(row["sharpness"], decimals)]
        rows.append(cells)
    return TextTable(f"{label} by S/N: coverage [%]", header, rows)


def _heading(level):
    return f"{100 * level:.4g}"


def _percent(value):
    return DASH if not np.isfinite(value) else f"{100 * value:.1f}"
