"""SpectralCNN: accuracy on emulated APOGEE spectra, and its time beside a bare PyTorch loop.

    python -m benchmarks networks [--parts accuracy time] [--networks strided ensemble ridge ...]

- accuracy: 3000 APOGEE-like stars, S/N 20 to 300, 5 labels, 500 of them to test; mean absolute errors
  of all and of those above S/N 100, next to the ridge regression of the data's README, and coverage
  as it is and after calibration with CalibratedRegressor on stars that nobody trained on.
- time: the same module, data, noise, optimizer and epochs by fit_network (skorch) and by a loop of
  plain PyTorch, in turn; and predict_dist against the module on tensors that lie ready. CPU seconds,
  or of the wall with a GPU.
"""

import argparse
import time

import numpy as np
from sklearn.frozen import FrozenEstimator

from benchmarks.common import clocked, data_file, load, print_machine, table
from skspec import domain_score, predict_dist
from skspec.calibration import CalibratedRegressor
from skspec.datasets import load_spectra, make_spectra
from skspec.diagnostics import make_method
from skspec.discriminative import SpectralCNN
from skspec.ensemble import DeepEnsembleRegressor
from skspec.metrics import coverage
from skspec.model_selection import star_splits

TWO_SIGMA = 0.9545
#: MAE of PCA(150) and ridge over all S/N and above 100, from the data's README
RIDGE = {"all S/N": (71, 0.074, 0.041, 0.045, 1.35), "above 100": (31, 0.029, 0.018, 0.013, 0.44)}


def recipes(epochs):
    """Networks by name."""
    settings = {"augment_snr": (20.0, 300.0), "max_iter": epochs, "random_state": 0}
    strided = SpectralCNN("strided", **settings)
    return {
        "strided": strided,
        "strided full": SpectralCNN("strided", "full", **settings),
        "ensemble": DeepEnsembleRegressor(strided, 5, random_state=0),
        "starnet": SpectralCNN("starnet", **settings),
        "residual": SpectralCNN(
            "residual", architecture_params={"width": 16, "hidden": (256, 128)}, **settings
        ),
        "the_payne": make_method("the_payne", 2000, random_state=0),
        "ridge": make_method("ridge", 2000),
    }


# -- accuracy --------------------------------------------------------------------------------------


def slashed(values, form="{:.3g}"):
    return " / ".join(form.format(v) for v in values)


def accuracy(args):
    path = data_file("apogee_emulated/apogee_emulated.npz")
    if path is None:
        return
    spectra, labels = load_spectra(path)
    [(train, test)] = star_splits(len(labels), test_size=500, random_state=0)
    train, held_out = train[args.held_out :], train[: args.held_out]
    header = [
        "method",
        "MAE",
        "MAE above S/N 100",
        "1 sigma %",
        "2 sigma %",
        "calibrated 1 sigma %",
        "2 sigma %",
        "conformal 2 sigma %",
        "score > 1 %",
        "fit CPU s",
    ]
    rows = [["PCA + ridge, README", *(slashed(v) for v in RIDGE.values()), *[""] * 7]]
    truth, bright = labels.to_numpy()[test], spectra.snr[test] > 100
    for name in args.networks:
        seconds, model = clocked(
            lambda name=name: recipes(args.epochs)[name].fit(spectra[train], labels.iloc[train])
        )
        scaled = CalibratedRegressor(FrozenEstimator(model), method="conformal")
        scaled.fit(spectra[held_out], labels.iloc[held_out])
        dists = [predict_dist(m, spectra[test]) for m in (model, scaled)]
        error = np.abs(dists[0].mean() - truth)
        covered = [slashed(100 * coverage(truth, d, k), "{:.0f}") for d in dists for k in (1, 2)]
        lower, upper = scaled.predict_interval(spectra[test], TWO_SIGMA)
        inside = (lower <= truth) & (truth <= upper)
        covered.append(slashed(100 * inside.mean(axis=0), "{:.0f}"))
        far = 100 * np.mean(domain_score(model, spectra[test]) > 1)
        rows.append(
            [
                name,
                slashed(error.mean(axis=0)),
                slashed(error[bright].mean(axis=0)),
                *covered,
                f"{far:.1f}",
                f"{seconds.cpu:.0f}",
            ]
        )
        print(" | ".join(rows[-1]), flush=True)
    table(
        f"apogee_emulated, {len(train)} stars to train, {len(held_out)} to calibrate, {len(test)} "
        f"to test; {args.epochs} epochs; {' / '.join(labels)}; load {load():.1f}",
        header,
        rows,
    )


# -- time ------------------------------------------------------------------------------------------


def bare_loop(module, loss, train, valid, n_epochs, batch_size, rate, augment, device):
    """Train as fit_network does, with PyTorch alone."""
    import torch

    def to(arrays):
        return {
            key: torch.tensor(a, dtype=torch.float32, device=device) for key, a in arrays.items()
        }

    (x, y), (x_valid, y_valid) = ((to(a), to({"y": b})["y"]) for a, b in (train, valid))
    n = len(y)
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate)
    n_batches = -(-n // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=rate, total_steps=n_epochs * n_batches, pct_start=0.1
    )
    rng, valid_batches = np.random.default_rng(0), np.array_split(np.arange(len(y_valid)), 4)
    for _ in range(n_epochs):
        module.train()
        loss.train()
        for rows in np.array_split(rng.permutation(n), n_batches):
            rows = torch.from_numpy(rows).to(device)
            inputs = augment({key: tensor[rows] for key, tensor in x.items()})
            optimizer.zero_grad()
            value = loss(module(**inputs), y[rows])
            value.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        module.eval()
        loss.eval()
        with torch.no_grad():
            total = 0.0
            for rows in valid_batches:
                inputs = {key: tensor[rows] for key, tensor in x_valid.items()}
                total += loss(module(**inputs), y_valid[rows]).item()
    return module


