"""The HARPS-N poster: networks on echelle orders, errors and coverage next to the physical limit.

    python -m benchmarks harpsn [--size quick|small|full] [--out results/harpsn] [--seed 0] [--figures]

Spectra of `synthesize` are laid out as 8 echelle orders (blaze, per-order median, padded ends) and get
white noise of 1/20 or 1/100 of the median, redrawn in every batch. Rows as in the poster's Table 1:
residual or attention network, with or without a denoiser, diagonal or full covariance at S/N 20;
diagonal at S/N 100 for 4000 to 6000 K. Training, calibration and test stars are drawn apart.
Every row is written to OUT when it is done, and a row that stands there is not run again. "small" takes
under 20 minutes on two cores; "full" (28 366 stars of 8 x 4096 pixels) needs a GPU.
"""

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import RidgeCV

from benchmarks.common import print_machine, table
from skspec import Spectra, domain_score, metrics, predict_dist
from skspec.calibration import CalibratedRegressor, ResidualCovarianceRegressor
from skspec.datasets import synthesize
from skspec.diagnostics import SyntheticGradients, attenuation_slope, cramer_rao_bound
from skspec.discriminative import SpectralCNN
from skspec.preprocessing import EchelleLayout

RANGES = {"teff": (4000, 7000), "logg": (3.0, 5.0), "feh": (-1.0, 0.5), "vsini": (1, 50)}
NAMES = list(RANGES)
SUN = {"teff": 5772.0, "logg": 4.44, "feh": 0.0, "vsini": 2.0}
COOL = 6000  # K, the hottest stars of the rows at S/N 100
LEVELS = (0.6827, 0.9545)
CHUNK = 256  # stars synthesized at once
N_BOUND = 200  # test stars whose bound is averaged
N_SUN = 50  # draws of the noise of the Sun
SUN_RV = 100.0  # km/s, that no network has learned of


class Row(NamedTuple):
    """A row of the poster's Table 1, and its figures."""

    snr: int
    covariance: str
    architecture: str
    denoised: bool
    poster: tuple  # MAE of NAMES
    poster_coverage: tuple | None = None  # 1 and 2 sigma, in %


ROWS = [
    Row(20, "diagonal", "residual", False, (76.9, 0.138, 0.055, 0.71), (79.9, 98.4)),
    Row(20, "diagonal", "attention", False, (73.0, 0.135, 0.053, 0.69), (65.5, 93.4)),
    Row(20, "diagonal", "residual", True, (72.3, 0.133, 0.052, 0.67), (77.9, 97.9)),
    Row(20, "diagonal", "attention", True, (70.9, 0.134, 0.049, 0.57)),
    Row(20, "full", "residual", False, (83.8, 0.143, 0.060, 0.75)),
    Row(20, "full", "attention", False, (79.2, 0.146, 0.055, 0.72)),
    Row(20, "full", "residual", True, (89.1, 0.150, 0.060, 0.72)),
    Row(20, "full", "attention", True, (72.9, 0.137, 0.049, 0.58)),
    Row(100, "diagonal", "residual", False, (19.5, 0.053, 0.026, 0.30)),
    Row(100, "diagonal", "attention", False, (12.9, 0.045, 0.013, 0.15)),
]


@dataclass(frozen=True)
class Size:
    """Stars, pixels and recipes."""

    n_train: int
    n_calibration: int
    n_test: int
    n_pixels: int  # of an order
    n_grid: int  # pixels of the 1-D spectrum
    resolution: float
    spectrum: tuple  # [Angstrom]
    orders: tuple  # the ends of the first and last are empty; Mg b lies in the middle of one
    network: dict = field(default_factory=dict)  # of all networks
    residual: dict = field(default_factory=dict)
    attention: dict = field(default_factory=dict)
    denoiser: dict = field(default_factory=dict)


