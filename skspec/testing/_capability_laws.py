"""Laws of what an estimator says of itself."""

from __future__ import annotations

import numpy as np

from skspec.discovery import capabilities
from skspec.testing._assertions import assert_true
from skspec.testing._law import law
from skspec.testing.corruptions import make_noisier


@law
def check_capabilities_are_true(trial):
    """The covariances and the error bars are what :func:`skspec.discovery.capabilities` says."""
    told, spectra = capabilities(trial.estimator), trial.test[0]
    dist = trial.fitted.predict_dist(spectra)
    correlation = np.abs(dist.corr() - np.eye(3)).max()
    growth = np.median(trial.fitted.predict_dist(make_noisier(spectra, 3.0)).std() / dist.std())
    measured = {
        "full_covariance": (correlation > 1e-6, f"correlations up to {correlation:.3g}"),
        "follows_noise": (
            growth > 1.01,
            f"errors {growth:.4f} times as large at 3 times the noise",
        ),
    }
    for name, (found, numbers) in measured.items():
        said = getattr(told, name)
        assert_true(said is None or said == found, f"{name} is said to be {said}, but {numbers}")
