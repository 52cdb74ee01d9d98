"""SLAM against scikit-learn's SVR, GridSearchCV and scipy.optimize.least_squares.

    OMP_NUM_THREADS=1 python -m benchmarks slam_speed [--parts fit grid labels]

Both sides of every row run in turn in this process with two joblib workers and one BLAS thread
each; medians of the rounds are printed, ratios are medians of the ratios of each round. The loops
over pixels run on a random subset and are scaled up to all pixels; their pool is warm before the
clock starts. Data: `common.apogee_like`, S/N 100, 3 labels, 7214 pixels.
"""

import argparse

import numpy as np
from joblib import Parallel, delayed
from scipy.optimize import least_squares
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.svm import SVR
from threadpoolctl import threadpool_limits

from benchmarks.common import apogee_like, interleave, load, print_machine, ratio, table, verdict
from skspec import Spectra
from skspec.forward import SLAM
from skspec.solvers.kernels.svr import RHO, admm_operator, fit_svr

GRID = {"C": [2.0, 8.0], "epsilon": [0.05, 0.1], "gamma": [0.1, 1 / 3, 1.0]}
PUBLISHED_LABEL_SECONDS = 37.0  # astroslam, a star, all pixels, n = 200


def _fit(X, y, params):
    return SVR(tol=1e-3, **params).fit(X, y)


def _search(X, y):
    folds = KFold(5, shuffle=True, random_state=0)  # SLAM's own
    return GridSearchCV(SVR(), GRID, cv=folds, scoring="neg_mean_squared_error").fit(X, y)


def joblib_loop(work, X, Y, extra=(), n_jobs=2, threads=False):
    """The loop over pixels that people write."""
    pool = Parallel(n_jobs=n_jobs, prefer="threads" if threads else "processes")
    return pool(delayed(work)(X, Y[:, j], *extra) for j in range(Y.shape[1]))


def standardised(model, y, flux, pixels):
    """Labels and flux as SLAM sees them."""
    x = (np.asarray(y) - model.label_pivot_) / model.label_scale_
    return x, (flux[:, pixels] - model.flux_mean_[pixels]) / model.flux_std_[pixels]


def worst_difference(model, X, Y, pixels, x_new, params):
    """Largest difference to libsvm at tol 1e-6 in prediction, in standard deviations of a pixel."""
    worst = 0.0
    both = np.vstack([X, x_new])
    labels = model.label_pivot_ + both * model.label_scale_
    ours = model.predict_flux(labels)[:, pixels] - model.flux_mean_[pixels]
    ours /= model.flux_std_[pixels]
    for k in range(len(pixels)):
        exact = SVR(tol=1e-6, **params).fit(X, Y[:, k])
        worst = max(worst, np.abs(exact.predict(both) - ours[:, k]).max())
    return worst


def arithmetic(model, X, Y, params, seconds, n_pixels, peak):
    """Floating-point operations of ADMM's matrix products per second, as a share of the peak."""
    K = np.exp(-params["gamma"] * np.sum((X[:, None] - X[None]) ** 2, axis=2))
    operator = admm_operator(K)
    left, right = operator.at(RHO / params["C"], np.float32)
    columns = right.shape[0] * (2 if left is not None else 1)
    n_iter = fit_svr(
        K, Y, C=params["C"], epsilon=params["epsilon"], operator=operator
    ).n_iter.mean()
    flops = 2.0 * len(X) * columns * n_iter * n_pixels
    return right.shape[0], n_iter, 1e-9 * flops / seconds, 1e-9 * flops / seconds / peak


