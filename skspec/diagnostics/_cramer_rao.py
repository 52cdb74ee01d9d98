r"""The physical limit: Cramer-Rao bound on stellar labels, and efficiency against it.

For a spectrum with independent pixel noise of variance :math:`\sigma_j^2` and gradient spectra
:math:`J = \partial f / \partial \ell` (P x K), the Fisher information and the bound are

.. math:: F = J^T \mathrm{diag}(1 / \sigma_j^2) J, \qquad \mathrm{cov}(\hat\ell) \ge F^{-1}.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skspec.metrics import GAUSSIAN_MAD
from skspec.spectra import Spectra

__all__ = ["CramerRaoBound", "Efficiency", "cramer_rao_bound", "efficiency"]

_BATCH_VALUES = 16_000_000  # gradient values held at once (128 MB)


@dataclass(frozen=True)
class CramerRaoBound:
    r"""Fisher information of the labels of `n` stars, and the errors it allows.

    Attributes
    ----------
    fisher : ndarray of shape (n, K, K)
        Fisher information in label units; NaN for a star that cannot be bounded.
    label_names : list of str or None
        Names of the K labels.
    """

    fisher: np.ndarray
    label_names: list[str] | None = None

    def __len__(self) -> int:
        return len(self.fisher)

    def __getitem__(self, stars) -> CramerRaoBound:
        """The bound of a selection of stars."""
        return CramerRaoBound(self.fisher[stars], self.label_names)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.cov(), dtype=dtype, copy=copy)

    def cov(self) -> np.ndarray:
        """Smallest covariance (n, K, K) of an unbiased estimator; NaN where F is singular."""
        out = np.full(self.fisher.shape, np.nan)
        diagonal = np.diagonal(self.fisher, axis1=1, axis2=2)
        usable = np.isfinite(self.fisher).all(axis=(1, 2)) & (diagonal > 0).all(axis=1)
        # take the label units out first, so that the condition number means something
        unit = 1 / np.sqrt(diagonal[usable])
        unit = unit[:, :, None] * unit[:, None, :]
        correlation = self.fisher[usable] * unit
        regular = np.linalg.cond(correlation) < 1e12
        inside = np.flatnonzero(usable)[regular]
        out[inside] = np.linalg.inv(correlation[regular]) * unit[regular]
        return out

    def std(self, *, conditional: bool = False) -> np.ndarray:
        """Smallest standard deviation of each label (n, K).

        Parameters
        ----------
        conditional : bool
            False: all other labels are free too (marginal). True: they are known, which is never
            larger.
        """
        if conditional:
            with np.errstate(divide="ignore"):
                return 1 / np.sqrt(np.diagonal(self.fisher, axis1=1, axis2=2))
        return np.sqrt(np.diagonal(self.cov(), axis1=1, axis2=2))


def cramer_rao_bound(model, labels, ivar=None, *, noise: str = "auto") -> CramerRaoBound:
    """Best covariance any unbiased estimator of the labels can reach, star by star.

    Parameters
    ----------
    model : fitted forward model
        Anything with ``flux_jacobian(labels) -> (m, P, K)``; ``noise_variance(spectra)`` is used
        where the noise of the model itself is asked for.
    labels : array-like of shape (n, K)
        Labels at which the gradients are taken (the true ones, where known), in label units.
    ivar : Spectra or array-like broadcastable to (n, P), optional
        Noise of the spectra: inverse variance per pixel, 0 at bad pixels.
    noise : {"auto", "photon", "total"}
        ``"photon"``: only the given `ivar`. ``"total"``: photon noise plus the scatter the model
        learned, the floor of a data-driven model. ``"auto"``: photon noise where it is known,
        else the total.

    Returns
    -------
    CramerRaoBound
        With ``cov()``, ``std()`` and ``std(conditional=True)``.

    Notes
    -----
    The bound is that of the gradients of *this model*: those of a model trained on noisy spectra
    are noisy themselves, which adds to the information and makes the bound a little too small; a
    wrong model gives a wrong bound. Only the labels of the model are free. Continuum, radial
    velocity or broadening, if they are fitted too, widen it. Biased estimators, such as regressions
    that shrink towards the training mean, can lie below it.
    """
    labels = np.atleast_2d(np.asarray(labels, dtype=float))
    spectra = _spectra_with_noise(ivar, len(labels))
    weights = _inverse_noise(model, spectra, len(labels), noise)
    n_labels = labels.shape[1]
    fisher = np.full((len(labels), n_labels, n_labels), np.nan)
    step = max(1, _BATCH_VALUES // max(1, weights.shape[1] * n_labels))
    for start in range(0, len(labels), step):
        rows = slice(start, start + step)
        jacobian = np.asarray(model.flux_jacobian(labels[rows]), dtype=float)
        weighted = weights[rows, :, None] * jacobian
        fisher[rows] = np.swapaxes(jacobian, 1, 2) @ weighted
    names = getattr(model, "label_names_in_", None)
    return CramerRaoBound(fisher, None if names is None else list(names))


def _spectra_with_noise(ivar, n_stars):
    if ivar is None or isinstance(ivar, Spectra):
        return ivar
    ivar = np.atleast_2d(np.asarray(ivar, dtype=float))
    ivar = np.broadcast_to(ivar, (n_stars, ivar.shape[1]))
    return Spectra(np.ones(ivar.shape), ivar=ivar)


def _inverse_noise(model, spectra, n_stars, noise):
    """1 / noise variance (n, P), 0 at bad pixels."""
    if noise not in ("auto", "photon", "total"):
        raise ValueError(f"noise must be 'auto', 'photon' or 'total', got {noise!r}.")
    known = spectra is not None and spectra.has_errors
    if noise == "photon" and not known:
        raise ValueError("The photon noise is not known: give `ivar`, or use noise='total'.")
    if known and noise != "total":
        return np.where(np.isfinite(spectra.ivar), spectra.ivar, 0)
    if spectra is None:
        scatter = np.asarray(model.scatter_, dtype=float)
        spectra = Spectra(np.ones((n_stars, len(scatter))))
    if not hasattr(model, "noise_variance"):
        raise ValueError(
            f"The spectra have no errors and {type(model).__name__} has no noise_variance(): "
            "give `ivar`."
        )
    with np.errstate(divide="ignore"):
        weights = 1 / np.asarray(model.noise_variance(spectra), dtype=float)
    return np.where(np.isfinite(weights), weights, 0)


@dataclass(frozen=True)
class Efficiency:
    r"""How close an estimator comes to the bound; every array has one entry per label.

    Attributes
    ----------
    kappa : ndarray of shape (K,)
        Inefficiency, ``1.4826 MAD(z)`` of the errors in units of the bound.
    eta : ndarray of shape (K,)
        Efficiency ``1 / kappa**2``; 1 at the bound.
    eta_interval : ndarray of shape (2, K)
        68 % bootstrap interval of `eta` over stars.
    rms_z : ndarray of shape (K,)
        Root mean square of the errors in units of the bound (outliers and bias included).
    eta_vec : float
        ``K / mean(d^2)``, d the Mahalanobis distance of the error with the full bound.
    n_stars : int
        Stars that entered.
    """

    kappa: np.ndarray
    eta: np.ndarray
    eta_interval: np.ndarray
    rms_z: np.ndarray
    eta_vec: float
    n_stars: int


def efficiency(
    y_true, y_pred, bound, *, label_noise=None, n_bootstrap: int = 200, random_state=0
) -> Efficiency:
    r"""Efficiency of an estimator against the Cramer-Rao bound.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n, K)
        True and predicted labels. Stars with a NaN prediction or without a bound are left out.
    bound : CramerRaoBound or ndarray of shape (n, K, K)
        The bound of the same stars, or its covariances.
    label_noise : array-like broadcastable to (n, K), optional
        Standard deviation of the errors of `y_true` (real reference labels); added in quadrature
        to the bound.
    n_bootstrap : int
        Resamplings of the stars for the interval.
    random_state : int, Generator or None
        Seed of the bootstrap.

    Returns
    -------
    Efficiency
    """
    error = np.asarray(y_pred, dtype=float) - np.asarray(y_true, dtype=float)
    cov = np.array(bound, dtype=float)
    if label_noise is not None:
        noise = np.broadcast_to(np.asarray(label_noise, dtype=float), error.shape)
        cov = cov + np.eye(error.shape[1]) * noise[:, None, :] ** 2
    keep = np.isfinite(error).all(axis=1) & np.isfinite(cov).all(axis=(1, 2))
    if not keep.any():
        raise ValueError("No star has both a finite prediction and a finite bound.")
    error, cov = error[keep], cov[keep]
    z = error / np.sqrt(np.diagonal(cov, axis1=1, axis2=2))
    kappa = _kappa(z)
    rng = np.random.default_rng(random_state)
    draws = np.array([_kappa(z[rng.integers(len(z), size=len(z))]) for _ in range(n_bootstrap)])
    with np.errstate(divide="ignore"):
        interval = np.percentile(1 / draws**2, [16, 84], axis=0) if n_bootstrap else None
        eta = 1 / kappa**2
    distance2 = np.einsum("nk,nk->n", error, np.linalg.solve(cov, error[:, :, None])[:, :, 0])
    return Efficiency(
        kappa=kappa,
        eta=eta,
        eta_interval=np.full((2, len(eta)), np.nan) if interval is None else interval,
        rms_z=np.sqrt(np.mean(z**2, axis=0)),
        eta_vec=float(error.shape[1] / np.mean(distance2)),
        n_stars=int(keep.sum()),
    )


def _kappa(z):
    return np.median(np.abs(z - np.median(z, axis=0)), axis=0) / GAUSSIAN_MAD
