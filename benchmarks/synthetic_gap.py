"""The synthetic gap of a real pair: what do augmentation and corrections mend?

    python -m benchmarks synthetic_gap [--parts colours real ablation gap]

Models: the 89 Kurucz spectra of ``kurucz_common``, interpolated by a polynomial. Stars: the 210 MILES
dwarfs of ``optical_common`` with 5000 < Teff < 7000, log g > 3.7, [Fe/H] > -2. A ridge regression is
trained on models and asked for the labels of the stars.

- real: medians of its errors, with and without augmentation, for corrections that use no label of any
  star, and for corrections learned on four fifths of the stars and scored on the last.
- colours: temperatures that the fluxes of the same models give, without any line.
- ablation: each augmentation alone, and all but each.
- gap: AUC, MMD and Frechet distance of models at the labels of the stars, before and after.
"""

import argparse
from itertools import combinations_with_replacement

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold

from benchmarks.common import data_file, print_machine, table
from skspec import Spectra, metrics
from skspec.augmentation import (
    Compose,
    ContinuumJitter,
    GaussianNoise,
    InstrumentBroadening,
    RadialVelocityShift,
)
from skspec.diagnostics import synthetic_gap
from skspec.transfer import PixelCorrection

LABELS = ["teff", "logg", "feh"]
CENTRE, SCALE = np.array([6000.0, 4.25, -1.0]), np.array([500.0, 0.15, 0.5])
GRID = np.array([[5000.0, 4.0, -2.0], [7000.0, 4.5, 0.0]])  # of the models
REACH = np.array([[4800.0, 3.4, -2.3], [7200.0, 5.0, 0.6]])  # as far as the polynomial is used
#: the line-spread functions: SDSS R = 1900; MILES, smoothed and in pixels of 2 Angstrom, below
AUGMENTATIONS = {
    "noise": GaussianNoise(snr=(30, 100)),
    "broadening": InstrumentBroadening(resolution=(1300, 1900), from_resolution=1900),
    "continuum": ContinuumJitter(0.01),
    "velocity": RadialVelocityShift((-30, 30)),
}


class Models:
    """Spectra of any labels: a cubic in 5040 / Teff, log g and [Fe/H], linear in log g.

    The grid has two values of log g, which do not determine a `full` cubic: its solution of least norm
    is wrong between them by half of the flux.
    """

    def __init__(self, spectra, labels, *, full=False):
        self.wavelength = spectra.wavelength
        self.full = full
        self.coef = np.linalg.lstsq(self.design(labels), spectra.flux.astype(float))[0]

    def design(self, labels):
        u = (np.column_stack([5040 / labels[:, 0], labels[:, 1:]]) - [0.85, 4.25, -1]) / [
            0.1,
            0.25,
            1,
        ]
        terms = [c for d in (1, 2, 3) for c in combinations_with_replacement(range(3), d)]
        columns = [np.prod(u[:, list(c)], axis=1) for c in terms if self.full or c.count(1) < 2]
        return np.column_stack([np.ones(len(u)), *columns])

    def predict_flux(self, labels):
        return self.design(np.clip(labels, *REACH)) @ self.coef

    def spectra(self, labels):
        return Spectra(self.predict_flux(labels), wavelength=self.wavelength)

    def draw(self, n, rng, box=GRID):
        labels = rng.uniform(*box, (n, 3))
        return self.spectra(labels), labels


def real_pair(**options):
    """Models, real spectra and their labels, or None without the data."""
    paths = [data_file(f"optical_common/{name}_common.npz") for name in ("kurucz", "optical")]
    if None in paths:
        return None
    with np.load(paths[0]) as k, np.load(paths[1]) as o:
        wavelength, y = k["wavelength"], o["labels"]
        models = Models(Spectra(k["flux_norm"], wavelength=wavelength), k["labels"], **options)
        chosen = (
            (o["survey"] == "MILES")
            & o["has_labels"]
            & (y[:, 0] > 5000)
            & (y[:, 0] < 7000)
            & (y[:, 1] > 3.7)
            & (y[:, 2] > -2)
        )
        flux, star_id = o["flux_norm"][chosen].astype(float), o["star_id"][chosen]
    stars = Spectra(flux, wavelength=wavelength, meta={"star_id": star_id, "medium": "air"})
    return models, stars, y[chosen]


