"""The contract of every method; `predict_dist` and `domain_score`, which reach through wrappers.

A method is a :class:`LabelRegressor`: a scikit-learn regressor from spectra to stellar labels whose
one essential verb is ``predict_dist``. Everything else (``predict``, its standard deviation, scores)
follows from the distribution.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from skspec._label_values import (
    filled,
    has_mask,
    label_names,
    label_table,
    label_values,
    refuse_unknown,
)
from skspec._pixel_values import refuse_containers
from skspec._shared_parameters import SharedParameters
from skspec._sklearn import get_output_config
from skspec._wavelengths import pixel_difference
from skspec._wrappers import (
    last_step,
    target_transformer,
    transform_targets_back,
    unwrap,
    unwrap_once,
)
from skspec.distributions import MultivariateNormal
from skspec.spectra import Spectra

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from skspec._typing import Labels, SpectraLike

__all__ = [
    "CorrelatedLabelsWarning",
    "LabelRegressor",
    "MissingUncertaintyWarning",
    "SpectraEstimator",
    "SpectraTransformer",
    "as_spectra",
    "domain_score",
    "last_step",
    "load_into_memory",
    "predict_dist",
    "unwrap",
    "unwrap_once",
]

CORRELATED = 0.9  # |rho| above which two training labels are warned of
DOCUMENTATION = (
    "https://skspec.readthedocs.io/en/latest/generated/{estimator_module}.{estimator_name}.html"
)
MIN_STARS = 20  # stars below which a correlation means little


class MissingUncertaintyWarning(UserWarning):
    """Errors were there at fit but not at predict, or the other way round."""


class CorrelatedLabelsWarning(UserWarning):
    """Two training labels go together so closely that a model may read one from the other's lines.

    Raised by the fit of every method for any two labels with ``|rho| > 0.9``, of either sign, of at
    least 20 stars (fewer may have it by chance).
    :func:`skspec.diagnostics.audit_labels` tells whether the model suffers from it.
    """


class DocumentedEstimator(SharedParameters, BaseEstimator):
    """What all estimators of this package share, in their HTML representation: links to their pages."""

    _doc_link_module = "skspec"
    _doc_link_template = DOCUMENTATION


class SpectraEstimator(DocumentedEstimator):
    """What estimators and transformers of spectra share: checking the input against the fit."""

    def _validate_spectra(
        self, X: SpectraLike, y: Any = "no_validation", *, reset: bool
    ) -> tuple[Spectra, Any]:
        """`X` as :class:`Spectra` (and `y` as scikit-learn wants it), checked against the fit."""
        X = load_into_memory(X)
        flux = X.flux if isinstance(X, Spectra) else X
        checks = {"dtype": (np.float64, np.float32), "reset": reset}
        try:
            if isinstance(y, str) and y == "no_validation":
                flux = validate_data(self, flux, **checks)
            else:
                names = label_names(y) if reset else getattr(self, "label_names_in_", None)
                y = None if y is None else label_values(y, names)
                flux, y = validate_data(self, flux, y, multi_output=True, y_numeric=True, **checks)
        except ValueError as error:
            if "Input y contains" in str(error):
                refuse_unknown(np.asarray(y), names)
            if "Input X contains" not in str(error):
                raise
            raise ValueError(
                f"{str(error).splitlines()[0]} Pass skspec.Spectra(flux, ivar=...) instead of an "
                "array: there, pixels that are not finite become bad pixels."
            ) from None
        spectra = X if isinstance(X, Spectra) else Spectra(flux)
        if reset:
            self.wavelength_ = spectra.wavelength
            self.medium_, self.frame_ = spectra.medium, spectra.frame
        else:
            self._check_medium(spectra)
            self._check_wavelength(spectra)
        return spectra, y

    def _check_wavelength(self, spectra):
        fitted, given = getattr(self, "wavelength_", None), spectra.wavelength
        if fitted is None or given is None:
            return
        if (apart := pixel_difference(fitted, given)) == 0:
            return
        raise ValueError(
            f"{type(self).__name__} was fitted on {fitted[0]:.3f}-{fitted[-1]:.3f} Angstrom, these "
            f"spectra are on another grid, {given[0]:.3f}-{given[-1]:.3f} Angstrom, which differs by "
            f"up to {apart:.3g} pixels. Put skspec.preprocessing.Resampler before it."
        )

    def _check_medium(self, spectra):
        """Refuse air for vacuum, and a moving star for one at rest where no velocity is fitted."""
        fitted, given = getattr(self, "medium_", None), spectra.medium
        if None not in (fitted, given) and fitted != given:
            raise ValueError(
                f"{type(self).__name__} was fitted on wavelengths in {fitted}, these are in {given}: "
                f"spectra.to_medium({fitted!r}) converts them, and "
                "skspec.preprocessing.Resampler(model.wavelength_) takes them to its grid."
            )
        fitted, given = getattr(self, "frame_", None), spectra.frame
        if None in (fitted, given) or "rest" not in (fitted, given) or fitted == given:
            return
        if not self._takes_velocities:
            raise ValueError(
                f"{type(self).__name__} was fitted on spectra in the {fitted} frame, these are in the "
                f"{given} frame. skspec.preprocessing.to_rest_frame(spectra, rv) takes velocities out, "
                "forward models fit them with fit_rv=True, and spectra.replace(frame=None) leaves the "
                "question open."
            )

    @property
    def _takes_velocities(self) -> bool:
        """Whether stars may move against those of the fit: transformers do not mind."""
        if not isinstance(self, LabelRegressor) or "rv" in getattr(self, "label_names_in_", ()):
            return True
        parameters = self.get_params().items()  # of wrapped models, too
        return any(
            (name.rpartition("__")[2] == "fit_rv" and value) or getattr(value, "moves_stars", False)
            for name, value in parameters
        )


class SpectraTransformer(TransformerMixin, SpectraEstimator):
    """Spectra in, Spectra out; plain array in, plain array out.

    A subclass implements ``fit`` and ``_transform(spectra) -> Spectra``.
    """

    def transform(self, X: SpectraLike) -> Spectra | np.ndarray:
        """Transform spectra.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
            Spectra; never modified.

        Returns
        -------
        Spectra or ndarray
            A `Spectra` for a `Spectra`, an array of fluxes for an array.
        """
        return self._apply_function(X, self._transform)

    def _apply_function(self, X, function):
        """``function(spectra) -> Spectra`` of anything that can be transformed, in the form it came."""
        check_is_fitted(self)
        X = load_into_memory(X)
        if isinstance(X, Spectra):
            self._refuse_frames()
        out = function(self._validate_transform(X))
        return out if isinstance(X, Spectra) else self._plain(out)

    def _validate_transform(self, X):
        return self._validate_spectra(X, reset=False)[0]

    def _plain(self, out):
        """What a plain array becomes: it has no place for errors or bad pixels."""
        return out.flux

    def _refuse_frames(self):
        container = get_output_config("transform", self)["dense"]
        if container != "default":
            raise ValueError(
                f"{type(self).__name__} returns Spectra for Spectra, and a {container} frame "
                "cannot hold their errors. Call set_output(transform='default'), or pass a plain "
                "array of fluxes."
            )


class LabelRegressor(MultiOutputMixin, RegressorMixin, SpectraEstimator):
    """Base of every method: spectra in, a distribution over labels out.

    A subclass implements ``fit`` (calling :meth:`_validate_fit`) and ``predict_dist`` (calling
    :meth:`_validate_predict`).

    Attributes
    ----------
    label_names_in_ : list of str
        Names of the labels: the columns of `y`, or ``label_0``, ``label_1``...
    wavelength_ : ndarray of shape (P,) or None
        Wavelength grid of the training spectra [Angstrom].
    medium_, frame_ : str or None
        What it was in, and whose rest frame; what is known to be in another is refused.
    uses_ivar_ : bool
        Whether the training spectra had errors.
    n_features_in_ : int
        Number of pixels P.
    """

    def predict_dist(self, X: SpectraLike) -> MultivariateNormal:
        """Distribution of the labels of each star, in label units, with full covariance."""
        raise NotImplementedError

    def predict(
        self, X: SpectraLike, return_std: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Labels of each star: the mean of :meth:`predict_dist`.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
            Spectra.
        return_std : bool
            Also return the standard deviations, as scikit-learn's Gaussian process does.

        Returns
        -------
        labels : ndarray of shape (n, K), or (n,) when `y` was a vector at fit
        std : ndarray of the same shape
            Only with ``return_std=True``.
        """
        dist = self.predict_dist(X)
        mean, std = dist.mean(), dist.std()
        if self._y_is_vector:
            mean, std = mean[:, 0], std[:, 0]
        return (mean, std) if return_std else mean

    def _distribution(self, mean, cov, lost):
        """Distribution of these moments, which are overwritten: `lost` stars have no labels."""
        mean[lost] = np.nan
        cov[lost] = np.diag(np.full(mean.shape[1], np.inf))
        return MultivariateNormal(mean, cov=cov, label_names=self.label_names_in_)

    def score(self, X: SpectraLike, y: Labels, sample_weight: ArrayLike | None = None) -> float:
        """Coefficient of determination, as scikit-learn's, with named columns found by name.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
        y : array-like of shape (n, K) or (n,)
            True labels.
        sample_weight : array-like of shape (n,), optional

        Raises
        ------
        ValueError
            When true labels are missing, or have other names.
        """
        names = getattr(self, "label_names_in_", None)
        y = label_values(y, names, what="The true labels")
        refuse_unknown(y, names, "The true labels")
        weight = None if sample_weight is None else filled(sample_weight, "sample_weight")
        return super().score(X, y, weight)

    def _named_labels(self, y):
        """Checked labels (n, K) in the form in which they came, for the fit of another estimator."""
        import pandas as pd

        if self._y_is_vector:
            return pd.Series(y[:, 0], name=self.label_names_in_[0])
        return pd.DataFrame(y, columns=self.label_names_in_)

    def _validate_fit(self, X: SpectraLike, y: Labels) -> tuple[Spectra, np.ndarray]:
        """Spectra and labels (n, K) in float64; sets the attributes documented above."""
        names = label_names(y)
        spectra, y = self._validate_spectra(X, y, reset=True)
        self._y_is_vector = np.ndim(y) == 1
        # in one order of memory, on which the last bit of sums depends
        y = np.ascontiguousarray(y, dtype=float).reshape(len(spectra), -1)
        self.label_names_in_ = names or [f"label_{k}" for k in range(y.shape[1])]
        warn_of_correlated_labels(y, self.label_names_in_)
        spectra = self._apply_ivar_policy(spectra)
        self.uses_ivar_ = spectra.has_errors
        if not spectra.good.any():
            raise ValueError("Every pixel of every training spectrum is bad (ivar is 0).")
        return spectra, y

    def _validate_predict(self, X: SpectraLike) -> Spectra:
        check_is_fitted(self)
        spectra, _ = self._validate_spectra(X, reset=False)
        spectra = self._apply_ivar_policy(spectra)
        if spectra.has_errors != self.uses_ivar_ and spectra.good.any():
            at_fit, now = ("with", "without") if self.uses_ivar_ else ("without", "with")
            warnings.warn(
                f"{type(self).__name__} was fitted {at_fit} flux errors and is now given spectra "
                f"{now} them. A scikit-learn transformer in front of it drops them; "
                "ivar='require' makes this an error.",
                MissingUncertaintyWarning,
                stacklevel=3,
            )
        return spectra

    @property
    def _ivar_policy(self) -> str:
        return getattr(self, "ivar", "auto")

    def _apply_ivar_policy(self, spectra):
        policy = self._ivar_policy
        if policy == "require" and not spectra.has_errors:
            raise ValueError(
                f"{type(self).__name__}(ivar='require') needs flux errors: pass "
                "Spectra(flux, ivar=...) instead of an array."
            )
        if policy == "ignore" and spectra.has_errors:
            return spectra.replace(ivar=None, mask=~spectra.good)
        return spectra


