"""Accuracy and honesty of every method, beside the published figures of the public codes.

    python -m benchmarks accuracy [--parts emulator giants emulated miles raw lamost field]

- emulator: n = 200, 500, 1000 emulator spectra at S/N 100, 3 labels, 7214 pixels; 200 test stars
  from the inner 90 % of the box, and the coverage of 2000 stars from the whole box, like those of
  the training. The public codes' figures were measured once, on other draws of the same
  distribution.
- giants: 503 real APOGEE giants, 100 pixels, in 5 folds.
- emulated: 3000 APOGEE-like stars, 5 labels, S/N 20 to 300; 1000 stars to train.
- miles: real MILES spectra, 4000-7000 K, 3900-7000 A, in 5 folds, with and without clean_training.
- raw: the same without continuum normalisation, by full-spectrum fitting.
- lamost: real LAMOST DR10 spectra, below 7500 K, 3900-8900 A, S/N above 15, in 5 folds by star.
- field: dwarfs and giants of `make_spectra`, S/N 5 to 80, with and without their population as prior.
"""

import argparse

import numpy as np
from sklearn.decomposition import PCA
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.common import apogee_like, clocked, data_file, load, print_machine, table
from skspec import predict_dist
from skspec.calibration import ResidualCovarianceRegressor
from skspec.datasets import load_spectra, make_spectra
from skspec.diagnostics import available_methods, compare, make_method
from skspec.discriminative import TemplateMatch
from skspec.ensemble import ConsensusRegressor
from skspec.forward import SpectralGP, TheCannon
from skspec.metrics import coverage, robust_std
from skspec.model_selection import star_groups, star_splits
from skspec.preprocessing import ContinuumNormalizer

METHODS = ("the_cannon", "slam", "spectral_gp", "ridge", "pca_svr")
#: RMSE Teff, logg, [Fe/H] and one-sigma coverage [%] of the public codes on the same distribution
PUBLISHED = {
    200: {
        "thecannon (Ho)": (77, 0.041, 0.043, "6-22"),
        "AnniesLasso": (83, 0.042, 0.047, "5-21"),
        "sklearn RidgeCV": (52, 0.049, 0.032, "none"),
    },
    500: {"sklearn RidgeCV": (35, 0.033, 0.021, "none")},
    1000: {
        "thecannon (Ho)": (74, 0.035, 0.040, "6-22"),
        "AnniesLasso": (80, 0.038, 0.044, "5-21"),
        "sklearn RidgeCV": (30, 0.027, 0.016, "none"),
    },
}
FLOOR = (8.4, 0.0078, 0.0042)  # Cramer-Rao, true model known


def slashed(values, form="{:.3g}"):
    return " / ".join(form.format(v) for v in values)


def settings(args):
    """What is the same for all methods that have it."""
    names = "coherence", "label_prior"
    return {"n_jobs": args.jobs} | {name: getattr(args, name, None) for name in names}


def measure(name, train, y, test, y_test, args, elsewhere=None):
    """Row of figures of one method: RMSE, bias, robust scatter, coverage total and formal, CPU.

    `elsewhere` is a second test set, of which only the coverage is told.
    """
    model = make_method(name, len(train), **settings(args))
    fit, model = clocked(lambda: model.fit(train, y))
    truth = np.asarray(y_test)
    if hasattr(model, "invert"):
        predict, result = clocked(lambda: model.invert(test))
        dist, formal = result.dist, result.formal_dist
    else:
        predict, dist = clocked(lambda: predict_dist(model, test))
        formal = None
    error = dist.mean() - truth
    within = 100 * coverage(truth, dist)
    photons = "none" if formal is None else slashed(100 * coverage(truth, formal), "{:.0f}")
    more = []
    if elsewhere is not None:
        spectra, labels = elsewhere
        more = [slashed(100 * coverage(np.asarray(labels), predict_dist(model, spectra)), "{:.0f}")]
    return [
        available_methods()[name].title,
        slashed(np.sqrt(np.mean(error**2, axis=0))),
        slashed(np.median(error, axis=0), "{:+.2g}"),
        slashed(robust_std(truth, dist.mean())),
        slashed(within, "{:.0f}"),
        photons,
        f"{fit.cpu:.1f}",
        f"{1e3 * predict.cpu / len(truth):.2f}",
        *more,
    ]


HEADER = [
    "method",
    "RMSE",
    "bias (median)",
    "robust scatter",
    "1-sigma coverage %",
    "formal errors alone %",
    "fit CPU s",
    "CPU ms/star",
]


