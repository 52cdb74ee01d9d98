"""`ForwardModel`: learn labels -> flux, invert it by likelihood. All of it but the learning."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from skspec._label_values import label_values, refuse_unknown
from skspec._progress import CallbackSupportMixin, fit_task
from skspec._sklearn import Interval, StrOptions, fit_context
from skspec.base import LabelRegressor, as_spectra
from skspec.distributions import MultivariateNormal
from skspec.forward._refits import refit_without
from skspec.forward._training import (
    TrainingSpectra,
    learned_likelihood,
    training_label_errors,
    training_mse,
)
from skspec.likelihood import (
    FluxBasis,
    FreeColumns,
    FreeParameters,
    Inversion,
    InversionResult,
    OutOfSample,
    PixelNoise,
    Solution,
    compress,
    excess_covariance,
    mean_square,
)
from skspec.preprocessing import LabelScaler
from skspec.solvers.spectra.residual_components import ResidualComponents
from skspec.spectra import Spectra

if TYPE_CHECKING:
    from skspec._typing import Labels, SpectraLike
    from skspec.likelihood import Linearization

__all__ = ["ForwardModel"]

STEP = 1e-4  # of scaled labels, in numerical second derivatives of the features
#: pixel errors below this fraction of the flux are not believed
VARIANCE_FLOOR = 1e-6**2


class ForwardModel(CallbackSupportMixin, LabelRegressor):
    r"""Base of models labels -> flux that are linear in features of the labels.

    A subclass says how the flux depends on scaled labels `x` of shape (m, K); inversion, errors,
    quality flags and cleaning are written here, once. It provides

    - ``_fit_flux(x, spectra, context)``: learn; set `scatter_` (P,). `context` is for
      :func:`skspec._progress.track`;
    - ``_features(x, derivative=False)``: ``phi (m, q)``, with ``derivative=True`` also its derivative
      ``(m, K, q)``;
    - ``_coef``: attribute or property, array (q, P), so that the flux is ``phi @ _coef``;

    and, where it knows better than the default,

    - ``_curvature(x, weight)``: ``sum_q weight (m, q) phi_q''`` of shape ``(m, K, K)``; default:
      differences of the derivatives;
    - ``_out_of_sample(x, spectra)``: training stars as models see them that were trained without
      them (:class:`~skspec.likelihood.OutOfSample`); default: five fits, each without a fifth of the
      stars.

    Parameters
    ----------
    label_covariance : bool, default=True
        Add the model's own label-space error to the formal one (see `label_covariance_`).
    clean_training : float or None, default=None
        Remove training stars whose cross-validated label error exceeds this many robust standard
        deviations, refit, and repeat. They are listed in `training_outliers_`, and still counted in
        `label_covariance_`.
    fit_rv : bool or (float, float), default=False
        Fit the radial velocity of each star, positive when receding: True from -500 to 500 km/s, or
        within a range (lowest, highest) [km/s]; stars found beyond it are not `converged`.
    fit_broadening : bool or {"gaussian", "rotation"}, default=False
        Fit a broadening beyond that of the training spectra; True is "gaussian".
    continuum_degree : int or None, default=None
        Fit a multiplicative polynomial of this degree to each star (and to each order).
    coherence : float, default=0.0
        Low-rank covariance of the model's error between pixels: fraction of its variance, beyond
        photon noise, that pixels are taken to share. 0: independent pixels, as all methods were
        published. Otherwise the principal components of cross-validated residuals enter the
        likelihood. Not together with ``inversion__correlation_length``.
    label_prior : {"flat", "training"}, default="flat"
        What is known of the labels before the spectrum is seen: nothing, or that the star belongs to
        the population of the training stars.
    inversion : Inversion, optional
        Loss, starts, steps and correlated noise of the inversion
        (:class:`~skspec.likelihood.Inversion`); searched as ``inversion__loss`` and so on.
    ivar : {"auto", "require", "ignore"}, default="auto"
        Take flux errors where they are given, insist on them, or leave them aside (bad pixels stay
        bad).

    Attributes
    ----------
    scatter_ : ndarray of shape (P,)
        Standard deviation of the model's error in each pixel; ``inf`` where it could not be trained.
    label_covariance_ : ndarray of shape (K, K)
        Covariance of the model's own error in label units, from training stars predicted by models
        that did not see them; over all of them (an inversion takes those near the star).
    cv_label_errors_ : ndarray of shape (n, K)
        Those predictions minus the training labels, in label units.
    cv_mse_, training_mse_ : ndarray of shape (P,)
        Mean squared flux error of each pixel, cross-validated and on the training stars.
    training_outliers_ : ndarray of int
        Rows of the training set that `clean_training` removed.
    error_components_ : ndarray of shape (q, P)
        With `coherence` the error of the model has the covariance
        ``error_components_.T @ error_components_``, and a variance of each pixel beyond it.
    label_pivot_, label_scale_ : ndarray of shape (K,)
        ``scaled label = (label - pivot) / scale``.

    Notes
    -----
    A model too stiff for its labels, as a quadratic in a wide box is, leaves residuals that follow few
    patterns. As if pixels were independent, their errors add up along the gradient spectra. With
    ``coherence=0.2`` the covariance of each star is

    .. math:: \Sigma = U^T U + \mathrm{diag}(s^2 + \sigma^2)

    of components `U` (:mod:`skspec.solvers.spectra.residual_components`), integrated over in each step
    (:class:`~skspec.likelihood.PixelNoise`); `label_covariance_` is measured with components that have
    not seen the star either.
    """

    _parameter_constraints: dict = {
        "label_covariance": ["boolean"],
        "clean_training": [Interval(Real, 0, None, closed="neither"), None],
        "fit_rv": ["boolean", "array-like"],
        "fit_broadening": ["boolean", StrOptions({"gaussian", "rotation"})],
        "continuum_degree": [Interval(Integral, 0, None, closed="left"), None],
        "coherence": [Interval(Real, 0, 1, closed="left")],
        "label_prior": [StrOptions({"flat", "training"})],
        "inversion": [Inversion, None],
        "ivar": [StrOptions({"auto", "require", "ignore"})],
    }

    def __init__(
        self,
        *,
        label_covariance: bool = True,
        clean_training: float | None = None,
        fit_rv: bool | tuple[float, float] = False,
        fit_broadening: bool | str = False,
        continuum_degree: int | None = None,
        coherence: float = 0.0,
        label_prior: str = "flat",
        inversion: Inversion | None = None,
        ivar: str = "auto",
    ):
        self.label_covariance = label_covariance
        self.clean_training = clean_training
        self.fit_rv = fit_rv
        self.fit_broadening = fit_broadening
        self.continuum_degree = continuum_degree
        self.coherence = coherence
        self.label_prior = label_prior
        self.inversion = inversion
        self.ivar = ivar

    def set_params(self, **params: Any) -> Self:
        """Set parameters; ``inversion__loss`` and its kin without an `inversion` of one's own, too."""
        nested = any(name.startswith("inversion__") for name in params)
        has_own = "inversion" in self._get_param_names()
        if nested and has_own and params.get("inversion", self.inversion) is None:
            self.inversion = None
            self.inversion = clone(self._options)
            params.pop("inversion", None)
        return super().set_params(**params)

    # -- what a subclass provides ------------------------------------------------------------------

    @abstractmethod
    def _fit_flux(self, x, spectra, context): ...

    @abstractmethod
    def _features(self, x, derivative=False): ...

    def _curvature(self, x, weight):
        n_labels = x.shape[1]
        out = np.empty((len(x), n_labels, n_labels))
        for k, step in enumerate(STEP * np.eye(n_labels)):
            ahead, behind = (self._features(x + s, derivative=True)[1] for s in (step, -step))
            out[:, k] = ((ahead - behind) @ weight[..., None])[..., 0] / (2 * STEP)
        return 0.5 * (out + np.swapaxes(out, 1, 2))

    def _out_of_sample(self, x, spectra) -> OutOfSample:
        return refit_without(self, x, spectra)

    def _label_scaler(self):
        return LabelScaler()

    # -- learning ----------------------------------------------------------------------------------

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # with a free continuum the level of the flux tells nothing, in tables of numbers too
        tags.regressor_tags.poor_score = getattr(self, "continuum_degree", None) is not None
        return tags

    @property
    def _options(self) -> Inversion:
        return Inversion() if self.inversion is None else self.inversion

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: SpectraLike, y: Labels) -> Self:
        """Learn the flux of every pixel as a function of the labels.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
            Training spectra on one grid, at rest, continuum normalised the same way as the spectra
            to come.
        y : array-like of shape (n, K) or (n,)
            Their labels. The columns of a DataFrame name them.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            On NaN in a plain array or in the labels, shapes that do not agree, or too few stars.
        """
        spectra, y = self._validate_fit(X, y)
        if len(spectra) < 2:
            raise ValueError(
                f"{type(self).__name__} needs at least 2 training stars, got n_samples = 1."
            )
        n_pixels, options = spectra.shape[1], self._options
        options._validate_params()
        free = FreeParameters.of(self.fit_rv, self.fit_broadening, self.continuum_degree)
        self._columns = FreeColumns(free, n_pixels, spectra.wavelength, spectra.order)
        self.error_components_ = np.zeros((0, n_pixels))
        for name in ("cv_mse_", "cv_label_errors_"):  # of an earlier fit
            self.__dict__.pop(name, None)
        self._check_correlation(self.coherence > 0)
        self._set_label_scaling(y)
        x = self._to_scaled(y)
        keep = np.ones(len(x), dtype=bool)
        rounds = 0 if self.clean_training is None else options.clean_rounds
        with fit_task(self, X, y, rounds + 1) as context:
            for remaining in range(rounds, -1, -1):
                errors = self._fit_kept(x, spectra, keep, context)
                if remaining == 0:
                    break
                drop = keep & errors.outliers(self._scaled_model_cov, self.clean_training)
                if not drop.any():
                    break
                keep &= ~drop
        self.training_outliers_ = np.flatnonzero(~keep)
        self._likelihood = learned_likelihood(self, x, keep, errors)
        return self

    def _check_correlation(self, shares_errors):
        length = self._options.correlation_length
        if shares_errors and length:
            raise ValueError(
                f"coherence cannot be combined with correlation_length={length}: a likelihood knows "
                "one way in which pixels are correlated. Set one of them to 0."
            )

    def _set_label_scaling(self, y):
        scaler = self._label_scaler().fit(y)
        self.label_pivot_, self.label_scale_ = scaler.pivot_, scaler.scale_

    def _to_scaled(self, labels):
        return (labels - self.label_pivot_) / self.label_scale_

    @property
    def _needs_held_out(self):
        """Whether anything wants to know what the model makes of stars it has not seen."""
        uses = (self.clean_training is not None, self.coherence > 0, self.label_prior != "flat")
        return self.label_covariance or any(uses)

    def _fit_kept(self, x, spectra, keep, context):
        """One round: learn from the stars kept, measure the error on all of them."""
        kept = TrainingSpectra.of(spectra if keep.all() else spectra[keep])
        self.training_variance_ = kept.mean_variance
        power = mean_square(kept.flux, kept.good)
        power = np.where(power > 0, power, np.nanmean(power))
        self._flux_floor = VARIANCE_FLOOR * np.maximum(power, np.finfo(float).tiny)
        self._fit_flux(x[keep], kept, context)
        if not np.isfinite(self.scatter_).any():
            raise ValueError(
                f"No pixel could be trained with {len(kept)} stars: give more of them, or a model with "
                "fewer parameters."
            )
        self._errors = ResidualComponents(self.error_components_[:0], self.scatter_**2)
        self.training_mse_ = training_mse(self, x[keep], kept)
        n_labels = x.shape[1]
        n_columns = n_labels + self._columns.free.n_nonlinear
        self._scaled_model_cov = np.zeros((n_columns, n_columns))
        self.label_covariance_ = np.zeros((n_labels, n_labels))
        if not self._needs_held_out:
            return None
        errors, self._errors, self.cv_mse_ = training_label_errors(self, x, spectra, keep, kept)
        self.error_components_ = self._errors.spectra
        self.cv_label_errors_ = errors.error[:, :n_labels] * self.label_scale_
        if self.label_covariance:
            self._scaled_model_cov = excess_covariance(errors)
            scale = np.outer(self.label_scale_, self.label_scale_)
            self.label_covariance_ = self._scaled_model_cov[:n_labels, :n_labels] * scale
        return errors

    def _exact(self) -> FluxBasis:
        return FluxBasis.of_features(self._features, self._coef)

    def _compressed(self, points, noise) -> FluxBasis:
        return compress(self._features, points, self._coef, noise)

    # -- the model of the flux ---------------------------------------------------------------------

    def predict_flux(self, labels: Labels) -> np.ndarray:
        """Model spectra of given labels.

        Parameters
        ----------
        labels : array-like of shape (m, K) or (K,)
            In label units. The columns of a DataFrame are found by name.

        Returns
        -------
        ndarray of shape (m, P)
        """
        return self._features(self._checked_labels(labels)) @ self._coef

    def flux_jacobian(self, labels: Labels) -> np.ndarray:
        """Gradient spectra: derivative of the flux with respect to each label.

        Parameters
        ----------
        labels : array-like of shape (m, K) or (K,)

        Returns
        -------
        ndarray of shape (m, P, K)
            Per label unit.
        """
        _, slope = self._features(self._checked_labels(labels), derivative=True)
        return np.moveaxis(slope @ self._coef, 1, 2) / self.label_scale_

    def _checked_labels(self, labels):
        check_is_fitted(self)
        labels = np.atleast_2d(label_values(labels, self.label_names_in_, among_others=True))
        if labels.ndim != 2 or labels.shape[1] != len(self.label_names_in_):
            raise ValueError(
                f"labels have shape {labels.shape}; give one column for each of "
                f"{', '.join(self.label_names_in_)}."
            )
        refuse_unknown(labels, self.label_names_in_)
        return self._to_scaled(labels)

    # -- its noise ---------------------------------------------------------------------------------

    def _photon_variance(self, spectra, pixels=slice(None)):
        """Photon variance of each pixel; the training mean where unknown, ``inf`` at bad pixels."""
        variance = spectra.variance
        if self.uses_ivar_:
            unknown = variance == 0
            if unknown.any():
                variance = np.where(unknown, self.training_variance_[pixels], variance)
        return variance

    def noise(self, X: SpectraLike) -> PixelNoise:
        """Noise of every pixel in the inversion: photons and the error of the model.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
            Of stars at rest. Where they have no errors, the mean photon variance of the training
            spectra is taken.

        Returns
        -------
        PixelNoise
            With ``variance()`` (n, P), ``inf`` at bad pixels, and the errors that pixels share.
        """
        spectra, length = self._as_observed(X), self._options.correlation_length
        return self._likelihood.budget(spectra, length).at_rest()

    def fisher_information(self, labels: Labels | InversionResult, X: SpectraLike) -> np.ndarray:
        r"""Fisher matrix of each star, in label units, of the noise that an inversion takes.

        .. math:: F = J^T \Sigma^{-1} J

        less what velocity, broadening and continuum cost, where these are free. With
        ``correlation_length`` that of the sandwich.

        Parameters
        ----------
        labels : array-like of shape (n, K), or InversionResult
            A result also knows the velocity, broadening and continuum of each star; with labels alone
            stars are at rest, not broadened, and have the continuum that suits them best.
        X : Spectra of shape (n, P)

        Returns
        -------
        ndarray of shape (n, K, K)
            Inverse of the formal covariance of :meth:`invert`, at its labels and for a linear loss.
        """
        spectra = self._as_observed(X)
        solution = self._solution_at(labels, spectra)
        length = self._options.correlation_length
        return self._likelihood.fisher_information(solution, spectra, length)

    def linearize(
        self,
        labels: Labels | InversionResult,
        X: SpectraLike,
        *,
        free: FreeParameters | None = None,
        photon_only: bool = False,
    ) -> Iterator[Linearization]:
        """Gradient spectra of everything that is free, and the noise of each star.

        Parameters
        ----------
        labels : array-like of shape (n, K), or InversionResult
            As in :meth:`fisher_information`.
        X : Spectra of shape (n, P)
        free : FreeParameters, optional
            What is free besides the labels; default: what the model fits.
        photon_only : bool
            Leave the error of the model aside.

        Returns
        -------
        iterator of Linearization
            Of some stars each.
        """
        spectra = self._as_observed(X, photon_only)
        solution = self._solution_at(labels, spectra)
        length = self._options.correlation_length
        return self._likelihood.linearize(
            solution, spectra, length, free=free, photon_only=photon_only
        )

    @property
    def free_columns(self) -> FreeColumns:
        """What an inversion fits besides the labels: ``free_columns.free``, and its derivatives."""
        check_is_fitted(self)
        return self._likelihood.columns

    def _as_observed(self, X, photon_only=False) -> Spectra:
        """Spectra with the errors that an inversion takes; those given, where these alone count."""
        check_is_fitted(self)
        spectra = as_spectra(X)
        if spectra.shape[1] != self.n_features_in_:
            raise ValueError(
                f"The spectra have {spectra.shape[1]} pixels, those of the fit {self.n_features_in_}."
            )
        self._check_wavelength(spectra)
        if self._ivar_policy == "ignore" and not photon_only:
            spectra = self._apply_ivar_policy(spectra)
        return spectra

    def _solution_at(self, labels, spectra) -> Solution:
        """Of labels or an `InversionResult`, for as many spectra."""
        if isinstance(labels, InversionResult):
            solution = self._likelihood.solution_at(labels)
        else:
            solution = Solution(self._checked_labels(labels))
        if len(solution.x) != len(spectra):
            raise ValueError(f"{len(solution.x)} sets of labels for {len(spectra)} spectra.")
        return solution

    # -- inversion ---------------------------------------------------------------------------------

    def invert(self, X: SpectraLike) -> InversionResult:
        r"""Labels of each star by maximum likelihood, with errors and quality flags.

        Minimises :math:`\chi^2 = \sum_j (f_j - f_j(\ell))^2 / (\sigma_j^2 + s_j^2)` inside the range
        of the training labels widened by 10 %, for all stars at once. With ``label_prior="training"``
        the labels of the result are then those of the posterior, and `likelihood` has these.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)

        Returns
        -------
        InversionResult
        """
        self._validate_params()  # they may have been set since the fit
        spectra, options = self._validate_predict(X), self._options
        options._validate_params()
        self._check_correlation(len(self.error_components_) > 0)
        return self._likelihood.invert(spectra, options)

    def best_fit(self, result: InversionResult) -> np.ndarray:
        """Fitted spectra as they would be observed: shifted, broadened, times their continuum.

        Parameters
        ----------
        result : InversionResult
            Of :meth:`invert`.

        Returns
        -------
        ndarray of shape (n, P)
            NaN at pixels whose rest wavelength the model does not know, and for stars without a good
            pixel.
        """
        check_is_fitted(self)
        flux = self._likelihood.best_fit(self._likelihood.solution_at(result))
        flux[result.n_good == 0] = np.nan
        return flux

    def start_from(self, labels: Labels) -> Self:
        """Start inversions from these labels instead of the best of the training labels.

        Parameters
        ----------
        labels : array-like of shape (g, K)
            In label units. At most ``inversion.n_init`` of them, the best for each star, are followed.

        Returns
        -------
        self
        """
        x, training = self._checked_labels(labels), self._likelihood.training
        training.candidates = np.clip(x, training.lower, training.upper)
        return self

    def predict_dist(self, X: SpectraLike) -> MultivariateNormal:
        """Labels of each star with their total covariance: ``invert(X).dist``."""
        return self.invert(X).dist

    def domain_score(self, X: SpectraLike) -> np.ndarray:
        """How badly the best model spectrum fits: ``invert(X).domain_score``, above 1 for 1 % at most.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)

        Returns
        -------
        ndarray of shape (n,)
            Reduced chi2 in units of the 99th percentile of training stars that the model had not seen.

        Raises
        ------
        ValueError
            When the model was fitted with ``label_covariance=False``: no star was held out.
        """
        check_is_fitted(self)
        typical = self._likelihood.typical_chi2
        if typical is None:
            raise ValueError(
                "domain_score needs training stars that were held out: fit with label_covariance=True."
            )
        return self.invert(X).reduced_chi2 / typical
