"""Crossing the synthetic gap without labels: a model of Kurucz spectra, used on observed APOGEE ones.

    python -m benchmarks transfer [--steps 5000] [--seeds 3] [--preset cpu] [--out results/transfer]

Both domains are networks of El-Badry et al. 2018: the synthetic one was trained on Kurucz spectra, the
observed one on APOGEE spectra of dwarfs, and has noise (apogee_emulated). The corrections see unpaired
spectra of both, and no label of the observed ones; what is scored are other stars. A SpectralGP of the
synthetic spectra, corrected, is then inverted on these. The training is kept in the folder `out`: a run
that was interrupted goes on from there.

--preset gpu: the published networks on pixels, 500 000 steps of 8 stars.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from benchmarks.common import apogee_network, clocked, data_file, load, print_machine, table
from skspec import MultivariateNormal, Spectra
from skspec.base import MissingUncertaintyWarning
from skspec.calibration import CalibratedRegressor
from skspec.forward import CorrectedModel, SpectralGP
from skspec.transfer import CycleStarNet, PixelCorrection

FOLDER = "apogee_emulated/"
CHIPS = (slice(0, 2920), slice(2920, 5320), slice(5320, 7214))
SEQUENCE = {
    "teff": (4200, 4600, 5000, 5500, 6000, 6500, 7000),
    "logg": (4.70, 4.63, 4.56, 4.47, 4.33, 4.22, 4.15),
}
LABELS = ["teff", "logg", "feh", "alphafe"]
GPU = {
    "n_shared": 25,
    "n_split": 4,
    "architecture": "convolutional",
    "batch_size": 8,
    "learning_rate_init": 1e-4,
}


def dwarfs(n, seed):
    """Labels (n, 4) of dwarfs, distributed like those of the observed set (see its README)."""
    rng = np.random.default_rng(seed)
    teff = rng.uniform(4300, 6900, n)
    logg = np.interp(teff, *SEQUENCE.values()) + rng.normal(0, 0.12, n)
    feh = rng.normal(-0.12, 0.22, n).clip(-0.74, 0.34)
    alpha = -0.28 * feh + rng.normal(0, 0.07, n) + 0.15 * (rng.random(n) < 0.12)
    return np.column_stack([teff, logg.clip(4.02, 4.95), feh, alpha.clip(-0.25, 0.45)])


def kurucz(labels):
    """Normalised synthetic spectra (n, P)."""
    flux = apogee_network(labels, FOLDER + "emulator_kurucz_unnormalized.npz")
    with np.load(data_file(FOLDER + "continuum_pixels.npz")) as file:
        is_continuum = file["continuum_pixel"].astype(bool)
    for chip in CHIPS:
        x = np.linspace(-1, 1, chip.stop - chip.start)
        terms = np.polynomial.chebyshev.chebvander(x, 4)
        some = is_continuum[chip]
        coef = np.linalg.lstsq(terms[some], flux[:, chip][:, some].T, rcond=None)[0]
        flux[:, chip] /= (terms @ coef).T
    return flux


def observed_stars():
    """Spectra and labels (n, 4); [Mg/Fe] stands for [alpha/Fe]."""
    path = data_file(FOLDER + "apogee_emulated.npz")
    if path is None:
        return None
    with np.load(path) as file:
        error = file["noise_shape"].astype(float) / file["snr"][:, None]
        spectra = Spectra(file["flux"], flux_err=error, wavelength=file["wavelength"])
        return spectra, file["labels"][:, :4]


def make(correction, synthetic, labels, observed, **model):
    if correction is None:
        return SpectralGP(**model).fit(synthetic, labels)
    try:
        check_is_fitted(correction)
        observed = None
    except NotFittedError:
        pass
    model = CorrectedModel(SpectralGP(**model), correction, random_state=0)
    return model.fit(synthetic, labels, observed=observed)


def judge(name, dists, truth, first, chi2=None):
    """A row of the table: bias / RMSE of each label and how far that is less than at first."""
    dist = MultivariateNormal.mixture([dist.marginal([0, 1, 2, 3]) for dist in dists])
    error = dist.mean() - truth
    bias, rmse = error.mean(axis=0), np.sqrt(np.mean(error**2, axis=0))
    less = (1 - rmse / (rmse if first is None else first))[:2]
    pull = np.sqrt(np.mean((error / dist.std()) ** 2, axis=0))
    cells = [
        f"{b:+.0f} / {r:.0f}" if k == 0 else f"{b:+.3f} / {r:.3f}"
        for k, (b, r) in enumerate(zip(bias, rmse))
    ]
    fit = "" if chi2 is None else f"{chi2.mean():.2f} ({np.median(chi2):.2f})"
    cells += [" / ".join(f"{v:.0%}" for v in less), fit]
    return [name, *cells, " / ".join(f"{v:.1f}" for v in pull)], rmse


def apogee(args):
    stars = observed_stars()
    if stars is None:
        return
    spectra, truth = stars
    test, truth, observed = spectra[: args.test], truth[: args.test], spectra[args.test :]
    labels = dwarfs(args.n, 1)
    synthetic = Spectra(kurucz(labels), wavelength=spectra.wavelength)
    taught = slice(0, args.train)
    rows, first = [], None

    def add(name, correction=None, **model):
        nonlocal first
        made = make(correction, synthetic[taught], labels[taught], observed, **model)
        result = made.invert(test)
        row, rmse = judge(name, [result.dist], truth, first, result.reduced_chi2)
        first = rmse if first is None else first
        rows.append(row)
        print(row, flush=True)
        return made, result.dist

    add("synthetic spectra as they are")
    add("  broadening free", fit_broadening="gaussian")
    add("PixelCorrection, additive", PixelCorrection("additive"))
    add("PixelCorrection", PixelCorrection())
    add("  broadening free", PixelCorrection(), fit_broadening="gaussian")
    dists, rails = [], []
    for seed in range(args.seeds):
        net, seconds = train(args, seed, synthetic, observed)
        made, dist = add(f"CycleStarNet, seed {seed}", net)
        dists.append(dist)
        g = net.guard_rails_
        rails.append(
            [
                seed,
                f"{seconds.wall:.0f}",
                f"{g.identity:.3f} / {g.cycle:.3f}",
                f"{g.leakage:.3f}",
                " / ".join(f"{v:.2f}" for v in net.leakage(test, truth)),
                *(f"{v:.2f}" for v in (g.auc_before, g.auc_pixel_correction, g.auc)),
            ]
        )
    rows.append(judge(f"mixture of {args.seeds} seeds", dists, truth, first)[0])
    known, rest = slice(0, max(args.test // 6, 12)), slice(max(args.test // 6, 12), None)
    scaled = CalibratedRegressor(FrozenEstimator(made)).fit(test[known], truth[known])
    name = f"last seed, errors scaled on {known.stop} known stars"
    rows.append(judge(name, [scaled.predict_dist(test[rest])], truth[rest], first)[0])
    told = observed_model(labels[taught], test)
    rows.append(
        judge("trained on the observed domain", [told.dist], truth, first, told.reduced_chi2)[0]
    )
    table(
        f"bias / RMSE on {args.test} observed dwarfs, S/N 20-300; {args.steps} steps",
        [
            "model",
            "Teff [K]",
            "log g",
            "[Fe/H]",
            "[alpha/Fe]",
            "less RMSE",
            "reduced chi2",
            "rms pull",
        ],
        rows,
    )
    table(
        f"guard rails; load {load():.1f}",
        [
            "seed",
            "fit s",
            "S-S / S-O-S chi2",
            "leakage",
            "of the labels",
            "AUC before",
            "PixelCorrection",
            "CycleStarNet",
        ],
        rails,
    )


def train(args, seed, synthetic, observed):
    settings = GPU if args.preset == "gpu" else {}
    args.out.mkdir(parents=True, exist_ok=True)
    net = CycleStarNet(
        **settings,
        max_iter=args.steps,
        random_state=seed,
        device=args.device,
        checkpoint=args.out / f"{args.preset}-{args.steps}-{args.n}-{seed}.ckpt",
    )
    seconds, _ = clocked(lambda: net.fit(synthetic, observed))
    return net, seconds


def observed_model(labels, test):
    """What a model could do that knew the observed domain, broadening and all."""
    rng = np.random.default_rng(2)
    broadening = rng.lognormal(
        np.log(np.interp(labels[:, 0], (4200, 5500, 6200, 7000), (3, 4.5, 9, 16))), 0.45
    ).clip(0.5, 42)
    labels = np.column_stack([labels, broadening])
    spectra = Spectra(apogee_network(labels), wavelength=test.wavelength)
    return SpectralGP().fit(spectra, labels).invert(test)


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=4000, help="synthetic spectra")
    parser.add_argument("--train", type=int, default=1000, help="of these, that the model learns")
    parser.add_argument("--test", type=int, default=600, help="observed stars that are scored")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--preset", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("results/transfer"))
    args = parser.parse_args(argv)
    args.steps = args.steps or (5000 if args.preset == "cpu" else 500_000)
    print_machine()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", MissingUncertaintyWarning
        )  # synthetic spectra have no errors
        apogee(args)


if __name__ == "__main__":
    main()
