"""Whether a translation between unpaired domains can be trusted."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import ks_2samp
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from skspec._label_values import label_names, label_values
from skspec._short_repr import ShortRepr
from skspec.transfer._pixel_correction import PixelCorrection
from skspec.transfer._spaces import ComponentSpace

if TYPE_CHECKING:
    from skspec._typing import Labels
    from skspec.spectra import Spectra

__all__ = ["GuardRails", "TranslationWarning"]

LIMIT = 0.1  # of statistics and R2, above which is warned
SURE = 1e-3  # p-value below which a difference is not by chance
MIN_STARS = 20  # stars of a set that anything can be said about
IDENTITY = 2.0  # reduced chi2
N_JUDGED, N_STARS = 10, 1000  # components and stars that a classifier sees


class TranslationWarning(UserWarning):
    """A translation between two domains fails one of its guard rails."""


@dataclass(frozen=True)
class GuardRails(ShortRepr):
    """What must hold for a translation to be trusted.

    Attributes
    ----------
    match : dict of str to (float, float)
        Kolmogorov-Smirnov statistic and p-value of every label between both sets, or, where labels
        were not given, of the scores of the first two principal components, shifted and scaled to the
        same median and spread. Should be below 0.1: both sets must be distributed alike.
    leakage : float
        Cross-validated :math:`R^2` of the shared latent number that the split ones tell most about.
        Should be below 0.1: labels must not hide in the split ones. See :meth:`CycleStarNet.leakage`
        for that of labels.
    identity, cycle : float
        Mean squared residual of held-out synthetic spectra after :math:`S \\to S` and
        :math:`S \\to O \\to S`, in units of the typical variance of observed ones. Should be below 2.
    auc_before, auc_pixel_correction, auc : float
        Area under the receiver-operating curve of a classifier of held-out synthetic and observed
        stars at equal noise: as they are, after :class:`PixelCorrection`, and translated. 0.5 where
        they cannot be told apart; should be the least for the translation.
    """

    match: dict = field(default_factory=dict)
    leakage: float = np.nan
    identity: float = np.nan
    cycle: float = np.nan
    auc_before: float = np.nan
    auc_pixel_correction: float = np.nan
    auc: float = np.nan

    @classmethod
    def before(
        cls,
        synthetic: Spectra,
        observed: Spectra,
        synthetic_labels: Labels | None,
        observed_labels: Labels | None,
    ) -> GuardRails:
        """The test of the two sets alone.

        Raises
        ------
        ValueError
            When one has less than 20 stars, or labels do not fit the spectra.
        """
        if min(len(synthetic), len(observed)) < MIN_STARS:
            raise ValueError(
                f"{len(synthetic)} synthetic and {len(observed)} observed spectra: a translation is "
                f"learned from at least {MIN_STARS} of each. PixelCorrection takes fewer."
            )
        if synthetic_labels is None and observed_labels is None:
            return cls()
        if synthetic_labels is None or observed_labels is None:
            raise ValueError("Give the labels of both sets, or of none.")
        names = label_names(synthetic_labels) or label_names(observed_labels)
        labels = [
            _labels(synthetic_labels, synthetic, names, "synthetic"),
            _labels(observed_labels, observed, names, "observed"),
        ]
        sizes = [values.shape[1] for values in labels]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"The labels of both sets must be the same; there are {sizes[0]} and {sizes[1]}."
            )
        names = names or [f"label_{k}" for k in range(sizes[0])]
        return cls({name: _compared(a, b) for name, a, b in zip(names, *(y.T for y in labels))})

    def after(
        self,
        model: Any,
        train: tuple[Spectra, Spectra],
        held_out: tuple[Spectra, Spectra],
        rng: Any,
    ) -> GuardRails:
        """All that can be said of a trained translator."""
        space = ComponentSpace(*train, rng, N_JUDGED, model.error_floor)
        synthetic, observed = held_out
        match = self.match or _score_match(space, *train)
        variance = np.maximum(observed.mean_variance, model.error_floor**2)
        there = model.reconstruct(synthetic, "synthetic")
        back = model.inverse_transform(model.transform(synthetic))
        out = replace(
            self,
            match=match,
            identity=_misfit(there, synthetic, variance),
            cycle=_misfit(back, synthetic, variance),
            leakage=_leakage(model, train[1]),
        )
        if min(len(synthetic), len(observed)) < MIN_STARS:
            return out
        split = model.sample_split(len(synthetic), rng)
        pixels = PixelCorrection().fit(*train)
        worlds = synthetic, pixels.transform(synthetic), model.transform(synthetic, split)
        auc = [_auc(space, world, observed, rng) for world in worlds]
        return replace(out, auc_before=auc[0], auc_pixel_correction=auc[1], auc=auc[2])

    @property
    def failures(self) -> list[str]:
        """A sentence for everything that is not as it should be."""
        out = []
        for name, (statistic, p_value) in self.match.items():
            if statistic > LIMIT and p_value < SURE:
                out.append(
                    f"{name} is distributed differently in both sets (Kolmogorov-Smirnov "
                    f"{statistic:.2f}): that will be taken for a gap; draw synthetic spectra like the "
                    "observed ones"
                )
        if self.leakage > LIMIT:
            out.append(
                f"split latent numbers tell of shared ones (R2 = {self.leakage:.2f}): take fewer of "
                "them (n_split)"
            )
        for name, value in (("S -> S", self.identity), ("S -> O -> S", self.cycle)):
            if value > IDENTITY:
                out.append(
                    f"held-out synthetic spectra are not what they were after {name} (reduced chi2 "
                    f"{value:.1f}): train for longer, or with more components"
                )
        if self.auc > max(self.auc_pixel_correction, 0.5 + LIMIT):
            out.append(
                f"a classifier tells translated from observed spectra (AUC {self.auc:.2f}), not worse "
                f"than after PixelCorrection ({self.auc_pixel_correction:.2f}): take that instead"
            )
        return out

    def warn(self) -> None:
        """Warn of every failure."""
        if self.failures:
            warnings.warn("; ".join(self.failures) + ".", TranslationWarning, stacklevel=4)


def _labels(labels, spectra, names, which):
    """Values (n, K)."""
    values = label_values(labels, names, what=f"The {which} labels")
    values = values.reshape(len(values), -1)
    if len(values) != len(spectra):
        raise ValueError(f"{len(values)} sets of labels for {len(spectra)} spectra.")
    return values


def _compared(a, b):
    test = ks_2samp(a[np.isfinite(a)], b[np.isfinite(b)])
    return float(test.statistic), float(test.pvalue)


def _score_match(space, synthetic, observed):
    """The shapes of the distributions along the first two components."""
    scores = [space.arrays(part)[0][:, :2].astype(float) for part in (synthetic, observed)]
    for x in scores:
        x -= np.median(x, axis=0)
        spread = np.median(np.abs(x), axis=0)
        x /= np.where(spread > 0, spread, 1.0)
    pairs = zip(*(x.T for x in scores))
    return {f"principal component {k + 1}": _compared(a, b) for k, (a, b) in enumerate(pairs)}


def _misfit(found, spectra, variance):
    good = spectra.good & np.isfinite(found.flux) & found.good & (variance > 0)
    squares = (found.flux - spectra.flux) ** 2 / np.where(variance > 0, variance, 1.0)
    return float(np.mean(squares[good]))


def _leakage(model, observed):
    """Largest R2 of a shared latent number, predicted from the split ones."""
    shared, split = model.encode_shared(observed), model.encode_split(observed)
    return float(np.max(split_r2(split, shared)))


def split_r2(split, y):
    """Cross-validated R2 (K,) of numbers (n, K) that are predicted from split latent ones."""
    degree = 2 if split.shape[1] <= 10 else 1
    regressor = make_pipeline(
        StandardScaler(),
        PolynomialFeatures(degree, include_bias=False),
        RidgeCV(np.logspace(-2, 4, 7)),
    )
    found = cross_val_predict(regressor, split, y, cv=min(5, len(y)))
    spread = np.var(y, axis=0)
    rest = np.mean((found.reshape(y.shape) - y) ** 2, axis=0)
    return np.where(spread > 0, np.clip(1 - rest / np.where(spread > 0, spread, 1.0), 0, None), 0.0)


def _auc(space, synthetic, observed, rng):
    """How well a classifier tells two sets from each other, at equal noise."""
    scores = []
    noise = space.arrays(observed)[2]
    for part in (synthetic, observed):
        x = space.arrays(part[:N_STARS])[0].astype(float)
        if part is synthetic and noise is not None and not part.has_errors:
            like = noise[rng.randint(len(noise), size=len(x))]
            x += np.einsum("nij,nj->ni", like, rng.standard_normal(x.shape))
        scores.append(x)
    x = np.concatenate(scores)
    domain = np.repeat([0, 1], [len(part) for part in scores])
    classifier = make_pipeline(StandardScaler(), QuadraticDiscriminantAnalysis(reg_param=0.01))
    return float(cross_val_score(classifier, x, domain, cv=5, scoring="roc_auc").mean())
