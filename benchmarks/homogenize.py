"""Homogenisation of labels: are planted offsets and trends recovered within their errors?

    python -m benchmarks homogenize [--seeds 10] [--parts emulated miles pairs unknown]

- emulated: two surveys of synthetic stars, other wavelengths, resolution and noise; an affine change
  of the labels of B, label noise in both, 4 % of the common stars mismatched.
- miles: real spectra of MILES, and the same stars as a LAMOST-like survey would see them (noise); the
  change planted into its labels; stars held out tell whether it is recovered.
- pairs: Indo-US and STELIB against MILES, stars matched by name, the change planted as well.
- unknown: a label that the spectra of one survey do not know.
"""

import argparse
import re

import numpy as np
import pandas as pd

from benchmarks.common import data_file, load, print_machine, table
from skspec import Spectra
from skspec.calibration import ResidualCovarianceRegressor
from skspec.datasets import load_spectra, make_spectra
from skspec.forward import TheCannon
from skspec.transfer import LabelHomogenizer, LabelTranslator
from skspec.transfer._label_homogenizer import offset_and_trend

NAMES = ["teff", "logg", "feh"]
#: labels of B: truth + OFFSET + TREND @ (truth - CENTRE)
CENTRE = np.array([5750.0, 3.2, -0.5])
OFFSET = np.array([80.0, -0.10, 0.06])
TREND = np.array([[0.05, 0.0, -30.0], [0.0, 0.06, 0.0], [2e-5, 0.0, -0.08]])
NOISE_A, NOISE_B = np.array([60.0, 0.10, 0.06]), np.array([40.0, 0.08, 0.05])


def planted(labels):
    change = OFFSET + (labels.to_numpy() - CENTRE) @ TREND.T
    return labels + change


def shift_at(labels):
    """Planted change at given labels (3,)."""
    return OFFSET + TREND @ (labels - CENTRE)


def line(labels, target):
    """Mean difference, its slope with the target, and errors of both."""
    x, difference = target - target.mean(), labels - target
    slope = np.sum(x * difference) / np.sum(x**2)
    scatter = np.std(difference - slope * x)
    return difference.mean(), slope, scatter / len(x) ** 0.5, scatter / np.sum(x**2) ** 0.5


# -- emulated pair ---------------------------------------------------------------------------------


def two_surveys(seed, n_common=400, n_more=300):
    """Spectra, labels as measured, and true labels on the scale of each survey."""
    n = n_common + 2 * n_more
    rng = np.random.default_rng(seed)
    blue, truth = make_spectra(
        n, wavelength=(4800, 5400), n_pixels=600, resolution=5000, snr=(30, 150), random_state=seed
    )
    red = synthetic_again(truth, rng)
    truth_b = planted(truth)
    labels_a = truth + NOISE_A * rng.normal(size=truth.shape)
    labels_b = truth_b + NOISE_B * rng.normal(size=truth.shape)
    wrong = rng.choice(n_common, int(0.04 * n_common), replace=False)
    labels_b.iloc[wrong] = labels_b.iloc[rng.permutation(wrong)].to_numpy()
    in_a, in_b = np.r_[:n_common, n_common : n_common + n_more], np.r_[:n_common, n - n_more : n]
    a = blue[in_a], labels_a.iloc[in_a], truth.iloc[in_a], in_a
    b = red[in_b], labels_b.iloc[in_b], truth_b.iloc[in_b], in_b
    return a, b, truth, truth_b, wrong


def synthetic_again(truth, rng):
    """The same stars at another wavelength, resolution and noise."""
    from skspec.datasets import synthesize

    wavelength = np.linspace(5100, 6000, 600)
    flux = synthesize(truth, wavelength, resolution=1800)
    ivar = np.exp(rng.uniform(np.log(50), np.log(200), (len(flux), 1))) ** 2 / flux
    flux = flux + rng.normal(size=flux.shape) / np.sqrt(ivar)
    return Spectra(flux, ivar=ivar, wavelength=wavelength)


def emulated(args):
    found = {}
    clipped = []
    for seed in range(args.seeds):
        a, b, truth, truth_b, wrong = two_surveys(seed)
        n_common = len(truth) - 2 * (len(a[0]) - len(np.intersect1d(a[3], b[3])))
        model = LabelHomogenizer(TheCannon(), cv=10).fit(
            a[0],
            a[1],
            b[0],
            b[1],
            star_a=a[3],
            star_b=b[3],
            label_std_a=NOISE_A,
            label_std_b=NOISE_B,
            quality_a=30,
        )
        clipped.append((len(model.clipped_), len(wrong)))
        translator = model.translators_["b"]
        pivot = shift_at(translator.pivot_)
        for k, name in enumerate(NAMES):
            key = "label to label", name
            put(found, (*key, "offset"), pivot[k], translator.offset_[k], translator.offset_std_[k])
            for m, other in enumerate(NAMES):
                put(
                    found,
                    (*key, f"trend with {other}"),
                    TREND[k, m],
                    translator.trend_[k, m],
                    translator.trend_std_[k, m],
                )
        rest_a, rest_b = slice(n_common, None), slice(n_common, None)
        for scale, result, target in (
            ("b", model.to_scale_of_b(a[0][rest_a]), truth_b.iloc[a[3][rest_a]]),
            ("a", model.to_scale_of_a(b[0][rest_b]), truth.iloc[b[3][rest_b]]),
        ):
            score_applied(found, model, scale, result, target)
    print_found("emulated pair: planted and recovered", found, args.seeds)
    print(f"clipped / mismatched stars per seed: {clipped}; load {load():.1f}")


