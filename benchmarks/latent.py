"""The latent explorer: are the factors found, do real spectra speak, does the disk keep up?

    python -m benchmarks latent [--parts factors surveys memory projection] [--out results/latent]

- factors: synthetic stars of five known factors, no labels given; sweep over beta, informative nodes,
  mutual information of nodes and factors, for several seeds.
- surveys: real spectra of four surveys (optical_common), unlabelled: nodes against Teff and survey;
  labels of MILES stars held out from the latent numbers, against as many principal components.
- memory: training on a store of 20 000 x 32 768 pixels, each side in a process of its own: peak of the
  resident memory, stars per second against the same loop on tensors in memory.
- projection: what 270 000 x 327 680 would take, from operations counted and rates measured.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.common import data_file, load, print_machine, table
from skspec import Spectra, metrics
from skspec.datasets import SpectraStore, load_spectra, make_spectra, synthesize
from skspec.latent import BetaVAE, balancing_weights, beta_sweep, latent_mutual_information

#: the factors, and their ranges: a velocity may not exceed the width of a line by much, for the
#: spectra then lie on a curve that takes several numbers to straighten
FACTORS = {
    "teff": (4500, 7000),
    "logg": (3.5, 4.8),
    "feh": (-0.3, 0.3),
    "vsini": (1, 60),
    "rv": (-30, 30),
}
GRID = {"wavelength": (4600, 6000), "n_pixels": 1024, "resolution": 5000, "continuum": "blackbody"}


def factor_stars(n, seed):
    return make_spectra(
        n, snr=100, labels=list(FACTORS), label_ranges=FACTORS, random_state=seed, **GRID
    )


def preset(seed, epochs=100):
    """A network for two cores: dense layers, many short steps."""
    return BetaVAE(
        architecture="dense",
        architecture_params={"hidden": (256, 128)},
        max_iter=epochs,
        learning_rate_init=2e-3,
        random_state=seed,
    )


# -- factors ---------------------------------------------------------------------------------------


def factors(args):
    rows, found = [], []
    for seed in range(args.seeds):
        start = time.perf_counter()
        spectra, _ = factor_stars(args.n, 2 * seed)
        test, truth = factor_stars(1000, 2 * seed + 1)
        sweep = beta_sweep(
            preset(seed, args.epochs),
            spectra,
            args.betas,
            args.n_latents,
            n_jobs=2,
            out=args.out / f"sweep-{seed}",
        )
        seconds = time.perf_counter() - start
        for beta in sweep.betas:
            count = " / ".join(map(str, sweep.n_informative.loc[beta]))
            leak = " / ".join(f"{v:.2f}" for v in sweep.leakage.loc[beta])
            rows.append([seed, f"{beta:g}{' *' if beta == sweep.best_beta else ''}", count, leak])
        if sweep.best_beta is None:
            continue
        model = preset(seed, args.epochs).set_params(
            beta=sweep.best_beta, n_latent=args.n_latents[-1]
        )
        model.fit(spectra)
        information = latent_mutual_information(model.transform(test)[:, model.informative_], truth)
        top = np.sort(information.mi.to_numpy(), axis=0)[::-1]
        found.append(
            [
                seed,
                f"{sweep.best_beta:g}",
                int(model.informative_.sum()),
                *(
                    f"{one:.2f} / {next_:.2f} = {one / max(next_, 1e-3):.1f}"
                    for one, next_ in top[:2].T
                ),
                f"{seconds:.0f}",
            ]
        )
        print(found[-1], flush=True)
        if seed == 0:
            draw_factors(args.out, sweep, model, test, truth, information)
    sizes = " / ".join(map(str, args.n_latents))
    table(
        f"sweep (* chosen), {args.n} stars; latent sizes {sizes}; load {load():.1f}",
        ["seed", "beta", "informative nodes", "leakage"],
        rows,
    )
    table(
        f"largest / second mutual information [nat] of a node and the factor; {len(FACTORS)} factors",
        ["seed", "beta", "nodes", *FACTORS, "sweep s"],
        found,
    )


def draw_factors(folder, sweep, model, spectra, labels, information):
    from skspec.plotting import (
        LatentScatterDisplay,
        MutualInformationDisplay,
        NodeDispersionDisplay,
        TraversalDisplay,
    )

    nodes = np.flatnonzero(model.informative_)
    best = nodes[int(np.argmax(information.mi["rv"]))]
    pictures = {
        "sweep": NodeDispersionDisplay.from_sweep(sweep),
        "information": MutualInformationDisplay.from_information(information, nodes=nodes),
        "pairs": LatentScatterDisplay.from_estimator(model, spectra, labels["teff"]),
        "traversal-rv": TraversalDisplay.from_estimator(model, spectra, [best]),
    }
    save(folder, pictures)


def save(folder, pictures):
    folder.mkdir(parents=True, exist_ok=True)
    for name, display in pictures.items():
        display.figure_.savefig(folder / f"{name}.png", dpi=110)


# -- surveys ---------------------------------------------------------------------------------------


def surveys(args):
    path = data_file("optical_common/optical_common.npz")
    if path is None:
        return
    spectra, labels = load_spectra(path, ["teff", "logg", "feh"], labelled_only=False)
    spectra = spectra.replace(meta=spectra.meta | {"medium": "air"})
    survey = np.asarray(spectra.meta["survey"], dtype=str)
    weight = balancing_weights(spectra.meta["star_id"], survey)
    balanced = spectra.replace(meta=spectra.meta | {"weight": weight})
    model = survey_network(args, 0, labels=False).fit(balanced)
    latents = model.transform(spectra)
    nodes = np.flatnonzero(model.informative_)
    known = labels.notna().all(axis=1).to_numpy()
    rho = [spearmanr(latents[known, k], labels["teff"][known])[0] for k in nodes]
    auc = {s: [roc_auc_score(survey == s, latents[:, k]) for k in nodes] for s in np.unique(survey)}
    rows = [
        [k, f"{model.node_dispersion_[k]:.3f}", f"{r:.2f}", *(f"{auc[s][i]:.2f}" for s in auc)]
        for i, (k, r) in enumerate(zip(nodes, rho))
    ]
    table(
        f"{len(spectra)} spectra of {len(auc)} surveys, beta {args.survey_beta:g}: informative nodes",
        ["node", "MAD", "Spearman with Teff", *(f"AUC {s}" for s in auc)],
        rows,
    )
    what = labels.assign(survey=survey)
    information = latent_mutual_information(latents[:, nodes], what, groups=spectra.meta["star_id"])
    both = information.mi.round(2).astype(str) + " (" + information.null.round(2).astype(str) + ")"
    table(
        "mutual information [nat] (null)",
        ["node", *what],
        [[nodes[i], *both.iloc[i]] for i in range(len(nodes))],
    )
    from skspec.plotting import (
        LatentScatterDisplay,
        MutualInformationDisplay,
        ReconstructionDisplay,
        TraversalDisplay,
    )

    hot = nodes[int(np.argmax(np.abs(rho)))]
    apart = nodes[int(np.argmax(information.mi["survey"]))]
    save(
        args.out,
        {
            "surveys-information": MutualInformationDisplay.from_information(
                information, nodes=nodes
            ),
            "surveys-pair": LatentScatterDisplay.from_latents(latents, survey, nodes=[hot, apart]),
            "surveys-traversal": TraversalDisplay.from_estimator(model, spectra, [hot]),
            "surveys-reconstruction": ReconstructionDisplay.from_estimator(model, spectra, star=0),
        },
    )
    held_out_labels(args, spectra, labels, survey)


def survey_network(args, seed, *, labels):
    """A thousand spectra are few: a small network, much weight decay; precise numbers for labels."""
    beta, decay = (args.label_beta, 1.0) if labels else (args.survey_beta, 0.3)
    return BetaVAE(
        args.survey_latents,
        beta=beta,
        architecture="dense",
        architecture_params={"hidden": (64,), "straight": True},
        weight_decay=decay,
        max_iter=args.survey_epochs,
        batch_size=32,
        random_state=seed,
    )


def held_out_labels(args, spectra, labels, survey):
    """Labels of MILES stars held out: latent numbers and as many principal components."""
    dwarfs = labels.notna().all(axis=1).to_numpy() & labels["teff"].between(4000, 7000).to_numpy()
    miles = dwarfs & (survey == "MILES")
    names = np.asarray(spectra.meta["star_id"], dtype=str)
    splits = list(GroupKFold(5).split(names[miles], groups=names[miles]))
    rows = []
    for size in args.label_latents:
        errors = {}
        for number, (_, held) in enumerate(splits):
            test = np.flatnonzero(miles)[held]
            train = np.flatnonzero(~np.isin(names, names[test]))
            for kind, error in _fold(args, spectra, labels, size, number, train, test).items():
                errors.setdefault(kind, []).append(error)
        seeds = [kind for kind in errors if isinstance(kind, int)]
        scores = {kind: _scores(np.concatenate(parts)) for kind, parts in errors.items()}
        of_seeds = np.array([scores.pop(seed) for seed in seeds])
        scores = {
            f"latent numbers, mean of {len(seeds)} seeds": of_seeds.mean(axis=0),
            "  least": of_seeds.min(axis=0),
            "  most": of_seeds.max(axis=0),
        } | scores
        rows += [[size, kind, *(f"{v:.3g}" for v in score)] for kind, score in scores.items()]
        print(rows[-5:], flush=True)
    table(
        f"{miles.sum()} MILES stars of 4000-7000 K in 5 folds",
        ["numbers", "from", *(f"MAE {n}" for n in labels), *(f"MAD {n}" for n in labels)],
        rows,
    )


def _fold(args, spectra, labels, size, number, train, test):
    """Errors of the labels of `test`, by seed of the network, and by head of principal components."""
    from skspec.latent._label_head import LabelHead, default_head

    y, flux = labels.to_numpy(), np.where(spectra.good, spectra.flux, np.nan)
    flux = np.where(np.isnan(flux), np.nanmedian(flux[train], axis=0), flux)
    taught = train[
        labels.iloc[train].notna().all(axis=1)
        & labels["teff"].iloc[train].between(4000, 7000)
        & (np.asarray(spectra.meta["survey"], dtype=str)[train] == "MILES")
    ]

    def error(head, numbers):
        return LabelHead(head, numbers[taught], y[taught], None)(numbers[test]) - y[test]

    out = {}
    for seed in range(args.seeds):
        model = survey_network(args, 10 * seed + number, labels=True)
        model.set_params(n_latent=size).fit(spectra[train])
        out[seed] = error(default_head(), model.transform(spectra)[:, model.informative_])
    components = PCA(size, random_state=0).fit(flux[train]).transform(flux)
    out["components, the same head"] = error(default_head(), components)
    linear = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 4, 15)))
    return out | {"components, a linear head": error(linear, components)}


def _scores(errors):
    return np.append(np.abs(errors).mean(axis=0), metrics.mad(np.zeros_like(errors), errors))


# -- memory ----------------------------------------------------------------------------------------


def write_store(path, n, n_pixels):
    """Mixtures of synthetic spectra with noise, appended a thousand at a time."""
    rng = np.random.default_rng(0)
    grid = np.linspace(3900, 6900, n_pixels)
    box = {"teff": (4500, 7000), "logg": (3, 5), "feh": (-1, 0.4), "rv": (-50, 50)}
    labels = pd.DataFrame({k: rng.uniform(*v, 64) for k, v in box.items()})
    basis = synthesize(labels, grid, resolution=20_000).astype(np.float32)
    store, start = SpectraStore(path, create=True), time.perf_counter()
    while len(store) < n:
        share = rng.dirichlet(np.full(64, 0.05), min(500, n - len(store))).astype(np.float32)
        flux = share @ basis
        flux += rng.standard_normal(flux.shape, dtype=np.float32) / 100
        store.append(Spectra(flux, wavelength=grid))
    return time.perf_counter() - start


def network(n_stars, batch, width):
    return BetaVAE(
        32,
        max_iter=1,
        batch_size=batch,
        validation_fraction=500 / n_stars,
        architecture_params={"width": width},
        random_state=0,
    )


def peak_gb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _train(kind, path, args):
    """One epoch; stars per second of the training, and the peak of memory."""
    import torch

    torch.set_num_threads(args.threads)
    store = SpectraStore(path)
    X = store if kind == "store" else store[:]
    start = time.perf_counter()
    model = network(len(store), args.batch, args.width)
    model.fit(X)
    total = time.perf_counter() - start
    return {"seconds": float(model.history_["dur"][0]), "total": total, "peak": peak_gb()}


def memory(args):
    if args.store is None:
        with tempfile.TemporaryDirectory() as folder:
            return _memory(args, Path(folder) / "store")
    return _memory(args, args.store)


def _memory(args, path):
    if not path.exists():
        seconds = write_store(path, args.stars, args.pixels)
        gb = 4 * args.stars * args.pixels / 1e9
        print(f"store of {gb:.1f} GB written in {seconds:.0f} s, {1000 * gb / seconds:.0f} MB/s")
    n = len(SpectraStore(path))
    rows, rate = [], {}
    for kind in args.sides:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            one = pool.apply(_train, (kind, path, args))
        rate[kind] = n / one["seconds"]
        rows.append(
            [
                kind,
                f"{rate[kind]:.0f}",
                f"{one['seconds']:.0f}",
                f"{one['total']:.0f}",
                f"{one['peak']:.2f}",
            ]
        )
        print(rows[-1], flush=True)
    if len(rate) == 2:
        rows.append(["store / memory", f"{rate['store'] / rate['memory']:.2f}", "", "", ""])
    table(
        f"one epoch of {n} x {args.pixels}, width {args.width}, batch {args.batch}, {args.threads} "
        f"thread(s); load {load():.1f}",
        ["spectra from", "stars/s", "epoch s", "fit s", "peak GB"],
        rows,
    )


# -- projection ------------------------------------------------------------------------------------


def projection(args):
    """Operations of the published network, and the rate of this machine."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from skspec.networks import EvidenceLoss, VariationalAutoencoder

    torch.set_num_threads(args.threads)
    shape = (1, 1, 327_680)
    network, loss = VariationalAutoencoder(shape, 128, "harps"), EvidenceLoss(shape[1:])
    x = torch.randn(args.harps_batch, 1, shape[2])
    variance = torch.full_like(x, 0.01)
    weight = torch.ones(len(x))

    def step():
        loss(network(x), (x, variance, weight)).backward()

    with FlopCounterMode(display=False) as counter:
        step()
    flops = counter.get_total_flops() / len(x)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    with torch.inference_mode():
        start = time.perf_counter()
        network.encode(x)
        encode = (time.perf_counter() - start) / len(x)
    seconds = np.median(times) / len(x)
    table(
        f"published network, 327 680 pixels, {args.threads} thread(s); load {load():.1f}",
        ["GFLOP per star and step", "s per star", "GFLOP/s", "encode s", "MB per star"],
        [
            [
                f"{flops / 1e9:.2f}",
                f"{seconds:.2f}",
                f"{flops / seconds / 1e9:.0f}",
                f"{encode:.3f}",
                f"{4 * shape[2] / 1e6:.1f}",
            ]
        ],
    )
    epoch = 270_000 * flops
    print(json.dumps({"PFLOP per epoch of 270 000": epoch / 1e15}))