SIZES = {
    "quick": Size(  # does everything run?
        300,
        100,
        100,
        32,
        700,
        3000,
        (5082, 5252),
        (5073, 5258),
        network={"max_iter": 2, "batch_size": 64, "learning_rate_init": 2e-3},
        residual={"architecture_params": {"width": 8, "hidden": (32,)}},
        attention={"architecture_params": {"width": 4}},
        denoiser={"n_latent": 10, "width": 4, "max_iter": 2},
    ),
    "small": Size(
        4000,
        3000,
        3000,
        64,
        1200,
        9000,
        (5082, 5252),
        (5073, 5258),
        network={"max_iter": 40, "batch_size": 64, "learning_rate_init": 2e-3},
        residual={"architecture_params": {"width": 32, "hidden": (256, 128), "dropout": 0.0}},
        attention={
            "architecture_params": {"width": 8},
            "max_iter": 20,
            "batch_size": 32,
            "learning_rate_init": 3e-3,
        },
        denoiser={"n_latent": 40, "width": 8, "max_iter": 40, "learning_rate_init": 2e-3},
    ),
    "full": Size(
        22976,
        2553,
        2837,
        4096,
        30000,
        115_000,
        (4985, 5325),
        (4973, 5344),
        network={"max_iter": 500, "batch_size": 128, "learning_rate_init": 1e-4, "amp": True},
        denoiser={"max_iter": 750, "batch_size": 256, "learning_rate_init": 3e-4},
    ),
}


# -- spectra ---------------------------------------------------------------------------------------


class EchelleGradients(SyntheticGradients):
    """Spectra of `synthesize` and their gradients after the layout."""

    def __init__(self, layout, wavelength, **kwargs):
        super().__init__(NAMES, wavelength, **kwargs)
        self.layout = layout
        self.wavelength = layout.order_wavelength_.ravel()
        self.grid = wavelength

    def _flux(self, labels):
        flux = synthesize(dict(zip(NAMES, labels.T)), self.grid, **self.kwargs)
        return self.layout.transform(Spectra(flux, wavelength=self.grid)).flux


class Stars:
    """Noise-free orders of all stars of a size, kept in a folder."""

    def __init__(self, size, folder, seed):
        self.size, self.folder, self.seed = size, folder, seed
        self.grid = np.linspace(*size.spectrum, size.n_grid)
        self.layout = EchelleLayout(8, size.n_pixels, method="cubic", wavelength_range=size.orders)
        self.layout.fit(Spectra(np.ones((1, size.n_grid), np.float32), wavelength=self.grid))
        self.gradients = EchelleGradients(self.layout, self.grid, resolution=size.resolution)

    def draw(self, which, n):
        """Orders without noise (``ivar`` 0 or inf) and labels; the same for the same seed."""
        number = ("train", "calibration", "test").index(which)
        rng = np.random.default_rng([self.seed, number])
        labels = pd.DataFrame({name: rng.uniform(*RANGES[name], n) for name in NAMES})
        path = self.folder / f"flux-{which}.npy"
        if not path.exists():
            flux = np.concatenate(
                [self.layout_of(labels[start : start + CHUNK]).flux for start in range(0, n, CHUNK)]
            )
            _write(path, lambda part: np.save(part, flux))
        one = self.layout_of(labels[:1])
        ivar = np.broadcast_to(np.where(one.good, np.inf, 0).astype(np.float32), (n, one.shape[1]))
        flux = np.load(path)
        return one.replace(flux=flux, ivar=ivar, meta={}), labels

    def layout_of(self, labels):
        """Orders of stars with these labels."""
        flux = synthesize(labels, self.grid, resolution=self.size.resolution)
        return self.layout.transform(Spectra(flux.astype(np.float32), wavelength=self.grid))


def with_errors(orders, snr):
    """The errors of white noise of 1 / snr of the median."""
    return orders.replace(ivar=np.where(orders.good, np.float32(snr**2), np.float32(0)))


def observed(orders, snr, seed):
    """With such noise in the flux, too."""
    noise = np.random.default_rng(seed).standard_normal(orders.shape, dtype=np.float32) / snr
    return with_errors(orders.replace(flux=orders.flux + noise * orders.good), snr)


# -- rows ------------------------------------------------------------------------------------------