# -- the regression --------------------------------------------------------------------------------


class Regression:
    """Ridge, trained on `n` models that were corrected, augmented and made noisy."""

    def __init__(self, models, augmentation=None, n=2000):
        self.models, self.n = models, n
        self.augmentation = GaussianNoise(snr=100) if augmentation is None else augmentation

    def fit(self, correction=None, seed=0):
        rng = np.random.default_rng(seed)
        spectra, labels = self.models.draw(self.n, rng)
        if correction is not None:
            spectra = correction.transform(spectra)
        spectra = self.augmentation.augment(spectra, random_state=seed)
        self.ridge = Ridge(1.0).fit(spectra.flux, (labels - CENTRE) / SCALE)
        return self

    def predict(self, spectra):
        return self.ridge.predict(spectra.flux) * SCALE + CENTRE


def augmentation(names):
    parts = [AUGMENTATIONS[name] for name in AUGMENTATIONS if name in names]
    return Compose(parts if "noise" in names else [*parts, GaussianNoise(snr=100)])


# -- ways to correct: predicted labels of all stars ------------------------------------------------


def uncorrected(regression, models, stars, y, seed):
    return regression.fit(seed=seed).predict(stars)


def guessed(kind, n_turns=5):
    """No label of any star: the correction matches models at the labels that it led to itself."""

    def predict(regression, models, stars, y, seed):
        labels = uncorrected(regression, models, stars, y, seed)
        for _ in range(n_turns):
            correction = PixelCorrection(kind).fit(models.spectra(labels), stars)
            labels = regression.fit(correction, seed).predict(stars)
        return labels

    return predict


def in_folds(learn, n_splits=5):
    """Labels of stars whose own labels no one has seen; `learn` gets the labels of the others."""

    def predict(regression, models, stars, y, seed):
        labels = np.empty_like(y)
        for train, test in KFold(n_splits, shuffle=True, random_state=seed).split(y):
            correction = learn(models, stars, y, train, seed)
            labels[test] = regression.fit(correction, seed).predict(stars[test])
        return labels

    return predict


def matched(kind):
    """Models whose labels are distributed like those of training stars, and all spectra, unpaired."""

    def learn(models, stars, y, train, seed):
        drawn = y[np.random.default_rng(seed).choice(train, 1000)]
        return PixelCorrection(kind).fit(models.spectra(drawn), stars)

    return learn


def paired(kind):
    def learn(models, stars, y, train, seed):
        return PixelCorrection(kind, paired=True).fit(models.spectra(y[train]), stars[train])

    return learn


def few_standards(kind, n=20):
    """Pairs of so many stars; labels of the others, NaN for themselves."""

    def predict(regression, models, stars, y, seed):
        some = np.random.default_rng(seed).choice(len(y), n, replace=False)
        labels = regression.fit(paired(kind)(models, stars, y, some, seed), seed).predict(stars)
        labels[some] = np.nan
        return labels

    return predict


def offset_only(regression, models, stars, y, seed):
    """No correction of spectra: the median error of the training stars is taken off."""
    labels = uncorrected(regression, models, stars, y, seed)
    out = np.empty_like(labels)
    for train, test in KFold(5, shuffle=True, random_state=seed).split(y):
        out[test] = labels[test] - np.median(labels[train] - y[train], axis=0)
    return out


def real_training(regression, models, stars, y, seed):
    """No models at all: ridge on the training stars."""
    labels = np.empty_like(y)
    for train, test in KFold(5, shuffle=True, random_state=seed).split(y):
        ridge = Ridge(10.0).fit(stars.flux[train], (y[train] - CENTRE) / SCALE)
        labels[test] = ridge.predict(stars.flux[test]) * SCALE + CENTRE
    return labels


