"""AugmentedRegressor: any method, fitted to augmented copies of its training stars."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Self

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_random_state

from skspec._sklearn import HasMethods, Interval, fit_context
from skspec._spectrum_domain import InnerDomainMixin
from skspec.base import LabelRegressor, inner_fits, predict_dist
from skspec.calibration._residual_covariance import ResidualCovarianceRegressor
from skspec.distributions import MultivariateNormal
from skspec.model_selection import star_groups
from skspec.spectra import concatenate

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from skspec._typing import Labels, RandomState, SpectraLike
    from skspec.augmentation._base import Augmentation

__all__ = ["AugmentedRegressor"]


class AugmentedRegressor(InnerDomainMixin, LabelRegressor):
    """Fit a method to several augmented copies of every training star.

    Unlike an augmentation in a Pipeline, which replaces every star by one copy, this takes the labels
    along where the augmentation changes them. A network learns more from
    ``SpectralCNN(augmentation=...)``, which augments every batch anew.

    Parameters
    ----------
    estimator : estimator, optional
        Anything that :func:`skspec.predict_dist` understands. Default:
        :class:`~skspec.calibration.ResidualCovarianceRegressor`.
    augmentation : augmentation, optional
        Of :mod:`skspec.augmentation`. None: the stars as they are.
    n_copies : int
        Augmented copies of each star.
    keep : bool
        Fit to the stars as they are, too.
    random_state : int, RandomState instance or None
        Of the augmentation.

    Attributes
    ----------
    estimator_ : estimator
        As fitted to the copies.

    Notes
    -----
    The copies of a star share its ``star_id`` (or ``group_id``, where the spectra have one), so that
    methods that cross-validate keep them in one fold.

    Examples
    --------
    >>> from skspec.augmentation import GaussianNoise, RotationalBroadening, Compose
    >>> from skspec.datasets import make_spectra
    >>> from skspec.ensemble import AugmentedRegressor
    >>> labels = ["teff", "feh", "vsini"]
    >>> slow = {"vsini": (0, 5)}
    >>> spectra, y = make_spectra(
    ...     150, n_pixels=150, labels=labels, label_ranges=slow, snr=None, random_state=0)
    >>> fast = Compose([RotationalBroadening((0, 100)), GaussianNoise(50)])
    >>> model = AugmentedRegressor(augmentation=fast, n_copies=3, random_state=0).fit(spectra, y)
    >>> rotating, _ = make_spectra(2, n_pixels=150, labels=labels, snr=50, random_state=1)
    >>> model.predict_dist(rotating)
    <MultivariateNormal of teff, feh, vsini: 2 stars>
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "predict"]), None],
        "augmentation": [HasMethods(["augment"]), None],
        "n_copies": [Interval(Integral, 1, None, closed="left")],
        "keep": ["boolean"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: BaseEstimator | None = None,
        augmentation: Augmentation | None = None,
        n_copies: int = 4,
        *,
        keep: bool = False,
        random_state: RandomState | None = None,
    ):
        self.estimator = estimator
        self.augmentation = augmentation
        self.n_copies = n_copies
        self.keep = keep
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: SpectraLike, y: Labels) -> Self:
        """Augment the stars and fit the method to them.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
            Training spectra.
        y : array-like of shape (n, K) or (n,)
            Training labels.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            With fewer than 2 stars.
        """
        spectra, y = self._validate_fit(X, y)
        if len(y) < 2:
            raise ValueError("AugmentedRegressor needs at least 2 stars, got 1 sample.")
        order = np.lexsort(y.T)  # whatever the order in which the stars came
        spectra, y = spectra[order], y[order]
        y = self._named_labels(y)
        if self.augmentation is not None:
            spectra, y = self._copies(spectra, y)
            self.uses_ivar_ = spectra.has_errors
        estimator = ResidualCovarianceRegressor() if self.estimator is None else self.estimator
        with inner_fits():
            self.estimator_ = clone(estimator).fit(spectra, y)
        return self

    def _copies(self, spectra, y):
        """Spectra and labels of all copies, of which no spectra are in memory twice."""
        import pandas as pd

        if star_groups(spectra) is None:
            spectra = spectra.replace(meta=spectra.meta | {"star_id": np.arange(len(spectra))})
        random, labels = check_random_state(self.random_state), []

        def copies():
            for _ in range(self.n_copies):
                copy, new_y = self.augmentation.augment(spectra, y, random_state=random)
                labels.append(new_y)
                yield copy
            if self.keep:
                labels.append(y)
                yield spectra

        stars = concatenate(copies(), n_stars=(self.n_copies + self.keep) * len(y))
        if self.augmentation.moves_stars:
            stars.frame = None  # those that are kept are at rest, the others are not
        return stars, pd.concat(labels, ignore_index=True)

    def predict_dist(self, X: SpectraLike) -> MultivariateNormal:
        """Distribution of the labels, by the method.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)

        Returns
        -------
        MultivariateNormal
        """
        spectra = self._validate_predict(X)
        return predict_dist(self.estimator_, spectra)