class Bench:
    """Everything that a row needs: data by S/N, the denoiser, the folder of results."""

    def __init__(self, args):
        self.size, self.seed = SIZES[args.size], args.seed
        self.folder = Path(args.out) / f"{args.size}-{args.seed}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._keep_settings()
        self.stars = Stars(self.size, self.folder, args.seed)
        self.train, self.y_train = self.stars.draw("train", self.size.n_train)
        self.test, self.y_test = self.stars.draw("test", self.size.n_test)
        self.spare, self.y_spare = self.stars.draw("calibration", self.size.n_calibration)

    def _keep_settings(self):
        """Refuse a folder of other settings: its spectra and rows would not fit."""
        path, now = self.folder / "settings.json", json.dumps([asdict(self.size), RANGES])
        if not path.exists():
            path.write_text(now)
        elif path.read_text() != now:
            raise SystemExit(f"{self.folder} holds results of other settings; give another --out.")

    def sets(self, snr):
        """Training (noise in the errors only), calibration and test set of a S/N, with labels."""
        out = []
        for number, (orders, labels) in enumerate(
            (
                (self.train, self.y_train),
                (self.spare, self.y_spare),
                (self.test, self.y_test),
            )
        ):
            keep = np.flatnonzero(labels["teff"] <= (COOL if snr == 100 else np.inf))
            orders, labels = orders[keep], labels.iloc[keep].reset_index(drop=True)
            noisy = (
                with_errors(orders, snr)
                if number == 0
                else observed(orders, snr, [self.seed, snr, number])
            )
            out.append((noisy, labels))
        return out

    def denoiser(self, snr):
        """The denoiser of a S/N, trained once and kept."""
        from skspec.latent import DenoisingAutoencoder

        path = self.folder / f"denoiser-{snr}.joblib"
        if not path.exists():
            start = time.perf_counter()
            model = DenoisingAutoencoder(snr="ivar", random_state=self.seed, **self.size.denoiser)
            model.fit(self.sets(snr)[0][0])
            print(f"denoiser at S/N {snr}: {time.perf_counter() - start:.0f} s", flush=True)
            _write(path, lambda part: joblib.dump(model, part))
        return FrozenEstimator(joblib.load(path))

    def network(self, row):
        """Unfitted network of a row."""
        settings = self.size.network | getattr(self.size, row.architecture)
        denoiser = self.denoiser(row.snr) if row.denoised else None
        return SpectralCNN(
            row.architecture,
            row.covariance,
            denoiser=denoiser,
            augment_snr="ivar",
            random_state=self.seed,
            **settings,
        )

    def run(self, row):
        """Figures of a row, as they are written."""
        train, spare, test = self.sets(row.snr)
        start = time.perf_counter()
        model = self.network(row).fit(*train)
        seconds = time.perf_counter() - start
        _write(self.model_path(row), lambda part: joblib.dump(model, part))
        return {"seconds": seconds, "epochs": int(model.n_iter_)} | self.judge(
            model, spare, test, row
        )

    def model_path(self, row):
        return self.folder / f"{title(row).replace(' ', '-')}.joblib"

    def judge(self, model, spare, test, row):
        X, truth = test[0], test[1].to_numpy()
        calibrated = CalibratedRegressor(FrozenEstimator(model), method="conformal").fit(*spare)
        dist = predict_dist(model, X)
        inside = []
        for level in LEVELS:
            low, high = calibrated.predict_interval(X, level)
            inside.append(np.mean((truth >= low) & (truth <= high), axis=0))
        return {
            "mae": metrics.mae(truth, dist.mean()).tolist(),
            "slope": attenuation_slope(truth, dist.mean()).tolist(),
            "raw": _coverages(truth, dist),
            "scaled": _coverages(truth, predict_dist(calibrated, X)),
            "conformal": np.array(inside).tolist(),
            "nll": float(metrics.neg_log_likelihood(truth, dist)),
            "sun": self.sun(model, row.snr),
        }

    def sun(self, model, snr):
        """The Sun at rest, as all training stars, and moving: labels, errors, domain score."""
        out = {}
        for name, rv in (("rest", 0.0), ("moving", SUN_RV)):
            one = self.stars.layout_of(SUN | {"rv": rv})
            X = observed(one[np.zeros(N_SUN, int)].replace(meta={}), snr, [self.seed, snr, 9])
            dist = predict_dist(model, X)
            out[name] = {
                "labels": np.median(dist.mean(), axis=0).tolist(),
                "std": np.median(dist.std(), axis=0).tolist(),
                "domain_score": float(np.median(domain_score(model, X))),
            }
        return out

    def bound(self, snr):
        """Mean absolute error of an estimator that reaches the Cramer-Rao bound."""
        X, y = self.sets(snr)[2]
        X, y = X[:N_BOUND], y[:N_BOUND]
        found = cramer_rao_bound(self.stars.gradients, y.to_numpy(), X, noise="photon")
        return (np.sqrt(2 / np.pi) * found.std().mean(axis=0)).tolist()

    def ridge(self, snr):
        """Ridge regression on one draw of the noise, for scale."""
        train, _, (X, y) = self.sets(snr)
        noisy = observed(train[0], snr, [self.seed, snr, 0])
        model = ResidualCovarianceRegressor(RidgeCV(np.logspace(-2, 6, 17)), cv=3)
        model.fit(Spectra(noisy.flux, mask=~noisy.good), train[1])
        found = model.predict(Spectra(X.flux, mask=~X.good))
        return metrics.mae(y.to_numpy(), found).tolist()