def compare_fit(args, data, peaks):
    train, y, test, y_test = data
    n_pixels = train.shape[1]
    pixels = np.sort(np.random.default_rng(1).choice(n_pixels, args.subset, replace=False))
    rows, notes = [], []
    for C in args.C:
        params = {"C": C, "epsilon": 0.05, "gamma": 1 / 3}
        slam = SLAM(**params, n_jobs=args.jobs, label_covariance=False)
        full = SLAM(**params, n_jobs=args.jobs)
        X, Y = standardised(slam.fit(train, y), y, train.flux, pixels)
        joblib_loop(_fit, X, Y[:, :4], (params,))
        sides = {
            "SLAM, no label covariance": lambda m=slam: m.fit(train, y),
            "joblib loop, processes": lambda X=X, Y=Y, p=params: joblib_loop(
                _fit, X, Y, (p,), args.jobs
            ),
            "joblib loop, threads": lambda X=X, Y=Y, p=params: joblib_loop(
                _fit, X, Y, (p,), args.jobs, True
            ),
            "SLAM, default": lambda m=full: m.fit(train, y),
        }
        times, rounds, results = interleave(sides, args.repeats)
        x_new = (np.asarray(y_test) - slam.label_pivot_) / slam.label_scale_
        some = slice(0, args.exact)
        worst = worst_difference(slam, X, Y[:, some], pixels[some], x_new, params)
        scale = n_pixels / args.subset
        loops = [name for name in sides if name.startswith("joblib")]
        best = min(loops, key=lambda name: times[name].wall)
        for name, seconds in times.items():
            up = scale if name in loops else 1.0
            row = [f"C={C:g}", name, f"{up * seconds.wall:.1f}", f"{up * seconds.cpu:.1f}"]
            if name in loops:
                rows.append([*row, "", "", "", ""])
                continue
            cells = []
            for key in ("wall", "cpu"):
                middle, low, high = ratio(rounds[best], rounds[name], key, scale)
                cells.append(f"{middle:.1f} ({low:.1f}-{high:.1f})")
                if key == "wall":
                    shown = middle
            need = verdict(shown, 10 if C < 10 else 14) if "no label" in name else ""
            rows.append([*row, *cells, f"{worst:.1e}" if need else "", need])
        peak = peaks["float32", 1] * args.jobs
        rank, n_iter, rate, share = arithmetic(
            slam, X, Y[:, :128], params, times["SLAM, no label covariance"].wall, n_pixels, peak
        )
        notes.append(
            f"C={C:g}: {n_iter:.0f} ADMM iterations in {rank} columns instead of {len(X)}; their "
            f"products alone are {rate:.1f} GF/s of the whole fit, {100 * share:.0f} % of "
            f"{args.jobs} x the one-thread float32 peak; load {load():.1f}"
        )
    table(
        f"SLAM fit: n={len(y)}, {n_pixels} pixels, 3 labels, epsilon=0.05, gamma=1/3, "
        f"{args.jobs} jobs; loops timed on {args.subset} random pixels and scaled up; median of "
        f"{args.repeats}",
        ["", "side", "wall s", "CPU s", "ratio wall", "ratio CPU", "max diff", "required"],
        rows,
    )
    print(
        "ratio: faster joblib loop / SLAM, median (range); max diff: to libsvm at tol 1e-6 on "
        f"{args.exact} pixels, in standard deviations of the flux"
    )
    print("\n".join(notes), flush=True)


