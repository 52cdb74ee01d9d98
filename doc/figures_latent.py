"""Draw what a beta-VAE finds in unlabelled spectra: python doc/figures_latent.py FOLDER.

Synthetic spectra of the magnesium triplet in which three things vary: temperature, radial velocity and
rotation. Fourteen small networks are trained, half a minute each, and one for longer; the sweep is kept
in FOLDER/sweep, so that an interrupted run goes on.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from skspec.datasets import make_spectra
from skspec.latent import BetaVAE, beta_sweep
from skspec.plotting import (
    LatentScatterDisplay,
    MutualInformationDisplay,
    NodeDispersionDisplay,
    ReconstructionDisplay,
    TraversalDisplay,
)

RANGES = {"teff": (4500, 6500), "vsini": (2, 80), "rv": (-60, 60)}
BETAS = [1, 3, 5, 10, 20, 30, 100]
N_LATENTS = (6, 16)
BETA = 20  # the largest at which all three nodes are left


def stars():
    """Spectra, and the labels that the networks do not see."""
    return make_spectra(
        3000,
        wavelength=(5130, 5230),
        n_pixels=200,
        resolution=6000,
        snr=50,
        labels=list(RANGES),
        label_ranges=RANGES,
        random_state=0,
    )


def model(max_iter=60, **options):
    """A network that a CPU trains in half a minute."""
    return BetaVAE(
        architecture="dense",
        architecture_params={"hidden": (128, 64)},
        learning_rate_init=0.003,
        max_iter=max_iter,
        random_state=0,
        **options,
    )


def draw(folder):
    """Write the pictures into `folder`."""
    spectra, labels = stars()
    sweep = beta_sweep(model(), spectra, BETAS, N_LATENTS, out=folder / "sweep")
    print(sweep.n_informative, sweep.reconstruction.round(3), sweep.leakage.round(2), sep="\n\n")
    print("best beta", sweep.best_beta)
    found = model(200, beta=BETA, n_latent=N_LATENTS[-1]).fit(spectra)
    displays = {
        "sweep": NodeDispersionDisplay.from_sweep(sweep),
        "pairs": LatentScatterDisplay.from_estimator(found, spectra, labels["teff"]),
        "information": MutualInformationDisplay.from_estimator(
            found, spectra, labels, random_state=0
        ),
        "traversal": TraversalDisplay.from_estimator(found, spectra),
        "reconstruction": ReconstructionDisplay.from_estimator(
            found, spectra, star=0, windows=[(5138, 5153), (5162, 5190), (5202, 5217)]
        ),
    }
    for name, display in displays.items():
        display.figure_.savefig(folder / f"latent_{name}.png", dpi=110)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    draw(Path(sys.argv[1]))
