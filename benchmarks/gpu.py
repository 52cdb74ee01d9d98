"""ThePayne trained on the CPU and on the GPU, in one process.

    python -m benchmarks gpu [--n 1000 4000] [--pixels 7000] [--hidden 100 300]

Spectra of make_spectra, S/N 100. All devices train the same network for the same epochs, without early
stopping, in turn; "training" is the epochs alone, "fit" everything, the label covariance included.
Without a GPU the table has CPU rows only.
"""

import argparse
import os

import numpy as np

from benchmarks.common import clocked, load, print_machine, ratio, table
from skspec import predict_dist
from skspec.datasets import make_spectra
from skspec.forward import ThePayne


class _Sides:
    """Fits by name of the device; each run leaves its model and the clock of its epochs."""

    def __init__(self, spectra, labels, args, width, batch_size):
        self.data = spectra, labels
        self.settings = {
            "hidden_layer_sizes": (width, width),
            "max_iter": args.epochs,
            "n_iter_no_change": args.epochs,
            "batch_size": batch_size,
            "random_state": 0,
        }
        self.models = {}

    def run(self, side, **settings):
        import torch

        device, threads = side
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        model = ThePayne(**{**self.settings, **settings}, device=device)
        seconds, _ = clocked(lambda: model.fit(*self.data))
        torch.set_num_threads(before)
        self.models[side] = model
        return seconds, sum(history["dur"].sum() for history in model.history_)


def sides(most_threads):
    """(device, CPU threads) that can be compared here."""
    import torch

    out = [("cpu", threads) for threads in sorted({1, most_threads})]
    if torch.cuda.is_available():
        out.append(("cuda", most_threads))
        print(f"GPU: {torch.cuda.get_device_name()}, torch {torch.__version__}")
    else:
        print(f"no GPU that torch {torch.__version__} can use: CPU rows only")
    return out


def compare(args, train, test, chosen, width, batch_size):
    runner = _Sides(*train, args, width, batch_size)
    fits, epochs = {side: [] for side in chosen}, {side: [] for side in chosen}
    for side in chosen:  # to warm up
        runner.run(side, max_iter=2)
    for number in range(args.repeats):
        for side in chosen[:: -1 if number % 2 else 1]:
            seconds, training = runner.run(side)
            fits[side].append(seconds)
            epochs[side].append(training)
    rows, reference = [], chosen[0]
    flux = runner.models[reference].predict_flux(test[1])
    for side in chosen:
        model, dist = runner.models[side], predict_dist(runner.models[side], test[0])
        rmse = np.sqrt(np.mean((dist.mean() - test[1].to_numpy()) ** 2, axis=0))
        faster = np.array(epochs[reference]) / np.array(epochs[side])
        rows.append(
            [
                side[0],
                side[1],
                f"{1e3 * np.median(epochs[side]) / args.epochs:.2f}",
                f"{np.median([s.wall for s in fits[side]]):.2f}",
                f"{np.median(faster):.1f} ({faster.min():.1f}-{faster.max():.1f})",
                "{:.1f} ({:.1f}-{:.1f})".format(*ratio(fits[reference], fits[side])),
                f"{np.sqrt(np.mean((model.predict_flux(test[1]) - flux) ** 2)):.1e}",
                " / ".join(f"{value:.3g}" for value in rmse),
            ]
        )
    table(
        f"n = {len(train[0])}, {args.pixels} pixels, hidden {width}-{width}, batch {batch_size}, "
        f"{args.epochs} epochs, {args.repeats} rounds; load {load():.1f}",
        [
            "device",
            "CPU threads",
            "ms per epoch",
            "fit s",
            "training faster",
            "fit faster",
            "flux rms to first",
            "RMSE Teff / logg / [Fe/H]",
        ],
        rows,
    )


def main(argv=None):
    parser = argparse.ArgumentParser(prog="gpu", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--n", type=int, nargs="+", default=[1000, 4000], help="training stars")
    add("--pixels", type=int, default=7000)
    add("--hidden", type=int, nargs="+", default=[100, 300], help="widths of both hidden layers")
    add("--batch", type=int, nargs="+", default=[128, 1024])
    add("--epochs", type=int, default=20)
    add("--repeats", type=int, default=3)
    add("--threads", type=int, default=os.cpu_count(), help="CPU threads at most")
    args = parser.parse_args(argv)
    print_machine()
    test = make_spectra(200, n_pixels=args.pixels, random_state=1)
    chosen = sides(args.threads)
    for n in args.n:
        train = make_spectra(n, n_pixels=args.pixels, random_state=0)
        for width in args.hidden:
            for batch_size in args.batch:
                compare(args, train, test, chosen, width, batch_size)


if __name__ == "__main__":
    main()
