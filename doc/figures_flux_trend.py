"""Draw what forward models learn in single pixels: python doc/figures_flux_trend.py PATH.

Flux in the core of a magnesium line and of H-alpha against temperature: training stars, the quadratic
Cannon and SLAM, as in Zhang, Liu & Deng (2020).
"""

from __future__ import annotations

import sys

import matplotlib
import numpy as np

matplotlib.use("Agg")

from skspec.datasets import make_spectra
from skspec.forward import SLAM, TheCannon
from skspec.plotting import FluxTrendDisplay

MG_B, H_ALPHA = 5174.1, 6564.6  # vacuum [Angstrom]


def draw(path):
    """Write the picture to `path`."""
    wavelength = np.concatenate([np.arange(5165, 5185, 0.5), np.arange(6550, 6580, 0.5)])
    spectra, labels = make_spectra(
        1000,
        wavelength=wavelength,
        resolution=1800,
        snr=(50, 300),
        label_ranges={"teff": (4000, 8000)},
        random_state=0,
    )
    models = {"The Cannon, quadratic": TheCannon(), "SLAM": SLAM(n_jobs=2)}
    for model in models.values():
        model.fit(spectra, labels)
    display = FluxTrendDisplay.from_estimator(
        models,
        spectra,
        labels,
        wavelengths=[MG_B, H_ALPHA],
        at={"logg": 4.4, "feh": 0.0},
        within={"logg": 0.4, "feh": 0.15},
        titles=[r"Mg b$_2$, 5174 Å", r"H$\alpha$, 6565 Å"],
    )
    display.figure_.savefig(path, dpi=130)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    draw(sys.argv[1])