def _coverages(truth, dist):
    return [metrics.coverage(truth, dist, n).tolist() for n in (1, 2)]


def title(row):
    return f"{row.snr} {row.covariance} {'DAE ' if row.denoised else ''}{row.architecture}"


def _write(path, write):
    """All of a file or nothing."""
    part = path.with_name("part-" + path.name)
    write(part)
    os.replace(part, path)


def run_rows(bench, only, n_jobs):
    """Figures of every row by title; those that are on file are read."""
    path = bench.folder / "rows.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    found = {line["title"]: line for line in map(json.loads, lines)}
    every = {title(row): row for row in ROWS}
    names = [f"{snr} {what}" for snr in (20, 100) for what in ("bound", "ridge")]
    # those that take longest go first, so that no process waits for them at the end
    names += sorted(every, key=lambda name: "attention" not in name)
    names = [name for name in names if name not in found and any(part in name for part in only)]
    for snr in {row.snr for name, row in every.items() if row.denoised and name in names}:
        bench.denoiser(snr)
    jobs = (delayed(_figures)(bench, name, every.get(name)) for name in names)
    for one in Parallel(n_jobs=n_jobs, return_as="generator_unordered")(jobs):
        found[one["title"]] = one
        with path.open("a") as file:
            file.write(json.dumps(one) + "\n")
        print(one["title"], f"{one.get('seconds', 0):.0f} s", _four(one["mae"]), flush=True)
    return found


def _figures(bench, name, row):
    if row is not None:
        return {"title": name} | bench.run(row)
    snr, what = name.split()
    return {"title": name, "mae": getattr(bench, what)(int(snr))}


# -- tables ----------------------------------------------------------------------------------------


def print_tables(found):
    rows = []
    for snr in (20, 100):
        for row in (row for row in ROWS if row.snr == snr and title(row) in found):
            one = found[title(row)]
            rows.append(
                [
                    snr,
                    row.covariance,
                    title(row).split(maxsplit=2)[2],
                    *_four(one["mae"]),
                    _slashed(row.poster, _DECIMALS),
                    _slashed(one["slope"], [2] * 4),
                    f"{one['seconds']:.0f}",
                ]
            )
        for name in ("ridge", "bound"):
            if f"{snr} {name}" in found:
                label = "Cramér-Rao bound" if name == "bound" else "ridge, for scale"
                rows.append([snr, "", label, *_four(found[f"{snr} {name}"]["mae"]), "", "", ""])
    table(
        "Table 1: mean absolute errors; the poster's own spectra, stars and pixels are others",
        [
            "S/N",
            "covariance",
            "model",
            "Teff K",
            "log g",
            "[Fe/H]",
            "vsini km/s",
            "poster: Teff / log g / Z / vsini",
            "slopes",
            "fit s",
        ],
        rows,
    )
    done = [(row, found[title(row)]) for row in ROWS if title(row) in found]
    table(
        "Table 2: coverage in % of 1 and 2 sigma (68.3, 95.4), mean of the labels (worst label)",
        ["S/N", "covariance", "model", "as trained", "scaled", "conformal", "poster"],
        [
            [
                row.snr,
                row.covariance,
                title(row).split(maxsplit=2)[2],
                *(_covered(one[key]) for key in ("raw", "scaled", "conformal")),
                _slashed(row.poster_coverage or (), [1, 1]) or "-",
            ]
            for row, one in done
        ],
    )
    table(
        f"Table 3: the Sun (5772, 4.44, 0, 2), at rest like the training stars, at {SUN_RV:.0f} km/s; "
        "domain score (1: farther than 99 % of stars held out)",
        [
            "S/N",
            "covariance",
            "model",
            "at rest: Teff / log g / Z / vsini",
            "score",
            "moving",
            "score",
        ],
        [
            [
                row.snr,
                row.covariance,
                title(row).split(maxsplit=2)[2],
                *(
                    text
                    for key in ("rest", "moving")
                    for text in (
                        _slashed(one["sun"][key]["labels"], (0, 2, 2, 1)),
                        f"{one['sun'][key]['domain_score']:.2f}",
                    )
                ),
            ]
            for row, one in done
        ],
    )


