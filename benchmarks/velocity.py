"""Labels with radial velocity and continuum free: recovery, real LAMOST spectra, speed.

    OMP_NUM_THREADS=1 python -m benchmarks velocity [--parts recovery lamost repeats speed]

- recovery: synthetic spectra shifted by up to 200 km/s; errors against the Cramer-Rao bound, and the
  share of wrong velocities.
- lamost: a model trained on MILES (air, converted to vacuum), velocities of unshifted LAMOST spectra
  against the survey's pipeline.
- repeats: the same model, differences between visits of one star in units of their errors.
- speed: 7214 pixels, 5 labels, velocity and a quartic free, against scipy star by star.
"""

import argparse
import time
from itertools import product

import numpy as np
import pandas as pd
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import least_squares

from benchmarks.accuracy import slashed
from benchmarks.common import apogee_like, clocked, data_file, load, print_machine, table
from skspec import Spectra
from skspec.datasets import synthesize
from skspec.diagnostics import cramer_rao_bound
from skspec.forward import SpectralGP, TheCannon
from skspec.metrics import robust_std
from skspec.preprocessing import Resampler
from skspec.solvers.spectra.correlated_noise import residual_correlation
from skspec.solvers.spectra.line_of_sight import C_KMS, LineOfSight, ln_shift
from skspec.solvers.spectra.nuisance import continuum_basis

MODELS = {"TheCannon": TheCannon, "SpectralGP": SpectralGP}
LAMOST_CORRELATION = 30  # pixels

# -- recovery --------------------------------------------------------------------------------------


def draw(n, wavelength, snr, rv, seed):
    """Noisy spectra of random dwarfs, their labels and velocities."""
    rng = np.random.default_rng(seed)
    labels = pd.DataFrame(
        {
            "teff": rng.uniform(4800, 6200, n),
            "logg": rng.uniform(3.8, 4.7, n),
            "feh": rng.uniform(-0.6, 0.3, n),
        }
    )
    velocity = rng.uniform(-rv, rv, n)
    flux = synthesize({**labels, "rv": velocity}, wavelength)
    flux += rng.normal(size=flux.shape) / snr
    return Spectra(flux, flux_err=1 / snr, wavelength=wavelength), labels, velocity


def recovery(args):
    wavelength, rows = np.geomspace(5000, 5300, 900), []
    train, y, _ = draw(300, wavelength, 200, 0, seed=1)
    for name, Model in MODELS.items():
        for degree in (None, 4):
            free = {"fit_rv": (-300, 300), "continuum_degree": degree}
            model = Model(**free).fit(train, y)
            for snr in (20, 50, 100):
                stars, truth, rv = draw(args.n, wavelength, snr, 200, seed=2)
                result = model.invert(stars)
                bound = cramer_rao_bound(model, truth, stars, rv=True, continuum_degree=degree)
                z = (result.rv - rv) / bound.rv_std()
                label = np.std((result.labels - truth.to_numpy()) / bound.std(), axis=0)
                total = np.std((result.labels - truth.to_numpy()) / result.dist.std(), axis=0)
                rows.append(
                    [
                        name,
                        "none" if degree is None else degree,
                        snr,
                        f"{np.median(bound.rv_std()):.2f}",
                        f"{np.sqrt(np.mean(z**2)):.2f}",
                        f"{np.std((result.rv - rv) / result.rv_std):.2f}",
                        f"{100 * np.mean(np.abs(z) > 8):.1f}",
                        slashed(label, "{:.2f}"),
                        slashed(total, "{:.2f}"),
                    ]
                )
    table(
        f"{args.n} stars, R = 5000, 5000 to 5300 A, within 200 km/s; errors in units of the bound "
        "(rms) and of those stated",
        [
            "method",
            "continuum",
            "S/N",
            "bound km/s",
            "rv / bound",
            "rv / stated",
            "wrong %",
            "labels / bound",
            "labels / stated",
        ],
        rows,
    )


# -- LAMOST ----------------------------------------------------------------------------------------


def vacuum(air):
    """Vacuum wavelength [A] of an air wavelength (Ciddor 1996, as in Morton 2000)."""
    s2 = (1e4 / air) ** 2
    return air * (1.0000834254 + 0.02406147 / (130 - s2) + 0.00015998 / (38.9 - s2))


def miles_model(Model, wavelength, degree=10, **options):
    """Model of MILES dwarfs and giants of 4000 to 8000 K on a vacuum grid, smoothed to R = 1800."""
    with np.load(data_file("miles/miles.npz")) as f:
        air, flux, labels, snr = f["wavelength"], f["flux_norm"], f["labels"], f["snr_est"]
    keep = (labels[:, 0] > 4000) & (labels[:, 0] < 8000) & (labels[:, 2] > -2)
    flux = gaussian_filter1d(np.clip(flux[keep].astype(float), -0.5, 4), 1.0, axis=1)  # 0.9 A
    stars = Spectra(flux, flux_err=1 / snr[keep, None], wavelength=vacuum(air))
    stars = Resampler(wavelength, method="cubic").fit_transform(stars)
    free = {"fit_rv": True, "continuum_degree": degree, "clean_training": 5}
    return Model(**free, **options).fit(
        stars, pd.DataFrame(labels[keep], columns=["teff", "logg", "feh"])
    )


