"""Draw what each augmentation makes of a spectrum: python doc/figures_augmentation.py PATH."""

from __future__ import annotations

import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from skspec.augmentation import (
    BadPixels,
    Compose,
    ContinuumJitter,
    GaussianNoise,
    InstrumentBroadening,
    RadialVelocityShift,
    RotationalBroadening,
    TelluricMask,
)
from skspec.datasets import make_spectra

N_DRAWS = 6


def augmentations():
    """Title and augmentation of each panel."""
    parts = {
        "RotationalBroadening((0, 100))": RotationalBroadening((0, 100)),
        "InstrumentBroadening((2000, 10000))": InstrumentBroadening(
            (2000, 10000), from_resolution=20000
        ),
        "RadialVelocityShift((-100, 100))": RadialVelocityShift((-100, 100)),
        "ContinuumJitter(0.05)": ContinuumJitter(0.05),
        "GaussianNoise((20, 100))": GaussianNoise((20, 100)),
        "BadPixels(0.02, 0.05)": BadPixels(0.02, 0.05),
        "TelluricMask([(5186, 5192)], velocity=(-100, 100))": TelluricMask(
            [(5186, 5192)], velocity=(-100, 100)
        ),
    }
    return parts | {"Compose: all of them": Compose(list(parts.values()))}


def draw(path):
    """Write the picture to `path`."""
    star, _ = make_spectra(
        1,
        wavelength=(5155, 5200),
        n_pixels=450,
        resolution=20000,
        snr=None,
        random_state=3,
        label_ranges={"teff": (5200, 5300), "logg": (4.0, 4.1), "feh": (-0.1, 0.0)},
    )
    figure, panels = plt.subplots(4, 2, figsize=(10, 9), sharex=True, sharey=True)
    colours = plt.cm.viridis(np.linspace(0.1, 0.9, N_DRAWS))
    for panel, (title, augmentation) in zip(panels.flat, augmentations().items()):
        panel.plot(star.wavelength, star.flux[0], color="0.8", lw=3)
        for seed, colour in enumerate(colours):
            changed = augmentation.augment(star, random_state=seed)
            flux = np.where(changed.good[0], changed.flux[0], np.nan)
            panel.plot(star.wavelength, flux, color=colour, lw=0.8)
        panel.set_title(title, fontsize=10, family="monospace")
    panels[0, 0].set_ylim(0.0, 1.2)
    for panel in panels[-1]:
        panel.set_xlabel("wavelength [Å]")
    for panel in panels[:, 0]:
        panel.set_ylabel("flux")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    draw(sys.argv[1])
