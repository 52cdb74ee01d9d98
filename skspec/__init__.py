"""skspec: stellar labels from spectra, with honest uncertainties, as scikit-learn estimators.

Start with `skspec.Spectra` (flux, ivar, wavelength), an estimator from `skspec.forward`, and
`skspec.predict_dist(model, spectra)`.
"""

from importlib import import_module

from skspec._version import __version__
from skspec._wavelengths import air_to_vacuum, vacuum_to_air
from skspec.distributions import MultivariateNormal
from skspec.spectra import Spectra, concatenate

_LAZY = {name: "skspec.base" for name in ("LabelRegressor", "domain_score", "predict_dist")}
_SUBPACKAGES = (
    "augmentation",
    "base",
    "calibration",
    "cli",
    "datasets",
    "diagnostics",
    "discovery",
    "discriminative",
    "ensemble",
    "explore",
    "forward",
    "latent",
    "metrics",
    "model_selection",
    "networks",
    "plotting",
    "preprocessing",
    "solvers",
    "testing",
    "transfer",
)

__all__ = [
    "LabelRegressor",
    "MultivariateNormal",
    "Spectra",
    "__version__",
    "air_to_vacuum",
    "concatenate",
    "domain_score",
    "predict_dist",
    "vacuum_to_air",
]


def __getattr__(name):
    # scikit-learn takes most of a second to import: wait until something needs it
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    if name in _SUBPACKAGES:
        return import_module(f"skspec.{name}")
    raise AttributeError(f"module 'skspec' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_LAZY, *_SUBPACKAGES])
