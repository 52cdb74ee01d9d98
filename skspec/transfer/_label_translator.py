"""LabelTranslator: labels of one survey on the scale of another, from common stars."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import TYPE_CHECKING, Self

import numpy as np
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from skspec._label_values import label_features, label_names, label_values
from skspec._sklearn import Interval, StrOptions, fit_context
from skspec.base import DocumentedEstimator, MissingUncertaintyWarning
from skspec.distributions import MultivariateNormal
from skspec.solvers.linear.errors_in_variables import fit_errors_in_variables, monomials
from skspec.solvers.statistics.label_domain import fit_label_domain

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

    from skspec._typing import Labels

__all__ = ["LabelTranslator"]

MIN_STARS = 3


class LabelTranslator(MultiOutputMixin, RegressorMixin, DocumentedEstimator):
    r"""Translate labels of survey A to the scale of survey B, learned from common stars.

    The true labels of star `i`, as far as either survey could know them, are related by

    .. math:: \ell^B_i = L\,\ell^A_i + M\,\phi(\ell^A_i) + N(0, V),

    where `L` copies the labels that both have (so that `M` holds offsets and trends), :math:`\phi` are
    monomials up to `degree`, and `V` is intrinsic scatter: what no function of the labels of A
    explains. Both surveys measured with errors, whose covariances are known or taken as zero. Errors
    of A would make the slopes too flat, were they not accounted for
    (:mod:`skspec.solvers.linear.errors_in_variables`).

    Parameters
    ----------
    degree : {0, 1, 2}
        Offsets; also trends (an affine map); also quadratic terms.
    terms : {"all", "own"}
        Whether a label of B depends on all labels of A, or only on its namesake. Labels without one
        depend on all.
    clip : float or None
        Common stars further than so many sigma from the relation are left out. The first fit, with
        Student's errors, is not deceived by them.

    Attributes
    ----------
    pivot_ : ndarray of shape (K_a,)
        Labels of A at which `offset_` and `trend_` hold: the mean of the common stars.
    offset_, offset_std_ : ndarray of shape (K_b,)
        What is added to a label at the pivot, and its error; for labels that A does not have, the label.
    trend_, trend_std_ : ndarray of shape (K_b, K_a)
        Change of what is added per unit of each label of A, at the pivot, and its error.
    scatter_ : ndarray of shape (K_b,)
        Intrinsic scatter, the square root of the diagonal of `scatter_covariance_`.
    scatter_covariance_ : ndarray of shape (K_b, K_b)
        `V`, by restricted maximum likelihood.
    clipped_ : ndarray of bool of shape (n,)
        Common stars that were left out.
    distance_ : ndarray of shape (n,)
        Mahalanobis distance of each common star from the relation.
    label_names_in_ : list of str
        Names of the labels of B.
    n_features_in_ : int
        K_a.

    See Also
    --------
    LabelHomogenizer : From the spectra of A to the scale of B, which labels of A cannot spoil.

    Notes
    -----
    Trends have a weak prior about zero, of one standard deviation of the label per standard deviation
    of the other, so that three stars suffice for a fit (with the error bars that it deserves).

    ``predict_dist`` takes the errors of the labels to translate as the errors of a measurement, and
    not the population of the common stars as a prior: of many stars measured with the same error,
    the translated labels scatter as the error says about the truth.

    References
    ----------
    Fuller 1987, *Measurement Error Models*; Kelly 2007, ApJ 665, 1489.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from skspec.transfer import LabelTranslator
    >>> rng = np.random.default_rng(1)
    >>> truth = pd.DataFrame({"teff": rng.uniform(4000, 6500, 300), "feh": rng.uniform(-1, 0.4, 300)})
    >>> a = truth + [60, 0.1] * rng.normal(size=(300, 2))
    >>> b = truth.assign(teff=1.05 * truth["teff"] - 200) + [40, 0.05] * rng.normal(size=(300, 2))
    >>> model = LabelTranslator().fit(a, b, label_std_a=[60, 0.1], label_std_b=[40, 0.05])
    >>> model.to_frame()[["offset", "offset_std", "trend_teff", "trend_teff_std"]].round(2)
          offset  offset_std  trend_teff  trend_teff_std
    teff   65.23        4.38        0.05            0.01
    feh     0.01        0.01       -0.00            0.00
    >>> model.predict_dist(a[:5], label_std=[60, 0.1]).std().shape
    (5, 2)
    """

    _parameter_constraints: dict = {
        "degree": [Interval(Integral, 0, 2, closed="both")],
        "terms": [StrOptions({"all", "own"})],
        "clip": [Interval(Real, 0, None, closed="neither"), None],
    }

    def __init__(self, degree: int = 1, *, terms: str = "all", clip: float | None = 4.0):
        self.degree = degree
        self.terms = terms
        self.clip = clip

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Labels | MultivariateNormal,
        y: Labels | MultivariateNormal,
        label_std_a: ArrayLike | None = None,
        label_std_b: ArrayLike | None = None,
    ) -> Self:
        """Learn the relation from stars that both surveys have, row by row.

        Parameters
        ----------
        X : array-like of shape (n, K_a), or MultivariateNormal
            Labels of survey A; a distribution brings its covariances.
        y : array-like of shape (n, K_b) or (n,), or MultivariateNormal
            Labels of survey B of the same stars. Columns of the same name are the same label; without
            names, as many columns are, in that order.
        label_std_a, label_std_b : float or array-like, optional
            Standard deviations, broadcastable to (n, K), or covariances (n, K, K). None: no errors;
            the scatter of both surveys is then intrinsic scatter, and slopes are too flat.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            On NaN, shapes that do not agree, fewer than 3 common stars, or ``degree=0`` for labels
            that A does not have.
        """
        X, cov_a = _with_covariance(X, label_std_a, "label_std_a")
        y, cov_b = _with_covariance(y, label_std_b, "label_std_b")
        names_a, names_b = label_names(X), label_names(y)
        a, b = validate_data(self, X, y, multi_output=True, y_numeric=True, dtype=np.float64)
        self._y_is_vector = b.ndim == 1
        b = np.asarray(b, dtype=float).reshape(len(a), -1)
        self.label_names_in_ = names_b or [f"label_{k}" for k in range(b.shape[1])]
        self._known = _copies(names_a, names_b, a.shape[1], b.shape[1])
        self._check_size(len(a))
        self._set_scale(a, b)
        self.uses_label_std_ = bool(cov_a is not None and np.any(cov_a))
        relation = fit_errors_in_variables(
            (a - self.pivot_) / self._scale_a,
            (b - self._shift) / self._scale_b,
            self._scaled(cov_a, a, self._scale_a),
            self._scaled(cov_b, b, self._scale_b),
            degree=self.degree,
            known=self._known,
            free=self._free(),
            clip=self.clip,
        )
        self._keep(relation)
        self._domain = fit_label_domain(a[relation.kept])
        return self

    def _check_size(self, n):
        bare = ~self._known.any(axis=1)
        if self.degree == 0 and bare.any():
            raise ValueError(
                "degree=0 shifts labels that both surveys have; survey A lacks "
                f"{', '.join(np.array(self.label_names_in_)[bare])}. Use degree=1."
            )
        if n < MIN_STARS:
            raise ValueError(
                f"LabelTranslator needs at least {MIN_STARS} common stars, got n_samples = {n}."
            )

    def _set_scale(self, a, b):
        """Units of order one, the same for labels that both have."""
        self.pivot_, self._scale_a = a.mean(axis=0), _spread(a)
        shared, position = self._known.any(axis=1), self._known.argmax(axis=1)
        self._shift = np.where(shared, self.pivot_[position], b.mean(axis=0))
        self._scale_b = np.where(shared, self._scale_a[position], _spread(b))

    def _free(self):
        """Coefficients (K_b, q) to be fitted."""
        K, d = self._known.shape
        uses = self._known > 0
        uses = np.where(uses.any(axis=1, keepdims=True) & (self.terms == "own"), uses, True)
        parts = [np.ones((K, 1), dtype=bool)]
        if self.degree >= 1:
            parts.append(uses)
        if self.degree == 2:
            first, second = np.triu_indices(d)
            parts.append(uses[:, first] & uses[:, second])
        return np.concatenate(parts, axis=1)

    def _scaled(self, cov, labels, scale):
        if cov is None:
            return np.zeros((*labels.shape, labels.shape[1]))
        return cov / np.outer(scale, scale)

    def _keep(self, relation):
        self._coef, self._coef_cov = relation.coef, relation.coef_cov
        std = np.sqrt(np.einsum("kqkq->kq", relation.coef_cov))
        bare = ~self._known.any(axis=1)
        self.offset_ = self._coef[:, 0] * self._scale_b + np.where(bare, self._shift, 0.0)
        self.offset_std_ = std[:, 0] * self._scale_b
        self.trend_, self.trend_std_ = np.zeros((2, *self._known.shape))
        if self.degree >= 1:
            linear = slice(1, 1 + self._known.shape[1])
            unit = self._scale_b[:, None] / self._scale_a
            self.trend_ = self._coef[:, linear] * unit
            self.trend_std_ = std[:, linear] * unit
        unit = np.outer(self._scale_b, self._scale_b)
        self.scatter_covariance_ = relation.scatter_cov * unit
        self.scatter_ = np.sqrt(np.diag(self.scatter_covariance_))
        self.clipped_, self.distance_ = ~relation.kept, np.sqrt(relation.distance2)

    # -- translation -------------------------------------------------------------------------------

    def predict_dist(
        self, X: Labels | MultivariateNormal, label_std: ArrayLike | None = None
    ) -> MultivariateNormal:
        """Labels on the scale of survey B.

        Parameters
        ----------
        X : array-like of shape (n, K_a), or MultivariateNormal
            Labels of survey A.
        label_std : float or array-like, optional
            Their errors, as `label_std_a` of :meth:`fit`.

        Returns
        -------
        MultivariateNormal
            The covariance is that of the errors of `X`, of the coefficients and of the intrinsic
            scatter.

        Warns
        -----
        MissingUncertaintyWarning
            When the relation was fitted with errors of the labels of A and there are none now, or the
            other way round: the scatter then holds too little, or holds them twice.
        """
        check_is_fitted(self)
        fitted = getattr(self, "feature_names_in_", None)
        X, cov = _with_covariance(X, label_std, "label_std", fitted)
        a = validate_data(self, X, dtype=np.float64, reset=False)
        given = cov is not None and bool(np.any(cov))
        if given != self.uses_label_std_:
            was, now = ("with", "without") if self.uses_label_std_ else ("without", "with")
            warnings.warn(
                f"LabelTranslator was fitted {was} errors of the labels and is now given labels "
                f"{now} them: its error bars do not fit. Give label_std both times, or neither.",
                MissingUncertaintyWarning,
                stacklevel=2,
            )
        x, cov = (a - self.pivot_) / self._scale_a, self._scaled(cov, a, self._scale_a)
        phi, slope = monomials(x, self.degree)
        mean = x @ self._known.T + phi @ self._coef.T
        J = self._known + self._coef @ slope
        total = J @ cov @ np.swapaxes(J, 1, 2)
        half = np.tensordot(phi, self._coef_cov, (1, 1))
        total = total + np.einsum("nklr,nr->nkl", half, phi)
        unit = np.outer(self._scale_b, self._scale_b)
        return MultivariateNormal(
            self._shift + mean * self._scale_b,
            cov=total * unit + self.scatter_covariance_,
            label_names=self.label_names_in_,
        )

    def predict(
        self,
        X: Labels | MultivariateNormal,
        label_std: ArrayLike | None = None,
        return_std: bool = False,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Mean of :meth:`predict_dist`, and its standard deviations with ``return_std=True``.

        Parameters
        ----------
        X, label_std
            As in :meth:`predict_dist`. Without errors only the means are right, and no warning is
            given unless standard deviations are asked for.
        return_std : bool

        Returns
        -------
        labels : ndarray of shape (n, K_b), or (n,) when `y` was a vector at fit
        std : ndarray of the same shape
            Only with ``return_std=True``.
        """
        with warnings.catch_warnings():
            if not return_std:
                warnings.simplefilter("ignore", MissingUncertaintyWarning)
            dist = self.predict_dist(X, label_std)
        mean, std = dist.mean(), dist.std()
        if self._y_is_vector:
            mean, std = mean[:, 0], std[:, 0]
        return (mean, std) if return_std else mean

    def domain_score(self, X: Labels | MultivariateNormal) -> np.ndarray:
        """How far labels lie from those of the common stars: above 1, the relation extrapolates.

        Parameters
        ----------
        X : array-like of shape (n, K_a), or MultivariateNormal

        Returns
        -------
        ndarray of shape (n,)
            The larger of two: distance from the 10 nearest common stars, where 1 is the 99th percentile
            of these, and distance from the middle of their range, where 1 is its edge.
        """
        check_is_fitted(self)
        X, _ = _with_covariance(X, None, "label_std", getattr(self, "feature_names_in_", None))
        return self._domain.score(validate_data(self, X, dtype=np.float64, reset=False))

    def to_frame(self) -> pd.DataFrame:
        """`pandas.DataFrame` of offset, trends, scatter and errors: one row per label of B."""
        import pandas as pd

        names = getattr(self, "feature_names_in_", None)
        names = range(len(self.pivot_)) if names is None else names
        columns = {"offset": self.offset_, "offset_std": self.offset_std_}
        for j, name in enumerate(names):
            columns[f"trend_{name}"] = self.trend_[:, j]
            columns[f"trend_{name}_std"] = self.trend_std_[:, j]
        return pd.DataFrame(columns | {"scatter": self.scatter_}, index=self.label_names_in_)