# -- tables ----------------------------------------------------------------------------------------


def medians(way, regression, models, stars, y, seeds):
    """Median errors and RMSE (seeds, 2, 3)."""
    rows = []
    for seed in range(seeds):
        labels = way(regression, models, stars, y, seed)
        known = np.isfinite(labels).all(axis=1)
        rows.append([metrics.bias(y[known], labels[known]), metrics.rmse(y[known], labels[known])])
    return np.array(rows)


def cells(found):
    mean, spread = found.mean(axis=0), found.std(axis=0)
    return [
        f"{mean[0, 0]:+.0f} ± {spread[0, 0]:.0f}",
        *(f"{mean[0, k]:+.2f} ± {spread[0, k]:.2f}" for k in (1, 2)),
        f"{mean[1, 0]:.0f}",
        *(f"{mean[1, k]:.2f}" for k in (1, 2)),
    ]


HEADER = [*(f"median {n}" for n in LABELS), *(f"RMSE {n}" for n in LABELS)]


def real(args, models, stars, y):
    ways = {"nothing": uncorrected}
    for kind in args.kinds:
        ways |= {
            f"{kind}, no labels used": guessed(kind),
            f"{kind}, labels of training folds, unpaired": in_folds(matched(kind)),
            f"{kind}, pairs of training folds": in_folds(paired(kind)),
            f"{kind}, 20 pairs": few_standards(kind),
        }
    ways |= {
        "median error of training folds": offset_only,
        "ridge on training folds": real_training,
    }
    full = Regression(real_pair(full=True)[0], n=args.n)
    found = medians(uncorrected, full, models, stars, y, args.seeds)
    rows = [["nothing; models by a full cubic", "no", *cells(found)]]
    for name, way in ways.items():
        for label, names in (("", []), ("all", list(AUGMENTATIONS))):
            if label and way is real_training:
                continue
            regression = Regression(models, augmentation(names), args.n)
            found = medians(way, regression, models, stars, y, args.seeds)
            rows.append([name, label or "no", *cells(found)])
            print(*rows[-1], sep=" | ", flush=True)
    table(
        f"errors of {len(y)} MILES dwarfs; mean and scatter of {args.seeds} seeds",
        ["correction", "augmented", *HEADER],
        rows,
    )


def ablation(args, models, stars, y):
    every = list(AUGMENTATIONS)
    sets = {"none": [], **{f"only {n}": [n] for n in every}}
    sets |= {f"all but {n}": [m for m in every if m != n] for n in every} | {"all": every}
    for title, way in (
        ("no correction", uncorrected),
        ("pairs of training folds, both", in_folds(paired("both"))),
    ):
        rows = []
        for name, names in sets.items():
            regression = Regression(models, augmentation(names), args.n)
            rows.append([name, *cells(medians(way, regression, models, stars, y, args.seeds))])
        table(f"augmentation, {title}; {args.seeds} seeds", ["augmentation", *HEADER], rows)


def corrected_pairs(models, stars, y, kind):
    """Models at the labels of the stars, each corrected by what the other folds taught; its scatter."""
    flux, scatter = models.predict_flux(y), np.empty(stars.shape)
    for train, test in KFold(5, shuffle=True, random_state=0).split(y):
        correction = paired(kind)(models, stars, y, train, 0)
        flux[test] = correction.transform(models.spectra(y[test])).flux
        scatter[test] = correction.scatter_
    return flux, scatter


def gap_sets(models, stars, y):
    """Models at the labels of the stars, as they are and corrected, with 1 % noise or the scatter."""
    plain = models.spectra(y).replace(meta=stars.meta)
    noise = np.random.default_rng(0).normal(size=plain.shape)
    sets = {"models": plain.replace(flux=plain.flux + 0.01 * noise)}
    for kind in ("additive", "both"):
        flux, scatter = corrected_pairs(models, stars, y, kind)
        sets[f"corrected ({kind})"] = plain.replace(flux=flux + 0.01 * noise)
        sets[f"corrected ({kind}), scatter"] = plain.replace(flux=flux + scatter * noise)
    return sets