def score_applied(found, model, scale, result, target):
    """Differences left to the true labels on the new scale, for stars of one survey only."""
    for k, name in enumerate(NAMES):
        good = result.inside
        mean, slope, mean_std, slope_std = line(
            result.labels[good, k], target[name].to_numpy()[good]
        )
        stated = model.report_.loc[(scale, name, "after")]
        before = model.report_.loc[(scale, name, "before")]
        key = f"spectra to {scale.upper()}", name
        put(
            found,
            (*key, "offset left"),
            0.0,
            mean,
            np.hypot(mean_std, stated["offset_std"]),
            before["offset"],
        )
        put(
            found,
            (*key, "trend left"),
            0.0,
            slope,
            np.hypot(slope_std, stated["trend_std"]),
            before["trend"],
        )


def put(found, key, truth, value, std, before=np.nan):
    found.setdefault(key, []).append((truth, value, std, before))


def print_found(title, found, seeds):
    rows, pulls = [], []
    for key, values in found.items():
        truth, value, std, before = np.array(values).T
        pull = (value - truth) / std
        pulls.append(pull)
        rows.append(
            [
                *key,
                short(before.mean()),
                short(truth.mean()),
                short(value.mean()),
                short(std.mean()),
                f"{pull.mean():+.2f}",
                f"{pull.std(ddof=1):.2f}" if seeds > 1 else "",
            ]
        )
    header = [
        "way",
        "label",
        "quantity",
        "before",
        "planted",
        "found",
        "error",
        "pull",
        "std of pull",
    ]
    table(f"{title}; means over {seeds} seeds", header, rows)
    for way in dict.fromkeys(key[0] for key in found):
        some = np.concatenate([p for p, key in zip(pulls, found) if key[0] == way])
        print(
            f"{way}: {len(some)} pulls, mean {some.mean():+.2f}, standard deviation {some.std():.2f}, "
            f"within 1, 2 sigma {100 * np.mean(abs(some) < 1):.0f}, "
            f"{100 * np.mean(abs(some) < 2):.0f} %"
        )


def short(value):
    return "" if np.isnan(value) else f"{value:.3g}"


# -- real spectra ----------------------------------------------------------------------------------


def surveys():
    path = data_file("optical_common/optical_common.npz")
    if path is None:
        return None
    spectra, labels = load_spectra(path, NAMES)
    keep = (labels["teff"].between(4000, 7000)).to_numpy()
    spectra, labels = spectra[keep], labels[keep].reset_index(drop=True)
    survey = np.asarray(spectra.meta["survey"])
    star = np.array([canonical(name) for name in spectra.meta["star_id"]])
    return {
        name: (
            spectra[survey == name].replace(meta={}),
            labels[survey == name],
            star[survey == name],
        )
        for name in np.unique(survey)
    }


def canonical(name):
    """HD 000249 is HD 249."""
    return re.sub(r"(?<=[A-Z])0+(?=\d)", "", name.replace(" ", "").upper())


def miles(args):
    """Half of MILES in common with a noisy survey; the other half tells."""
    data = surveys()
    if data is None:
        return
    spectra, labels, star = data["MILES"]
    methods = {"ridge": ResidualCovarianceRegressor(), "The Cannon": TheCannon()}
    found = {}
    for seed in range(args.seeds):
        rng = np.random.default_rng(seed)
        snr = rng.uniform(20, 100, (len(star), 1))
        noisy = spectra.flux + rng.normal(size=spectra.shape) / snr
        noisy = Spectra(noisy, wavelength=spectra.wavelength)
        measured = planted(labels) + NOISE_B * rng.normal(size=labels.shape)
        common = np.isin(star, rng.permutation(np.unique(star))[::2])
        for name, method in methods.items():
            model = LabelHomogenizer(method).fit(
                noisy,
                measured,
                spectra[common],
                labels[common],
                star_a=star,
                star_b=star[common],
                label_std_a=NOISE_B,
            )
            result = model.to_scale_of_b(noisy[~common])
            # chosen by their true labels: a choice by those found would itself make a trend
            low, high = labels[common].min(), labels[common].max()
            good = ((labels[~common] >= low) & (labels[~common] <= high)).all(axis=1).to_numpy()
            target = labels[~common][good]
            seen = offset_and_trend(pd.DataFrame(result.labels[good], target.index, NAMES), target)
            for label in NAMES:
                folds = model.report_.loc[("b", label, "after")]
                before = model.report_.loc[("b", label, "before")]
                for quantity in ("offset", "trend"):
                    std = f"{quantity}_std"
                    put(
                        found,
                        (name, label, f"{quantity} left"),
                        0.0,
                        seen.loc[label, quantity],
                        np.hypot(seen.loc[label, std], folds[std]),
                        before[quantity],
                    )
    print_found("MILES, half of it as a LAMOST-like survey", found, args.seeds)