def load_into_memory(X: SpectraLike) -> Any:
    """`X`, or the :class:`Spectra` that its method ``__spectra__`` reads (as that of a store).

    What a mask hides becomes a bad pixel.
    """
    if hasattr(X, "__spectra__"):
        return X.__spectra__()
    if isinstance(X, Spectra):
        return X
    if hasattr(X, "colnames"):  # a table of astropy has a column per pixel
        X = label_table(X, "The fluxes")[0]
        return Spectra(X) if np.isnan(X).any() else X
    refuse_containers(X)
    if isinstance(X, list | tuple) and any(map(has_mask, X)):
        return Spectra(filled(X, "flux"))
    return Spectra(X) if has_mask(X) else X


def as_spectra(X: SpectraLike) -> Spectra:
    """`X` itself when it is a :class:`Spectra`, what it reads if a store, else a `Spectra` of values."""
    X = load_into_memory(X)
    return X if isinstance(X, Spectra) else Spectra(X)


def correlated_labels(y, names, above=CORRELATED):
    """Pairs of labels with ``|rho| > above``: ``[(name, name, rho), ...]``, the closest first.

    Correlations are those of the stars that have both labels (not NaN); of fewer than 20 stars, and of
    a constant label, there is none.
    """
    y = np.asarray(y, dtype=float)
    pairs = []
    for a, b in combinations(range(y.shape[1]), 2):
        both = y[np.isfinite(y[:, [a, b]]).all(axis=1)][:, [a, b]]
        if len(both) >= MIN_STARS and np.all(np.ptp(both, axis=0) > 0):
            pairs.append((names[a], names[b], float(np.corrcoef(both.T)[0, 1])))
    pairs = [pair for pair in pairs if abs(pair[2]) > above]
    return sorted(pairs, key=lambda pair: -abs(pair[2]))


