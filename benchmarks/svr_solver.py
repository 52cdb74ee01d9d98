"""Epsilon-SVR of many pixels: skspec's batched solver against scikit-learn's SVR, one thread.

Both sides run interleaved in one process, in chunks of pixels, so that a busy machine slows both;
times are CPU seconds of this process.  `--grid` times a whole grid search with 5 folds instead.
Data: the APOGEE emulator of El-Badry et al. 2018 (SKSPEC_DATA, default ../shared/data beside the
repository) with white noise, or smooth random functions of the labels where it is absent.

    python benchmarks/svr_solver.py --C 1 10
    python benchmarks/svr_solver.py --grid --peers 3 --pixels 128
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.svm import SVR
from threadpoolctl import threadpool_limits

from skspec.solvers.kernels.svr import admm_operator, fit_svr, fit_svr_libsvm, leave_one_out

ROOT = Path(__file__).resolve().parents[1]
EMULATOR = "apogee_emulated/emulator_datadriven_normalized.npz"
GRID = {"C": [2.0, 8.0], "epsilon": [0.05, 0.1], "gamma": [0.1, 1 / 3, 1.0]}
CHUNKS = 4


def spectra(n, n_labels, snr, pixels, seed=0):
    """Standardised labels (n, d) and fluxes (n, pixels) of a random subset of pixels."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(-0.5, 0.5, (n, n_labels))
    path = Path(os.environ.get("SKSPEC_DATA", ROOT.parent / "shared" / "data")) / EMULATOR
    if path.exists():
        with np.load(path) as net:
            w0, b0, w1, b1 = (net[f"{k}_array_{i}"] for i in (0, 1) for k in "wb")
        pick = np.sort(rng.choice(len(w0), min(pixels, len(w0)), replace=False))
        hidden = np.einsum("jkl,nl->njk", w0[pick, :, :n_labels], z) + b0[pick]
        flux = np.einsum("njk,jk->nj", 1 / (1 + np.exp(-hidden)), w1[pick]) + b1[pick]
    else:
        print("no emulator found: synthetic smooth functions")
        depth = rng.lognormal(-3.5, 1.0, pixels)
        flux = 1 - depth * (1 + np.tanh(z @ rng.normal(size=(n_labels, pixels))))
    flux = flux + rng.normal(size=flux.shape) / snr
    return (z - z.mean(0)) / z.std(0), (flux - flux.mean(0)) / flux.std(0)


def cpu(function, *args, **kwargs):
    start = time.process_time()
    out = function(*args, **kwargs)
    return time.process_time() - start, out


def libsvm_loop(X, Y, **params):
    return [SVR(kernel="rbf", tol=1e-3, **params).fit(X, y) for y in Y.T]


def compare_fit(X, Y, gamma, C, epsilon, peers):
    """One row: ms per pixel of both, ratio, largest difference to libsvm at tol 1e-6, LOO."""
    K = rbf_kernel(X, gamma=gamma)
    args = {"C": C, "epsilon": epsilon}
    prepare, operator = cpu(admm_operator, K)
    ours, theirs, loo, difference = [], [], [], []
    for own, peer in zip(
        np.array_split(np.arange(Y.shape[1]), CHUNKS),
        np.array_split(np.arange(peers), CHUNKS),
        strict=True,
    ):
        seconds, solution = cpu(fit_svr, K, Y[:, own], operator=operator, **args)
        ours.append(seconds / own.size)
        seconds, _ = cpu(libsvm_loop, X, Y[:, peer], gamma=gamma, **args)
        theirs.append(seconds / peer.size)
        seconds, _ = cpu(leave_one_out, K, Y[:, own], solution, **args)
        loo.append(seconds / own.size)
        some = own[:4]
        exact = fit_svr_libsvm(K, Y[:, some], **args)
        gap = K @ (solution.dual_coef[:, :4] - exact.dual_coef)
        difference.append(np.abs(gap + solution.intercept[:4] - exact.intercept).max())
        assert solution.converged.all()
    # the factor is made once: charge it to these pixels as if they were a whole APOGEE spectrum
    ours = np.median(ours) + prepare / 7214
    theirs = np.median(theirs)
    print(
        f"n={len(X):5d} gamma={gamma:.3f} C={C:6g} eps={epsilon:g}  ours {1e3 * ours:6.2f} ms/px"
        f"  sklearn {1e3 * theirs:7.2f} ms/px  ratio {theirs / ours:5.1f}"
        f"  max diff {max(difference):.1e}  LOO {1e3 * np.median(loo):5.2f} ms/px",
        flush=True,
    )


