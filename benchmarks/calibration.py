"""Are error bars calibrated, and does the domain score know strangers? Coverage, domain, speed.

    python -m benchmarks calibration [--parts coverage ensemble ...] [--methods ridge strided ...]

- coverage: synthetic stars of S/N 20 to 300; coverage of every method as it comes, scaled, and
  conformal, per label and jointly, on many test stars. Each is fitted once and calibrated by stars
  held out, or with --n-calibration 0 by its own training stars in --cv folds.
- ensemble: one network and a deep ensemble of five, calibrated by stars held out.
- domain: share of spectra with a domain score above 1: other stars of the same kind, the Sun at
  other resolutions, shifted spectra; MILES against LAMOST, two grids of APOGEE spectra.
- speed: calibration and conformal intervals of 100 000 stars.
"""

import argparse

import numpy as np
from sklearn.frozen import FrozenEstimator

from benchmarks.common import clocked, data_file, load, print_machine, table
from skspec import MultivariateNormal, Spectra, domain_score
from skspec.base import LabelRegressor
from skspec.calibration import CalibratedRegressor
from skspec.datasets import load_spectra, make_spectra
from skspec.diagnostics import calibration_report, make_method
from skspec.discriminative import SpectralCNN
from skspec.ensemble import DeepEnsembleRegressor

LEVELS = (0.6827, 0.9545)
#: as many filters as a core can train, and as many epochs as they need
NETWORKS = {
    "strided": {},
    "starnet": {},
    "residual": {"architecture_params": {"width": 32}},
    "attention": {
        "architecture_params": {"width": 8},
        "batch_size": 32,
        "learning_rate_init": 3e-3,
        "max_iter": 120,
    },
}
METHODS = ("ridge", "the_cannon", "kernel_pca", *NETWORKS, "ensemble")


def method(name, n_train, epochs=60):
    if name == "ensemble":
        return DeepEnsembleRegressor(method("strided", n_train, epochs), 5, random_state=0)
    if name in NETWORKS:
        return SpectralCNN(name, "full", random_state=0, **{"max_iter": epochs, **NETWORKS[name]})
    return make_method(name, n_train, random_state=0)


def percent(values):
    return " / ".join(f"{100 * v:.1f}" for v in values)


def drawn(args, *numbers):
    """As many synthetic stars for each purpose."""
    stars = make_spectra(sum(numbers), n_pixels=args.pixels, snr=(20, 300), random_state=0)
    return [[part[end - n : end] for part in stars] for n, end in zip(numbers, np.cumsum(numbers))]


def coverage(args):
    train, held, test = drawn(args, args.n_train, args.n_calibration, args.n_test)
    rows = []
    for name in args.methods:
        model = method(name, args.n_train, args.epochs)
        seconds, model = clocked(lambda model=model: calibrated(model, train, held, args.cv))
        error = np.abs(model.predict(test[0]) - test[1].to_numpy()).mean(axis=0)
        snr = test[0].snr
        parts = [
            observed(model, *(part[stars] for part in test))
            for stars in (snr > 0, snr < 40, snr > 150)
        ]
        for kind, frame, noisy, good in zip(("as it comes", "scaled", "conformal"), *parts):
            ends = [part[LEVELS[0]].drop("joint").mean() for part in (noisy, good)]
            rows.append(
                [
                    name,
                    kind,
                    *(percent(frame[level]) for level in LEVELS),
                    percent(ends),
                    f"{error[0]:.0f} / {error[1]:.3f} / {error[2]:.3f}",
                    f"{seconds.cpu:.0f}",
                ]
            )
            print(rows[-1], flush=True)
    share = 1 / args.n_test + 1 / (args.n_calibration or args.n_train)
    error = [100 * np.sqrt(level * (1 - level) * share) for level in LEVELS]
    how = f"{args.n_calibration} to calibrate" if args.n_calibration else f"{args.cv} folds"
    table(
        f"coverage [%] of Teff / logg / [Fe/H] / joint; {args.n_train} stars to train, {how}, "
        f"{args.n_test} to test (standard error {error[0]:.1f}, {error[1]:.1f}), S/N 20-300, "
        f"{args.pixels} pixels; load {load():.1f}",
        [
            "method",
            "error bars",
            "68.27",
            "95.45",
            "68.27 at S/N < 40 / > 150",
            "MAE",
            "fits CPU s",
        ],
        rows,
    )


