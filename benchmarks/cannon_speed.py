"""TheCannon against the two public Cannons, or against loops with scipy where they are missing.

    OMP_NUM_THREADS=1 SKSPEC_PEERS=FOLDER python -m benchmarks cannon_speed [--threads 2]

Ours and every peer run in turn (A B C C B A ...), each in a process that has imported and read
everything before, with as many threads each; medians of the rounds and of the ratios of each round, of
CPU time with one thread and of wall time with more. Data:
`common.apogee_like`, S/N 100, 3 labels, 7214 pixels; quadratic models.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares
from threadpoolctl import threadpool_limits

from benchmarks.cannon_solver import loop_over_pixels
from benchmarks.common import (
    Seconds,
    apogee_like,
    clocked,
    load,
    print_machine,
    ratio,
    table,
    verdict,
)
from benchmarks.peers import Peer, how_to_install, interpreters
from skspec.forward import TheCannon

TITLES = {
    "ho": "thecannon (Ho)",
    "casey": "AnniesLasso (Casey)",
    "astroslam": "astroslam",
    "scipy": "scipy loop",
}
OURS = {"TheCannon": True, "TheCannon, no label covariance": False}
NUMBER_OF_PIXELS = 40  # of the scipy loop
NUMBER_OF_STARS = 20


class Ours:
    """Same calls as `Peer`, in this process."""

    def __init__(self, data, label_covariance):
        self.train, self.y, self.test, _ = data
        self.model = TheCannon(label_covariance=label_covariance)

    def __call__(self, job):
        if job == "train":
            return clocked(lambda: self.model.fit(self.train, self.y))[0], None
        return clocked(lambda: self.model.predict(self.test))

    def close(self):
        pass


class ScipyLoop:
    """Bounded profile likelihood pixel by pixel, least squares star by star, on subsets."""

    def __init__(self, data):
        self.train, self.y, self.test, _ = data
        self.model = TheCannon(label_covariance=False).fit(self.train, self.y)

    def __call__(self, job):
        return getattr(self, job + "_some")()

    def train_some(self):
        model = self.model
        pixels = np.linspace(0, self.train.shape[1] - 1, NUMBER_OF_PIXELS).astype(int)
        V = model._features((np.asarray(self.y) - model.label_pivot_) / model.label_scale_)
        flux, variance = self.train.flux[:, pixels], self.train.variance[:, pixels]
        seconds, _ = clocked(lambda: loop_over_pixels(V, flux, variance))
        return Seconds(*(s * self.train.shape[1] / NUMBER_OF_PIXELS for s in seconds)), None

    def predict_some(self):
        model, some = self.model, self.test[:NUMBER_OF_STARS]
        pivot, scale = model.label_pivot_, model.label_scale_

        def all_stars():
            out = []
            for flux, v in zip(some.flux, model.noise(some).variance()):
                w = 1 / np.sqrt(v)
                out.append(
                    pivot
                    + scale
                    * least_squares(
                        lambda x, f=flux, w=w: w * (model.predict_flux(pivot + x * scale)[0] - f),
                        np.zeros(len(scale)),
                        jac=lambda x, w=w: (
                            w[:, None] * scale * model.flux_jacobian(pivot + x * scale)[0]
                        ),
                    ).x
                )
            return np.array(out)

        seconds, labels = clocked(all_stars)
        return Seconds(*(s * len(self.test) / NUMBER_OF_STARS for s in seconds)), labels

    def close(self):
        pass


def compare(n, n_labels, found, repeats, threads):
    data = apogee_like(n, n_labels=n_labels)
    sides = {name: Ours(data, covariance) for name, covariance in OURS.items()}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "data.npz"
        train, y, test, y_test = data
        np.savez(
            file,
            x=train.flux,
            xi=train.ivar,
            y=np.asarray(y),
            t=test.flux,
            ti=test.ivar,
            wave=train.wavelength,
        )
        for name in ("ho", "casey"):
            if name in found:
                sides[name] = Peer(name, found[name], file, threads)
        if not set(sides) - set(OURS):
            sides["scipy"] = ScipyLoop(data)
        rounds, labels = run_in_turn(sides, repeats)
        for side in sides.values():
            side.close()
    show(
        n, n_labels, rounds, labels, np.asarray(y_test), repeats, "cpu" if threads == 1 else "wall"
    )


def run_in_turn(sides, repeats):
    rounds = {job: {name: [] for name in sides} for job in ("train", "predict")}
    labels = {}
    for number in range(repeats):
        for job, times in rounds.items():
            for name in list(sides)[:: -1 if number % 2 else 1]:
                seconds, found = sides[name](job)
                times[name].append(seconds)
                labels[name] = found if job == "predict" else labels.get(name)
    return rounds, labels


def show(n, n_labels, rounds, labels, truth, repeats, clock):
    required = {"train": (10, 10), "predict": (15, 40)}
    for job, times in rounds.items():
        middle = {name: Seconds(*np.median(all_, axis=0)) for name, all_ in times.items()}
        peers = [name for name in times if name not in OURS]
        peers.sort(key=lambda peer: getattr(middle[peer], clock))
        rows = []
        for name, seconds in middle.items():
            row = [TITLES.get(name, name)]
            if job == "train":
                row += [f"{seconds.wall:.3f}", f"{seconds.cpu:.3f}"]
            else:
                row += [f"{1e3 * s / len(truth):.3f}" for s in seconds]
            for peer, need in zip(peers, required[job]):
                if name in OURS:
                    now, low, high = ratio(times[peer], times[name], clock)
                    row.append(f"{now:.1f} ({low:.1f}-{high:.1f}), {verdict(now, need)}")
                else:
                    row.append("")
            if job == "predict":
                error = labels[name] - truth[: len(labels[name])]
                row.append(" / ".join(f"{e:.3g}" for e in np.sqrt(np.mean(error**2, axis=0))))
                if len(error) < len(truth):
                    row[-1] += f" ({len(error)} stars)"
            rows.append(row)
        unit = "s" if job == "train" else "ms/star"
        which = "training" if job == "train" else f"labels of {len(truth)} stars"
        table(
            f"The Cannon, {which}: n={n}, {n_labels} labels, 7214 pixels, median of {repeats}",
            [
                "side",
                f"wall {unit}",
                f"CPU {unit}",
                *(f"{clock}: {TITLES[p]} / ours" for p in peers),
            ]
            + (["RMSE"] if job == "predict" else []),
            rows,
        )
    print(f"load {load():.1f}", flush=True)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="cannon_speed", description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, nargs="+", default=[200, 1000], help="training stars")
    parser.add_argument("--labels", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of ours, and of each peer")
    parser.add_argument("--peers", help="folder of their environments (default: SKSPEC_PEERS)")
    args = parser.parse_args(argv)
    print_machine()
    found = interpreters(args.peers)
    if not {"ho", "casey"} & set(found):
        print(how_to_install())
    with threadpool_limits(args.threads, user_api="blas"):
        for n in args.n:
            compare(n, args.labels, found, args.repeats, args.threads)


if __name__ == "__main__":
    main()