def compare_grid(args, data):
    train, y, *_ = data
    own = np.linspace(0, train.shape[1] - 1, args.grid_pixels).astype(int)
    narrow = train[:, own]
    some = np.sort(np.random.default_rng(2).choice(len(own), args.grid_subset, replace=False))
    make = lambda selection: SLAM(  # noqa: E731
        **GRID, cv=5, selection=selection, label_covariance=False, n_jobs=args.jobs
    )
    models = {s: make(s) for s in ("folds", "loo")}
    X, Y = standardised(
        SLAM(2.0, 0.05, 1 / 3, label_covariance=False, n_jobs=args.jobs).fit(narrow, y),
        y,
        narrow.flux,
        some,
    )
    joblib_loop(_fit, X, Y[:, :2], ({"C": 2.0},))
    sides = {f"SLAM, {s}": lambda m=m: m.fit(narrow, y) for s, m in models.items()}
    sides["GridSearchCV per pixel"] = lambda: joblib_loop(_search, X, Y, n_jobs=args.jobs)
    times, rounds, results = interleave(sides, args.repeats)
    searches = results["GridSearchCV per pixel"]
    rows = []
    per = {name: len(some) if "Grid" in name else len(own) for name in sides}
    for name, seconds in times.items():
        row = [
            name,
            f"{1e3 * seconds.wall / per[name]:.1f}",
            f"{1e3 * seconds.cpu / per[name]:.1f}",
        ]
        if "Grid" not in name:
            cells = []
            for key in ("wall", "cpu"):
                scale = len(own) / len(some)
                middle, low, high = ratio(
                    rounds["GridSearchCV per pixel"], rounds[name], key, scale
                )
                cells.append(f"{middle:.1f} ({low:.1f}-{high:.1f})")
                if key == "wall":
                    shown = middle
            model = models[name.split(", ")[1]]
            same = [
                (model.C_[j], model.epsilon_[j]) == (s.best_params_["C"], s.best_params_["epsilon"])
                and np.isclose(model.gamma_[j], s.best_params_["gamma"])
                for j, s in zip(some, searches)
            ]
            row += [*cells, f"{sum(same)}/{len(same)}", verdict(shown, 14)]
        else:
            row += ["", "", "", ""]
        rows.append(row)
    table(
        f"Hyperparameters per pixel, 12 points x 5 folds: n={len(y)}, SLAM on {len(own)} pixels, "
        f"GridSearchCV on {len(some)}, {args.jobs} jobs, median of {args.repeats}",
        ["side", "wall ms/px", "CPU ms/px", "ratio wall", "ratio CPU", "same choice", "required"],
        rows,
    )
    print(f"both sides score the same 5 folds; load {load():.1f}", flush=True)


def scipy_labels(model, spectra, flux_train, y_train):
    """Labels star by star: nearest training spectrum, then trust-region steps, analytic Jacobian."""
    pivot, scale = model.label_pivot_, model.label_scale_
    span = np.ptp(np.asarray(y_train), axis=0)
    low = (np.asarray(y_train).min(axis=0) - 0.1 * span - pivot) / scale
    high = (np.asarray(y_train).max(axis=0) + 0.1 * span - pivot) / scale
    root = 1 / np.sqrt(model.noise(spectra).variance())
    coef = model._coef  # the model itself, free of checks of its arguments
    # nearest training spectrum, all stars at once and without large temporary arrays
    distance = root**2 @ (flux_train**2).T - 2 * (root**2 * spectra.flux) @ flux_train.T
    out = []
    for start, flux, w in zip(np.argmin(distance, axis=1), spectra.flux, root):
        fit = least_squares(
            lambda x, f=flux, w=w: w * ((model._features(x[None]) @ coef)[0] - f),
            (np.asarray(y_train)[start] - pivot) / scale,
            jac=lambda x, w=w: (model._features(x[None], derivative=True)[1][0] @ coef * w).T,
            bounds=(low, high),
        )
        out.append(pivot + fit.x * scale)
    return np.array(out)


def uneven(spectra, seed=3):
    """The same stars with S/N 20 to 100, noise that varies by pixel, and 1 % of bad pixels."""
    rng = np.random.default_rng(seed)
    n, n_pixels = spectra.shape
    sigma = 0.01 * rng.uniform(1, 5, (n, 1)) * np.exp(0.3 * rng.normal(size=n_pixels))
    extra = np.sqrt(np.maximum(sigma**2 - 1e-4, 0))
    ivar = np.where(rng.random((n, n_pixels)) < 0.01, 0.0, 1 / (1e-4 + extra**2))
    return Spectra(spectra.flux + extra * rng.normal(size=(n, n_pixels)), ivar=ivar)


