"""How far synthetic spectra are from observed ones: in the whole, per pixel, and in the labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils import check_random_state

from skspec._label_values import label_names, label_values, refuse_unknown
from skspec._short_repr import ShortRepr
from skspec.base import as_spectra, last_step
from skspec.metrics import GAUSSIAN_MAD
from skspec.solvers.linear.gappy_pca import fit_gappy_pca
from skspec.solvers.statistics.two_sample import (
    auc_error,
    frechet_distance,
    maximum_mean_discrepancy,
    permuted_sets,
)
from skspec.spectra import Spectra, check_same_pixels

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from skspec._typing import CrossValidation, Labels, RandomState, SpectraLike

__all__ = ["SyntheticGap", "synthetic_gap"]

_MIN_STARS = 10  # stars of each set
_N_NULL = 20  # permutations of the Frechet distance


@dataclass(frozen=True)
class SyntheticGap(ShortRepr):
    """The gap between synthetic and observed spectra.

    Attributes
    ----------
    auc, auc_error : float
        Of a classifier that tells synthetic from observed stars it was not trained on: 0.5 when it
        cannot, 1 when it always can. Its standard error.
    mmd2, mmd2_null, p_value : float
        Squared maximum mean discrepancy, what 95 % of permutations of the domains stay below, and the
        fraction of permutations that reach it.
    frechet, frechet_null : float
        Frechet distance in principal components, in the unit of the flux (root of the sum over pixels);
        and the median of permuted domains: no gap is that large, for the sets are finite.
    pixels : DataFrame
        Per pixel ``wavelength`` (or ``pixel``), ``difference`` of the flux, observed less synthetic,
        ``gap`` in units of sigma and ``scatter`` of the gap from star to star. See
        :func:`synthetic_gap` for what sigma is.
    labels : DataFrame or None
        Per label ``bias``, ``bias_error``, ``robust_std`` and ``rmse`` of a model of synthetic spectra.
    n_synthetic, n_observed : int
        Stars that were compared.
    n_components : int
        Principal components in which they were compared.
    noise_matched : bool
        Whether noise of observed stars was added to the synthetic ones.
    at_equal_labels : bool
        Whether `pixels` compares stars of the same labels, or only means.
    medium : {"air", "vacuum"} or None
        Of the wavelengths in `pixels`, where the spectra know it.
    """

    auc: float
    auc_error: float
    mmd2: float
    mmd2_null: float
    p_value: float
    frechet: float
    frechet_null: float
    pixels: pd.DataFrame = field(repr=False)
    labels: pd.DataFrame | None = field(repr=False)
    n_synthetic: int
    n_observed: int
    n_components: int
    noise_matched: bool
    at_equal_labels: bool
    medium: str | None = None

    def worst_lines(self, n: int = 10, *, n_pixels: int = 5) -> pd.DataFrame:
        """The pixels of the largest gap, each at least `n_pixels` from a worse one.

        Parameters
        ----------
        n : int
        n_pixels : int

        Returns
        -------
        DataFrame
            Rows of `pixels`, the worst first.
        """
        size = self.pixels["gap"].abs().to_numpy()
        free = np.isfinite(size)
        chosen: list[int] = []
        for j in np.argsort(-np.where(free, size, -1.0), kind="stable"):
            if len(chosen) == n or not np.isfinite(size[j]):
                break
            if free[j]:
                chosen.append(j)
                free[max(j - n_pixels + 1, 0) : j + n_pixels] = False
        return self.pixels.iloc[chosen]

    def __str__(self) -> str:
        lines = [
            f"{self.n_synthetic} synthetic and {self.n_observed} observed stars, "
            f"{self.n_components} principal components, noise "
            + ("of observed stars" if self.noise_matched else "as it is"),
            f"  AUC      {self.auc:.3f} +- {self.auc_error:.3f} (0.5: no gap)",
            f"  MMD^2    {self.mmd2:.2g}, p = {self.p_value:.2g} (95 % of no gap: < "
            f"{self.mmd2_null:.2g})",
            f"  Frechet  {self.frechet:.3g} (no gap: {self.frechet_null:.3g})",
        ]
        if self.labels is not None:
            lines += [
                f"  {name}: bias {row.bias:+.3g} +- {row.bias_error:.2g}, robust scatter "
                f"{row.robust_std:.3g}"
                for name, row in self.labels.iterrows()
            ]
        return "\n".join(lines)


def synthetic_gap(
    synthetic: SpectraLike,
    observed: SpectraLike,
    *,
    synthetic_labels: Labels | None = None,
    observed_labels: Labels | None = None,
    model: BaseEstimator | None = None,
    match_noise: bool = True,
    n_components: int = 50,
    classifier: BaseEstimator | None = None,
    cv: CrossValidation = 5,
    n_permutations: int = 199,
    max_stars: int = 1000,
    random_state: RandomState = 0,
) -> SyntheticGap:
    r"""Measure the gap between synthetic and observed spectra.

    Compare sets **of equal distribution of labels**: otherwise the gap measures selection, not physics.

    Parameters
    ----------
    synthetic, observed : Spectra or array-like of shape (n, P), (m, P)
        On one grid, normalised in the same way. Stars that occur in both, or several times, should have
        a ``star_id`` in ``meta``: they then stay on one side of every split, and permutations are of
        stars.
    synthetic_labels, observed_labels : DataFrame or array-like of shape (n, K), (m, K), optional
        With both, pixels are compared at equal labels: the synthetic star nearest to each observed one,
        labels in units of their standard deviation over the observed stars. Columns of data frames are
        matched by name, also with the labels of `model`.
    model : fitted regressor, optional
        Trained on synthetic spectra. With `observed_labels`, its errors are the gap in label space. A
        forward model (with ``predict_flux``) also gives the synthetic spectrum at the very labels of
        each observed star.
    match_noise : bool
        Give every synthetic star the errors and bad pixels of an observed star drawn at random, and
        noise of that size. Synthetic spectra that have errors already are left as they are; and where
        `observed` has none, nothing is added, and noise is part of the gap.
    n_components : int
        Joint principal components in which classifier, MMD and Frechet distance work.
    classifier : scikit-learn classifier, optional
        Default: ``make_pipeline(StandardScaler(), SVC())``.
    cv : int
        Folds of the classifier, stratified.
    n_permutations : int
        For the p-value of the MMD.
    max_stars : int
        Of each set, drawn at random, in all but `pixels` and `labels`: the kernel of the MMD is square.
    random_state : int, RandomState instance or None

    Returns
    -------
    SyntheticGap
        Its ``str`` is a report.

    Raises
    ------
    ValueError
        When grids or labels do not fit, on fewer than 10 stars of a set, or labels without their
        spectra.

    Notes
    -----
    In `pixels`, at equal labels, ``gap`` and ``scatter`` are the median and the robust standard
    deviation over stars of :math:`(f^\mathrm{obs} - f^\mathrm{syn}) / \sigma`, with :math:`\sigma` the
    photon noise of both. Pixels whose noise is not known take for :math:`\sigma` the robust standard
    deviation of the difference itself. Without labels, ``gap`` is the difference of the means in units
    of its error, and ``scatter`` is NaN.

    Permutations exchange whole stars; of a star that is in both sets, its spectra.

    Bad pixels are filled from the joint principal components; pixels that are bad in all stars of a set
    are left out.

    The error of the AUC is that of Hanley & McNeil (1982) for independent stars, times
    :math:`\sqrt{1 + k/(k - 1)}` for `k` folds (Nadeau & Bengio 2003): every star is in the training set
    of most others, and chance differences of the two sets enter all folds.

    The classifier is the most sensitive of the three: it finds the one direction in which two sets
    differ. An AUC of 1 says that there is a gap, not how much it matters; for that see `labels`.

    References
    ----------
    Lopez-Paz & Oquab 2017, arXiv:1610.06545 (classifier two-sample test); Gretton et al. 2012, JMLR 13,
    723 (MMD); Nadeau & Bengio 2003, Machine Learning 52, 239; Heusel et al. 2017, arXiv:1706.08500
    (Frechet distance).

    Examples
    --------
    >>> from skspec.datasets import make_spectra
    >>> from skspec.diagnostics import synthetic_gap
    >>> spectra, _ = make_spectra(200, n_pixels=100, snr=100, random_state=0)
    >>> gap = synthetic_gap(spectra[:100], spectra[100:], n_permutations=99)
    >>> abs(gap.auc - 0.5) < 3 * gap.auc_error, gap.p_value > 0.05
    (True, True)
    """
    synthetic, observed = _validated(synthetic, observed, synthetic_labels, observed_labels)
    rng = np.random.default_rng(check_random_state(random_state).randint(2**31))
    names = getattr(last_step(model), "label_names_in_", None) or label_names(observed_labels)
    labels = _as_labels(synthetic_labels, names, "The synthetic labels")
    truth = _as_labels(observed_labels, names, "The observed labels")
    pixels, at_equal_labels = _pixel_gap(synthetic, observed, labels, truth, model)
    label_gap = None
    if model is not None and truth is not None:
        label_gap = _label_gap(model, observed, truth, names)
    few_synthetic, few_observed = (
        some_stars(part, max_stars, rng) for part in (synthetic, observed)
    )
    matched = bool(match_noise and observed.has_errors and not synthetic.has_errors)
    if matched:
        few_synthetic = with_noise_of(few_synthetic, observed, rng)
    a, b = joint_components([few_synthetic, few_observed], n_components)
    groups = _groups(few_synthetic, few_observed)
    classifier = make_pipeline(StandardScaler(), SVC()) if classifier is None else classifier
    auc, error = _auc(classifier, a, b, groups, cv, rng)
    mmd2, null = maximum_mean_discrepancy(a, b, n_permutations, rng, groups)
    return SyntheticGap(
        auc=auc,
        auc_error=error,
        mmd2=mmd2,
        mmd2_null=float(np.quantile(null, 0.95)) if len(null) else np.nan,
        p_value=float((1 + np.sum(null >= mmd2)) / (1 + len(null))) if len(null) else np.nan,
        frechet=frechet_distance(a, b),
        frechet_null=_frechet_null(a, b, groups, rng),
        pixels=pixels,
        labels=label_gap,
        n_synthetic=len(a),
        n_observed=len(b),
        n_components=a.shape[1],
        noise_matched=matched,
        at_equal_labels=at_equal_labels,
        medium=observed.medium or synthetic.medium,
    )


def _validated(synthetic, observed, synthetic_labels, observed_labels) -> tuple[Spectra, Spectra]:
    synthetic, observed = as_spectra(synthetic), as_spectra(observed)
    if synthetic.shape[1] != observed.shape[1]:
        raise ValueError(
            f"The synthetic spectra have {synthetic.shape[1]} pixels, the observed ones "
            f"{observed.shape[1]}. Put both on one grid with skspec.preprocessing.Resampler."
        )
    check_same_pixels(synthetic, observed, "Synthetic and observed spectra")
    for name, spectra, labels in (
        ("synthetic", synthetic, synthetic_labels),
        ("observed", observed, observed_labels),
    ):
        if len(spectra) < _MIN_STARS:
            raise ValueError(f"{len(spectra)} {name} spectra; at least {_MIN_STARS} are needed.")
        n_stars = len(
            np.unique(np.asarray(spectra.meta.get("star_id", range(_MIN_STARS))).astype(str))
        )
        if n_stars < _MIN_STARS:
            raise ValueError(
                f"The {name} spectra are of {n_stars} stars (star_id); at least {_MIN_STARS} are needed."
            )
        if labels is not None and len(labels) != len(spectra):
            raise ValueError(
                f"{len(labels)} sets of {name} labels for {len(spectra)} spectra; give one each."
            )
    if not (synthetic.good.any(axis=0) & observed.good.any(axis=0)).any():
        raise ValueError("No pixel is good in both sets.")
    return synthetic, observed


def _as_labels(labels, names, what):
    """Labels (n, K), columns found by name; None for none."""
    if labels is None:
        return None
    labels = label_values(labels, names, what=what, among_others=True)
    refuse_unknown(labels, names, what)
    return labels.reshape(len(labels), -1)


# -- in the whole ----------------------------------------------------------------------------------


def some_stars(spectra: Spectra, most: int, rng: np.random.Generator) -> Spectra:
    if len(spectra) <= most:
        return spectra
    return spectra[np.sort(rng.choice(len(spectra), most, replace=False))]


def with_noise_of(spectra, observed, rng):
    """Noise, errors and bad pixels of observed stars drawn at random."""
    donors = observed[rng.integers(len(observed), size=len(spectra))]
    sigma = np.where(donors.good, donors.flux_err, 0.0)
    flux = spectra.flux + sigma * rng.standard_normal(spectra.shape)
    return spectra.replace(flux=flux, ivar=np.where(spectra.good, donors.ivar, 0.0))


def _usable(sets):
    """Pixels that some star of every set knows, and per set the stars that know one of them."""
    known = np.logical_and.reduce([part.good.any(axis=0) for part in sets])
    return known, [part.good[:, known].any(axis=1) for part in sets]


def joint_components(sets, n_components):
    """Principal components of all sets together; stars without a good pixel are left out."""
    known, keep = _usable(sets)
    flux, good = (np.concatenate([getattr(s, a)[:, known] for s in sets]) for a in ("flux", "good"))
    domain = np.repeat(np.arange(len(sets)), [len(part) for part in sets])
    keep = np.concatenate(keep)
    flux, good, domain = flux[keep], good[keep], domain[keep]
    pca = fit_gappy_pca(flux, good, n_components)
    scores = (pca.fill(flux, good) - pca.mean) @ pca.components.T
    return [scores[domain == k] for k in range(len(sets))]


def _groups(synthetic, observed):
    """Star of each spectrum that is compared; those without a ``star_id`` are all different."""
    sets = synthetic, observed
    parts = []
    for domain, spectra, keep in zip(("synthetic", "observed"), sets, _usable(sets)[1]):
        names = spectra.meta.get("star_id")
        if names is None:
            names = [f"{domain} {i}" for i in range(len(spectra))]
        parts.append(np.asarray(names).astype(str)[keep])
    return np.unique(np.concatenate(parts), return_inverse=True)[1]


def _auc(classifier, a, b, groups, cv, rng):
    """Mean area under the curve of the folds, and its error, which folds that share stars widen."""
    z, y = np.concatenate([a, b]), np.repeat([0, 1], [len(a), len(b)])
    folds = StratifiedGroupKFold(cv, shuffle=True, random_state=int(rng.integers(2**31)))
    scores = cross_val_score(classifier, z, y, groups=groups, cv=folds, scoring="roc_auc")
    auc = float(np.mean(scores))
    return auc, auc_error(auc, len(a), len(b)) * float(np.sqrt(1 + cv / (cv - 1)))


def _frechet_null(a, b, groups, rng):
    both, first = np.concatenate([a, b]), np.arange(len(a) + len(b)) < len(a)
    permuted = (permuted_sets(first, groups, rng) for _ in range(_N_NULL))
    return float(np.median([frechet_distance(both[c], both[~c]) for c in permuted]))


# -- per pixel and label ---------------------------------------------------------------------------


def _pixel_gap(synthetic, observed, labels, truth, model):
    emulator = truth is not None and hasattr(model, "predict_flux")
    wavelength = observed.wavelength if synthetic.wavelength is None else synthetic.wavelength
    where = (
        {"pixel": np.arange(observed.shape[1])}
        if wavelength is None
        else {"wavelength": wavelength}
    )
    if emulator:
        flux = np.asarray(model.predict_flux(truth))
        found = _at_equal_labels(Spectra(flux), observed)
    elif labels is not None and truth is not None:
        found = _at_equal_labels(synthetic[_nearest(labels, truth)], observed)
    else:
        found = _of_means(synthetic, observed)
    columns = dict(zip(("difference", "gap", "scatter"), found))
    equal = emulator or (labels is not None and truth is not None)
    return pd.DataFrame(where | columns), equal


def _nearest(labels, truth):
    if labels.shape[1] != truth.shape[1]:
        raise ValueError(
            f"{labels.shape[1]} labels of synthetic and {truth.shape[1]} of observed stars; give "
            "the same labels in the same order."
        )
    scale = truth.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    return NearestNeighbors(n_neighbors=1).fit(labels / scale).kneighbors(truth / scale)[1][:, 0]


def _at_equal_labels(synthetic, observed):
    """Median difference (P,), and median and robust deviation of it in sigma."""
    good = synthetic.good & observed.good
    difference = np.where(good, observed.flux.astype(float) - synthetic.flux, np.nan)
    variance = np.where(good, synthetic.variance + observed.variance, np.nan)
    middle, spread = _median_and_spread(difference)
    unknown = np.broadcast_to(np.where(spread > 0, spread, 1.0), good.shape)
    with np.errstate(invalid="ignore"):
        sigma = np.where(variance > 0, np.sqrt(variance), unknown)
    return middle, *_median_and_spread(difference / sigma)


def _median_and_spread(values):
    """Median and robust standard deviation of each pixel; NaN where nothing is known."""
    some = np.isfinite(values).any(axis=0)
    middle = np.full(values.shape[1], np.nan)
    spread = middle.copy()
    middle[some] = np.nanmedian(values[:, some], axis=0)
    spread[some] = np.nanmedian(np.abs(values[:, some] - middle[some]), axis=0) / GAUSSIAN_MAD
    return middle, spread


def _of_means(synthetic, observed):
    mean, error2 = zip(*(_mean(part) for part in (synthetic, observed)))
    difference, error = mean[1] - mean[0], np.sqrt(error2[0] + error2[1])
    gap = difference / np.where(error > 0, error, np.nan)
    return difference, np.where(difference == 0, 0.0, gap), np.full(len(gap), np.nan)


def _mean(spectra):
    """Mean flux (P,) of good pixels, and the variance of that mean; NaN for fewer than 2 stars."""
    n = spectra.good.sum(axis=0)
    flux = np.where(spectra.good, spectra.flux, 0.0).astype(float)
    mean = np.where(n > 1, flux.sum(axis=0) / np.maximum(n, 1), np.nan)
    square = np.sum(np.where(spectra.good, (flux - mean) ** 2, 0.0), axis=0)
    return mean, square / np.maximum(n * (n - 1), 1)


def _label_gap(model, observed, truth, names):
    predicted = np.asarray(model.predict(observed), dtype=float).reshape(len(observed), -1)
    if predicted.shape != truth.shape:
        raise ValueError(
            f"The model predicts {predicted.shape[1]} labels, observed_labels holds "
            f"{truth.shape[1]}; give those the model was trained on."
        )
    error = predicted - truth
    finite = np.isfinite(error).all(axis=1)
    middle, spread = _median_and_spread(error[finite])
    names = names or getattr(model, "label_names_in_", None)
    columns = {
        "bias": middle,
        # of a median, for errors that are nearly Gaussian
        "bias_error": np.sqrt(np.pi / 2) * spread / np.sqrt(max(finite.sum(), 1)),
        "robust_std": spread,
        "rmse": np.sqrt(np.mean(error[finite] ** 2, axis=0)),
    }
    return pd.DataFrame(columns, index=pd.Index(names or range(truth.shape[1]), name="label"))
