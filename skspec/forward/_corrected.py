"""CorrectedModel: a forward model of synthetic spectra, made to look observed before it learns."""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted

from skspec._sklearn import HasMethods, Interval, fit_context
from skspec.base import MissingUncertaintyWarning, as_spectra, inner_fits
from skspec.distributions import MultivariateNormal
from skspec.forward._base import ForwardModel
from skspec.forward._spectral_gp import SpectralGP
from skspec.forward._wrapped import WrappedForwardModel
from skspec.likelihood import marginal_information
from skspec.spectra import concatenate

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from skspec._typing import Labels, RandomState, SpectraLike
    from skspec.likelihood import InversionResult

__all__ = ["CorrectedModel"]


class CorrectedModel(WrappedForwardModel):
    r"""Any forward model, trained on synthetic spectra that a correction makes look observed.

    .. math:: f(\ell, s) = T\big(f_\mathrm{syn}(\ell), s\big)

    with a correction T from synthetic to observed spectra, learned without labels of the observed ones
    (:class:`~skspec.transfer.PixelCorrection`, :class:`~skspec.transfer.CycleStarNet`). Where it has
    split latent numbers s, that only observed spectra have, they are free in the inversion of every star
    like further labels, within the range of the observed spectra: the errors of the labels know of them.

    Parameters
    ----------
    model : ForwardModel, optional
        Labels -> flux; default: :class:`SpectralGP`.
    correction : fitted estimator
        With ``transform(synthetic)``; put it into :class:`sklearn.frozen.FrozenEstimator` where
        scikit-learn clones the estimator. Or unfitted, and `fit` gets observed spectra.
    n_directions : int
        At most so many principal directions of the split latent numbers are free.
    n_copies : int
        Of every synthetic spectrum, with different split latent numbers.
    random_state : int, RandomState instance or None
        Of these.

    Attributes
    ----------
    model_ : ForwardModel
        Of the corrected spectra. Its labels are those of `fit`, and ``split_0``, ...
    correction_ : estimator
        The fitted correction.
    n_split_ : int
        Number of directions.

    Examples
    --------
    >>> from skspec.datasets import make_spectra
    >>> from skspec.forward import CorrectedModel, SpectralGP
    >>> from skspec.transfer import PixelCorrection
    >>> synthetic, labels = make_spectra(150, n_pixels=200, random_state=0)
    >>> others, truth = make_spectra(150, n_pixels=200, random_state=1)
    >>> observed = others.replace(flux=others.flux - 0.02)
    >>> model = CorrectedModel(SpectralGP(), PixelCorrection("additive"))
    >>> model.fit(synthetic, labels, observed=observed).predict_dist(observed)
    <MultivariateNormal of teff, logg, feh: 150 stars>
    """

    _parameter_constraints: dict = {
        "model": [ForwardModel, None],
        "correction": [HasMethods(["fit", "transform"]), None],
        "n_directions": [Interval(Integral, 0, None, closed="left")],
        "n_copies": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        model: ForwardModel | None = None,
        correction: BaseEstimator | None = None,
        *,
        n_directions: int = 3,
        n_copies: int = 1,
        random_state: RandomState | None = None,
        **shared: Any,
    ):
        super().__init__(**shared)
        self.model = model
        self.correction = correction
        self.n_directions = n_directions
        self.n_copies = n_copies
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # without a correction there is nothing to say
        return tags

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: SpectraLike, y: Labels, observed: SpectraLike | None = None) -> Self:
        """Correct the spectra, and learn them.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
            Synthetic spectra.
        y : array-like of shape (n, K) or (n,)
            Their labels; the columns of a DataFrame name them.
        observed : Spectra or array-like of shape (m, P), optional
            Of other stars, to fit the correction with; without, it must be fitted already.

        Returns
        -------
        self

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Without `observed`, where the correction is not fitted.
        ValueError
            With `observed`, where there is no correction.
        """
        spectra, y = self._validate_fit(X, y)
        self.correction_ = self._fitted_correction(spectra, observed)
        rng = check_random_state(self.random_state)
        copies = concatenate([spectra] * self.n_copies)
        labels = pd.DataFrame(np.tile(y, (self.n_copies, 1)), columns=self.label_names_in_)
        split = self._directions(rng, len(copies))
        if self.n_split_:
            copies = self.correction_.transform(copies, split=self._split_from(split))
            labels[[f"split_{k}" for k in range(self.n_split_)]] = split
        elif self.correction_ is not None:
            copies = self.correction_.transform(copies)
        model = self._configured(SpectralGP() if self.model is None else self.model)
        with inner_fits():
            self._adopt(model.fit(copies, labels))
        self.uses_ivar_ = self._expects_errors(observed)
        return self

    def _fitted_correction(self, synthetic, observed):
        if observed is not None and self.correction is None:
            raise ValueError(
                "Observed spectra are what a correction is fitted with, and there is none: give one, "
                "as in CorrectedModel(correction=PixelCorrection())."
            )
        if observed is not None:
            return clone(self.correction).fit(synthetic, observed)
        if self.correction is not None:
            try:
                check_is_fitted(self.correction)
            except NotFittedError:
                raise NotFittedError(
                    f"{type(self.correction).__name__} is not fitted: pass fit(X, y, "
                    "observed=spectra), or a correction that is fitted, in "
                    "sklearn.frozen.FrozenEstimator where scikit-learn clones it."
                ) from None
        return self.correction

    def _expects_errors(self, observed):
        """Whether the spectra to come should have errors: as those that the correction has seen."""
        if self.correction_ is not None and observed is not None:
            return as_spectra(observed).has_errors
        return getattr(self.correction_, "uses_ivar_", self.uses_ivar_)

    def _directions(self, rng, n):
        """Numbers (n, q) along principal directions of the split latents; sets these."""
        known = getattr(self.correction_, "split_", None)
        self.n_split_ = 0
        if known is None:
            return None
        self._centre = known.mean(axis=0)
        _, size, direction = np.linalg.svd(known - self._centre, full_matrices=False)
        size = size / np.sqrt(len(known))
        self.n_split_ = int(min(self.n_directions, np.sum(size > 1e-6 * size[0])))
        self._way = size[: self.n_split_, None] * direction[: self.n_split_]
        drawn = known[rng.randint(len(known), size=n)] - self._centre
        return drawn @ (direction[: self.n_split_] / size[: self.n_split_, None]).T

    def _split_from(self, numbers):
        return self._centre + numbers @ self._way

    # -- split latent numbers are labels that nobody gave ------------------------------------------

    def _validate_predict(self, X):
        check_is_fitted(self)
        with warnings.catch_warnings():
            # synthetic spectra seldom have errors, observed ones do
            if self.uses_ivar_ != self.model_.uses_ivar_:
                warnings.simplefilter("ignore", MissingUncertaintyWarning)
            return super()._validate_predict(X)

    def _to_scaled(self, labels):
        return self.model_._to_scaled(self._with_split(labels))

    def _with_split(self, labels):
        """Labels (m, K) with the split latent numbers at their mean; all labels as they are."""
        n_missing = len(self.label_pivot_) - labels.shape[1]
        return np.hstack([labels, np.zeros((len(labels), n_missing))])

    def predict_dist(self, X: SpectraLike) -> MultivariateNormal:
        """Labels of each star with their total covariance, whatever the split latent numbers are."""
        return self.invert(X).dist.marginal(self.label_names_in_)

    def flux_jacobian(self, labels: Labels) -> np.ndarray:
        """Gradient spectra (m, P, K) of labels (m, K), at the mean of the split latent numbers."""
        return super().flux_jacobian(labels)[..., : len(self.label_names_in_)]

    def fisher_information(self, labels: Labels | InversionResult, X: SpectraLike) -> np.ndarray:
        """Fisher matrix (n, K, K) of the labels, whatever the split latent numbers are.

        Parameters
        ----------
        labels : array-like of shape (n, K), or InversionResult
        X : Spectra of shape (n, P)

        Returns
        -------
        ndarray of shape (n, K, K)
        """
        return marginal_information(
            super().fisher_information(labels, X), np.arange(len(self.label_names_in_))
        )