def observed(model, X, y):
    """Coverage of the method, of its scaled Gaussian and of the conformal intervals."""
    before = calibration_report(model.estimators_[0], X, y, levels=LEVELS)
    after = calibration_report(model, X, y, levels=LEVELS)
    return before.table, after.table, after.intervals


def calibrated(model, train, held, cv):
    """Conformal calibration by stars held out, or by those of the training in folds."""
    if not len(held[1]):
        return CalibratedRegressor(model, method="conformal", cv=cv).fit(*train)
    model = FrozenEstimator(model.fit(*train))
    return CalibratedRegressor(model, method="conformal").fit(*held)


def ensemble(args):
    """One network and five, calibrated by stars held out."""
    train, held, test = drawn(args, args.n_train, args.n_calibration, args.n_test)
    five = method("ensemble", args.n_train, args.epochs).fit(*train)
    rows = []
    for name, model in (("one network", five.estimators_[0]), ("five", five)):
        fitted = CalibratedRegressor(FrozenEstimator(model), method="conformal").fit(*held)
        before = calibration_report(model, *test, levels=LEVELS).table
        after = calibration_report(fitted, *test, levels=LEVELS).intervals
        error = np.abs(model.predict(test[0]) - test[1].to_numpy()).mean(axis=0)
        for kind, frame in (("as it comes", before), ("conformal", after)):
            rows.append(
                [
                    name,
                    kind,
                    *(percent(frame[level]) for level in LEVELS),
                    f"{error[0]:.1f} / {error[1]:.3f} / {error[2]:.4f}",
                ]
            )
    table(
        f"strided networks, {args.n_train} training stars, {args.n_calibration} to calibrate, "
        f"{args.n_test} test stars; load {load():.1f}",
        ["", "error bars", "68.27", "95.45", "MAE"],
        rows,
    )


def domain(args):
    common = {"n_pixels": args.pixels, "snr": (20, 300)}
    train = make_spectra(args.n_train, random_state=0, **common)
    test, _ = make_spectra(1000, random_state=1, **common)
    sun = {name: (value, value) for name, value in (("teff", 5772), ("logg", 4.44), ("feh", 0))}
    seen = {"n_pixels": args.pixels, "snr": 100, "label_ranges": sun, "random_state": 2}
    suns = {
        f"Sun, R = {R}": make_spectra(100, resolution=R, **seen)[0]
        for R in (5000, 4000, 3000, 7000)
    }
    sets = {
        "other stars": test,
        **suns,
        "by one pixel": test.replace(flux=np.roll(test.flux, 1, axis=1)),
        "flux x 1.1": test.replace(flux=1.1 * test.flux, ivar=test.ivar / 1.21),
    }
    strangers(args, "synthetic, S/N 20-300, R = 5000", train, sets)
    path = data_file("optical_common/optical_common.npz")
    if path is not None:
        spectra, labels = load_spectra(path, ["teff", "logg", "feh"])
        survey = np.char.upper(np.asarray(spectra.meta["survey"], dtype=str))
        print("surveys:", dict(zip(*np.unique(survey, return_counts=True))))
        known = (
            labels.notna().all(axis=1).to_numpy() & labels["teff"].between(4000, 7000).to_numpy()
        )
        # no survey's errors: only some have them
        spectra = Spectra(spectra.flux, mask=~spectra.good, wavelength=spectra.wavelength)
        here = np.flatnonzero(known & (survey == "MILES"))
        held = here % 5 == 0
        sets = {"other MILES stars": spectra[here[held]]}
        sets |= {s: spectra[np.flatnonzero(survey == s)] for s in np.unique(survey) if s != "MILES"}
        strangers(
            args, "MILES, 4000-7000 K", (spectra[here[~held]], labels.iloc[here[~held]]), sets
        )
    path, other = (
        data_file(f"apogee_emulated/{name}.npz")
        for name in ("apogee_emulated", "apogee_kurucz_clean")
    )
    if path is not None and other is not None:
        spectra, labels = load_spectra(path, ["teff", "logg", "feh"])
        kurucz, _ = load_spectra(other, ["teff", "logg", "feh"])
        n, rng = min(args.n_train, 2000), np.random.default_rng(0)
        sets = {"other emulated stars": spectra[n:]}
        for snr in (50, 100, 300):  # they come without noise
            noisy = kurucz.flux + rng.normal(size=kurucz.shape) / snr
            sets[f"Kurucz synthesis, S/N {snr}"] = kurucz.replace(
                flux=noisy, ivar=np.full(kurucz.shape, float(snr**2)), wavelength=spectra.wavelength
            )
        strangers(args, "apogee_emulated", (spectra[:n], labels.iloc[:n]), sets)