def lamost(args):
    """Velocities of unshifted spectra."""
    if not (data_file("miles/miles.npz") and data_file("lamost_dr1/lamost_dr1.npz")):
        return
    with np.load(data_file("lamost_dr1/lamost_dr1.npz")) as f:
        wavelength, flux, ivar = f["wavelength_obs"], f["flux_obs"], f["ivar_obs"]
        pipeline, labels, label_err = f["rv_kms"], f["labels"], f["label_err"]
    part, rows = (wavelength > 3950) & (wavelength < 6800), []
    stars = Spectra(flux[:, part], ivar=ivar[:, part], wavelength=wavelength[part])
    for name, Model in MODELS.items():
        model = miles_model(Model, wavelength[part])
        result = model.invert(stars)
        off = result.rv - pipeline
        cool = labels[:, 0] < 7500
        scatter = robust_std(labels[cool], result.labels[cool])
        rows.append(
            [
                name,
                f"{np.median(off):+.1f}",
                f"{robust_std(pipeline, result.rv):.1f}",
                np.sum(np.abs(off - np.median(off)) > 60),
                f"{np.median(result.rv_std):.1f}",
                slashed(scatter),
                slashed(np.median(label_err, axis=0)),
                f"{100 * result.converged.mean():.0f}",
            ]
        )
    table(
        f"{len(stars)} LAMOST DR1 stars, unshifted, median S/N {np.median(stars.snr):.0f}; velocity "
        "less the pipeline's [km/s]",
        [
            "method",
            "median",
            "robust scatter",
            "off by 60",
            "stated error",
            "label scatter",
            "catalogue errors",
            "converged %",
        ],
        rows,
    )


def repeats(args):
    """Differences between successive visits of a star."""
    if not (data_file("miles/miles.npz") and data_file("lamost_repeats/lamost_repeats.npz")):
        return
    with np.load(data_file("lamost_repeats/lamost_repeats.npz")) as f:
        wavelength, flux, ivar = f["wavelength"], f["flux_norm"], f["ivar_norm"]
        group, mjd, pipeline = f["group_id"], f["mjd"], f["rv_kms"]
    part, rows = (wavelength > 3950) & (wavelength < 6800), []
    stars = Spectra(flux[:, part], ivar=ivar[:, part], wavelength=wavelength[part])
    order = np.lexsort((mjd, group))
    same = group[order[1:]] == group[order[:-1]]
    first, second = order[:-1][same], order[1:][same]
    print(
        "correlation of differences between visits with that 1, 2, 3 pixels away: "
        + slashed(noise_correlation(stars, first, second), "{:.2f}")
    )
    for (name, Model), broadening in product(MODELS.items(), (False, True)):
        model = miles_model(Model, wavelength[part], fit_broadening=broadening)
        result = model.invert(stars)
        usable = result.converged & ~result.at_bound.any(axis=1)
        pairs = np.stack([first, second])[:, usable[first] & usable[second]]
        value = np.column_stack([result.labels, result.rv])
        moved = result.rv + pipeline
        formal = result.formal_dist.std()
        counted = model.set_params(inversion__correlation_length=LAMOST_CORRELATION).invert(stars)
        total = np.column_stack([result.dist.std(), result.rv_std])
        for what, std in (
            ("formal, independent pixels", formal),
            ("formal, correlated pixels", counted.formal_dist.std()),
            ("total", total),
        ):
            k = std.shape[1]
            pull = (value[pairs[0], :k] - value[pairs[1], :k]) / np.hypot(*std[pairs])
            spread = 1.4826 * np.median(np.abs(pull), axis=0)
            rows.append(
                [
                    name,
                    "free" if broadening else "no",
                    what,
                    pairs.shape[1],
                    slashed(spread, "{:.2f}"),
                    slashed(np.median(std, axis=0)),
                ]
            )
        gone = 1.4826 * np.median(np.abs(moved[pairs[0]] - moved[pairs[1]]))
        print(
            f"{name}, broadening {'free' if broadening else 'not fitted'}: velocities of visits, "
            f"pipeline's shift included, differ by {gone:.1f} km/s (robust)"
        )
    table(
        "Successive visits of LAMOST stars: robust scatter of differences over their errors",
        ["method", "broadening", "errors", "pairs", "pull: Teff/logg/[Fe/H]/rv", "errors"],
        rows,
    )


def noise_correlation(stars, first, second):
    """Of neighbouring pixels, from differences of visits, which hold no star."""
    good = stars.good[first] & stars.good[second]
    variance = np.where(good, stars.variance[first] + stars.variance[second], 1.0)
    z = np.where(good, stars.flux[first] - stars.flux[second], 0.0) / np.sqrt(variance)
    rho = residual_correlation(np.clip(z, -5, 5), LAMOST_CORRELATION)
    return np.median(rho / (1 - np.arange(rho.shape[1]) / rho.shape[1]), axis=0)[1:4]


