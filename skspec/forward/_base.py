"""`ForwardModel`: learn labels -> flux, invert it by likelihood. All of it but the learning."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from numbers import Integral, Real

import numpy as np
from scipy.spatial import cKDTree
from sklearn.utils.validation import check_is_fitted

from skspec._progress import CallbackSupportMixin, fit_task
from skspec._sklearn import Interval, StrOptions, fit_context
from skspec.base import LabelRegressor, as_spectra
from skspec.distributions import MultivariateNormal
from skspec.forward._coherence import HeldOut, coherent_sums, find_coherence
from skspec.forward._inversion import (
    TINY_INFORMATION,
    FluxModel,
    batch_rows,
    compress,
    minimise,
    spread_rows,
)
from skspec.forward._inversion_result import InversionResult
from skspec.forward._label_covariance import LabelErrorSum, LocalCovariance, label_covariance
from skspec.forward._label_population import LabelPopulation
from skspec.forward._nuisance import Nuisance, NuisanceColumns, NuisanceModel
from skspec.preprocessing import LabelScaler
from skspec.solvers.linear.coherent_errors import CoherentErrors
from skspec.solvers.linear.pixel_blocks import parallel_map
from skspec.spectra import Spectra

__all__ = ["ForwardModel"]

BOX_MARGIN = 0.1  # the box of the inversion exceeds the training range by this fraction of it
USUAL = 0.99  # share of training stars whose chi2 says nothing against them
N_NEIGHBOURS = 10  # training stars that define "near the training set" (Ho et al. 2017)
#: pixel errors below this fraction of the flux are not believed
VARIANCE_FLOOR = 1e-6**2


class ForwardModel(CallbackSupportMixin, LabelRegressor):
    r"""Base of models labels -> flux that are linear in features of the labels.

    A subclass provides

    - ``_fit_flux(x, spectra, context)``: learn from scaled labels `x` and spectra; set `scatter_`;
      `context` is for :func:`skspec._progress.track`;
    - ``_features(x, derivative=False)``: ``phi (m, q)`` and its derivative ``(m, K, q)``;
    - ``_curvature(x, weight)``: ``sum_q weight (m, q) phi_q''`` of shape ``(m, K, K)``;
    - ``_coef``: property, array (q, P), so that the flux is ``phi @ _coef``;
    - ``_out_of_sample(x, spectra)``: a function ``pixels -> HeldOut`` of the training stars by models
      that have not seen them, and the list of slices of pixels to call it with (or overrides
      ``_cross_validate``).

    Parameters
    ----------
    label_covariance : bool
        Add the model's own label-space error to the formal one (see `label_covariance_`).
    clean_training : float or None
        Remove training stars whose cross-validated label error exceeds this many robust standard
        deviations, refit, and repeat up to `clean_rounds` times. They are listed in
        `training_outliers_`, and still counted in `label_covariance_`.
    loss : {"linear", "soft_l1", "huber"}
        Loss of the inversion.
    fit_rv : bool
        Fit the radial velocity of each star, within `rv_range`.
    rv_range : tuple of float
        Lowest and highest radial velocity [km/s], positive when receding.
    fit_broadening : bool or {"gaussian", "rotation"}
        Fit a broadening beyond that of the training spectra; True is "gaussian".
    continuum_degree : int or None
        Fit a multiplicative polynomial of this degree to each star (and to each order).
    n_starts : int
        Starts of the inversion: the best training labels that lie well apart.
    max_steps : int
        Levenberg-Marquardt steps at most.
    tol : float
        Squared length of a step, in formal sigma, below which a star has converged.
    correlation_length : int
        Pixels over which the noise of a spectrum may be correlated, as resampling leaves it: formal
        errors then count the autocorrelation of each star's own residuals. 0: pixels are independent.
    coherence : float
        Fraction of the variance of the model's error, beyond photon noise, that pixels are taken to
        have in common. 0: independent pixels, as all methods were published. Otherwise the
        principal components of cross-validated residuals enter the likelihood, where they cost a
        stiff model little and repair it: see Notes. Not together with `correlation_length`.
    label_prior : {"flat", "training"}
        What is known of the labels before the spectrum is seen: nothing, or that the star belongs to
        the population of the training stars (:mod:`skspec.forward._label_population`).
    ivar : {"auto", "require", "ignore"}
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

    of components `U` (:mod:`skspec.solvers.spectra.residual_components`), marginalised in each step
    (:mod:`skspec.solvers.linear.coherent_errors`); `label_covariance_` is measured with components
    that have not seen the star either.
    """

    _parameter_constraints: dict = {
        "label_covariance": ["boolean"],
        "clean_training": [Interval(Real, 0, None, closed="neither"), None],
        "clean_rounds": [Interval(Integral, 1, None, closed="left")],
        "fit_rv": ["boolean"],
        "rv_range": ["array-like"],
        "fit_broadening": ["boolean", StrOptions({"gaussian", "rotation"})],
        "continuum_degree": [Interval(Integral, 0, None, closed="left"), None],
        "loss": [StrOptions({"linear", "soft_l1", "huber"})],
        "n_starts": [Interval(Integral, 1, None, closed="left")],
        "max_steps": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "correlation_length": [Interval(Integral, 0, None, closed="left")],
        "coherence": [Interval(Real, 0, 1, closed="left")],
        "label_prior": [StrOptions({"flat", "training"})],
        "ivar": [StrOptions({"auto", "require", "ignore"})],
    }

    # -- what a subclass provides ------------------------------------------------------------------

    @abstractmethod
    def _fit_flux(self, x, spectra, context): ...

    @abstractmethod
    def _features(self, x, derivative=False): ...

    @abstractmethod
    def _curvature(self, x, weight): ...

    @property
    @abstractmethod
    def _coef(self): ...

    def _out_of_sample(self, x, spectra):
        raise NotImplementedError

    def _label_scaler(self):
        return LabelScaler()

    # -- learning ----------------------------------------------------------------------------------

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # with a free continuum the level of the flux tells nothing, in tables of numbers too
        tags.regressor_tags.poor_score = self.continuum_degree is not None
        return tags

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y):
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
        self._columns = self._nuisance_columns(spectra)
        self._check_coherence(spectra.shape[1])
        self._set_label_scaling(y)
        x = self._to_scaled(y)
        keep = np.ones(len(x), dtype=bool)
        rounds = 0 if self.clean_training is None else self.clean_rounds
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
        self._local_model_cov = self._usual_chi2 = None
        if errors is not None:
            self._usual_chi2 = _usual(errors.reduced_chi2[keep])
        if self.label_covariance:
            self._local_model_cov = LocalCovariance.around(x[keep], x, errors)
        self._prepare_inversion(x[keep])
        self._population = None
        if self.label_prior == "training":
            self._population = self._learn_population(x, keep, errors)
        return self

    def _check_coherence(self, n_pixels):
        self._coherent, self.error_components_ = None, np.zeros((0, n_pixels))
        self._check_correlation(self.coherence > 0)

    def _check_correlation(self, is_coherent):
        if is_coherent and self.correlation_length:
            raise ValueError(
                f"coherence cannot be combined with correlation_length={self.correlation_length}: a "
                "likelihood knows one way in which pixels are correlated."
            )

    def _nuisance_columns(self, spectra):
        nuisance = Nuisance.of(self)
        if nuisance is None:
            return None
        if nuisance.needs_velocity and spectra.wavelength is None:
            raise ValueError(
                "fit_rv and fit_broadening need to know the wavelength of each pixel: pass "
                "Spectra(flux, wavelength=...)."
            )
        return NuisanceColumns(nuisance, spectra.shape[1], spectra.wavelength, spectra.order)

    def _error_sum(self, n):
        """Empty sums for the label errors of `n` stars."""
        more = 0 if self._columns is None else len(self._columns)
        return LabelErrorSum(n, len(self.label_pivot_), more)

    @property
    def _unit(self):
        """Units (M,) of the labels, radial velocity and squared width in the errors."""
        if self._columns is None:
            return self.label_scale_
        return np.concatenate([self.label_scale_, self._columns.nuisance.units])

    def _with_columns(self, jacobian, flux, pixels):
        """Jacobian (n, K, B) with the columns of what else is free."""
        if self._columns is None:
            return jacobian
        return np.concatenate([jacobian, self._columns(flux, pixels)], axis=1)

    def _set_label_scaling(self, y):
        scaler = self._label_scaler().fit(y)
        self.label_pivot_, self.label_scale_ = scaler.pivot_, scaler.scale_

    def _to_scaled(self, labels):
        return (labels - self.label_pivot_) / self.label_scale_

    def _fit_kept(self, x, spectra, keep, context):
        """One round: learn from the stars kept, measure the error on all of them."""
        kept = _TrainingSpectra.of(spectra if keep.all() else spectra[keep])
        self.training_variance_ = kept.mean_variance
        power = _mean_square(kept.flux, kept.good)
        power = np.where(power > 0, power, np.nanmean(power))
        self._flux_floor = VARIANCE_FLOOR * np.maximum(power, np.finfo(float).tiny)
        self._fit_flux(x[keep], kept, context)
        self.training_mse_ = self._training_mse(x[keep], kept)
        n_labels = x.shape[1]
        self._scaled_model_cov = np.zeros((len(self._unit), len(self._unit)))
        self.label_covariance_ = np.zeros((n_labels, n_labels))
        if not self._needs_held_out:
            return None
        errors = self._label_errors(x, spectra, keep, kept)
        self.cv_label_errors_ = errors.error[:, :n_labels] * self.label_scale_
        if self.label_covariance:
            self._scaled_model_cov = label_covariance(errors)
            scale = np.outer(self.label_scale_, self.label_scale_)
            self.label_covariance_ = self._scaled_model_cov[:n_labels, :n_labels] * scale
        return errors

    @property
    def _needs_held_out(self):
        """Whether anything wants to know what the model makes of stars it has not seen."""
        uses = (self.clean_training is not None, self.coherence > 0, self.label_prior != "flat")
        return self.label_covariance or any(uses)

    def _label_errors(self, x, spectra, keep, kept):
        """Label errors of all stars, each from a model that has not seen it; sets `cv_mse_`."""
        total = self._error_sum(len(x))
        part, self.cv_mse_ = self._cross_validate(x[keep], kept)
        total.put(keep, part)
        removed = np.flatnonzero(~keep)
        step = batch_rows(spectra.shape[1] * (x.shape[1] + 1))
        coef = self._coef if removed.size else None
        for start in range(0, len(removed), step):
            rows = removed[start : start + step]
            total.put(rows, self._unseen_sums(x[rows], spectra[rows], coef))
        return total.errors(len(self._unit))

    def _learn_population(self, x, keep, errors):
        """Of the kept stars; those removed are judges as well, as they are of `label_covariance_`."""
        labels, seen = slice(x.shape[1]), errors.informed
        found = np.clip(x[seen] + errors.error[seen, labels], self._lower, self._upper)
        cov = errors.formal[seen] + self._model_cov_near(self._nearest(found)[1])
        cov = cov[:, labels, labels]
        return LabelPopulation.learn(x[keep], self._lower, self._upper, x[seen], found, cov)

    def _unseen_sums(self, x, spectra, coef):
        """Sums for the label errors of stars that the model has not seen."""
        phi, slope = self._features(x, derivative=True)
        flux = phi @ coef
        jacobian = self._with_columns(slope @ coef, flux, slice(None))
        if self._coherent is not None:
            residual = np.where(spectra.good, spectra.flux - flux, 0.0)
            unseen = HeldOut(residual, jacobian, lambda pull, _: pull @ coef.T)
            return self._coherent_sums(
                x,
                self._photon_variance(spectra),
                residual,
                [(slice(None), self._coherent)],
                lambda _: unseen,
                [slice(None)],
            )
        sums = self._error_sum(len(x))
        sums.add(
            slice(None),
            1.0 / self._variance(spectra),
            spectra.flux - flux,
            jacobian,
            lambda pull: self._curvature(x, pull @ coef.T),
        )
        return sums

    def _cross_validate(self, x, spectra):
        """Sums over pixels for the label errors, and the cross-validated mean squared flux error."""
        held_out, blocks = self._out_of_sample(x, spectra)
        if self.coherence:
            return self._find_coherence(x, spectra, held_out, blocks)
        photon, model = self._photon_variance(spectra), self._own_variance
        held_out = self._held_out_with_columns(x, held_out)

        def add_up(pixels):
            residual, jacobian, project = held_out(pixels)
            weight = 1.0 / (photon[:, pixels] + model[pixels])
            sums, pulls = self._error_sum(len(x)), []
            # the second derivatives are linear in the pulls of all pixels: taken once, below
            sums.add(
                slice(None), weight, residual, jacobian, lambda pull: pulls.append(pull) or 0.0
            )
            mse = _mean_square(residual, np.isfinite(photon[:, pixels]))
            return sums, project(pulls[0], slice(None)), mse

        total, pull, mse = self._error_sum(len(x)), 0.0, np.empty(spectra.shape[1])
        for pixels, done in zip(blocks, parallel_map(add_up, blocks)):
            sums, pulls, mse[pixels] = done
            total += sums
            pull = pull + pulls
        total.curvature += self._curvature(x, pull)
        return total, mse

    def _held_out_with_columns(self, x, held_out):
        """`held_out` with the derivatives by what else is free, which the model of all stars gives."""
        if self._columns is None:
            return held_out
        phi, coef = self._features(x), self._coef

        def with_columns(pixels):
            seen, flux = held_out(pixels), phi @ coef[:, pixels]
            return seen._replace(jacobian=self._with_columns(seen.jacobian, flux, pixels))

        return with_columns

    def _find_coherence(self, x, spectra, held_out, blocks):
        """As `_cross_validate`, with the errors that pixels have in common, found on the way."""
        photon, trained = self._photon_variance(spectra), np.isfinite(self.scatter_)
        found = find_coherence(held_out, blocks, photon, trained, self.coherence)
        self._coherent, self.error_components_ = found.components, found.components.spectra
        held_out = self._held_out_with_columns(x, held_out)
        sums = self._coherent_sums(x, photon, found.residual, found.parts, held_out, blocks)
        return sums, _mean_square(found.residual, np.isfinite(photon))

    def _coherent_sums(self, x, photon, residual, parts, held_out, blocks):
        return coherent_sums(
            self._error_sum(len(x)),
            photon,
            self._flux_floor,
            residual,
            parts,
            held_out,
            blocks,
            lambda rows, weight: self._curvature(x[rows], weight),
        )

    def _training_mse(self, x, spectra):
        phi, coef = self._features(x), self._coef
        mse, step = np.empty(spectra.shape[1]), max(1, batch_rows(len(x)) // 16)
        for start in range(0, len(mse), step):
            pixels = slice(start, start + step)
            part = spectra[:, pixels]
            mse[pixels] = _mean_square(phi @ coef[:, pixels] - part.flux, part.good)
        return mse

    def _prepare_inversion(self, x):
        margin = BOX_MARGIN * np.ptp(x, axis=0)
        self._lower, self._upper = x.min(axis=0) - margin, x.max(axis=0) + margin
        fixed = margin == 0  # a constant label: there is nothing to fit
        self._lower[fixed] -= 1e-9
        self._upper[fixed] += 1e-9
        self._candidates = x[spread_rows(x, 512)] if len(x) > 512 else x.copy()
        self._tree = cKDTree(x)
        n_near = min(N_NEIGHBOURS + 1, len(x))
        distance = self._tree.query(x, k=n_near)[0].reshape(len(x), -1)[:, 1:].mean(axis=1)
        self._near = np.quantile(distance, 0.99)
        rng = np.random.default_rng(0)
        points = np.vstack(
            [self._candidates, rng.uniform(self._lower, self._upper, (128, len(margin)))]
        )
        noise = np.sqrt(self._own_variance + self.training_variance_)
        self._basis = compress(self._features, points, self._coef, noise)

    # -- the model of the flux ---------------------------------------------------------------------

    def predict_flux(self, labels) -> np.ndarray:
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

    def flux_jacobian(self, labels) -> np.ndarray:
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
        if hasattr(labels, "columns"):
            missing = [name for name in self.label_names_in_ if name not in labels.columns]
            if missing:
                raise ValueError(f"The labels have no column {', '.join(missing)}.")
            labels = labels[self.label_names_in_]
        labels = np.atleast_2d(np.asarray(labels, dtype=float))
        if labels.ndim != 2 or labels.shape[1] != len(self.label_names_in_):
            raise ValueError(
                f"labels have shape {labels.shape}; give one column for each of "
                f"{', '.join(self.label_names_in_)}."
            )
        if not np.all(np.isfinite(labels)):
            raise ValueError("labels hold NaN or infinite values.")
        return self._to_scaled(labels)

    def _photon_variance(self, spectra, pixels=slice(None)):
        """Photon variance of each pixel; the training mean where unknown, ``inf`` at bad pixels."""
        variance = spectra.variance
        if self.uses_ivar_:
            unknown = variance == 0
            if unknown.any():
                variance = np.where(unknown, self.training_variance_[pixels], variance)
        return variance

    @property
    def _own_variance(self):
        """Variance (P,) of the model that pixels do not share."""
        own = self.scatter_**2 if self._coherent is None else self._coherent.rest
        return own + self._flux_floor

    def _variance(self, spectra):
        """Photon plus model variance of each pixel alone; ``inf`` at bad pixels."""
        return self._photon_variance(spectra) + self._own_variance

    def _variances(self, spectra):
        """Photon variance in the unit of the spectra, and the rest in that of the model's flux."""
        photon = spectra.variance
        rest = np.broadcast_to(self._own_variance, photon.shape)
        if self.uses_ivar_ and (unknown := photon == 0).any():
            rest = np.where(unknown, rest + self.training_variance_, rest)
        return photon, rest

    def noise_variance(self, X) -> np.ndarray:
        """Variance of every pixel in the inversion: photon noise plus model scatter.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
            Where they have no errors, the mean photon variance of the training spectra is taken.

        Returns
        -------
        ndarray of shape (n, P)
            ``inf`` at bad pixels.
        """
        check_is_fitted(self)
        variance = self._variance(as_spectra(X))
        if self._coherent is not None:
            variance += np.einsum("qp,qp->p", *2 * (self._coherent.spectra,))
        return variance

    def fisher_information(self, labels, X) -> np.ndarray:
        """Fisher matrix ``J^T diag(1 / noise_variance) J`` of each star, in label units.

        With `coherence`, of the covariance of all pixels.

        Parameters
        ----------
        labels : array-like of shape (n, K)
        X : Spectra of shape (n, P)
            Whose errors and bad pixels count; the flux does not.

        Returns
        -------
        ndarray of shape (n, K, K)
        """
        x, spectra = self._checked_labels(labels), as_spectra(X)
        if len(x) != len(spectra):
            raise ValueError(f"{len(x)} sets of labels for {len(spectra)} spectra.")
        out, coef = np.empty((len(x), x.shape[1], x.shape[1])), self._coef
        step = batch_rows(spectra.shape[1] * (x.shape[1] + 1))
        for start in range(0, len(x), step):
            rows = slice(start, start + step)
            jacobian = self._features(x[rows], derivative=True)[1] @ coef
            weight = 1.0 / self._variance(spectra[rows])
            weighted = jacobian * weight[:, None]
            out[rows] = weighted @ np.swapaxes(jacobian, 1, 2)
            if self._coherent is not None:
                errors = CoherentErrors(self._coherent.spectra, weight)
                on_jacobian = weighted @ self._coherent.spectra.T
                out[rows] = errors.take_off_information(out[rows], on_jacobian)
        return out / (self.label_scale_[:, None] * self.label_scale_)

    # -- inversion ---------------------------------------------------------------------------------

    def invert(self, X) -> InversionResult:
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
        spectra = self._validate_predict(X)
        self._check_correlation(self._coherent is not None)
        seen = self._seen_model()
        model = seen or self._flux_model()
        step = batch_rows(spectra.shape[1])
        if seen is None:
            step = min(step, batch_rows(len(self._basis.leading().flux) ** 2))
        options = {
            "n_starts": self.n_starts,
            "max_iter": self.max_steps,
            "tol": self.tol,
            "loss": self.loss,
            "correlation_length": self.correlation_length,
        }
        parts = []
        for start in range(0, len(spectra), step):
            part = spectra[start : start + step]
            if seen is not None:
                parts.append(seen.minimise(part.flux, *self._variances(part), **options))
                continue
            weight = 1.0 / self._variance(part)
            parts.append(
                minimise(
                    model,
                    part.flux,
                    weight,
                    self._candidates,
                    self._lower,
                    self._upper,
                    order=spectra.order,
                    **options,
                )
            )
        return self._result(type(parts[0]).concatenate(parts))

    def _result(self, fit):
        x, n_labels, n_good = fit.x, fit.x.shape[1], fit.n_good
        blind = n_good == 0
        fisher = fit.fisher + TINY_INFORMATION * np.eye(fit.fisher.shape[-1])
        formal = np.linalg.inv(fisher) * np.outer(self._unit, self._unit)
        width = self._upper - self._lower
        at_bound = (x <= self._lower + 1e-9 * width) | (x >= self._upper - 1e-9 * width)
        distance, near = self._nearest(x)
        margin = self._upper - self._tree.data.max(axis=0)
        in_range = np.all((x >= self._lower + margin) & (x <= self._upper - margin), axis=1)
        inside = in_range & (distance.mean(axis=1) <= self._near)
        labels, chi2 = self.label_pivot_ + x * self.label_scale_, fit.chi2.copy()
        labels[blind], chi2[blind] = np.nan, np.nan
        formal[blind] = np.where(np.eye(formal.shape[-1], dtype=bool), np.inf, 0.0)
        n_free = fisher.shape[-1] + fit.n_linear
        with np.errstate(invalid="ignore", divide="ignore"):
            dof = n_good - n_free
            reduced = np.where(dof > 0, chi2 / dof, np.nan)
        model_cov = self._model_cov_near(near) * np.outer(self._unit, self._unit)
        total, kept = formal + model_cov, slice(n_labels)
        likelihood = MultivariateNormal(
            labels, cov=total[:, kept, kept], label_names=self.label_names_in_
        )
        return InversionResult(
            self._posterior(likelihood),
            likelihood,
            formal[:, kept, kept],
            model_cov[:, kept, kept],
            chi2,
            reduced,
            n_good,
            fit.converged & ~blind,
            at_bound & ~blind[:, None],
            inside & ~blind,
            fit.n_iter,
            None if self._usual_chi2 is None else reduced / self._usual_chi2,
            **self._nuisance_result(fit, total, blind),
        )

    def _nearest(self, x):
        """Distances (m, k) of the training stars nearest to scaled labels, and their rows."""
        n_near = min(N_NEIGHBOURS, len(self._tree.data))
        return tuple(part.reshape(len(x), -1) for part in self._tree.query(x, k=n_near))

    def _posterior(self, likelihood):
        """The labels under the prior."""
        if self._population is None:
            return likelihood
        unit = self.label_scale_
        scaled = likelihood.affine(1 / unit, -self.label_pivot_ / unit)
        mean, cov = self._population.posterior(scaled.mean(), scaled.cov())
        posterior = MultivariateNormal(mean, cov=cov, label_names=self.label_names_in_)
        return posterior.affine(unit, self.label_pivot_)

    def _model_cov_near(self, rows):
        """Model covariance (m, M, M) in scaled labels, around the training stars `rows` (m, k)."""
        if self._local_model_cov is None:
            return np.zeros((len(rows), *self._scaled_model_cov.shape))
        return self._local_model_cov.near(rows)

    def _flux_model(self):
        """The fitted model as the inversion sees it."""
        return FluxModel(self._features, self._basis, self._components)

    @property
    def _components(self):
        shared = self._coherent is not None and len(self._coherent.spectra) > 0
        return self._coherent.spectra if shared else None

    def _seen_model(self):
        """The model as it is seen through velocity, broadening and continuum; None without."""
        if self._columns is None:
            return None
        return NuisanceModel(
            self._columns, self._flux_model(), self._candidates, self._lower, self._upper
        )

    def _nuisance_result(self, fit, total, blind):
        if self._columns is None:
            return {}
        out, nuisance, n_labels = {}, self._columns.nuisance, fit.x.shape[1]
        if nuisance.rv_range is not None:
            out["rv"] = np.where(blind, np.nan, fit.rv)
            out["rv_std"] = np.sqrt(total[:, n_labels, n_labels])
        if nuisance.kernel is not None:
            # the width of a star not broadened has an error, although its square's vanishes with it
            width, error2 = np.sqrt(fit.width2), np.sqrt(total[:, -1, -1])
            out["broadening"] = np.where(blind, np.nan, width)
            out["broadening_std"] = error2 / np.maximum(2 * width, np.sqrt(error2))
        if nuisance.degree is not None:
            out["continuum"] = fit.continuum
        return out

    def best_fit(self, result) -> np.ndarray:
        """Fitted spectra as they would be observed: shifted, broadened, times their continuum.

        Parameters
        ----------
        result : InversionResult
            Of :meth:`invert`.

        Returns
        -------
        ndarray of shape (n, P)
            NaN at pixels whose rest wavelength the model does not know.
        """
        x = self._checked_labels(np.nan_to_num(result.likelihood.mean()))
        seen = self._seen_model()
        if seen is None:
            return self._features(x) @ self._coef
        zero = np.zeros(len(x))
        rv = zero if result.rv is None else np.nan_to_num(result.rv)
        width = zero if result.broadening is None else np.nan_to_num(result.broadening)
        return seen.best_fit(x, rv, width**2, result.continuum)

    def start_from(self, labels):
        """Start inversions from these labels instead of the best of the training labels.

        Parameters
        ----------
        labels : array-like of shape (g, K)
            In label units. At most `n_starts` of them, the best for each star, are followed.

        Returns
        -------
        self
        """
        x = self._checked_labels(labels)
        self._candidates = np.clip(x, self._lower, self._upper)
        return self

    def predict_dist(self, X) -> MultivariateNormal:
        """Labels of each star with their total covariance: ``invert(X).dist``."""
        return self.invert(X).dist

    def domain_score(self, X) -> np.ndarray:
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
        if self._usual_chi2 is None:
            raise ValueError(
                "domain_score needs training stars that were held out: fit with label_covariance=True."
            )
        return self.invert(X).domain_score


class _TrainingSpectra(Spectra):
    """Spectra that compute their variance only once; they live no longer than a fit."""

    @classmethod
    def of(cls, spectra):
        return cls._from_clean(
            spectra.flux, spectra.ivar, spectra.wavelength, spectra.order, spectra.meta
        )

    @cached_property
    def variance(self):
        variance = super().variance
        variance.flags.writeable = False
        return variance


def _usual(reduced_chi2):
    """The 99th percentile of what is known; NaN where nothing is."""
    known = reduced_chi2[np.isfinite(reduced_chi2)]
    return np.quantile(known, USUAL) if known.size else np.nan


def _mean_square(values, good):
    """Mean square of each column over its good values; NaN where there are none."""
    if good.all():
        return np.einsum("np,np->p", values, values, dtype=float) / len(values)
    values, n_good = np.where(good, values, 0.0), good.sum(axis=0)
    return np.einsum("np,np->p", values, values) / np.where(n_good > 0, n_good, np.nan)