def prepared(architecture, n, n_pixels, device):
    """A model fitted for an epoch, and the arrays that it was trained on."""
    spectra, labels = make_spectra(n, n_pixels=n_pixels, snr=(20, 300), random_state=0)
    model = SpectralCNN(
        architecture,
        augment_snr=(20.0, 300.0),
        max_iter=1,
        device=device,
        random_state=0,
        architecture_params={"width": 8} if architecture in ("residual", "attention") else None,
    ).fit(spectra, labels)
    y, cut = labels.to_numpy(), n // 10
    train = model._training_arrays(spectra[cut:], y[cut:])
    return model, spectra, train, (model._known(spectra[:cut]), model._target(y[:cut]))


def epochs_of_both(model, train, valid, epochs, batch_size):
    """Seconds of training by skorch and by the bare loop."""
    import torch
    from torch.optim import AdamW

    from skspec.networks import FreshNoise, GaussianLoss, SpectralNetwork, fit_network

    arguments = model._module(train[1].shape[1])
    fresh = FreshNoise(model.augment_snr)
    start = clock(model.device_)
    fit_network(
        SpectralNetwork,
        GaussianLoss,
        train,
        valid,
        n_epochs=epochs,
        batch_size=batch_size,
        learning_rate=1e-3,
        patience=epochs,
        device=model.device_,
        optimizer=AdamW,
        schedule="one_cycle",
        clip_norm=1.0,
        augment=fresh,
        criterion__beta=0.5,
        **{f"module__{key}": value for key, value in arguments.items()},
    )
    middle = clock(model.device_)
    module = SpectralNetwork(**arguments).to(model.device_)
    loss = GaussianLoss(0.5)
    bare_loop(
        module, loss, train, valid, epochs, batch_size, 1e-3, fresh, torch.device(model.device_)
    )
    return middle - start, clock(model.device_) - middle


def clock(device):
    """CPU seconds, which other work on the machine does not count in; with a GPU, of the wall."""
    import torch

    if "cuda" not in device:
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def throughput(model, spectra):
    """Stars per second of predict_dist, and of the network on ready tensors."""
    import torch

    from skspec.networks import in_batches

    predict_dist(model, spectra[:300])
    start = clock(model.device_)
    predict_dist(model, spectra)
    middle = clock(model.device_)
    batches = [(m, i) for _, m, i in in_batches(model.net_.module_, spectra, model._known)]
    ready = clock(model.device_)
    with torch.inference_mode():
        for module, inputs in batches:
            module(**inputs)
    return len(spectra) / (middle - start), len(spectra) / (clock(model.device_) - ready)


def both_loops(args):
    import torch

    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    rows = []
    for device in devices:
        torch.set_num_threads(args.threads)
        for architecture in args.architectures:
            for n, n_pixels in zip(args.n, args.pixels):
                model, spectra, *data = prepared(architecture, n, n_pixels, device)
                rounds = np.array(
                    [
                        epochs_of_both(model, *data, args.time_epochs, 64)
                        for _ in range(args.repeats)
                    ]
                )
                more = 100 * (rounds[:, 0] / rounds[:, 1] - 1)
                speed = throughput(model, spectra)
                rows.append(
                    [
                        device,
                        architecture,
                        f"{n} x {n_pixels}",
                        *(f"{1e3 * t / args.time_epochs:.0f}" for t in np.median(rounds, axis=0)),
                        f"{np.median(more):+.0f} ({more.min():+.0f} to {more.max():+.0f})",
                        *(f"{s:.0f}" for s in speed),
                    ]
                )
                print(" | ".join(rows[-1]), flush=True)
    table(
        f"{args.time_epochs} epochs, batches of 64, CPU threads: {args.threads}, {args.repeats} rounds; "
        f"load {load():.1f}",
        [
            "device",
            "network",
            "stars x pixels",
            "skorch ms/epoch",
            "bare ms/epoch",
            "skorch more %",
            "predict_dist stars/s",
            "bare stars/s",
        ],
        rows,
    )


PARTS = {"accuracy": accuracy, "time": both_loops}


def main(argv=None):
    parser = argparse.ArgumentParser(prog="networks", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    add("--networks", nargs="+", choices=recipes(1), default=["ridge", "strided", "ensemble"])
    add("--epochs", type=int, default=60)
    add("--held-out", type=int, default=500, help="stars to calibrate with")
    add("--architectures", nargs="+", default=["strided", "starnet"])
    add("--n", type=int, nargs="+", default=[1000, 1000], help="stars (time)")
    add("--pixels", type=int, nargs="+", default=[500, 7000], help="pixels, one for each --n")
    add("--time-epochs", type=int, default=5)
    add("--repeats", type=int, default=3)
    add("--threads", type=int, default=1, help="CPU threads")
    args = parser.parse_args(argv)
    print_machine()
    for part in args.parts:
        PARTS[part](args)


if __name__ == "__main__":
    main()