@contextmanager
def inner_fits():
    """Fits inside a fit: what that has told of its labels they need not tell again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorrelatedLabelsWarning)
        yield


def warn_of_correlated_labels(y, names):
    """Warn, on behalf of a ``fit``, of training labels that go together."""
    pairs = correlated_labels(y, names)
    if pairs:
        told = "; ".join(f"{a} and {b}: {rho:+.2f}" for a, b, rho in pairs)
        warnings.warn(
            f"Training labels are correlated ({told}): a model may take one from the lines of the "
            "other. skspec.diagnostics.audit_labels tells whether it does, and what to do.",
            CorrelatedLabelsWarning,
            stacklevel=5,  # here, validation, fit, its context of scikit-learn: who called
        )


def predict_dist(model: BaseEstimator, X: SpectraLike) -> MultivariateNormal:
    """Distribution of the labels predicted by `model`, through any of scikit-learn's wrappers.

    Reaches through Pipeline, searches of any library, TransformedTargetRegressor, FrozenEstimator and
    whatever else :func:`~skspec.base.unwrap_once` knows; none of them knows ``predict_dist``.

    Parameters
    ----------
    model : fitted estimator
    X : Spectra or array-like of shape (n, P)

    Returns
    -------
    MultivariateNormal
        In label units.

    Raises
    ------
    TypeError
        When the model, or the last step of it, has no ``predict_dist``.
    """
    if (inner := unwrap_once(model, X)) is not None:
        dist = predict_dist(*inner)
        transformer = target_transformer(model)
        return dist if transformer is None else transform_targets_back(dist, transformer)
    if hasattr(model, "predict_dist"):
        return model.predict_dist(X)
    raise TypeError(
        f"{type(model).__name__} predicts no distribution. Wrap it in "
        "skspec.calibration.ResidualCovarianceRegressor, or use an skspec estimator."
    )


def domain_score(model: BaseEstimator, X: SpectraLike) -> np.ndarray:
    """Out-of-distribution score: how far each spectrum lies from those that `model` was trained on.

    The unit is the 99th percentile of training stars that the model, or that of a fold, had not been
    fitted to: of stars like those, 1 in 100 scores above 1. Predictions and error bars of a star
    that scores several are extrapolations.

    Reaches through the same wrappers as :func:`predict_dist`.

    Parameters
    ----------
    model : fitted estimator
    X : Spectra or array-like of shape (n, P)

    Returns
    -------
    ndarray of shape (n,)
        Larger is further, without limit; NaN for a star without a good pixel.

    Raises
    ------
    TypeError
        When the model, or the last step of it, has no ``domain_score``.

    Examples
    --------
    >>> from skspec import domain_score
    >>> from skspec.datasets import make_spectra
    >>> from skspec.calibration import ResidualCovarianceRegressor
    >>> spectra, labels = make_spectra(n_samples=300, n_pixels=200, random_state=0)
    >>> model = ResidualCovarianceRegressor().fit(spectra[:200], labels[:200])
    >>> shifted = spectra[200:].replace(flux=np.roll(spectra.flux[200:], 3, axis=1))
    >>> bool(np.median(domain_score(model, shifted)) > 1 > np.median(domain_score(model, spectra)))
    True
    """
    if (inner := unwrap_once(model, X)) is not None:
        return domain_score(*inner)
    if hasattr(model, "domain_score"):
        return model.domain_score(X)
    raise TypeError(
        f"{type(model).__name__} does not know how far a spectrum is from its training set: it has "
        "no domain_score. skspec.discriminative.KernelPCARegressor has one, for example."
    )
