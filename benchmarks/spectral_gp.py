"""SpectralGP: its choices, and the time of training.

    OMP_NUM_THREADS=1 python -m benchmarks spectral_gp [--parts degree time]

- degree: polynomial means on emulator spectra (RMSE, coverage) and in 5 folds of real MILES spectra.
- time: training and inversion against the number of stars, emulator, 3 labels; without and with
  errors that vary from pixel to pixel, which need the iteration.

For tables beside the other methods: ``python -m benchmarks accuracy --methods spectral_gp``.
"""

import argparse
from functools import partial

import numpy as np

from benchmarks.accuracy import slashed
from benchmarks.common import apogee_like, clocked, data_file, load, print_machine, table
from skspec.datasets import load_spectra
from skspec.diagnostics import compare
from skspec.forward import SpectralGP
from skspec.metrics import coverage, robust_std


def uneven(spectra, seed=0):
    """The same flux with errors that vary by a factor of three and 2 % bad pixels."""
    rng = np.random.default_rng(seed)
    ivar = spectra.ivar * rng.uniform(1 / 3, 1, spectra.shape)
    return spectra.replace(ivar=np.where(rng.random(spectra.shape) < 0.02, 0.0, ivar))


def degree(args):
    rows = []
    for n in args.n:
        train, y, test, y_test = apogee_like(n)
        for mean_degree in (0, 1, 2):
            model = SpectralGP(mean_degree).fit(train, y)
            dist, truth = model.predict_dist(test), y_test.to_numpy()
            rmse = np.sqrt(np.mean((dist.mean() - truth) ** 2, axis=0))
            length = model.length_scale_ / model.label_scale_
            rows.append(
                [
                    n,
                    mean_degree,
                    slashed(rmse),
                    slashed(100 * coverage(truth, dist), "{:.0f}"),
                    slashed(length, "{:.1f}"),
                    len(model.coef_),
                ]
            )
    table(
        f"Emulator, S/N 100: Teff / logg / [Fe/H]; load {load():.1f}",
        ["n", "mean_degree", "RMSE", "coverage %", "length scales", "functions"],
        rows,
    )
    if data_file("miles/miles.npz"):
        miles()


def miles():
    spectra, labels = load_spectra(data_file("miles/miles.npz"), wavelength_range=(3900, 7000))
    keep = labels["teff"].between(4000, 7000).to_numpy()
    spectra, labels = spectra[keep], labels[keep].reset_index(drop=True)
    methods = {f"{d}": SpectralGP(d) for d in (0, 1, 2)}
    methods["0, length_bounds=(0.1, 30)"] = SpectralGP(0, length_bounds=(0.1, 30.0))
    methods["1, length_bounds=(0.1, 30)"] = SpectralGP(1, length_bounds=(0.1, 30.0))
    run = compare(methods, spectra, labels, cv=5, groups=spectra.meta["star_id"], random_state=0)
    rows = []
    for name, result in run.results.items():
        truth, found = run.labels, result.dist.mean()
        rows.append(
            [
                name,
                slashed(np.mean(np.abs(found - truth), axis=0)),
                slashed(robust_std(truth, found)),
                slashed(100 * coverage(truth, result.dist), "{:.0f}"),
            ]
        )
    table(
        f"MILES, {len(labels)} stars, 5 folds; load {load():.1f}",
        ["mean_degree", "MAE", "robust scatter", "coverage %"],
        rows,
    )


def time(args):
    rows = []
    for n in args.n:
        train, y, test, _ = apogee_like(n)
        for errors, spectra in (("equal", train), ("uneven, 2 % bad", uneven(train))):
            fit, model = clocked(partial(SpectralGP().fit, spectra, y))
            found, _ = clocked(partial(model.invert, test))
            rows.append(
                [
                    n,
                    errors,
                    f"{fit.wall:.1f}",
                    f"{fit.cpu:.1f}",
                    len(model.coef_),
                    f"{1e3 * found.cpu / len(test):.2f}",
                ]
            )
    table(
        f"SpectralGP, 7214 pixels, 3 labels; load {load():.1f}",
        ["n", "errors", "fit wall s", "fit CPU s", "functions", "CPU ms/star"],
        rows,
    )


PARTS = {"degree": degree, "time": time}


def main(argv=None):
    parser = argparse.ArgumentParser(prog="spectral_gp", description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--n", type=int, nargs="+", default=[200, 500, 1000])
    args = parser.parse_args(argv)
    print_machine()
    for part in args.parts:
        PARTS[part](args)


if __name__ == "__main__":
    main()