PARTS = {"factors": factors, "surveys": surveys, "memory": memory, "projection": projection}


def main(argv=None):
    parser = argparse.ArgumentParser(prog="latent", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    add("--out", type=Path, default=Path("results/latent"), help="folder of figures and sweeps")
    add("--n", type=int, default=5000, help="factors: stars")
    add("--seeds", type=int, default=3)
    add("--epochs", type=int, default=100)
    add("--betas", type=float, nargs="+", default=[10.0, 20.0, 40.0])
    add("--n-latents", type=int, nargs="+", default=[8, 32])
    add("--survey-beta", type=float, default=30.0, help="surveys: to explore")
    add("--label-beta", type=float, default=1.0, help="surveys: for labels")
    add("--survey-latents", type=int, default=8)
    add("--label-latents", type=int, nargs="+", default=[8, 32], help="surveys: for labels")
    add("--survey-epochs", type=int, default=250)
    add("--stars", type=int, default=20_000, help="memory: stars of the store")
    add("--pixels", type=int, default=32_768)
    add("--width", type=int, default=8, help="memory: filters of the first convolution")
    add("--batch", type=int, default=32)
    add("--store", type=Path, help="keep the store here, or use the one that is here")
    add("--sides", nargs="+", choices=["store", "memory"], default=["store", "memory"])
    add("--threads", type=int, default=2)
    add("--harps-batch", type=int, default=2)
    args = parser.parse_args(argv)
    print_machine()
    warnings.filterwarnings("ignore", message="Latent spaces of", category=UserWarning)
    for part in args.parts:
        PARTS[part](args)


if __name__ == "__main__":
    main()