# -- speed -----------------------------------------------------------------------------------------


def seen(spectra, seed=5, rv=200.0):
    """The same stars shifted and tilted; velocities."""
    rng = np.random.default_rng(seed)
    velocity = rng.uniform(-rv, rv, len(spectra))
    sight = LineOfSight(spectra.wavelength)
    flux = sight.spectra(
        sight.transform(spectra.flux) * sight.phase(ln_shift(velocity) / sight.step)
    )
    x = np.linspace(-1, 1, spectra.shape[1])
    tilt = 0.1 * rng.normal(size=(2, len(spectra), 1))
    return spectra.replace(flux=flux * (1 + tilt[0] * x + tilt[1] * x**2)), velocity


def one_by_one(model, spectra, start, edge=150):
    """scipy.optimize.least_squares for each star, with the analytic Jacobian."""
    u, n_labels = np.log(spectra.wavelength), start.shape[1] - 1
    T = continuum_basis(spectra.wavelength, model.continuum_degree)
    scale = np.r_[model.label_scale_, 1.0, np.ones(len(T))]
    inside, found = slice(edge, -edge), []
    for y, sigma, first in zip(spectra.flux, np.sqrt(model.noise(spectra).variance()), start):
        cache = {}

        def parts(p, cache=cache):
            if cache.get("p") != p.tobytes():
                q = p * scale
                rest = np.column_stack(
                    [model.predict_flux(q[:n_labels])[0], model.flux_jacobian(q[:n_labels])[0]]
                )
                spline = CubicSpline(u, rest)
                at = u - ln_shift(q[n_labels])
                cache.update(p=p.tobytes(), rows=spline(at), slope=spline(at, 1)[:, 0])
            return cache["rows"], cache["slope"], p[n_labels + 1 :] @ T

        def residual(p, y=y, sigma=sigma, parts=parts):
            rows, _, curve = parts(p)
            return ((rows[:, 0] * curve - y) / sigma)[inside]

        def jacobian(p, sigma=sigma, parts=parts):
            rows, slope, curve = parts(p)
            columns = [
                rows[:, 1:] * curve[:, None],
                (-slope * curve / C_KMS)[:, None],
                rows[:, :1] * T.T,
            ]
            return (np.concatenate(columns, axis=1) * scale / sigma[:, None])[inside]

        p0 = np.r_[first, 1.0, np.zeros(len(T) - 1)] / scale
        best = least_squares(residual, p0, jac=jacobian, method="trf", x_scale="jac", ftol=1e-6)
        found.append(best.x[: n_labels + 1] * scale[: n_labels + 1])
    return np.array(found)


def speed(args):
    train, y, test, truth = apogee_like(args.n_train, args.stars, 5)
    test, rv = seen(test)
    rows = []
    for name, Model in MODELS.items():
        model = Model(fit_rv=True, continuum_degree=4, label_covariance=False).fit(train, y)
        model.invert(test[:8])
        own, wall = np.inf, np.inf
        for _ in range(args.repeats):
            start, result = time.process_time(), None
            seconds, result = clocked(lambda model=model: model.invert(test))
            own, wall = min(own, time.process_time() - start), min(wall, seconds.wall)
        n = min(args.scipy, len(test))
        # its start: the true velocity to half a pixel, labels of the middle of the box
        first = np.column_stack([np.tile(y.to_numpy().mean(axis=0), (n, 1)), rv[:n] + 2.0])
        start = time.process_time()
        found = one_by_one(model, test[:n], first)
        theirs = (time.process_time() - start) / n
        ours = own / len(test)
        agree = np.median(np.abs(found[:, :-1] - result.labels[:n]) / result.formal_dist.std()[:n])
        rows.append(
            [
                name,
                len(model._likelihood.basis.flux),
                f"{1e3 * ours:.2f}",
                f"{len(test) / wall:.0f}",
                f"{1e3 * theirs:.0f}",
                f"{theirs / ours:.0f}",
                f"{np.std(result.rv - rv):.3f}",
                f"{agree:.3f}",
                f"{load():.1f}",
            ]
        )
    table(
        f"7214 pixels, 5 labels, S/N 100, velocity and quartic free; {len(test)} stars, scipy {n}",
        [
            "method",
            "components",
            "ms CPU per star",
            "stars per s, wall",
            "scipy ms CPU",
            "ratio, CPU",
            "rv error km/s",
            "difference, sigma",
            "load",
        ],
        rows,
    )


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks velocity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = {"recovery": recovery, "lamost": lamost, "repeats": repeats, "speed": speed}
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--n", type=int, default=1000, help="stars of recovery")
    parser.add_argument("--n-train", type=int, default=1000)
    parser.add_argument("--stars", type=int, default=256)
    parser.add_argument("--scipy", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args(argv)
    print_machine()
    for name in args.parts:
        parts[name](args)