def grid_scores(X, Y, folds, tol=1e-3):
    """Cross-validated mean squared error, (grid points, pixels)."""
    scores = []
    for gamma in GRID["gamma"]:
        K = rbf_kernel(X, gamma=gamma)
        operator = admm_operator(K)
        for C in GRID["C"]:
            for epsilon in GRID["epsilon"]:
                error = np.zeros(Y.shape[1])
                for held in folds:
                    weight = np.ones_like(Y)
                    weight[held] = 0.0
                    s = fit_svr(
                        K, Y, C=C, epsilon=epsilon, sample_weight=weight, tol=tol, operator=operator
                    )
                    error += np.mean((Y[held] - K[held] @ s.dual_coef - s.intercept) ** 2, axis=0)
                scores.append(error / len(folds))
    return np.array(scores)


def compare_grid(X, Y, peers):
    folds = [test for _, test in KFold(5).split(X)]
    seconds, scores = cpu(grid_scores, X, Y, folds)
    ours = seconds / Y.shape[1]
    theirs, agree = [], []
    for p in range(peers):
        search = GridSearchCV(
            SVR(tol=1e-3),
            {k: GRID[k] for k in ("gamma", "C", "epsilon")},
            cv=KFold(5),
            scoring="neg_mean_squared_error",
            refit=False,
        )
        seconds, _ = cpu(search.fit, X, Y[:, p])
        theirs.append(seconds)
        results = search.cv_results_
        key = [(p["gamma"], p["C"], p["epsilon"]) for p in results["params"]]
        mine = dict(
            zip(
                [(g, c, e) for g in GRID["gamma"] for c in GRID["C"] for e in GRID["epsilon"]],
                scores[:, p],
                strict=True,
            )
        )
        peer = -results["mean_test_score"]
        agree.append(np.max(np.abs([mine[k] for k in key] - peer) / peer))
    theirs = np.median(theirs)
    print(
        f"grid of 12 x 5 folds, n={len(X)}: ours {1e3 * ours:.0f} ms/px, GridSearchCV "
        f"{1e3 * theirs:.0f} ms/px, ratio {theirs / ours:.1f}, MSE differ by {max(agree):.1e}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, nargs="+", default=[1000])
    parser.add_argument("--C", type=float, nargs="+", default=[1.0, 10.0])
    parser.add_argument("--epsilon", type=float, default=0.05)
    parser.add_argument("--gamma", type=float, default=None, help="default 1 / labels")
    parser.add_argument("--labels", type=int, default=3)
    parser.add_argument("--snr", type=float, default=100.0)
    parser.add_argument("--pixels", type=int, default=512, help="pixels for our side")
    parser.add_argument("--peers", type=int, default=48, help="pixels for scikit-learn's side")
    parser.add_argument("--grid", action="store_true", help="time a grid search with 5 folds")
    args = parser.parse_args()
    with threadpool_limits(1):
        for n in args.n:
            X, Y = spectra(n, args.labels, args.snr, max(args.pixels, args.peers))
            if args.grid:
                compare_grid(X, Y, min(args.peers, 4))
                continue
            for C in args.C:
                compare_fit(X, Y, args.gamma or 1 / args.labels, C, args.epsilon, args.peers)


if __name__ == "__main__":
    main()