def emulator(args):
    for n in args.n:
        data = apogee_like(n)
        *_, spectra, labels = apogee_like(1, n_test=2000, inner=1.0)
        rows = [measure(name, *data, args, (spectra, labels)) for name in args.methods]
        for name, (*error, covered) in PUBLISHED.get(n, {}).items():
            rows.append([f"{name}, published", slashed(error), "", "", "", covered, "", "", ""])
        rows.append(["Cramer-Rao bound", slashed(FLOOR), "", "", "", "", "", "", ""])
        table(
            f"Emulator, n={n}, S/N 100, 7214 pixels: Teff / logg / [Fe/H]; load {load():.1f}",
            [*HEADER, "coverage %, whole box"],
            rows,
        )


def emulated(args):
    path = data_file("apogee_emulated/apogee_emulated.npz")
    if path is None:
        return
    spectra, labels = load_spectra(path)
    [(train, test)] = star_splits(len(labels), test_size=500, random_state=0)
    train = train[:1000]
    data = spectra[train], labels.iloc[train], spectra[test], labels.iloc[test]
    rows = [measure(name, *data, args) for name in args.methods]
    table(
        f"apogee_emulated, {len(train)} training stars, {len(test)} test stars, 7214 pixels: "
        f"{' / '.join(labels)}; load {load():.1f}",
        HEADER,
        rows,
    )


def named(args, n_stars, **options):
    """The methods asked for, by title, for folds of `n_stars`."""
    return {
        available_methods()[name].title: make_method(
            name, int(0.8 * n_stars), random_state=0, **settings(args), **options
        )
        for name in args.methods
    }


def in_folds(title, spectra, labels, methods):
    """Table of `skspec.diagnostics.compare` in 5 folds by star."""
    # as `skspec compare --cv 5` splits
    run = compare(methods, spectra, labels, cv=5, groups=star_groups(spectra), random_state=0)
    rows = []
    for name, result in run.results.items():
        if not result.ok:
            rows.append([name, result.error, *[""] * 8])
            continue
        truth, dist = run.labels, result.dist
        error = dist.mean() - truth
        formal = "none"
        if result.formal_cov is not None:
            sigma = np.sqrt(np.diagonal(result.formal_cov, axis1=1, axis2=2))
            formal = slashed(100 * np.mean(np.abs(error) < sigma, axis=0), "{:.0f}")
        rows.append(
            [
                name,
                slashed(np.mean(np.abs(error), axis=0)),
                slashed(np.sqrt(np.mean(error**2, axis=0))),
                slashed(np.median(error, axis=0), "{:+.2g}"),
                slashed(robust_std(truth, dist.mean())),
                slashed(100 * coverage(truth, dist), "{:.0f}"),
                formal,
                f"{np.mean(result.n_removed):.0f}",
                f"{np.sum(result.fit_seconds):.1f}",
                f"{1e3 * result.predict_seconds / len(truth):.2f}",
            ]
        )
    table(
        f"{title}: {' / '.join(labels)}; load {load():.1f}",
        [
            "method",
            "MAE",
            "RMSE",
            "bias (median)",
            "robust scatter",
            "1-sigma coverage %",
            "formal errors alone %",
            "removed",
            "fits wall s",
            "wall ms/star",
        ],
        rows,
    )


def giants(args):
    path = data_file("apogee_giants100/apogee_giants100.npz")
    if path is not None:
        spectra, labels = load_spectra(path)
        in_folds(
            f"apogee_giants100 (real), {len(labels)} stars, 100 pixels, 5 folds",
            spectra,
            labels,
            named(args, len(labels)),
        )


def raw(args):
    """Full-spectrum fitting of MILES spectra as observed, against the methods on normalised ones."""
    path = data_file("miles/miles.npz")
    if path is None:
        return
    spectra, labels = load_spectra(path, flux="flux", wavelength_range=(3900, 7000))
    keep = labels["teff"].between(4000, 7000).to_numpy()
    for clean in args.clean:
        how = f"clean_training={clean:g}" if clean else "all training stars"
        only = argparse.Namespace(
            jobs=args.jobs, methods=["full_spectrum"], coherence=args.coherence
        )
        in_folds(
            f"MILES (real), not normalised, {keep.sum()} stars, 5 folds, {how}",
            spectra[keep],
            labels[keep].reset_index(drop=True),
            named(only, keep.sum(), clean_training=clean or None),
        )


def miles(args):
    path = data_file("miles/miles.npz")
    if path is None:
        return
    spectra, labels = load_spectra(path, wavelength_range=(3900, 7000))
    keep = labels["teff"].between(4000, 7000).to_numpy()
    spectra, labels = spectra[keep], labels[keep].reset_index(drop=True)
    for clean in args.clean:
        how = f"clean_training={clean:g}" if clean else "all training stars"
        in_folds(
            f"MILES (real), {len(labels)} stars, {spectra.shape[1]} pixels, 5 folds, {how}",
            spectra,
            labels,
            named(args, len(labels), clean_training=clean or None),
        )