_DECIMALS = (1, 3, 3, 2)


def _four(values):
    return [f"{value:.{digits}f}" for value, digits in zip(values, _DECIMALS)]


def _slashed(values, decimals):
    return " / ".join(f"{value:.{digits}f}" for value, digits in zip(values, decimals))


def _covered(pair):
    """Mean over labels, and the label farthest from the promise, for 1 and 2 sigma."""
    out = []
    for level, values in zip(LEVELS, np.array(pair)):
        worst = values[np.argmax(np.abs(values - level))]
        out.append(f"{100 * values.mean():.1f} ({100 * worst:.1f})")
    return " / ".join(out)


# -- figures ---------------------------------------------------------------------------------------


def draw(bench):
    """The poster's figures: a star as orders, errors along the labels, attention."""
    import matplotlib

    matplotlib.use("Agg")
    from skspec.diagnostics import information_map
    from skspec.plotting import AttentionMapDisplay, EchelleDisplay, SigmaDisplay

    grid, size = bench.stars.grid, bench.size
    one = Spectra(synthesize(SUN, grid, resolution=size.resolution), wavelength=grid)
    pictures = {"echelle": EchelleDisplay.from_estimator(bench.stars.layout, one)}
    rows = {row.architecture: row for row in ROWS[:2] if bench.model_path(row).exists()}
    _, _, (X, y) = bench.sets(20)
    for name, row in rows.items():
        model = joblib.load(bench.model_path(row))
        pictures[f"sigma-{name}"] = SigmaDisplay.from_estimator(model, X, y, name=f"{name}, S/N 20")
        if name == "attention":
            known = information_map(
                bench.stars.gradients, y[:20].to_numpy(), X[:20], noise="photon"
            )
            pictures["attention"] = AttentionMapDisplay.from_estimator(
                model, X[:N_BOUND], information=known, name="attention network, S/N 20"
            )
    for name, display in pictures.items():
        display.figure_.savefig(bench.folder / f"{name}.png", dpi=110)
    print(f"figures in {bench.folder}: {', '.join(pictures)}")


def main(argv=None):
    parser = argparse.ArgumentParser(prog="harpsn", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--size", choices=list(SIZES), default="small")
    add("--out", default="results/harpsn", help="folder of what is kept between runs")
    add("--seed", type=int, default=0)
    add("--only", nargs="+", default=[""], help="rows whose name has one of these words")
    add("--n-jobs", type=int, help="rows at a time (default: 2 of one thread each; full: 1)")
    add("--figures", action="store_true", help="also draw the poster's figures into OUT")
    args = parser.parse_args(argv)
    print_machine()
    start = time.perf_counter()
    bench = Bench(args)
    found = run_rows(bench, args.only, args.n_jobs or (1 if args.size == "full" else 2))
    print_tables(found)
    print(f"\n{time.perf_counter() - start:.0f} s in this run")
    if args.figures:
        draw(bench)


if __name__ == "__main__":
    main()