def strangers(args, title, train, sets):
    rows = []
    for name in args.methods:
        model = method(name, len(train[1]), args.epochs).fit(*train)
        for what, spectra in sets.items():
            score = domain_score(model, spectra)
            low, middle, high = np.nanpercentile(score, [5, 50, 95])
            rows.append(
                [
                    name,
                    what,
                    f"{np.sum(np.isfinite(score))}",
                    f"{100 * np.nanmean(score > 1):.1f}",
                    f"{middle:.2f} ({low:.2f}-{high:.2f})",
                ]
            )
    table(
        f"domain score after training on {title}; load {load():.1f}",
        ["method", "spectra", "n", "above 1 [%]", "median (5-95 %)"],
        rows,
    )


class Known(LabelRegressor):
    """Three labels in the first three pixels: costs nothing."""

    def fit(self, X, y):
        self._validate_fit(X, y)
        return self

    def predict_dist(self, X):
        flux = self._validate_predict(X).flux
        return MultivariateNormal(flux[:, :3], cov=np.eye(3), label_names=self.label_names_in_)


def speed(args):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(100_000, 3))
    flux = y + rng.standard_t(4, size=y.shape)
    rows = []
    spectra = Spectra(flux, flux_err=np.geomspace(0.01, 0.1, len(y))[:, None])
    for bins in (None, 5):
        model = CalibratedRegressor(Known(), method="conformal", snr_bins=bins)
        sides = {
            "the method alone, predict_dist": lambda: Known().fit(spectra, y).predict_dist(spectra),
            "fit (6 fits of the method)": lambda model=model: model.fit(spectra, y),
            "predict_dist": lambda model=model: model.predict_dist(spectra),
            "predict_interval": lambda model=model: model.predict_interval(spectra, 0.9),
            "contains": lambda model=model: model.contains(spectra, y, 0.9),
        }
        for what, side in sides.items():
            best = min(clocked(side)[0].wall for _ in range(3))
            rows.append([f"{bins or 'no'} bins", what, f"{1e3 * best:.0f}"])
    table(f"100 000 stars, 3 labels; load {load():.1f}", ["", "", "wall ms"], rows)


PARTS = {"coverage": coverage, "ensemble": ensemble, "domain": domain, "speed": speed}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS[:-1]))
    parser.add_argument("--n-train", type=int, default=1500)
    parser.add_argument("--n-calibration", type=int, default=6000)
    parser.add_argument("--n-test", type=int, default=10000)
    parser.add_argument("--pixels", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--cv", type=int, default=5)
    args = parser.parse_args(arguments)
    print_machine()
    for part in args.parts:
        PARTS[part](args)
