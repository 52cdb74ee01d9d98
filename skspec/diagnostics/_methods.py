"""The methods that `skspec compare` knows by name, and classes of anybody's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from inspect import isclass, signature
from typing import TYPE_CHECKING, Any

import numpy as np

from skspec._short_repr import ShortRepr

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

__all__ = ["Method", "available_methods", "find_method", "make_method"]

_FORWARD = {
    "the_cannon": ("TheCannon", "The Cannon", "Ness et al. 2015"),
    "cannon_coherent": ("TheCannon", "Cannon, coherent", "errors in common, this package"),
    "slam": ("SLAM", "SLAM", "Zhang, Liu & Deng 2020"),
    "the_payne": ("ThePayne", "The Payne", "Ting et al. 2019"),
    "spectral_gp": ("SpectralGP", "Spectral GP", "Gaussian process, this package"),
    "full_spectrum": ("FullSpectrumFit", "Full-spectrum fit", "Koleva et al. 2009"),
}
_CHANGED = {"cannon_coherent": {"coherence": 0.2}}


@dataclass(frozen=True)
class Method(ShortRepr):
    """A named method.

    Attributes
    ----------
    name, title, reference : str
        Name on the command line, name in print, where it was published.
    family : {"forward", "discriminative"}
        Labels -> flux and inverted, or flux -> labels.
    build : callable ``(n_train, **settings) -> estimator``
        `n_train` is the smallest training set it will see.
    """

    name: str
    title: str
    reference: str
    family: str
    build: Callable


def available_methods() -> dict[str, Method]:
    """Methods that can be built here, by name."""
    from skspec import discriminative, forward
    from skspec.networks import can_train

    methods = {
        name: Method(
            name,
            title,
            reference,
            "forward",
            _builder(getattr(forward, cls), **_CHANGED.get(name, {})),
        )
        for name, (cls, title, reference) in _FORWARD.items()
        if name != "the_payne" or can_train()
    }
    baselines: tuple[Method, ...] = (
        Method("ridge", "Ridge", "RidgeCV on pixels", "discriminative", _ridge),
        Method(
            "pca_svr", "PCA + SVR", "60 components, one tuned SVR per label", "discriminative", _svr
        ),
        Method("kernel_pca", "Kernel PCA", "Xiang et al. 2017", "discriminative", _kernel_pca),
        Method(
            "template_match",
            "Template matching",
            "Xiang et al. 2015",
            "discriminative",
            _builder(discriminative.TemplateMatch),
        ),
        Method("consensus", "Consensus", "Lee et al. 2008", "discriminative", _consensus),
    )
    if can_train():
        network = Method(
            "spectral_cnn", "Network", "after Fabbro et al. 2018", "discriminative", _spectral_cnn
        )
        explorer = Method(
            "beta_vae", "Beta-VAE", "after Sedaghat et al. 2021", "discriminative", _beta_vae
        )
        baselines = (*baselines, network, explorer)
    return methods | {method.name: method for method in baselines}


def find_method(name: str) -> Method:
    """The method `name`: one of :func:`available_methods`, or ``module:Class``.

    Parameters
    ----------
    name : str
        ``package.module:Class`` is imported: a subclass of :class:`skspec.LabelRegressor`, of whose
        parameters none must be given.

    Returns
    -------
    Method

    Raises
    ------
    ValueError
        When there is no such method, or the class cannot be had.
    """
    methods = available_methods()
    if name in methods:
        return methods[name]
    if ":" not in name:
        raise ValueError(
            f"There is no method {name!r}; known: {', '.join(methods)}, or module:Class for one of "
            "your own."
        )
    cls = _imported(name)
    from skspec.forward import ForwardModel

    family = "forward" if issubclass(cls, ForwardModel) else "discriminative"
    return Method(name, cls.__name__, cls.__module__, family, _builder(cls))


def make_method(name: str, n_train: int, **settings: Any) -> BaseEstimator:
    """Estimator of the method `name`.

    Parameters
    ----------
    name : str
        A key of :func:`available_methods`, or ``module:Class``.
    n_train : int
        Number of training stars of the smallest fit.
    **settings
        ``n_jobs``, ``clean_training``, ``coherence``, ``label_prior``, ``random_state``: passed to the
        estimators that have them, unless None.

    Returns
    -------
    estimator

    Raises
    ------
    ValueError
        When there is no such method.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    return find_method(name).build(n_train, **given)


def _imported(name):
    """The class that ``module:Class`` names."""
    from skspec.base import LabelRegressor

    module, _, title = name.partition(":")
    try:
        cls = getattr(import_module(module), title, None)
    except Exception as error:  # whatever a module of the user's raises
        raise ValueError(f"{name}: cannot import {module!r}: {error}") from error
    if cls is None:
        raise ValueError(f"{name}: the module {module!r} has no {title!r}.")
    if not isclass(cls) or not issubclass(cls, LabelRegressor):
        raise ValueError(f"{name}: {title} is no subclass of skspec.LabelRegressor.")
    missing = [
        key
        for key, each in signature(cls).parameters.items()
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    if missing:
        raise ValueError(f"{name}: {title} needs {', '.join(missing)}; give these a default.")
    return cls


def _builder(cls, **changed):
    def build(n_train, **settings):
        known = signature(cls).parameters
        return cls(**changed | {key: value for key, value in settings.items() if key in known})

    return build


def _ridge(n_train, **_):
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from skspec.calibration import ResidualCovarianceRegressor

    ridge = RidgeCV(alphas=np.logspace(0, 6, 13), gcv_mode="eigen")
    # its linear algebra uses every core already
    return ResidualCovarianceRegressor(make_pipeline(StandardScaler(), ridge))


def _kernel_pca(n_train, *, n_jobs=None, **_):
    from skspec.discriminative import KernelPCARegressor

    return KernelPCARegressor(n_jobs=n_jobs)


def _spectral_cnn(n_train, *, random_state=None, **_):
    from skspec.discriminative import SpectralCNN

    return SpectralCNN("strided", random_state=random_state)


def _beta_vae(n_train, *, random_state=None, **_):
    from skspec.latent import BetaVAE

    return BetaVAE(
        32, architecture="dense", learning_rate_init=0.002, batch_size=32, random_state=random_state
    )


def _consensus(n_train, *, n_jobs=None, random_state=0, **_):
    from skspec.ensemble import ConsensusRegressor

    names = ("the_cannon", "spectral_gp", "kernel_pca", "template_match")  # those that fit fast
    given = {"clean_training": 4.0, "random_state": random_state}
    methods = [(name, make_method(name, n_train, **given)) for name in names]
    return ConsensusRegressor(methods, n_jobs=n_jobs)


def _svr(n_train, *, n_jobs=None, random_state=0, **_):
    from skspec.calibration import ResidualCovarianceRegressor
    from skspec.diagnostics._tuned_svr import TunedSVR

    return ResidualCovarianceRegressor(TunedSVR(random_state=random_state), n_jobs=n_jobs)
