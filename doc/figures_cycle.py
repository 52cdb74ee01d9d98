"""Draw what Cycle-StarNet does to Kurucz spectra: python doc/figures_cycle.py FOLDER [CHECKPOINTS].

The pair of ``python -m benchmarks transfer``, whose first training is taken from its folder of
checkpoints if it is there (default results/transfer). Needs the spectra of SKSPEC_DATA.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import matplotlib.pyplot as plt
import numpy as np

from benchmarks import transfer
from benchmarks.common import apogee_network
from skspec import Spectra

STAR = np.array([4900.0, 4.57, -0.1, 0.03])  # Teff, log g, [Fe/H], [alpha/Fe]
BROADENING = 3.6  # km/s, the median of observed stars at that temperature
WINDOW = (15735, 15792)  # Angstrom, vacuum
GREY, RED, BLUE = "0.45", "#c44e52", "#4c72b0"


def draw(folder, checkpoints):
    """Write the picture into `folder`."""
    spectra, truth = transfer.observed_stars()
    test, truth, observed = spectra[:600], truth[:600], spectra[600:]
    labels = transfer.dwarfs(4000, 1)
    synthetic = Spectra(transfer.kurucz(labels), wavelength=spectra.wavelength)
    args = argparse.Namespace(
        preset="cpu", steps=5000, n=4000, device="auto", out=Path(checkpoints)
    )
    net, _ = transfer.train(args, 0, synthetic, observed)
    models = [
        transfer.make(each, synthetic[:1000], labels[:1000], observed) for each in (None, net)
    ]
    figure = plt.figure(figsize=(9, 7), layout="constrained")
    top, below = figure.subfigures(2, 1, height_ratios=(1.5, 1))
    draw_spectra(top, net, spectra.wavelength)
    draw_labels(below, models, test, truth)
    figure.savefig(folder / "cycle_star_net.png", dpi=110)


def draw_spectra(figure, net, wavelength):
    shown = (wavelength > WINDOW[0]) & (wavelength < WINDOW[1])
    star = Spectra(transfer.kurucz(STAR[None]), wavelength=wavelength)
    real = apogee_network(np.append(STAR, BROADENING)[None])[0]
    translated = net.transform(star).flux[0]
    (flux, difference) = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    flux.plot(wavelength[shown], real[shown], color=GREY, lw=3, alpha=0.6, label="observed domain")
    for spectrum, color, label in (
        (star.flux[0], RED, "Kurucz"),
        (translated, BLUE, "Kurucz, translated"),
    ):
        flux.plot(wavelength[shown], spectrum[shown], color=color, lw=1, label=label)
        difference.plot(wavelength[shown], (spectrum - real)[shown], color=color, lw=1)
    flux.set(ylabel="normalised flux")
    flux.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
    difference.axhline(0, color="0.8", lw=0.8, zorder=0)
    difference.set(xlabel="wavelength [Å], vacuum", ylabel="difference")


def draw_labels(figure, models, test, truth):
    axes = figure.subplots(1, 2)
    names = (("Teff [K]", 0), ("log g", 1))
    for ax, (name, k) in zip(axes, names):
        for model, color, label in zip(models, (RED, BLUE), ("Kurucz", "translated")):
            error = model.invert(test).labels[:, k] - truth[:, k]
            ax.plot(truth[:, 0], error, ".", ms=3, color=color, alpha=0.6, label=label)
        ax.axhline(0, color="0.8", lw=0.8, zorder=0)
        ax.set(xlabel="true Teff [K]", ylabel=f"error of {name}")
    axes[0].legend(loc="upper left", frameon=False, markerscale=3)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        draw(Path(sys.argv[1]), *sys.argv[2:] or ["results/transfer"])
