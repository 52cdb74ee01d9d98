"""`InversionResult`: labels found by an inversion, their errors, and whether to believe them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np

from skspec._short_repr import ShortRepr
from skspec.distributions import MultivariateNormal

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["InversionResult"]


@dataclass(frozen=True)
class InversionResult(ShortRepr):
    """Labels of `n` stars, and all that tells whether to believe them.

    Attributes
    ----------
    dist : MultivariateNormal
        Labels with their total covariance, under the prior of the model (`label_prior`).
    likelihood : MultivariateNormal
        What the spectrum alone says: labels of maximum likelihood, with the covariance ``formal_cov +
        model_cov``. The same as `dist` where the prior is flat. All the rest belongs to these labels:
        chi2, flags, velocity, broadening and continuum.
    formal_cov : ndarray of shape (n, K, K)
        From photon noise and the model's pixel scatter, ``(J^T W J)^-1``.
    model_cov : ndarray of shape (n, K, K)
        The model's own error in label space, from the 200 training stars nearest to each star; from
        all (`ForwardModel.label_covariance_`) where there are no more.
    chi2, reduced_chi2 : ndarray of shape (n,)
        At the solution; per degree of freedom (good pixels minus K), NaN without any.
    n_good : ndarray of int of shape (n,)
        Good pixels.
    converged : ndarray of bool of shape (n,)
    at_bound : ndarray of bool of shape (n, K)
        Labels that stopped at the edge of the box: their error bars mean little.
    inside_training : ndarray of bool of shape (n,)
        Whether there are training stars nearby; outside, the model extrapolates.
    n_iter : ndarray of int of shape (n,)
    domain_score : ndarray of shape (n,) or None
        `reduced_chi2` in units of the 99th percentile of training stars that the model had not seen;
        None where that was not measured.
    rv, rv_std : ndarray of shape (n,) or None
        Radial velocity, positive when receding, and its total error [km/s]; None if not fitted.
    broadening, broadening_std : ndarray of shape (n,) or None
        Width of the broadening and its total error [km/s]: standard deviation of a Gaussian, v sin i
        of rotation.
    continuum : ndarray of shape (n, m) or None
        Coefficients of the Chebyshev polynomials, order by order.

    Notes
    -----
    A star without any good pixel has NaN labels, infinite errors and ``converged`` False.
    """

    dist: MultivariateNormal
    likelihood: MultivariateNormal
    formal_cov: np.ndarray
    model_cov: np.ndarray
    chi2: np.ndarray
    reduced_chi2: np.ndarray
    n_good: np.ndarray
    converged: np.ndarray
    at_bound: np.ndarray
    inside_training: np.ndarray
    n_iter: np.ndarray
    domain_score: np.ndarray | None = None
    rv: np.ndarray | None = None
    rv_std: np.ndarray | None = None
    broadening: np.ndarray | None = None
    broadening_std: np.ndarray | None = None
    continuum: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.chi2)

    def __getitem__(self, stars: Any) -> InversionResult:
        """Of some stars."""
        stars = [stars] if isinstance(stars, Integral) else stars
        parts = (getattr(self, each.name) for each in fields(self))
        return InversionResult(*(None if part is None else part[stars] for part in parts))

    def _repr_values(self):
        names = self.dist.label_names or range(self.dist.n_labels)
        found = dict(zip(names, zip(self.labels.T, self.dist.std().T)))
        if self.rv is not None:
            found["rv"] = self.rv, self.rv_std
        flags = {"converged": self.converged, "inside_training": self.inside_training}
        flags["at_bound"] = np.any(self.at_bound, axis=1)
        return {
            "n_stars": len(self),
            "median": {name: _median(value) for name, (value, _) in found.items()},
            "median_std": {name: _median(std) for name, (_, std) in found.items()},
            "reduced_chi2": _median(self.reduced_chi2),
            **{name: int(np.count_nonzero(flag)) for name, flag in flags.items()},
        }

    @property
    def labels(self) -> np.ndarray:
        """Labels (n, K), the mean of `dist`."""
        return self.dist.mean()

    @property
    def formal_dist(self) -> MultivariateNormal:
        """Labels of maximum likelihood with their formal covariance alone."""
        likelihood, names = self.likelihood.mean(), self.dist.label_names
        return MultivariateNormal(likelihood, cov=self.formal_cov, label_names=names)

    def to_frame(self) -> pd.DataFrame:
        """`pandas.DataFrame`: labels, total and formal errors, quality flags; one row per star."""
        frame = self.dist.to_frame()
        formal = self.formal_dist.std()
        for k, name in enumerate(self.dist.label_names):
            frame[f"{name}_formal_std"] = formal[:, k]
        fitted = ("domain_score", "rv", "rv_std", "broadening", "broadening_std")
        flags = tuple(name for name in fitted if getattr(self, name) is not None)
        flags += ("chi2", "reduced_chi2", "n_good", "converged", "inside_training", "n_iter")
        return frame.assign(
            at_bound=self.at_bound.any(axis=1), **{f: getattr(self, f) for f in flags}
        )


def _median(values):
    """Of those that are finite; NaN without any."""
    known = values[np.isfinite(values)]
    return np.median(known) if known.size else np.nan
