"""Time the Cannon solvers against a loop over pixels.

    python benchmarks/cannon_solver.py --cases 200,3 1000,3 500,10

Each case is n stars and K labels (quadratic model, D terms), P pixels with star- and
pixel-dependent noise, 1 % of bad pixels and scatter between 0 and 3 times the noise. The reference
fits a few of the pixels one by one: bounded minimisation of the profile likelihood in ln s, a
least-squares solve for each trial, with one BLAS thread, which is faster for it than two. Both run
alternately in this process; medians are printed.
"""

import argparse
import time

import numpy as np
from scipy.optimize import minimize_scalar
from threadpoolctl import threadpool_limits

from skspec.solvers.linear.lasso import lasso_path
from skspec.solvers.linear.least_squares import fit_least_squares_with_scatter
from skspec.solvers.linear.leave_one_out import leave_one_out
from skspec.solvers.linear.monomials import Monomials


def make_problem(n, K, P, seed=0):
    """V (n, D), dV (n, K, D), Y (n, P) and variance (n, P)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, K)) / 2
    V, dV = Monomials.of_degree(K, 2)(x, derivative=True)
    theta = 0.05 * rng.normal(size=(V.shape[1], P))
    theta[0] = 1
    sigma = 0.01 * np.exp(0.5 * rng.normal(size=(n, 1)) + 0.2 * rng.normal(size=(n, P)))
    s = 0.01 * rng.choice([0, 0.3, 1, 3], size=P)
    Y = V @ theta + np.hypot(sigma, s) * rng.normal(size=(n, P))
    sigma[rng.random((n, P)) < 0.01] = np.inf
    return V, dV, Y, sigma**2


def negative_log_likelihood(V, y, variance, s):
    """Profile likelihood of one pixel and its coefficients."""
    total = variance + s**2
    root = 1 / np.sqrt(total)
    theta = np.linalg.lstsq(V * root[:, None], y * root, rcond=None)[0]
    return 0.5 * np.sum((y - V @ theta) ** 2 / total + np.log(total)), theta


def loop_over_pixels(V, Y, variance):
    """Scatter (P,) and coefficients (D, P), one pixel after the other."""
    scatter, thetas = [], []
    for y, v in zip(Y.T, variance.T):
        good = v < np.inf
        one = V[good], y[good], v[good]
        best = minimize_scalar(
            lambda x, one=one: negative_log_likelihood(*one, np.exp(x))[0],
            bounds=(np.log(1e-5), 0),
            method="bounded",
            options={"xatol": 1e-4},
        )
        scatter.append(np.exp(best.x))
        thetas.append(negative_log_likelihood(*one, scatter[-1])[1])
    return np.array(scatter), np.array(thetas).T


def timed(function, *args, **kwargs):
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return time.perf_counter() - start, result


def compare(n, K, P, subset, repeats, penalties):
    """One line of the table."""
    V, dV, Y, variance = make_problem(n, K, P)
    some = np.linspace(0, P - 1, subset).astype(int)
    times = []
    for _ in range(repeats):
        fit_time, fit = timed(fit_least_squares_with_scatter, V, Y, variance)
        with threadpool_limits(1):
            loop_time, (s, theta) = timed(loop_over_pixels, V, Y[:, some], variance[:, some])
        left_time = timed(leave_one_out, V, Y, variance, fit)[0]
        label_time = timed(leave_one_out, V, Y, variance, fit, dV=dV)[0]
        row = [fit_time, left_time, label_time]
        if penalties:
            grid = np.geomspace(1, 1e-3, penalties)
            row.append(timed(lasso_path, V, Y, variance, fit.scatter, grid, relative=True)[0])
        times.append([loop_time / subset, *(t / P for t in row)])
    worse = max(
        negative_log_likelihood(V[g], Y[g, j], variance[g, j], fit.scatter[j])[0]
        - negative_log_likelihood(V[g], Y[g, j], variance[g, j], s[k])[0]
        for k, j in enumerate(some)
        for g in [variance[:, j] < np.inf]
    )
    difference = np.abs(fit.theta[:, some] - theta).max()
    ratio = np.median([t[0] / t[1] for t in times])
    columns = " ".join(f"{1e3 * t:10.4f}" for t in np.median(times, axis=0))
    return (
        f"{n:6d} {V.shape[1]:4d} {P:6d} {columns} {'' if penalties else ' ' * 10} "
        f"{ratio:7.1f} {difference:9.1e} {worse:9.1e} {fit.converged.mean():6.3f}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cases",
        nargs="+",
        default=["200,3", "1000,3", "500,10"],
        metavar="n,K",
        help="stars and labels",
    )
    parser.add_argument("--pixels", type=int, default=7214)
    parser.add_argument("--long-pixels", type=int, default=512, help="where K > 5")
    parser.add_argument("--subset", type=int, default=20, help="pixels of the reference")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--penalties", type=int, default=0, help="also time an L1 path")
    args = parser.parse_args()
    print("milliseconds per pixel, medians; ratio = loop/fit; dNLL > 0 where the loop did better")
    print(
        "     n    D      P       loop        fit  leave-out  + slopes    L1 path   ratio  "
        "max dtheta  max dNLL  conv"
    )
    for case in args.cases:
        n, K = map(int, case.split(","))
        P = args.pixels if K <= 5 else args.long_pixels
        print(compare(n, K, P, args.subset, args.repeats, args.penalties), flush=True)


if __name__ == "__main__":
    main()
