"""Are error bars calibrated, and does the domain score know strangers? Coverage, domain, speed.

    python -m benchmarks calibration [--parts coverage ensemble ...] [--methods ridge strided ...]

- coverage: synthetic stars of S/N 20 to 300; coverage of every method as it comes, scaled, and
  conformal, per label and jointly, on many test stars.
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
from skspec.datasets import load_spectra, make_spectra
from skspec.diagnostics import calibration_report, make_method
from skspec.discriminative import CalibratedRegressor, DeepEnsembleRegressor, SpectralCNN

LEVELS = (0.6827, 0.9545)
NETWORKS = ("starnet", "strided", "residual", "attention")
METHODS = ("ridge", "the_cannon", "kernel_pca", *NETWORKS, "ensemble")


def method(name, n_train, epochs=60):
    if name == "ensemble":
        return DeepEnsembleRegressor(method("strided", n_train, epochs), 5, random_state=0)
    if name in NETWORKS:
        return SpectralCNN(name, "full", max_iter=epochs, random_state=0)
    return make_method(name, n_train, random_state=0)


def percent(values):
    return " / ".join(f"{100 * v:.1f}" for v in values)


def coverage(args):
    stars = make_spectra(args.n_train + args.n_test, n_pixels=args.pixels, snr=(20, 300),
                         random_state=0)  # fmt: skip
    train, test = ([part[rows] for part in stars]
                   for rows in (slice(args.n_train), slice(args.n_train, None)))  # fmt: skip
    rows = []
    for name in args.methods:
        model = CalibratedRegressor(
            method(name, args.n_train, args.epochs), method="conformal", cv=args.cv
        )
        seconds, model = clocked(lambda model=model: model.fit(*train))
        before = calibration_report(model.estimators_[0], *test, levels=LEVELS)
        after = calibration_report(model, *test, levels=LEVELS)
        error = np.abs(model.predict(test[0]) - test[1].to_numpy()).mean(axis=0)
        kinds = (("as it comes", before.table), ("scaled", after.table),
                 ("conformal", after.intervals))  # fmt: skip
        for kind, frame in kinds:
            rows.append([
                name, kind, *(percent(frame[level]) for level in LEVELS),
                f"{error[0]:.0f} / {error[1]:.3f} / {error[2]:.3f}", f"{seconds.cpu:.0f}",
            ])  # fmt: skip
            print(rows[-1], flush=True)
    error = [100 * np.sqrt(level * (1 - level) / args.n_test) for level in LEVELS]
    table(
        f"coverage [%] of Teff / logg / [Fe/H] / joint; {args.n_train} training stars in {args.cv} "
        f"folds, {args.n_test} test stars (standard error {error[0]:.1f}, {error[1]:.1f}), S/N "
        f"20-300, {args.pixels} pixels; load {load():.1f}",
        ["method", "error bars", "68.27", "95.45", "MAE", "fits CPU s"], rows,
    )  # fmt: skip


def ensemble(args):
    """One network and five, calibrated by stars held out."""
    stars = make_spectra(args.n_train + 1000 + args.n_test, n_pixels=args.pixels, snr=(20, 300),
                         random_state=0)  # fmt: skip
    ends = np.cumsum([args.n_train, 1000, args.n_test])
    train, held, test = ([part[end - n : end] for part in stars]
                         for n, end in zip((args.n_train, 1000, args.n_test), ends))  # fmt: skip
    five = method("ensemble", args.n_train, args.epochs).fit(*train)
    rows = []
    for name, model in (("one network", five.estimators_[0]), ("five", five)):
        fitted = CalibratedRegressor(FrozenEstimator(model), method="conformal").fit(*held)
        before = calibration_report(model, *test, levels=LEVELS).table
        after = calibration_report(fitted, *test, levels=LEVELS).intervals
        error = np.abs(model.predict(test[0]) - test[1].to_numpy()).mean(axis=0)
        for kind, frame in (("as it comes", before), ("conformal", after)):
            rows.append([
                name, kind, *(percent(frame[level]) for level in LEVELS),
                f"{error[0]:.1f} / {error[1]:.3f} / {error[2]:.4f}",
            ])  # fmt: skip
    table(f"strided networks, {args.n_train} training stars, 1000 to calibrate, {args.n_test} test "
          f"stars; load {load():.1f}", ["", "error bars", "68.27", "95.45", "MAE"], rows)  # fmt: skip


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
    sets = {"other stars": test, **suns,
            "by one pixel": test.replace(flux=np.roll(test.flux, 1, axis=1)),
            "flux x 1.1": test.replace(flux=1.1 * test.flux, ivar=test.ivar / 1.21)}  # fmt: skip
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
    path, other = (data_file(f"apogee_emulated/{name}.npz")
                   for name in ("apogee_emulated", "apogee_kurucz_clean"))  # fmt: skip
    if path is not None and other is not None:
        spectra, labels = load_spectra(path, ["teff", "logg", "feh"])
        kurucz, _ = load_spectra(other, ["teff", "logg", "feh"])
        n = min(args.n_train, 2000)
        kurucz = kurucz.replace(ivar=np.full(kurucz.shape, 1e4), wavelength=spectra.wavelength)
        sets = {"other emulated stars": spectra[n:], "Kurucz synthesis": kurucz}
        strangers(args, "apogee_emulated", (spectra[:n], labels.iloc[:n]), sets)


def strangers(args, title, train, sets):
    rows = []
    for name in args.methods:
        model = method(name, len(train[1]), args.epochs).fit(*train)
        for what, spectra in sets.items():
            score = domain_score(model, spectra)
            low, middle, high = np.nanpercentile(score, [5, 50, 95])
            rows.append([name, what, f"{np.sum(np.isfinite(score))}",
                         f"{100 * np.nanmean(score > 1):.1f}",
                         f"{middle:.2f} ({low:.2f}-{high:.2f})"])  # fmt: skip
    table(f"domain score after training on {title}; load {load():.1f}",
          ["method", "spectra", "n", "above 1 [%]", "median (5-95 %)"], rows)  # fmt: skip


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
    parser.add_argument("--n-test", type=int, default=4000)
    parser.add_argument("--pixels", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--cv", type=int, default=5)
    args = parser.parse_args(arguments)
    print_machine()
    for part in args.parts:
        PARTS[part](args)