def lamost(args):
    """Real survey spectra with flux errors, in which a star was observed up to twice."""
    path = data_file("lamost_dr10/lamost_dr10.npz")
    if path is None:
        return
    spectra, labels = load_spectra(path, wavelength_range=(3900, 8900))
    keep = (labels["teff"] < 7500).to_numpy() & (spectra.meta["snr"] > 15)
    # each spectrum by itself, at pixels chosen without labels
    spectra = ContinuumNormalizer().fit_transform(spectra[keep])
    methods = lamost_methods(int(0.8 * len(spectra)), args.jobs)
    chosen = {
        title: model
        for title, model in methods.items()
        if not args.only or any(part in title for part in args.only)
    }
    in_folds(
        f"LAMOST DR10 (real), {len(spectra)} spectra, {spectra.shape[1]} pixels, 5 folds by star",
        spectra,
        labels[keep].reset_index(drop=True),
        chosen,
    )


def lamost_methods(n_train, n_jobs):
    """Baselines, and the forward models as published, with shared errors, and cleaned."""
    cleaned, coherent = {"clean_training": 4.0}, {"coherence": 0.2}
    ways = {
        "": {},
        ", cleaned": cleaned,
        ", coherent": coherent,
        ", coherent, cleaned": coherent | cleaned,
    }
    names = ("ridge", "pca_svr", "kernel_pca", "template_match", "slam")
    methods = {
        available_methods()[name].title: make_method(name, n_train, random_state=0, n_jobs=n_jobs)
        for name in names
    }
    methods["PCA + Gaussian process"] = pca_gaussian_process(n_jobs)
    for how, options in ways.items():
        methods[f"The Cannon{how}"] = TheCannon(**options)
        methods[f"The Cannon, cubic{how}"] = TheCannon(3, **options)
        methods[f"Spectral GP{how}"] = SpectralGP(**options)
    members = [
        ("template_match", TemplateMatch()),
        ("the_cannon", TheCannon(**coherent, **cleaned)),
        ("spectral_gp", SpectralGP(**coherent)),
    ]
    methods["Consensus of three"] = ConsensusRegressor(members, cv=3, n_jobs=n_jobs)
    return methods


def pca_gaussian_process(n_jobs):
    """scikit-learn's GaussianProcessRegressor of each label on 30 principal components."""
    # thousands of standardised pixels: stars are some tens apart
    kernel = ConstantKernel(1.0, (1e-2, 1e4)) * RBF(50.0, (1.0, 1e4)) + WhiteKernel(0.1)
    process = MultiOutputRegressor(GaussianProcessRegressor(kernel))
    return ResidualCovarianceRegressor(
        make_pipeline(StandardScaler(), PCA(30, random_state=0), process), n_jobs=n_jobs
    )


def field(args):
    """What the population of the training stars adds to spectra of low S/N."""
    for snr in (5, 10, 20, 40, 80):
        spectra, labels = make_spectra(2000, population="field", snr=snr, random_state=0)
        data = spectra[:1000], labels[:1000], spectra[1000:], labels[1000:]
        rows = []
        for name in args.methods:
            row = measure(name, *data, args)
            rows.append(row)
            if hasattr(make_method(name, 1000), "label_prior"):
                prior = argparse.Namespace(**vars(args) | {"label_prior": "training"})
                rows.append([f"{row[0]}, prior", *measure(name, *data, prior)[1:]])
        table(
            f"Dwarfs and giants of make_spectra at S/N {snr}, 1000 to train, 1000 to test, 2000 "
            f"pixels: {' / '.join(labels)}; load {load():.1f}",
            HEADER,
            rows,
        )


PARTS = {
    "emulator": emulator,
    "giants": giants,
    "emulated": emulated,
    "miles": miles,
    "raw": raw,
    "lamost": lamost,
    "field": field,
}


def main(argv=None):
    parser = argparse.ArgumentParser(prog="accuracy", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    add("--methods", nargs="+", default=list(METHODS))
    add("--only", nargs="+", metavar="TEXT", help="methods with this in their title (lamost)")
    add("--n", type=int, nargs="+", default=[200, 500, 1000], help="training stars (emulator)")
    add("--clean", type=float, nargs="+", default=[0.0, 4.0], help="clean_training (miles); 0: off")
    add("--coherence", type=float, help="of all forward models that have it")
    add("--label-prior", choices=["flat", "training"], help="of all forward models but that of raw")
    add("--jobs", type=int, default=2)
    args = parser.parse_args(argv)
    print_machine()
    for part in args.parts:
        PARTS[part](args)


if __name__ == "__main__":
    main()
