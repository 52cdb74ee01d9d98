"""`InversionResult`: labels found by an inversion, their errors, and whether to believe them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from numbers import Integral

import numpy as np

from skspec.distributions import MultivariateNormal

__all__ = ["InversionResult"]


@dataclass(frozen=True)
class InversionResult:
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

    def __getitem__(self, stars) -> InversionResult:
        """Of some stars."""
        stars = [stars] if isinstance(stars, Integral) else stars
        parts = (getattr(self, each.name) for each in fields(self))
        return InversionResult(*(None if part is None else part[stars] for part in parts))

    def __repr__(self) -> str:
        names, n = ", ".join(self.dist.label_names), len(self)
        lines = [f"<InversionResult of {names}: {n} star{'s' * (n != 1)}"]
        if n:
            columns = dict(zip(self.dist.label_names, zip(self.labels.T, self.dist.std().T)))
            if self.rv is not None:
                columns["rv [km/s]"] = self.rv, self.rv_std
            told = (
                f"{name} {_median(value):.4g} (+- {_median(error):.2g})"
                for name, (value, error) in columns.items()
            )
            lines.append("  median " + ", ".join(told))
            counts = {
                "not converged": ~self.converged,
                "at a bound": self.at_bound.any(axis=1),
                "outside the training set": ~self.inside_training,
            }
            told = [f"{mask.sum()} {what}" for what, mask in counts.items() if mask.any()]
            told = ", ".join(told) or "all converged inside the training set"
            lines.append(f"  reduced chi2 {_median(self.reduced_chi2):.3g}; {told}")
        return "\n".join(lines) + ">"

    @property
    def labels(self) -> np.ndarray:
        """Labels (n, K), the mean of `dist`."""
        return self.dist.mean()

    @property
    def formal_dist(self) -> MultivariateNormal:
        """Labels of maximum likelihood with their formal covariance alone."""
        likelihood, names = self.likelihood.mean(), self.dist.label_names
        return MultivariateNormal(likelihood, cov=self.formal_cov, label_names=names)

    def to_frame(self):
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
    """Of those that are not NaN; NaN where all are."""
    known = values[~np.isnan(values)]
    return np.median(known) if known.size else np.nan
