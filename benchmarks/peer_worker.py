"""Runs one published package in its own environment; started by `benchmarks.peers.Peer`.

Needs numpy and the peer only. Reads one JSON request a line, answers one JSON line.
"""

import contextlib
import io
import json
import sys
import time
import warnings

import numpy as np


class Ho:
    """The Cannon, ``thecannon`` 0.7: quadratic, its own defaults."""

    def __init__(self, d):
        import matplotlib

        matplotlib.use("Agg")
        from TheCannon.dataset import Dataset
        from TheCannon.model import CannonModel

        self.d, self.Dataset, self.CannonModel = d, Dataset, CannonModel

    def dataset(self):
        d = self.d
        # it writes into the arrays it is given
        data = self.Dataset(
            d["wave"],
            np.arange(len(d["x"])),
            d["x"].copy(),
            d["xi"].copy(),
            d["y"],
            np.arange(len(d["t"])),
            d["t"].copy(),
            d["ti"].copy(),
        )
        names = [f"label{k}" for k in range(d["y"].shape[1])]
        data.set_label_names(names)
        data.ranges = [[None, None]] * len(names)
        return data

    def prepare(self):
        self.data = self.dataset()

    def train(self):
        self.model = self.CannonModel(2, useErrors=False)
        self.model.train(self.data)

    def predict(self):
        self.model.infer_labels(self.data)
        return self.data.test_label_vals


class Casey:
    """The Cannon 2, ``AnniesLasso`` 0.2: quadratic, no regularisation, one process."""

    def __init__(self, d):
        from thecannon import CannonModel
        from thecannon.vectorizer import PolynomialVectorizer

        self.d, self.CannonModel, self.Vectorizer = d, CannonModel, PolynomialVectorizer

    def prepare(self):
        d = self.d
        names = [f"label{k}" for k in range(d["y"].shape[1])]
        fresh = self.CannonModel(
            d["y"], d["x"], d["xi"], self.Vectorizer(names, 2), dispersion=d["wave"]
        )
        if not hasattr(self, "trained"):
            self.model = fresh
        self.fresh = fresh

    def train(self):
        self.model = self.fresh
        self.model.train()
        self.trained = True

    def predict(self):
        return self.model.test(self.d["t"], self.d["ti"])[0]


class AstroSLAM:
    """SLAM, ``astroslam``: the older class, whose path with fixed hyperparameters works."""

    def __init__(self, d):
        from slam.slam import Slam

        self.d, self.Slam = d, Slam

    def prepare(self):
        pass

    def train(self):
        d = self.d
        self.model = self.Slam(
            d["wave"], d["x"], d["xi"], d["y"], scale=True, robust=False, ivar_eps=0
        )
        self.model.train_pixels(
            method="simple",
            cv=1,
            n_jobs=1,
            verbose=0,
            C=1.0,
            epsilon=0.05,
            gamma=1.0 / d["y"].shape[1],
        )

    def predict(self):
        t, ti = self.d["t"], self.d["ti"]
        start = np.asarray(self.model.predict_labels_quick(t, ti, n_jobs=1))
        return np.asarray(self.model.predict_labels_multi(start, t, ti, n_jobs=1))


def answer(peer, job):
    sink = io.StringIO()
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        peer.prepare()
        cpu, wall = time.process_time(), time.perf_counter()
        labels = getattr(peer, job)()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    out = {"wall": wall, "cpu": cpu}
    if labels is not None:
        out["labels"] = np.asarray(labels, dtype=float).tolist()
    return out


def main():
    warnings.simplefilter("ignore")
    name, path = sys.argv[1:]
    kinds = {"ho": Ho, "casey": Casey, "astroslam": AstroSLAM}
    try:
        with np.load(path) as file:
            sink = io.StringIO()
            with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
                peer = kinds[name](dict(file))
        print(json.dumps({"ready": name}), flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(peer, json.loads(line)["job"])), flush=True)
    except Exception as error:  # noqa: BLE001  the parent says what went wrong
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)


if __name__ == "__main__":
    main()
