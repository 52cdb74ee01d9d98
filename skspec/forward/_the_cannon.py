"""The Cannon: flux of every pixel as a polynomial of the labels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np

from skspec._sklearn import Interval, StrOptions
from skspec.forward._base import ForwardModel
from skspec.forward._refits import has_repeats
from skspec.likelihood import HeldOut, OutOfSample
from skspec.preprocessing import LabelScaler
from skspec.solvers.linear.lasso import fit_lasso, fit_lasso_with_scatter
from skspec.solvers.linear.least_squares import LeastSquaresFit, fit_least_squares_with_scatter
from skspec.solvers.linear.leave_one_out import leave_one_out_plan
from skspec.solvers.linear.monomials import LogMonomials, Monomials, label_index
from skspec.solvers.linear.pixel_blocks import parallel_blocks

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from skspec._typing import Windows

__all__ = ["FewStarsWarning", "TheCannon", "censoring_mask"]


class FewStarsWarning(UserWarning):
    """There are too few training stars for the model that was asked for."""


class TheCannon(ForwardModel):
    r"""The Cannon: a polynomial of the labels in every pixel, with intrinsic scatter.

    .. math:: f_{nj} = \theta_j \cdot v(x_n) + \sqrt{s_j^2 + \sigma_{nj}^2}\;\xi, \qquad
              \xi \sim N(0, 1)

    with scaled labels :math:`x` and :math:`v` all their products up to `degree`. Coefficients and
    scatter of a pixel maximise the likelihood together.

    Parameters
    ----------
    degree : int, default=2
        Degree of the polynomial: 1 and 2 are the published linear and quadratic models.
    terms : list of tuples of label names or indices, optional
        Exactly these products instead, e.g. ``[("teff",), ("teff", "teff"), ("teff", "feh")]``; the
        constant is always there.
    log_labels : list of str or int, optional
        Positive labels whose logarithm enters the polynomial instead, e.g. ``["teff"]`` where it
        spans a wide range.
    scatter : {"ml", "reml"} or float, default="ml"
        Intrinsic scatter by maximum likelihood, by restricted maximum likelihood (which undoes its
        ``(n - D) / n`` bias; unregularised fits only), or fixed [flux units].
    regularization : float or array-like of shape (P,), default=0
        Weight :math:`\Lambda` of the L1 norm of every coefficient but the constant (The Cannon 2):
        ``sum w r^2 + Lambda |theta|_1``, without a factor 1/2.
    regularization_units : {"absolute", "fraction"}, default="absolute"
        "fraction": `regularization` is a fraction of the value above which all coefficients of the
        pixel vanish; independent of the number of stars and their S/N.
    censoring : dict, optional
        ``{label name: boolean array (P,), or list of wavelength windows (lo, hi)}``: pixels where
        the array is True, or that lie outside all windows, know nothing of this label: every term
        with it is absent there. See :func:`censoring_mask`.
    label_scale_factor : float, default=0.25
        Labels are scaled to ``(label - median) / (label_scale_factor * (p97.5 - p2.5))``. 0.25 is the
        scale of Ho et al.; The Cannon 2 used 2. It matters only with regularisation.
    warm_start : bool, default=False
        Start a regularised fit from the coefficients of the last one: set `regularization` to ever
        smaller values and fit again to follow the path.

    Attributes
    ----------
    theta_ : ndarray of shape (D, P)
        Coefficients of the scaled labels.
    scatter_ : ndarray of shape (P,)
        Intrinsic scatter; ``inf`` where a pixel had fewer good stars than terms.
    terms_ : list of str
        Names of the D terms.

    References
    ----------
    Ness et al. 2015, ApJ 808, 16 (arXiv:1501.07604). Casey et al. 2016, arXiv:1603.03040.
    Ho et al. 2017, ApJ 836, 5.

    Examples
    --------
    >>> from skspec.datasets import make_spectra
    >>> from skspec.forward import TheCannon
    >>> spectra, labels = make_spectra(200, n_pixels=300, random_state=0)
    >>> model = TheCannon().fit(spectra[:150], labels[:150])
    >>> model.theta_.shape
    (10, 300)
    >>> labels_found = model.predict(spectra[150:])
    """

    _capabilities = {"speed": "seconds"}
    _parameter_constraints: dict = {
        "degree": [Interval(Integral, 1, None, closed="left")],
        "terms": [list, tuple, None],
        "log_labels": [list, tuple, None],
        "scatter": [StrOptions({"ml", "reml"}), Interval(Real, 0, None, closed="left")],
        "regularization": [Interval(Real, 0, None, closed="left"), "array-like"],
        "regularization_units": [StrOptions({"absolute", "fraction"})],
        "censoring": [dict, None],
        "label_scale_factor": [Interval(Real, 0, None, closed="neither")],
        "warm_start": ["boolean"],
    }

    def __init__(
        self,
        degree: int = 2,
        *,
        terms: Sequence[tuple[str | int, ...]] | None = None,
        log_labels: Sequence[str | int] | None = None,
        scatter: str | float = "ml",
        regularization: ArrayLike = 0.0,
        regularization_units: str = "absolute",
        censoring: dict[str, Any] | None = None,
        label_scale_factor: float = 0.25,
        warm_start: bool = False,
        **shared,
    ):
        super().__init__(**shared)
        self.degree = degree
        self.terms = terms
        self.log_labels = log_labels
        self.scatter = scatter
        self.regularization = regularization
        self.regularization_units = regularization_units
        self.censoring = censoring
        self.label_scale_factor = label_scale_factor
        self.warm_start = warm_start

    def _label_scaler(self):
        return LabelScaler(method="percentile", factor=self.label_scale_factor)

    def _fit_flux(self, x, spectra, context):
        if self.terms is None:
            self._monomials = self._affordable(*x.shape)
        else:
            self._monomials = Monomials.of_terms(self.terms, self.label_names_in_)
        if self.log_labels:
            self._monomials = self._with_logarithms(self._monomials, x)
        self.terms_ = self._monomials.names(self.label_names_in_)
        design, variance = self._monomials(x), spectra.variance
        allowed = self._allowed_terms(spectra)
        self._solution = self._solve(design, spectra.flux, variance, allowed)
        self.theta_, self.scatter_ = self._solution.theta, self._solution.scatter
        if not self._solution.trained.any():
            raise ValueError(
                f"No pixel has as many good stars as the model has terms ({len(design.T)}): give "
                f"more training stars than the {len(x)} here, or a lower degree."
            )

    def _fit_kept(self, *args):
        if self.coherence:  # whose large products use all threads
            return super()._fit_kept(*args)
        with parallel_blocks():
            return super()._fit_kept(*args)

    def _solve(self, design, flux, variance, allowed):
        penalty = np.broadcast_to(np.asarray(self.regularization, dtype=float), flux.shape[1])
        if not np.all(penalty >= 0):
            raise ValueError("regularization must not be negative.")
        if not penalty.any():
            return fit_least_squares_with_scatter(
                design, flux, variance, terms=allowed, scatter=self.scatter
            )
        start = getattr(self, "theta_", None) if self.warm_start else None
        if start is not None and start.shape != (design.shape[1], flux.shape[1]):
            start = None
        options = {
            "relative": self.regularization_units == "fraction",
            "terms": allowed,
            "start": start,
        }
        if isinstance(self.scatter, str):
            lasso = fit_lasso_with_scatter(design, flux, variance, penalty, **options)
        else:
            lasso = fit_lasso(design, flux, variance, self.scatter, penalty, **options)
        # leaving stars out keeps the support: the approximate leave-one-out of the lasso
        support = lasso.theta != 0
        support[0] = True
        return LeastSquaresFit(
            lasso.theta, lasso.scatter, lasso.trained, lasso.converged, lasso.n_iter, support
        )

    def _affordable(self, n, n_labels):
        """Monomials of the degree asked, or of the highest that has no more terms than stars."""
        for degree in range(self.degree, 0, -1):
            monomials = Monomials.of_degree(n_labels, degree)
            if len(monomials) < n or degree == 1:
                break
        if degree < self.degree:
            n_terms = len(Monomials.of_degree(n_labels, self.degree))
            warnings.warn(
                f"{n} training stars cannot hold the {n_terms} terms of degree {self.degree} in "
                f"{n_labels} labels: TheCannon fits degree {degree} instead. Give more stars, or "
                "choose the terms.",
                FewStarsWarning,
                stacklevel=7,
            )
        return monomials

    def _with_logarithms(self, monomials, x):
        logarithmic = np.zeros(x.shape[1], dtype=bool)
        for label in self.log_labels:
            logarithmic[label_index(label, self.label_names_in_)] = True
        pivot = self.label_pivot_ / self.label_scale_
        least = (pivot + x.min(axis=0)) * self.label_scale_
        for k in np.flatnonzero(logarithmic & (least <= 0)):
            raise ValueError(
                f"log_labels names {self.label_names_in_[k]!r}, which is {least[k]:.3g} for a "
                "training star: only positive labels have a logarithm."
            )
        return LogMonomials(monomials, logarithmic, pivot)

    def _allowed_terms(self, spectra):
        """Boolean (D, P): False where a term holds a label that is censored in the pixel."""
        if not self.censoring:
            return None
        allowed = np.ones((len(self._monomials), spectra.shape[1]), dtype=bool)
        for label, where in self.censoring.items():
            if label not in self.label_names_in_:
                raise ValueError(f"censoring names {label!r}; labels: {self.label_names_in_}.")
            mask = _as_censored(where, spectra, label)
            holds = self._monomials.exponents[:, self.label_names_in_.index(label)] > 0
            allowed[np.ix_(holds, mask)] = False
        return allowed

    def _features(self, x, derivative=False):
        return self._monomials(x, derivative)

    def _curvature(self, x, weight):
        return self._monomials.curvature(x, weight)

    @property
    def _coef(self):
        return self.theta_

    def _out_of_sample(self, x, spectra):
        if has_repeats(spectra):  # leaving out one of them is not enough
            return super()._out_of_sample(x, spectra)
        design, slope = self._monomials(x, derivative=True)
        compute, blocks = leave_one_out_plan(
            design, spectra.flux, spectra.variance, self._solution, slope
        )

        # what a star does to the coefficients per residual, where all stars have the same weight
        influence, terms = np.linalg.pinv(design).T, self._solution.terms

        def held_out(pixels):
            block, coef = compute(pixels), self.theta_[:, pixels]
            level = block.weights.mean(axis=0)
            own = block.weights * block.residuals
            own /= np.where(level > 0, level, 1.0)

            def project(pull, rows):
                if terms is None:
                    felt = np.einsum("nb,nb->n", pull, own[rows])[:, None]
                else:
                    felt = (pull * own[rows]) @ terms[:, pixels].T
                return pull @ coef.T - felt * influence[rows]

            return HeldOut(block.residuals, block.jacobian, project)

        return OutOfSample(held_out, blocks)


def censoring_mask(wavelength: ArrayLike, windows: Windows) -> np.ndarray:
    """Pixels outside all wavelength windows: where a label that acts only in them is censored.

    Parameters
    ----------
    wavelength : array-like of shape (P,)
        [Angstrom]
    windows : list of (lower, upper)
        [Angstrom]

    Returns
    -------
    ndarray of bool of shape (P,)
        True where no window holds the pixel.

    Examples
    --------
    >>> censoring_mask([5160.0, 5170.0, 5180.0], [(5165, 5175)])
    array([ True, False,  True])
    """
    wavelength = np.asarray(wavelength, dtype=float)
    inside = [(wavelength >= lower) & (wavelength <= upper) for lower, upper in windows]
    return ~np.any(inside, axis=0)


def _as_censored(where, spectra, label):
    where = np.asarray(where)
    if where.dtype == bool:
        if where.shape != spectra.shape[1:]:
            raise ValueError(
                f"censoring[{label!r}] has shape {where.shape}, the spectra have "
                f"{spectra.shape[1]} pixels."
            )
        return where
    if spectra.wavelength is None:
        raise ValueError("Wavelength windows in `censoring` need spectra with a wavelength.")
    mask = censoring_mask(spectra.wavelength, np.reshape(where, (-1, 2)))
    if mask.all():
        raise ValueError(
            f"No pixel lies in the windows of censoring[{label!r}]; the spectra cover "
            f"{spectra.wavelength.min():.1f}-{spectra.wavelength.max():.1f} Angstrom."
        )
    return mask