def compare_labels(args, data):
    train, y, test, y_test = data
    model = SLAM(1.0, 0.05, 1 / 3, n_jobs=args.jobs, label_covariance=False).fit(train, y)
    time_labels(args, model, train, y, test, y_test, "equal noise")
    time_labels(args, model, train, y, uneven(test), y_test, "uneven noise, 1 % bad pixels")


def time_labels(args, model, train, y, test, y_test, noise):
    few = test[: args.stars]
    sides = {
        "SLAM.invert": lambda: model.invert(test),
        "scipy least_squares": lambda: scipy_labels(model, few, train.flux, y),
        "SLAM.invert, one star": lambda: model.invert(test[:1]),
    }
    model.invert(test[:1])
    times, rounds, results = interleave(sides, args.repeats + 2)
    found = results["SLAM.invert"]
    off = np.abs(found.labels[: args.stars] - results["scipy least_squares"])
    off = (off / found.formal_dist.std()[: args.stars]).max()
    scale = len(test) / args.stars
    rows, ours = [], rounds["SLAM.invert"]
    n_stars = {"SLAM.invert": len(test), "scipy least_squares": args.stars}
    for name, seconds in times.items():
        n = n_stars.get(name, 1)
        row = [name, f"{1e3 * seconds.wall / n:.2f}", f"{1e3 * seconds.cpu / n:.2f}"]
        if name == "SLAM.invert":
            wall, cpu = (
                ratio(rounds["scipy least_squares"], ours, k, scale) for k in seconds._fields
            )
            astroslam = PUBLISHED_LABEL_SECONDS * n / seconds.cpu
            row += [
                *(f"{m:.1f} ({a:.1f}-{b:.1f})" for m, a, b in (wall, cpu)),
                verdict(cpu[0], 10),
                f"{astroslam:.0f}x, {verdict(astroslam, 1000)}",
            ]
        else:
            row += [""] * 4
        rows.append(row)
    table(
        f"SLAM labels, {noise}: n={len(y)}, {train.shape[1]} pixels, {len(test)} stars "
        f"(scipy {args.stars}), one thread, median of {args.repeats + 2}",
        [
            "side",
            "wall ms/star",
            "CPU ms/star",
            "ratio wall",
            "ratio CPU",
            "required",
            "against astroslam's 37 s (CPU)",
        ],
        rows,
    )
    rmse = np.sqrt(np.mean((found.labels - np.asarray(y_test)) ** 2, axis=0))
    print(
        f"largest difference {off:.1e} formal sigma; RMSE {rmse.round(4)}; "
        f"converged {found.converged.mean():.3f}; load {load():.1f}",
        flush=True,
    )


def main(argv=None):
    parser = argparse.ArgumentParser(prog="slam_speed", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--parts", nargs="+", default=["fit", "grid", "labels"], choices=["fit", "grid", "labels"])
    add("--n", type=int, default=1000, help="training stars")
    add("--pixels", type=int, help="default: all 7214")
    add("--C", type=float, nargs="+", default=[1.0, 10.0])
    add("--jobs", type=int, default=2)
    add("--repeats", type=int, default=3)
    add("--subset", type=int, default=240, help="pixels of the loop over pixels")
    add("--exact", type=int, default=24, help="pixels compared with libsvm at tol 1e-6")
    add("--grid-pixels", type=int, default=512, help="pixels of SLAM's grid search")
    add("--grid-subset", type=int, default=8, help="pixels of GridSearchCV")
    add("--stars", type=int, default=10, help="stars that scipy fits")
    args = parser.parse_args(argv)
    peaks = print_machine()
    data = apogee_like(args.n, n_pixels=args.pixels)
    with threadpool_limits(1, user_api="blas"):
        if "fit" in args.parts:
            compare_fit(args, data, peaks)
        if "grid" in args.parts:
            compare_grid(args, data)
        if "labels" in args.parts:
            compare_labels(args, data)


if __name__ == "__main__":
    main()