def _spread(labels):
    """Standard deviation of each label, 1 where that is only rounding."""
    std = labels.std(axis=0)
    return np.where(std > 1e-12 * np.abs(labels).max(axis=0), std, 1.0)


def _copies(names_a, names_b, n_a, n_b):
    """`L` (K_b, K_a): 1 where a label of B is that of A."""
    if names_a is None or names_b is None:
        return np.eye(n_b, n_a) if n_a == n_b else np.zeros((n_b, n_a))
    return (np.array(names_b)[:, None] == np.array(names_a)).astype(float)


def _with_covariance(labels, std, name, names=None):
    """Labels, and the covariances (n, K, K) of their errors or None."""
    import pandas as pd

    if isinstance(labels, MultivariateNormal):
        if std is not None:
            raise ValueError(f"The labels are a distribution and bring their errors: no {name}.")
        own = labels.label_names
        if own is not None and names is not None and set(own) == set(names):
            own, labels = list(names), labels.marginal(list(names))
        mean = labels.mean()
        return (mean if own is None else pd.DataFrame(mean, columns=own)), labels.cov()
    labels = label_features(labels, names, finite=True)
    if std is None:
        return labels, None
    std = label_values(std, label_names(labels), what=name, sentinels=False)
    shape = np.shape(labels)
    if len(shape) == 1:
        shape, std = (*shape, 1), std[:, None] if std.ndim == 1 else std
    square = std.ndim == 3
    try:
        std = np.broadcast_to(std, (*shape, shape[1]) if square else shape)
    except ValueError:
        raise ValueError(
            f"{name} has shape {std.shape} for labels of shape {shape}: give standard deviations that "
            "broadcast to these, or covariances (n, K, K)."
        ) from None
    diagonal = np.diagonal(std, axis1=1, axis2=2) if square else std
    if not (np.isfinite(std).all() and np.all(diagonal >= 0)):
        raise ValueError(f"{name} holds negative, NaN or infinite values; drop those stars first.")
    return labels, std if square else std[:, :, None] ** 2 * np.eye(shape[1])