def pairs(args):
    """Indo-US and STELIB on the scale of MILES."""
    data = surveys()
    if data is None:
        return
    for name in ("IndoUS", "STELIB"):
        found, rows = {}, []
        spectra, labels, star = data[name]
        target = data["MILES"]
        for seed in range(args.seeds):
            rng = np.random.default_rng(seed)
            noise = NOISE_B if name == "IndoUS" else 0.3 * NOISE_B
            measured = planted(labels) + noise * rng.normal(size=labels.shape)
            same, where_a, where_b = np.intersect1d(star, target[2], return_indices=True)
            a, b = measured.iloc[where_a], target[1].iloc[where_b]
            std = NOISE_B if name == "IndoUS" else None
            model = LabelTranslator(terms="own").fit(b, a, None, std)
            untouched = LabelTranslator(terms="own").fit(b, labels.iloc[where_a])
            pivot = shift_at(model.pivot_)
            for k, label in enumerate(NAMES):
                own = 0.0 if name == "IndoUS" else untouched.offset_[k]
                own_trend = 0.0 if name == "IndoUS" else untouched.trend_[k, k]
                put(
                    found,
                    (name, label, "offset"),
                    pivot[k] + own,
                    model.offset_[k],
                    model.offset_std_[k],
                )
                put(
                    found,
                    (name, label, "trend"),
                    TREND[k, k] + own_trend,
                    model.trend_[k, k],
                    model.trend_std_[k, k],
                )
        print_found(f"{name} and MILES, {len(same)} common stars", found, args.seeds)
        model = LabelHomogenizer(ResidualCovarianceRegressor()).fit(
            spectra, measured, target[0], target[1], star_a=star, star_b=target[2]
        )
        for label in NAMES:
            verdict = model.homogenisable_.loc[("b", label)]
            for stage, found in model.report_.loc[("b", label)].iterrows():
                rows.append(
                    [
                        label,
                        stage,
                        *(
                            short(found[c])
                            for c in ("offset", "offset_std", "trend", "trend_std", "scatter")
                        ),
                        verdict["homogenisable"],
                    ]
                )
        table(
            f"{name} on the scale of MILES, ridge, out of fold, {len(model.stars_)} stars",
            ["label", "stage", "offset", "error", "trend", "error", "robust std", "homogenisable"],
            rows,
        )


# -- labels that cannot be had ---------------------------------------------------------------------


def unknown(args):
    """A third label that one survey's spectra do not know, by chance as well as by a few pixels."""
    rows = []
    for name, method in (("The Cannon", TheCannon()), ("ridge", ResidualCovarianceRegressor())):
        wrong = {"known": 0, "unknown": 0}
        for seed in range(args.seeds):
            spectra, labels = make_spectra(
                300, wavelength=(5100, 5300), n_pixels=300, snr=60, random_state=seed
            )
            rng = np.random.default_rng(seed)
            other = labels.assign(mass=rng.normal(size=300))
            model = LabelHomogenizer(method, cv=3).fit(
                spectra, labels, spectra, other, star_a=np.arange(300), star_b=np.arange(300)
            )
            verdict = model.homogenisable_.loc["b"]
            wrong["known"] += int((~verdict.loc[NAMES, "homogenisable"]).sum())
            wrong["unknown"] += int(verdict.loc["mass", "homogenisable"])
        one = verdict.loc["mass"]
        rows.append(
            [
                name,
                f"{wrong['known']} of {3 * args.seeds}",
                f"{wrong['unknown']} of {args.seeds}",
                short(one["prior"]),
                short(one["bound"]),
                short(one["error"]),
            ]
        )
    table(
        "a label drawn at random: refused?",
        ["method", "known refused", "unknown accepted", "prior", "bound", "error"],
        rows,
    )


PARTS = {"emulated": emulated, "miles": miles, "pairs": pairs, "unknown": unknown}


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=10)
    args = parser.parse_args(argv)
    print_machine()
    for part in args.parts:
        PARTS[part](args)


if __name__ == "__main__":
    pd.set_option("display.width", 160)
    main()