def borrowed_residuals(models, stars, y):
    """Half of the stars, and corrected models at their labels with residuals of the other half."""
    flux, _ = corrected_pairs(models, stars, y, "both")
    residual, half = stars.flux - flux, np.random.default_rng(0).permutation(len(y))
    first, second = np.array_split(half, 2)
    lent = residual[first][: len(second)]
    synthetic = Spectra(flux[second] + lent, wavelength=models.wavelength)
    return synthetic.replace(meta=stars[second].meta), stars[second], y[second]


def gap(args, models, stars, y):
    sets = {name: (part, stars, y) for name, part in gap_sets(models, stars, y).items()}
    sets["corrected (both), residuals of other stars"] = borrowed_residuals(models, stars, y)
    rows = []
    for name, (part, observed, labels) in sets.items():
        found = synthetic_gap(part, observed, synthetic_labels=labels, observed_labels=labels)
        rms = np.sqrt(np.mean(found.pixels["difference"] ** 2))
        rows.append(
            [
                name,
                f"{found.auc:.3f} ± {found.auc_error:.3f}",
                f"{found.mmd2:.4f}",
                f"{found.p_value:.3f}",
                f"{found.frechet:.3f} ({found.frechet_null:.3f})",
                f"{rms:.4f}",
            ]
        )
    table(
        "gap at equal labels, corrections from pairs of other folds",
        ["models", "AUC", "MMD^2", "p", "Frechet (no gap)", "rms of medians"],
        rows,
    )


# -- what colours say ------------------------------------------------------------------------------

#: blue and red band [Angstrom], and half their width
COLOURS = (
    (4300, 6700, 150),
    (4700, 6700, 150),
    (5000, 7000, 150),
    (4000, 6900, 200),
    (5500, 7200, 100),
)


def colours(args, models, stars, y):
    """Temperatures from broad bands of the flux-calibrated spectra, of models of the same grid."""
    paths = data_file("miles/miles.npz"), data_file("kurucz_sdss/kurucz_sdss.npz")
    if None in paths:
        return
    with np.load(paths[0]) as miles, np.load(paths[1]) as kurucz:
        where = {name: i for i, name in enumerate(miles["star_name"])}
        real = miles["wavelength"], miles["flux"][[where[n] for n in stars.meta["star_id"]]]
        synthetic, labels = (kurucz["wavelength"], kurucz["flux"]), kurucz["labels"]
    teff, rows = np.linspace(4500, 7500, 301), []
    for blue, red, half in COLOURS:
        observed, predicted = (_colour(*part, blue, red, half) for part in (real, synthetic))
        coef = np.linalg.lstsq(models.design(labels), predicted)[0]
        found = [
            np.interp(
                c, models.design(np.column_stack([teff, *np.tile(l[1:, None], 301)])) @ coef, teff
            )
            for c, l in zip(observed, y)
        ]
        error = np.array(found) - y[:, 0]
        rows.append(
            [
                f"{blue} - {red}",
                f"{np.median(error):+.0f}",
                f"{metrics.robust_std(0 * error, error):.0f}",
            ]
        )
    table(
        "Teff from colours of the models, at the true log g and [Fe/H]; not dereddened",
        ["bands", "median error [K]", "robust scatter"],
        rows,
    )


def _colour(wavelength, flux, blue, red, half):
    mean = [flux[:, np.abs(wavelength - at) < half].mean(axis=1, dtype=float) for at in (blue, red)]
    return np.log(mean[0] / mean[1])


PARTS = {"colours": colours, "real": real, "ablation": ablation, "gap": gap}


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks synthetic_gap")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--n", type=int, default=2000, help="models to train on")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kinds", nargs="*", default=["both", "additive", "multiplicative"])
    args = parser.parse_args(argv)
    print_machine()
    pair = real_pair()
    if pair is None:
        return
    for part in args.parts:
        PARTS[part](args, *pair)


if __name__ == "__main__":
    main()
