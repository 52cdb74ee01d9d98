"""SLAM: flux of every pixel by support vector regression on the labels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from numbers import Integral, Real

import numpy as np
from sklearn.utils import gen_batches
from sklearn.utils.parallel import Parallel, delayed

from skspec._progress import track
from skspec._sklearn import Interval, StrOptions
from skspec.forward._base import ForwardModel
from skspec.forward._slam_pixels import (
    SOLVERS,
    SLAMJob,
    fit_pixels,
    rbf_curvature,
    rbf_kernel,
    rbf_slopes,
)
from skspec.likelihood import HeldOut, OutOfSample
from skspec.model_selection import check_cv, star_groups
from skspec.solvers.kernels.svr import admm_operator
from skspec.solvers.linear.pixel_blocks import single_threaded_blas

__all__ = ["SLAM"]

DEFAULT_GAMMA = np.array([0.3, 0.75])  # times 1 / K
CHUNK = 256  # pixels per task; fixed, so that the number of workers changes nothing


class SLAM(ForwardModel):
    r"""Stellar LAbel Machine: one support vector regression per pixel, inverted by likelihood.

    .. math:: f_j(x) = \sum_i a_{ij}\, e^{-\gamma_j |x_i - x|^2} + b_j, \qquad |a_{ij}| \le C_j

    from standardised labels :math:`x` to the flux standardised per pixel. Hyperparameters that are
    lists are chosen for each pixel by cross-validation.

    Parameters
    ----------
    C : float or list of float, default=(2, 8, 32)
        Bound of the coefficients: the price of an error beyond the tube.
    epsilon : float or list of float, default=0.05
        Half width of the tube within which errors are free, in standard deviations of the pixel.
    gamma : float, list of float or None, default=None
        Inverse squared width of the kernel, in standardised label units; None tries ``0.3 / K`` and
        ``0.75 / K`` for K labels.
    cv : int, default=5
        Folds of the cross-validation that measures the pixel errors and the label errors of the
        model.
    selection : {"loo", "folds"}, default="loo"
        How hyperparameters are scored: leave-one-out in closed form from one fit, or by the `cv`
        folds.
    solver : {"batched", "libsvm"}, default="batched"
        "batched" solves all pixels of a chunk together; "libsvm" is the plain loop it is tested
        against.
    svr_tol : float, default=1e-6
        Largest violation of the optimality conditions, in standardised flux.
    n_jobs : int, optional
        Workers over chunks of pixels; any joblib backend (`joblib.parallel_config`).

    Attributes
    ----------
    dual_coef_ : ndarray of shape (n, P)
        Coefficients :math:`a` for the standardised flux.
    intercept_ : ndarray of shape (P,)
        :math:`b` for the standardised flux.
    C_, epsilon_, gamma_ : ndarray of shape (P,)
        Hyperparameters of each pixel.
    cv_mse_ : ndarray of shape (P,)
        Cross-validated mean squared error [flux squared].
    scatter_ : ndarray of shape (P,)
        Model error: square root of what `cv_mse_` exceeds the mean photon variance by.
    flux_mean_, flux_std_ : ndarray of shape (P,)
        Standardisation of the flux.
    labels_fit_ : ndarray of shape (n, K)
        Standardised labels of the training stars.

    Notes
    -----
    The variance at inversion is photon noise plus ``scatter_**2``. Where the training spectra have no
    errors that is the cross-validated mean squared error itself, as in the paper (whose public code
    squares it once more).

    References
    ----------
    Zhang, Liu & Deng 2020, ApJS 246, 9 (arXiv:1908.08677).

    Examples
    --------
    >>> from skspec.datasets import make_spectra
    >>> from skspec.forward import SLAM
    >>> spectra, labels = make_spectra(150, n_pixels=200, random_state=0)
    >>> model = SLAM(C=2, epsilon=0.05).fit(spectra[:100], labels[:100])
    >>> model.predict_dist(spectra[100:])
    <MultivariateNormal of teff, logg, feh: 50 stars>
    """

    _capabilities = {"speed": "minutes"}
    _parameter_constraints: dict = {
        "C": [Interval(Real, 0, None, closed="neither"), "array-like"],
        "epsilon": [Interval(Real, 0, None, closed="left"), "array-like"],
        "gamma": [Interval(Real, 0, None, closed="neither"), "array-like", None],
        "cv": [Interval(Integral, 2, None, closed="left")],
        "selection": [StrOptions({"loo", "folds"})],
        "solver": [StrOptions(set(SOLVERS))],
        "svr_tol": [Interval(Real, 0, None, closed="neither")],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        C: float | Sequence[float] = (2.0, 8.0, 32.0),
        epsilon: float | Sequence[float] = 0.05,
        gamma: float | Sequence[float] | None = None,
        *,
        cv: int = 5,
        selection: str = "loo",
        solver: str = "batched",
        svr_tol: float = 1e-6,
        n_jobs: int | None = None,
        **shared,
    ):
        super().__init__(**shared)
        self.C = C
        self.epsilon = epsilon
        self.gamma = gamma
        self.cv = cv
        self.selection = selection
        self.solver = solver
        self.svr_tol = svr_tol
        self.n_jobs = n_jobs

    def _fit_flux(self, x, spectra, context):
        self.labels_fit_ = x
        good = spectra.good
        n_good = np.maximum(good.sum(axis=0), 1)
        self.flux_mean_ = np.sum(spectra.flux, axis=0, where=good, dtype=float) / n_good
        squares = np.sum((spectra.flux - self.flux_mean_) ** 2, axis=0, where=good) / n_good
        # a constant pixel has nothing to learn: any unit will do
        self.flux_std_ = np.where(squares > self._flux_floor, np.sqrt(squares), 1.0)
        job = self._job(x, star_groups(spectra))
        chunks = list(gen_batches(spectra.shape[1], CHUNK))
        photon = self._photon_variance(spectra)
        tasks = (
            delayed(fit_pixels)(
                job,
                (spectra.flux[:, pixels] - self.flux_mean_[pixels]) / self.flux_std_[pixels],
                good[:, pixels],
                photon[:, pixels] / self.flux_std_[pixels] ** 2,
            )
            for pixels in chunks
        )
        # one thread per worker: threaded BLAS on such small blocks only fights itself
        with single_threaded_blas():
            parallel = Parallel(n_jobs=self.n_jobs, prefer="threads", return_as="generator")
            done = list(track(context, self, "pixels", parallel(tasks), len(chunks)))
        self._assemble(done, job, x)

    def _job(self, x, groups):
        """All that the chunks share."""
        n, n_labels = x.shape
        gamma = DEFAULT_GAMMA / n_labels if self.gamma is None else self.gamma
        listed = [np.atleast_1d(np.asarray(v, dtype=float)) for v in (self.C, self.epsilon, gamma)]
        for name, values in zip(("C", "epsilon", "gamma"), listed):
            if values.ndim != 1 or values.size == 0 or not np.all(np.isfinite(values)):
                raise ValueError(f"{name} must be a number or a list of numbers.")
            if np.any(values < 0) or (name != "epsilon" and np.any(values == 0)):
                raise ValueError(f"{name} must be positive; its list holds {values.tolist()}.")
        folds = np.empty(n, dtype=int)
        split = check_cv(self.cv, n, groups, shuffle=True).split(x, None, groups)
        for fold, (_, test) in enumerate(split):
            folds[test] = fold
        kernels = {gamma: rbf_kernel(x, x, gamma) for gamma in np.unique(listed[2])}
        # simplest first (small C, wide tube, wide kernel), so that ties go to the smoother model
        grid = sorted(product(*listed), key=lambda point: (point[0], -point[1], point[2]))
        operators = {}
        if self.solver == "batched":
            operators = {gamma: admm_operator(kernel) for gamma, kernel in kernels.items()}
        return SLAMJob(
            x,
            kernels,
            grid,
            operators,
            folds,
            self.selection,
            self.solver,
            self.svr_tol,
            self._needs_held_out,
        )

    def _assemble(self, done, job, x):
        self.dual_coef_ = np.concatenate([chunk.dual_coef for chunk in done], axis=1)
        self.intercept_ = np.concatenate([chunk.intercept for chunk in done])
        point = np.array(job.grid)[np.concatenate([chunk.choice for chunk in done])]
        self.C_, self.epsilon_, self.gamma_ = point.T
        variance = np.concatenate([chunk.mse for chunk in done])
        self.cv_mse_ = variance * self.flux_std_**2
        self.scatter_ = np.concatenate([chunk.scatter for chunk in done]) * self.flux_std_
        self._gammas = np.unique(self.gamma_)
        self._held_out = None
        if job.keep_held_out:
            self._held_out = job.folds, [(chunk.residual, chunk.duals) for chunk in done]

    def _out_of_sample(self, x, spectra):
        (folds, chunks), self._held_out = self._held_out, None
        groups = [np.flatnonzero(folds == fold) for fold in range(folds.max() + 1)]
        blocks, n = list(gen_batches(spectra.shape[1], CHUNK)), len(x)
        by_start = dict(zip((block.start for block in blocks), chunks))

        def held_out(pixels):
            chosen, std = self.gamma_[pixels], self.flux_std_[pixels]
            residual, duals = by_start[pixels.start]
            block, jacobian = duals * std, np.empty((*x.shape, len(chosen)))
            # what has no such kernel is 0, and adds nothing
            columns = [(gamma, chosen == gamma) for gamma in self._gammas]
            by_gamma = [
                (g, gamma, block if mine.all() else np.where(mine, block, 0.0))
                for g, (gamma, mine) in enumerate(columns)
                if mine.any()
            ]
            for fold, rows in enumerate(groups):
                jacobian[rows] = sum(
                    rbf_slopes(x[rows], x, gamma) @ duals[fold] for _, gamma, duals in by_gamma
                )

            def project(weighted, rows):
                mine, out = folds[rows], np.zeros((len(weighted), 1 + len(self._gammas) * n))
                for fold in range(len(block)):
                    stars = np.flatnonzero(mine == fold)
                    for g, _, duals in by_gamma:
                        at = slice(1 + g * n, 1 + (g + 1) * n)
                        out[stars, at] = weighted[stars] @ duals[fold].T
                return out

            return HeldOut(residual * std, jacobian, project)

        return OutOfSample(held_out, blocks)

    def _features(self, x, derivative=False):
        kernels = [rbf_kernel(x, self.labels_fit_, gamma) for gamma in self._gammas]
        phi = np.concatenate([np.ones((len(x), 1)), *kernels], axis=1)
        if not derivative:
            return phi
        slope = np.zeros((len(x), x.shape[1], phi.shape[1]))
        n = len(self.labels_fit_)
        for g, (gamma, kernel) in enumerate(zip(self._gammas, kernels)):
            columns = slice(1 + g * n, 1 + (g + 1) * n)
            slope[:, :, columns] = rbf_slopes(x, self.labels_fit_, gamma, kernel)
        return phi, slope

    def _curvature(self, x, weight):
        n = len(self.labels_fit_)
        out = np.zeros((len(x), x.shape[1], x.shape[1]))
        for g, gamma in enumerate(self._gammas):
            kernel = rbf_kernel(x, self.labels_fit_, gamma)
            part = weight[:, 1 + g * n : 1 + (g + 1) * n]
            out += rbf_curvature(x, self.labels_fit_, kernel, gamma, part)
        return out

    @property
    def _coef(self):
        """Coefficients (1 + n G, P) of the features ``[1, k_gamma1, k_gamma2, ...]``."""
        constant = (self.flux_mean_ + self.flux_std_ * self.intercept_)[None]
        dual = self._by_gamma(self.dual_coef_ * self.flux_std_)
        return np.concatenate([constant, dual])

    def _by_gamma(self, dual, pixels=slice(None)):
        """Dual coefficients (n, B) of the features of all kernels (n G, B)."""
        gamma = self.gamma_[pixels]
        return np.concatenate([np.where(gamma == each, dual, 0.0) for each in self._gammas])
