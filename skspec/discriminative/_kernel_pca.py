"""KernelPCARegressor: ridge regression on kernel principal components (Xiang et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Self

import numpy as np
from sklearn.decomposition import KernelPCA
from sklearn.linear_model import RidgeCV
from sklearn.metrics.pairwise import euclidean_distances, rbf_kernel
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skspec._out_of_fold import OutOfFoldMixin
from skspec._sklearn import Interval, StrOptions, fit_context
from skspec._spectrum_domain import SpectrumDomainMixin
from skspec.base import LabelRegressor
from skspec.distributions import MultivariateNormal
from skspec.model_selection import check_cv, star_groups
from skspec.solvers.linear.gappy_pca import fit_gappy_pca

if TYPE_CHECKING:
    from skspec._typing import CrossValidation, Labels, SpectraLike

__all__ = ["KernelPCARegressor"]

ALPHAS = np.logspace(-4, 1, 11)  # strengths of the ridge, in units of the kernel
MAX_COMPONENTS = 200
BATCH = 2**23  # numbers of the gradients of a batch of stars, 64 MB


class KernelPCARegressor(OutOfFoldMixin, SpectrumDomainMixin, LabelRegressor):
    r"""Ridge regression of the labels on kernel principal components (KPCA, Xiang et al. 2017).

    Spectra are compared by :math:`k(y, y') = \exp(-\gamma' |y - y'|^2)` with
    :math:`\gamma' = \gamma / \mathrm{median}\,|y_i - y_j|^2`; the labels are linear in the leading
    principal components of this kernel. `gamma` and the scaling of the pixels are chosen by
    cross-validation, the strength of the ridge by generalised leave-one-out.

    Covariance: that of out-of-fold errors, as of
    :class:`~skspec.calibration.ResidualCovarianceRegressor`. A star noisier than the training stars
    gets :math:`J\,\mathrm{diag}(\sigma_j^2 - \bar\sigma_j^2)_+ J^T` on top, where `J` is the gradient of
    its labels with respect to its flux.

    Parameters
    ----------
    n_components : int, optional
        Components; default: half the training stars, 200 at most.
    gamma : float or sequence of float
        Inverse squared width of the kernel, in units of the inverse median squared distance of two
        training spectra; the best of several is taken.
    scale_pixels : bool or "auto"
        Divide each pixel by its standard deviation, which gives weak lines the weight of strong ones
        (and noise that of lines); "auto" takes the better.
    cv : int or cross-validation splitter
        Folds of the choice and of the out-of-fold errors. Spectra of one star (``star_id`` or
        ``group_id`` in ``X.meta``) are never on both sides.
    robust : bool
        Covariance from median absolute deviations and rank correlations, so that a few wrong training
        labels do not widen all errors; False: second moments.
    n_jobs : int, optional
        Parallel folds.
    ivar : {"auto", "require", "ignore"}
        Take flux errors where they are given, insist on them, or leave them aside.

    Attributes
    ----------
    pipeline_ : Pipeline
        Standardisation, kernel principal components and ridge, from flux to standardised labels.
    residuals_ : ndarray of shape (n, K)
        Out-of-fold errors, true minus predicted, in label units.
    label_covariance_ : ndarray of shape (K, K)
        Their covariance.
    label_scale_ : ndarray of shape (K,)
        Standard deviation of each training label.
    best_params_ : dict
        The `gamma` and `scale_pixels` chosen.
    filler_ : GappyPCA
        Linear components that fill bad pixels with what the good ones lead to expect.
    training_variance_ : ndarray of shape (P,)
        Mean photon variance of the training stars; 0 without errors.
    domain_ : SpectrumDomain
        Where the training spectra lie, for :meth:`domain_score`.

    References
    ----------
    Xiang et al. 2017, MNRAS 464, 3657. Schölkopf, Smola & Müller 1998, Neural Comput. 10, 1299.

    Examples
    --------
    >>> from skspec.datasets import make_spectra
    >>> from skspec.discriminative import KernelPCARegressor
    >>> spectra, labels = make_spectra(n_samples=200, n_pixels=200, random_state=0)
    >>> model = KernelPCARegressor().fit(spectra[:150], labels[:150])
    >>> model.predict_dist(spectra[150:]).cov().shape
    (50, 3, 3)
    """

    _capabilities = {"follows_noise": True, "speed": "seconds"}
    _parameter_constraints: dict = {
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "gamma": [Interval(Real, 0, None, closed="neither"), "array-like"],
        "scale_pixels": ["boolean", StrOptions({"auto"})],
        "cv": ["cv_object"],
        "robust": ["boolean"],
        "n_jobs": [Integral, None],
        "ivar": [StrOptions({"auto", "require", "ignore"})],
    }

    def __init__(
        self,
        n_components: int | None = None,
        *,
        gamma: float | Sequence[float] = (0.25, 0.5, 1.0),
        scale_pixels: bool | str = "auto",
        cv: CrossValidation = 5,
        robust: bool = True,
        n_jobs: int | None = None,
        ivar: str = "auto",
    ):
        self.n_components = n_components
        self.gamma = gamma
        self.scale_pixels = scale_pixels
        self.cv = cv
        self.robust = robust
        self.n_jobs = n_jobs
        self.ivar = ivar

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: SpectraLike, y: Labels) -> Self:
        """Choose the kernel, fit, and measure the covariance of the out-of-fold errors.

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
            With fewer than 6 stars, or a `gamma` that is not positive.
        """
        spectra, y = self._validate_fit(X, y)
        if len(y) < 6:
            raise ValueError(
                f"KernelPCARegressor needs at least 2 stars in each of 3 folds, got {len(y)} "
                f"sample{'s' * (len(y) > 1)}."
            )
        self.filler_ = fit_gappy_pca(spectra.flux, spectra.good)
        flux = self.filler_.fill(spectra.flux, spectra.good)
        self.training_variance_ = spectra.mean_variance
        groups = star_groups(spectra)
        cv = check_cv(self.cv, len(y) // 2, groups)
        if groups is not None:  # what follows sees the flux alone
            cv = check_cv(list(cv.split(flux, groups=groups)), len(y))
        pipeline = self._chosen(flux, self._standardised(y), cv)
        self.pipeline_ = self._fit_out_of_fold(pipeline, flux, y, cv)
        self._fit_domain(spectra)
        return self

    def _chosen(self, flux, targets, cv):
        """Pipeline with the gamma and scaling of least cross-validated absolute error."""
        gammas = np.atleast_1d(np.asarray(self.gamma, dtype=float))
        if gammas.ndim != 1 or not np.all(gammas > 0):
            raise ValueError(f"gamma must be positive, or several such numbers, not {self.gamma}.")
        smallest = min(len(fit) for fit, _ in cv.split(flux))
        n_components = self.n_components or MAX_COMPONENTS
        pipeline = make_pipeline(
            StandardScaler(),
            KernelPCA(max(1, min(n_components, smallest // 2)), kernel="rbf", eigen_solver="dense"),
            RidgeCV(ALPHAS),
        )
        scalings = [True, False] if isinstance(self.scale_pixels, str) else [self.scale_pixels]
        grid = []
        for scaled in scalings:
            seen = StandardScaler(with_std=scaled).fit_transform(flux)
            distance = euclidean_distances(seen, squared=True)[np.triu_indices(len(flux), 1)]
            middle = np.median(distance)
            unit = middle if middle > 0 else 1.0
            grid.append(
                {"standardscaler__with_std": [scaled], "kernelpca__gamma": list(gammas / unit)}
            )
        if len(gammas) * len(scalings) == 1:
            best = {name: values[0] for name, values in grid[0].items()}
        else:
            search = GridSearchCV(
                pipeline,
                grid,
                scoring="neg_mean_absolute_error",
                cv=cv,
                n_jobs=self.n_jobs,
                refit=False,
            ).fit(flux, targets)
            best = search.best_params_
        at = scalings.index(best["standardscaler__with_std"])
        gamma = gammas[grid[at]["kernelpca__gamma"].index(best["kernelpca__gamma"])]
        self.best_params_ = {"gamma": float(gamma), "scale_pixels": scalings[at]}
        return pipeline.set_params(**best)

    def predict_dist(self, X: SpectraLike) -> MultivariateNormal:
        """Labels with the covariance of out-of-fold errors, wider where noise exceeds the training's.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
            Spectra.

        Returns
        -------
        MultivariateNormal
            NaN, with infinite errors, for a star without a good pixel.
        """
        spectra = self._validate_predict(X)
        flux = self.filler_.fill(spectra.flux, spectra.good)
        mean, cov = self._out_of_fold_moments(self.pipeline_, flux)
        if self.uses_ivar_:
            cov += self._excess_noise(flux, spectra)
        return self._distribution(mean, cov, ~spectra.good.any(axis=1))

    def _excess_noise(self, flux, spectra):
        """Covariance (n, K, K) by photon noise beyond that of the training stars."""
        variance = np.where(spectra.good, spectra.variance, 0)
        excess = np.maximum(variance - self.training_variance_, 0)
        n_labels = len(self.label_covariance_)
        out = np.zeros((len(flux), n_labels, n_labels))
        rows = np.flatnonzero(excess.any(axis=1))
        step = max(1, BATCH // (n_labels * flux.shape[1]))
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            J = self.label_gradient(flux[part])
            out[part] = (J * excess[part, None, :]) @ np.swapaxes(J, 1, 2)
        return out

    def label_gradient(self, flux: np.ndarray) -> np.ndarray:
        """Derivative of the labels with respect to the flux of each pixel.

        Parameters
        ----------
        flux : ndarray of shape (n, P)

        Returns
        -------
        ndarray of shape (n, K, P)
        """
        scaler, kpca, ridge = (step for _, step in self.pipeline_.steps)
        x, train = scaler.transform(flux), kpca.X_fit_
        value = np.where(kpca.eigenvalues_ > 0, kpca.eigenvalues_, np.inf)
        dual = (kpca.eigenvectors_ / np.sqrt(value)) @ np.atleast_2d(ridge.coef_).T
        dual -= dual.mean(axis=0)  # the kernel is centred
        kernel = rbf_kernel(x, train, gamma=kpca.gamma)
        weighted = kernel[:, None, :] * dual.T
        slope = -2 * kpca.gamma * (weighted.sum(axis=2)[:, :, None] * x[:, None] - weighted @ train)
        unit = 1.0 if scaler.scale_ is None else scaler.scale_
        return slope / unit * self.label_scale_[:, None]
