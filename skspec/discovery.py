"""Which estimators there are, and what each of them can do."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from skspec._short_repr import ShortRepr

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Capabilities", "all_estimators", "capabilities", "capability_table"]

KINDS = (
    "regressor",
    "forward",
    "discriminative",
    "wrapper",
    "latent",
    "transfer",
    "transformer",
    "augmentation",
)
NO_ESTIMATORS = ("cli", "discovery", "explore", "networks", "plotting", "solvers", "testing")
WRAPPED = ("estimator", "estimators", "model")  # parameters that hold other estimators of labels


@dataclass(frozen=True)
class Capabilities(ShortRepr):
    """What an estimator can do.

    None, of a class that wraps other estimators: whatever these can do.

    Attributes
    ----------
    kinds : tuple of str
        See :func:`all_estimators`.
    extra : str or None
        Extra of the package to install for it, as in ``pip install "skspec[nn]"``.
    full_covariance : bool or None
        Covariances between the labels of a star.
    follows_noise : bool or None
        Error bars grow with the noise of each spectrum.
    native_bad_pixels : bool or None
        Bad pixels are left out, without anything put in their place. (Elsewhere they are filled, and
        what they hold changes nothing either.)
    velocity, broadening, continuum : bool or None
        Can be free in each star: ``fit_rv``, ``fit_broadening``, ``continuum_degree``.
    label_errors : bool or None
        ``fit(..., label_err=...)``: knows the errors of the training labels.
    domain_score : bool or None
        Tells spectra unlike those of the training set (:func:`skspec.domain_score`).
    gpu : bool or None
        Trains on a GPU (``device``).
    parallel : bool or None
        Has ``n_jobs``.
    out_of_core : bool or None
        Trains on spectra that do not fit into memory.
    safe_file : bool or None
        Can be written to a file that holds no code.
    speed : {"seconds", "minutes"} or None
        Time of a fit to 1000 spectra of 7000 pixels on one core.
    """

    kinds: tuple[str, ...]
    extra: str | None = None
    full_covariance: bool | None = False
    follows_noise: bool | None = False
    native_bad_pixels: bool | None = False
    velocity: bool | None = False
    broadening: bool | None = False
    continuum: bool | None = False
    label_errors: bool | None = False
    domain_score: bool | None = False
    gpu: bool | None = False
    parallel: bool | None = False
    out_of_core: bool | None = False
    safe_file: bool | None = False
    speed: str | None = None


#: a wrapper has these itself or not at all; the rest, where it says nothing, is up to what it wraps
OWN = ("kinds", "label_errors", "domain_score", "parallel")
INHERITED = tuple(f.name for f in fields(Capabilities) if f.name not in OWN)


def all_estimators(kind: str | Iterable[str] | None = None) -> list[tuple[str, type]]:
    """All estimators of skspec, as :func:`sklearn.utils.discovery.all_estimators` of scikit-learn.

    Those whose packages are not installed are listed too:
    ``capabilities(cls).extra`` names what to install.

    Parameters
    ----------
    kind : str or list of str, optional
        Only estimators of (one of) these kinds. An estimator may be of several:

        - "regressor": from spectra to labels with ``predict_dist``. Each is "forward" (labels to flux,
          inverted), a "wrapper" (of any other method), or "discriminative" (flux to labels);
        - "latent": learns from spectra alone; "transfer": from one domain to another;
        - "transformer": has ``transform``; "augmentation": among these, training spectra made to vary.

    Returns
    -------
    list of (str, type)
        Names and classes, in alphabetical order.

    Examples
    --------
    >>> from skspec.discovery import all_estimators
    >>> [name for name, _ in all_estimators("latent")]
    ['BetaVAE', 'DenoisingAutoencoder']
    """
    wanted = set(KINDS if kind is None else [kind] if isinstance(kind, str) else kind)
    if unknown := wanted - set(KINDS):
        raise ValueError(f"There is no kind {', '.join(sorted(unknown))}; known: {KINDS}.")
    found = {cls.__name__: cls for cls in _public_estimators()}
    return [
        (name, cls)
        for name, cls in sorted(found.items())
        if kind is None or wanted & set(_kinds(cls))
    ]


def capabilities(estimator: Any) -> Capabilities:
    """What an estimator can do.

    What its constructor shows is read from there (``fit_rv``, ``device``, ``n_jobs``...). What it
    does not show is declared by the class, as a dict ``_capabilities`` whose keys are attributes of
    :class:`Capabilities`; a subclass adds to that of its bases.

    Parameters
    ----------
    estimator : estimator or class
        Of a class, what its estimators can do with the right parameters. A wrapper that holds
        estimators can do what all of these can do, a Pipeline or a search what its last step can.

    Returns
    -------
    Capabilities

    Examples
    --------
    >>> from skspec.calibration import CalibratedRegressor
    >>> from skspec.discovery import capabilities
    >>> from skspec.forward import TheCannon
    >>> capabilities(TheCannon).velocity
    True
    >>> print(capabilities(CalibratedRegressor).velocity)
    None
    >>> capabilities(CalibratedRegressor(TheCannon())).velocity
    True
    """
    if inspect.isclass(estimator):
        return _of_class(estimator)
    from skspec.base import last_step

    estimator = last_step(estimator)  # of a Pipeline, within a search
    found = _of_class(type(estimator))
    if getattr(estimator, "covariance", None) == "diagonal":
        found = replace(found, full_covariance=False)
    if not (inner := _wrapped(estimator)):
        return found
    inner = [capabilities(one) for one in inner]
    return replace(
        found,
        **{
            name: _of_all(name, [getattr(one, name) for one in inner])
            for name in INHERITED
            if getattr(found, name) is None
        },
    )


def capability_table(kind: str | Iterable[str] | None = "regressor") -> pd.DataFrame:
    """What all estimators can do, one row for each.

    Parameters
    ----------
    kind : str or list of str, optional
        See :func:`all_estimators`.

    Returns
    -------
    DataFrame
        Indexed by the names of the estimators, with a column for each attribute of
        :class:`Capabilities`. None: whatever the wrapped estimator can do.

    Examples
    --------
    >>> from skspec.discovery import capability_table
    >>> table = capability_table()
    >>> table.index[table["out_of_core"] == True].tolist()
    ['BetaVAE']
    """
    import pandas as pd

    rows = {name: asdict(capabilities(cls)) for name, cls in all_estimators(kind)}
    return pd.DataFrame.from_dict(rows, orient="index", dtype=object)


def _public_estimators():
    """Estimators that the public modules of skspec list in ``__all__``, without the bases of others."""
    from sklearn.base import BaseEstimator

    import skspec

    for module in iter_modules(skspec.__path__):
        if module.name.startswith("_") or module.name in NO_ESTIMATORS:
            continue
        room = import_module(f"skspec.{module.name}")
        for member in (getattr(room, name) for name in getattr(room, "__all__", [])):
            is_estimator = inspect.isclass(member) and issubclass(member, BaseEstimator)
            if is_estimator and hasattr(member, "fit"):
                if member.__module__.rpartition(".")[2] not in ("base", "_base"):
                    yield member


def _kinds(cls):
    from sklearn.base import TransformerMixin

    from skspec.augmentation import Augmentation
    from skspec.base import LabelRegressor

    regressor, forward = issubclass(cls, LabelRegressor), hasattr(cls, "predict_flux")
    wrapper = bool(set(WRAPPED) & set(cls._get_param_names()))
    room = ".".join(cls.__module__.split(".")[:2])
    held = {
        "regressor": regressor,
        "forward": regressor and forward,
        "discriminative": regressor and not forward and not wrapper,
        "wrapper": wrapper,
        "latent": room == "skspec.latent",
        "transfer": room == "skspec.transfer",
        "transformer": issubclass(cls, TransformerMixin),
        "augmentation": issubclass(cls, Augmentation),
    }
    return tuple(kind for kind in KINDS if held[kind])


def _of_class(cls):
    kinds, parameters = _kinds(cls), set(cls._get_param_names())
    forward = "forward" in kinds
    seen = {
        "extra": "nn" if "device" in parameters else None,
        "full_covariance": "regressor" in kinds,
        "follows_noise": forward,
        "native_bad_pixels": forward,
        "velocity": "fit_rv" in parameters,
        "broadening": "fit_broadening" in parameters,
        "continuum": "continuum_degree" in parameters,
        "label_errors": "label_err" in inspect.signature(cls.fit).parameters,
        "domain_score": hasattr(cls, "domain_score"),
        "gpu": "device" in parameters,
        "parallel": "n_jobs" in parameters,
    }
    if "wrapper" in kinds:
        seen = dict.fromkeys(INHERITED) | {k: v for k, v in seen.items() if v or k in OWN}
    for base in reversed(cls.__mro__):
        seen |= vars(base).get("_capabilities", {})
    return Capabilities(kinds, **seen)


def _wrapped(estimator):
    """Estimators that a wrapper holds in its parameters."""
    parameters = estimator.get_params(deep=False)
    held = []
    for name in set(WRAPPED) & set(parameters):
        value = parameters[name]
        held += [one for _, one in value] if isinstance(value, list | tuple) else [value]
    return [one for one in held if hasattr(one, "fit")]


def _of_all(name, values):
    """What holds of a field for several estimators at once."""
    told = [value for value in values if value is not None]
    if name in ("speed", "extra"):
        return next((word for word in ("minutes", *told) if word in told), None)
    return None if len(told) < len(values) else all(told)
