r"""The physical limit: Cramer-Rao bound on stellar labels, and efficiency against it.

For a spectrum with independent pixel noise of variance :math:`\sigma_j^2` and gradient spectra
:math:`J = \partial f / \partial \ell` (P x K), the Fisher information and the bound are

.. math:: F = J^T \mathrm{diag}(1 / \sigma_j^2) J, \qquad \mathrm{cov}(\hat\ell) \ge F^{-1}

(Ting et al. 2017, arXiv:1706.00111; Sandford et al. 2020, arXiv:2006.08640). Parameters that have to
be found from the same spectrum widen it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from skspec._label_values import label_covariance, label_names, label_values
from skspec._short_repr import ShortRepr
from skspec.diagnostics._gradients import GradientSpectra
from skspec.likelihood import marginal_information
from skspec.metrics import by_name, robust_sigma

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from sklearn.base import BaseEstimator

    from skspec._typing import Labels, RandomState, SpectraLike

__all__ = ["CramerRaoBound", "Efficiency", "cramer_rao_bound", "efficiency"]


@dataclass(frozen=True)
class CramerRaoBound(ShortRepr):
    r"""Fisher information of the labels of `n` stars, and the errors it allows.

    Attributes
    ----------
    fisher : ndarray of shape (n, K, K)
        Fisher information in label units, with all nuisance parameters free; NaN for a star that
        cannot be bounded.
    label_names : list of str or None
        Names of the K labels.
    full_fisher : ndarray of shape (n, K + Q, K + Q) or None
        Information of the labels and of Q nuisance parameters, before these were eliminated.
    nuisance_names : list of str
        Names of the nuisance parameters: ``rv``, ``broadening``, ``continuum_0``...
    """

    fisher: np.ndarray
    label_names: list[str] | None = None
    full_fisher: np.ndarray | None = None
    nuisance_names: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.fisher)

    def _repr_values(self):
        std = self.std()
        bounded = std[np.isfinite(std).all(axis=1)]
        names = self.label_names or range(std.shape[1])
        median = dict(zip(names, np.median(bounded, axis=0))) if len(bounded) else {}
        values = {"n_stars": len(self), "n_bounded": len(bounded), "median_std": median}
        return values | {"nuisance_names": self.nuisance_names}

    def __getitem__(self, stars: Any) -> CramerRaoBound:
        """The bound of a selection of stars."""
        full = None if self.full_fisher is None else self.full_fisher[stars]
        return CramerRaoBound(self.fisher[stars], self.label_names, full, self.nuisance_names)

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
        value = np.linalg.eigvalsh(correlation)
        regular = value[:, 0] > 1e-12 * value[:, -1]  # rounding may leave it negative
        inside = np.flatnonzero(usable)[regular]
        out[inside] = np.linalg.inv(correlation[regular]) * unit[regular]
        return out

    def std(self, *, conditional: bool = False) -> np.ndarray:
        """Smallest standard deviation of each label (n, K).

        Parameters
        ----------
        conditional : bool
            False: all other labels are free too (marginal). True: they are known, which is never
            larger. Nuisance parameters are free in both.
        """
        if conditional:
            with np.errstate(divide="ignore"):
                return 1 / np.sqrt(np.diagonal(self.fisher, axis1=1, axis2=2))
        return np.sqrt(np.diagonal(self.cov(), axis1=1, axis2=2))

    def rv_std(self) -> np.ndarray:
        """Smallest standard deviation of the radial velocity (n,) [km/s], all else free.

        Raises
        ------
        ValueError
            When the radial velocity was not among the parameters.
        """
        if self.full_fisher is None or "rv" not in self.nuisance_names:
            raise ValueError("The radial velocity was held fixed: cramer_rao_bound(..., rv=True).")
        index = self.fisher.shape[1] + self.nuisance_names.index("rv")
        information = marginal_information(self.full_fisher, [index])[:, 0, 0]
        with np.errstate(divide="ignore"):
            return 1 / np.sqrt(np.where(information > 0, information, np.nan))


def cramer_rao_bound(
    model: BaseEstimator,
    labels: Labels,
    ivar: SpectraLike | None = None,
    *,
    noise: str = "auto",
    rv: bool | str = "auto",
    continuum_degree: int | str | None = "auto",
    broadening: bool | str = "auto",
    prior_cov: ArrayLike | None = None,
) -> CramerRaoBound:
    r"""Best covariance any unbiased estimator of the labels can reach, star by star.

    Parameters
    ----------
    model : fitted forward model
        Anything with ``flux_jacobian(labels) -> (m, P, K)``. Nuisance parameters need
        ``predict_flux(labels) -> (m, P)`` too; ``noise(spectra)`` (a
        :class:`~skspec.likelihood.PixelNoise`) is used where the noise of the model itself is asked
        for. A forward model of skspec is asked for its likelihood, shared errors and correlated noise
        included.
    labels : array-like of shape (n, K)
        Labels at which the gradients are taken (the true ones, where known), in label units. Or an
        `InversionResult`, which also knows the velocity, broadening and continuum of each star.
    ivar : Spectra or array-like broadcastable to (n, P), optional
        Noise of the spectra: inverse variance per pixel, 0 at bad pixels. A `Spectra` also brings
        its wavelength and the echelle order (or chip) of each pixel.
    noise : {"auto", "photon", "total"}
        ``"photon"``: only the given `ivar`. ``"total"``: photon noise plus the scatter the model
        learned, the floor of a data-driven model. ``"auto"``: photon noise where it is known,
        else the total.
    rv : bool or "auto"
        "auto": where the model fits it. The radial velocity is unknown too:
        :math:`\partial f/\partial v = -(\lambda/c)\,
        \partial f/\partial\lambda` [per km/s].
    continuum_degree : int, None or "auto"
        So is a factor to the flux, a Chebyshev polynomial of this degree in each order (or over all
        pixels): :math:`\partial f/\partial a_q = f\, T_q(\lambda)`.
    broadening : bool or "auto"
        So is the width of the lines: convolution with a narrow Gaussian of variance
        :math:`\sigma^2`, :math:`\partial f/\partial\sigma^2 = \tfrac12\, \partial^2
        f/\partial(c\ln\lambda)^2` [per (km/s)^2].
    prior_cov : array-like of shape (K, K), optional
        Covariance of what is known about the labels before; its inverse is added to F.

    Returns
    -------
    CramerRaoBound
        With ``cov()``, ``std()``, ``std(conditional=True)`` and, with ``rv=True``, ``rv_std()``.

    Raises
    ------
    ValueError
        When the noise, the wavelength or the model spectra are asked for but not known, or `prior_cov`
        is no covariance of the labels.

    Notes
    -----
    Nuisance columns B are appended to the gradients J of the labels, and eliminated from the
    information of both,

    .. math:: F = J^T W J - J^T W B\,(B^T W B)^{-1} B^T W J, \qquad W = \mathrm{diag}(1/\sigma_j^2),

    so that F is what is left for the labels: never more than without them.

    The bound is that of the gradients of *this model*: those of a model trained on noisy spectra
    are noisy themselves, which adds to the information and makes the bound a little too small; a
    wrong model gives a wrong bound. Biased estimators, such as regressions that shrink towards the
    training mean, can lie below it.

    Examples
    --------
    >>> from skspec.datasets import make_spectra
    >>> from skspec.diagnostics import cramer_rao_bound
    >>> from skspec.forward import TheCannon
    >>> spectra, labels = make_spectra(200, n_pixels=300, random_state=0)
    >>> model = TheCannon().fit(spectra, labels)
    >>> at_rest = cramer_rao_bound(model, labels[:5], spectra[:5])
    >>> moving = cramer_rao_bound(model, labels[:5], spectra[:5], rv=True, continuum_degree=2)
    >>> bool((moving.std() >= at_rest.std()).all()), moving.rv_std().shape
    (True, (5,))
    """
    gradients = GradientSpectra(model, labels, ivar, noise, rv, continuum_degree, broadening)
    n, n_labels = gradients.n_stars, gradients.n_labels
    n_parameters = n_labels + len(gradients.nuisance_names)
    full = np.full((n, n_parameters, n_parameters), np.nan)
    for batch in gradients.batches():
        full[batch.stars] = batch.information()
    if prior_cov is not None:
        full[:, :n_labels, :n_labels] += _prior_information(
            prior_cov, gradients.label_names, n_labels
        )
    if n_parameters == n_labels:
        return CramerRaoBound(full, gradients.label_names)
    fisher = marginal_information(full, np.arange(n_labels))
    return CramerRaoBound(fisher, gradients.label_names, full, gradients.nuisance_names)


def _prior_information(prior_cov, names, n_labels):
    prior_cov = label_covariance(prior_cov, names, "prior_cov")
    if prior_cov.shape != (n_labels, n_labels):
        raise ValueError(
            f"prior_cov has shape {prior_cov.shape}; give the covariance of the {n_labels} labels, "
            f"shape ({n_labels}, {n_labels})."
        )
    unit = np.sqrt(np.abs(np.diag(prior_cov)))
    unit = np.outer(unit, unit)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = prior_cov / unit
    usable = np.isfinite(correlation).all() and np.allclose(correlation, correlation.T)
    if not usable or np.linalg.eigvalsh(correlation)[0] <= 0:
        raise ValueError("prior_cov must be symmetric and positive definite.")
    return np.linalg.inv(correlation) / unit


@dataclass(frozen=True)
class Efficiency(ShortRepr):
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
    y_true: ArrayLike,
    y_pred: ArrayLike,
    bound: CramerRaoBound | np.ndarray,
    *,
    label_noise: ArrayLike | None = None,
    n_bootstrap: int = 200,
    random_state: RandomState = 0,
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
    names = label_names(y_true if label_names(y_pred) is None else y_pred)
    y_true, y_pred = by_name(y_true, y_pred)
    error = y_pred - y_true
    cov = np.array(bound, dtype=float)
    if label_noise is not None:
        noise = label_values(label_noise, names, what="label_noise", sentinels=False)
        noise = np.broadcast_to(noise, error.shape)
        cov = cov + np.eye(error.shape[1]) * noise[:, None, :] ** 2
    keep = np.isfinite(error).all(axis=1) & np.isfinite(cov).all(axis=(1, 2))
    if not keep.any():
        raise ValueError("No star has both a finite prediction and a finite bound.")
    error, cov = error[keep], cov[keep]
    z = error / np.sqrt(np.diagonal(cov, axis1=1, axis2=2))
    kappa = robust_sigma(z)
    rng = np.random.default_rng(random_state)
    draws = np.array(
        [robust_sigma(z[rng.integers(len(z), size=len(z))]) for _ in range(n_bootstrap)]
    )
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
