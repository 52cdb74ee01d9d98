"""`Comparison`: what several methods predicted for the same stars, and the tables made from it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skspec._short_repr import ShortRepr
from skspec._version import __version__
from skspec.diagnostics._cramer_rao import CramerRaoBound, Efficiency, efficiency
from skspec.diagnostics._residuals import error_table, snr_table
from skspec.distributions import MultivariateNormal
from skspec.metrics import n_failed, neg_log_likelihood

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

    from skspec._typing import PathLike

__all__ = ["Comparison", "MethodResult"]

_EFFICIENCY = ("eta", "eta_low", "eta_high", "kappa", "rms_z")


@dataclass
class MethodResult(ShortRepr):
    """What one method predicted.

    Attributes
    ----------
    name, title : str
        Key of the method, and how it is called in print.
    mean, cov : ndarray of shape (n, K), (n, K, K)
        Predicted labels and their total covariances; None when the method failed.
    formal_cov : ndarray of shape (n, K, K) or None
        Covariances from photon noise and pixel scatter only (forward models with a flat prior).
    quality : dict of str to ndarray of shape (n,)
        What the inversion said of each star: ``chi2``, ``converged``, ``inside_training``...
    fit_seconds : list of float
        Wall time of each fit.
    predict_seconds : float
        Wall time of all predictions.
    n_removed : list of int
        Training stars that the method itself removed as outliers, in each fit.
    error : str or None
        Why the method failed.
    warnings : list of str
        Warnings raised on the way, each once.
    model : estimator or None
        Model of the last split; not saved.
    """

    name: str
    title: str = ""
    mean: np.ndarray | None = None
    cov: np.ndarray | None = None
    formal_cov: np.ndarray | None = None
    quality: dict[str, np.ndarray] = field(default_factory=dict)
    fit_seconds: list[float] = field(default_factory=list)
    predict_seconds: float = 0.0
    n_removed: list[int] = field(default_factory=list)
    error: str | None = None
    warnings: list[str] = field(default_factory=list)
    model: object = None

    @property
    def ok(self) -> bool:
        """Whether there are predictions."""
        return self.error is None and self.mean is not None

    @property
    def dist(self) -> MultivariateNormal:
        """The predictions as one batch of distributions."""
        if self.mean is None:
            raise ValueError(f"{self.name} has no predictions: {self.error}.")
        return MultivariateNormal(self.mean, cov=self.cov)

    @property
    def stars_per_second(self) -> float:
        """Throughput of the predictions."""
        if self.mean is None or not self.ok or not self.predict_seconds:
            return np.nan
        return len(self.mean) / self.predict_seconds


@dataclass
class Comparison(ShortRepr):
    """Predictions of several methods for the same stars.

    Attributes
    ----------
    label_names : list of str
    labels : ndarray of shape (n, K)
        True (or reference) labels of the predicted stars.
    star : ndarray of int of shape (n,)
        Row of each predicted star in the spectra that were given.
    fold : ndarray of int of shape (n,)
        Split in which the star was predicted.
    snr : ndarray of shape (n,)
        S/N per pixel, NaN where unknown.
    n_train : int
        Training stars of the smallest split.
    results : dict of str to MethodResult
        In the order in which the methods were given.
    bound : CramerRaoBound or None
        Physical limit of the stars, from the gradients of `reference`.
    reference : str or None
        Name of the forward model behind `bound`.
    label_noise : ndarray or None
        Standard deviation of the errors of the true labels, where it was given.
    settings : dict
        How the comparison was made.
    complete : bool
        False while methods are still to come.
    """

    label_names: list[str]
    labels: np.ndarray
    star: np.ndarray
    fold: np.ndarray
    snr: np.ndarray
    n_train: int
    results: dict[str, MethodResult] = field(default_factory=dict)
    bound: CramerRaoBound | None = None
    reference: str | None = None
    label_noise: np.ndarray | None = None
    settings: dict = field(default_factory=dict)
    complete: bool = False
    spectra: object = field(default=None, repr=False)

    @property
    def succeeded(self) -> dict[str, MethodResult]:
        """The methods that gave predictions."""
        return {name: result for name, result in self.results.items() if result.ok}

    @property
    def failures(self) -> dict[str, str]:
        """Message of each method that failed."""
        return {name: r.error for name, r in self.results.items() if r.error is not None}

    def efficiency(self, name: str) -> Efficiency | None:
        """Efficiency of a method against the bound; None without a usable bound."""
        if self.bound is None:
            return None
        try:
            return efficiency(
                self.labels,
                self.results[name].dist.mean(),
                self.bound,
                label_noise=self.label_noise,
            )
        except ValueError:
            return None

    def metrics(self) -> pd.DataFrame:
        """One row per label and method.

        Returns
        -------
        pandas.DataFrame
            The words of :mod:`skspec.metrics`, then ``eta`` with its interval, ``fit_seconds`` (of
            one fit), ``stars_per_second`` and ``n_failed`` (stars without a finite prediction).
        """
        import pandas as pd

        frames = [self._metrics_of(result) for result in self.succeeded.values()]
        if not frames:
            return pd.DataFrame(columns=["label", "method"])
        frame = pd.concat(frames, ignore_index=True)
        order = {name: k for k, name in enumerate(self.label_names)}
        frame = frame.sort_values("label", key=lambda s: s.map(order), kind="stable")
        return frame.reset_index(drop=True)

    def _metrics_of(self, result):
        table = error_table(
            self.labels, result.dist, label_names=self.label_names, formal_cov=result.formal_cov
        )
        score = self.efficiency(result.name)
        values = (
            [np.nan] * 5
            if score is None
            else [
                score.eta,
                *score.eta_interval,
                score.kappa,
                score.rms_z,
            ]
        )
        table = table.assign(**dict(zip(_EFFICIENCY, values)))
        table = table.reset_index().assign(**self._whole(result))
        table.insert(1, "method", result.name)
        return table

    def _whole(self, result):
        """Numbers of a method that do not belong to one label."""
        return {
            "fit_seconds": float(np.mean(result.fit_seconds)),
            "stars_per_second": result.stars_per_second,
            "n_failed": n_failed(result.mean),
        }

    def joint(self) -> pd.DataFrame:
        """One row per method: joint NLL, ``eta_vec`` and the numbers that belong to no label."""
        import pandas as pd

        rows = {}
        for name, result in self.succeeded.items():
            score = self.efficiency(name)
            rows[name] = {
                "nll_joint": float(neg_log_likelihood(self.labels, result.dist)),
                "eta_vec": np.nan if score is None else score.eta_vec,
                **self._whole(result),
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")

    def by_snr(self, edges: ArrayLike | None = None) -> pd.DataFrame:
        """Metrics in bins of S/N: columns ``snr``, ``label``, ``method``, metrics, ``bound``.

        Empty when no S/N is known, or all stars have the same.
        """
        import pandas as pd

        frames = []
        for name, result in self.succeeded.items():
            table = snr_table(
                self.labels,
                result.dist,
                self.snr,
                edges=edges,
                label_names=self.label_names,
                bound=self.bound,
            )
            table.insert(2, "method", name)
            frames.append(table)
        frames = [frame for frame in frames if len(frame)]
        empty = pd.DataFrame(columns=["snr", "label", "method"])
        return pd.concat(frames, ignore_index=True) if frames else empty

    def predictions_frame(self) -> pd.DataFrame:
        """One row per star and method: true and predicted labels, errors, quality flags."""
        import pandas as pd

        frames = [self._predictions_of(result) for result in self.succeeded.values()]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def _predictions_of(self, result):
        columns = {"method": result.name, "star": self.star, "fold": self.fold, "snr": self.snr}
        std = np.sqrt(np.diagonal(result.cov, axis1=1, axis2=2))
        formal, bound = result.formal_cov, None if self.bound is None else self.bound.std()
        for k, name in enumerate(self.label_names):
            columns[f"{name}_true"] = self.labels[:, k]
            columns[name] = result.mean[:, k]
            columns[f"{name}_std"] = std[:, k]
            columns[f"{name}_formal_std"] = np.nan if formal is None else np.sqrt(formal[:, k, k])
            columns[f"{name}_bound"] = np.nan if bound is None else bound[:, k]
        return _frame(columns | result.quality, len(self.star))

    def to_dict(self) -> dict:
        """All settings, metrics and predictions, as JSON takes them (NaN becomes None)."""
        metrics, by_snr, joint = self.metrics(), self.by_snr(), self.joint()
        methods = {}
        for name, result in self.results.items():
            entry: dict[str, Any] = {
                "title": result.title,
                "status": "ok" if result.ok else "failed",
            }
            entry |= {"error": result.error, "warnings": result.warnings}
            if result.ok:
                rows = metrics[metrics["method"] == name].drop(columns="method")
                entry |= joint.loc[name].to_dict() | self._whole(result)
                entry["fit_seconds_each"] = result.fit_seconds
                entry["training_stars_removed"] = result.n_removed
                entry["labels"] = rows.set_index("label").to_dict(orient="index")
                of_method = by_snr[by_snr["method"] == name].drop(columns="method")
                entry["by_snr"] = of_method.to_dict(orient="records")
                entry["predictions"] = _predictions(result)
            methods[name] = entry
        return _plain(
            {
                "skspec": __version__,
                "complete": self.complete,
                "settings": self.settings,
                "label_names": self.label_names,
                "n_train": self.n_train,
                "n_test": len(self.star),
                "n_splits": int(self.fold.max()) + 1,
                "reference": self.reference,
                "methods": methods,
                "stars": {
                    "star": self.star,
                    "fold": self.fold,
                    "snr": self.snr,
                    "labels": self.labels,
                    "bound_std": None if self.bound is None else self.bound.std(),
                },
            }
        )

    def to_json(self, path: PathLike) -> Path:
        """Write :meth:`to_dict` to a file, all of it or nothing."""
        path = Path(path)
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False), encoding="utf-8")
        os.replace(part, path)
        return path


def _frame(columns, n_rows):
    import pandas as pd

    return pd.DataFrame(columns, index=range(n_rows))


def _predictions(result):
    formal = result.formal_cov
    return {
        "mean": result.mean,
        "cov": result.cov,
        "formal_std": None if formal is None else np.sqrt(np.diagonal(formal, axis1=1, axis2=2)),
        **result.quality,
    }


def _plain(value):
    """Python objects that JSON takes; floats keep eight digits, non-finite ones become None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.8g}") if np.isfinite(value) else None
    return value if value is None else str(value)
