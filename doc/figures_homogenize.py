"""Draw labels before and after homogenisation: python doc/figures_homogenize.py PATH.

Synthetic stars in two surveys, whose pipelines differ by offsets and trends, with label noise in both.
"""

from __future__ import annotations

import sys

import matplotlib
import numpy as np

matplotlib.use("Agg")

from skspec.datasets import make_spectra
from skspec.forward import TheCannon
from skspec.plotting import HomogenizationDisplay
from skspec.transfer import LabelHomogenizer

NOISE = [50, 0.08, 0.05]


def draw(path):
    """Write the picture to `path`."""
    a, truth = make_spectra(500, n_pixels=600, snr=(40, 150), random_state=0)
    b, _ = make_spectra(500, n_pixels=600, resolution=1800, snr=(60, 200), random_state=0)
    rng = np.random.default_rng(1)
    labels_a = truth + NOISE * rng.normal(size=truth.shape)
    labels_b = truth.assign(
        teff=1.06 * truth["teff"] - 250, logg=0.94 * truth["logg"] + 0.1, feh=0.9 * truth["feh"]
    )
    labels_b = labels_b + NOISE * rng.normal(size=truth.shape)
    star = np.arange(500)
    model = LabelHomogenizer(TheCannon()).fit(
        a, labels_a, b, labels_b, star_a=star, star_b=star, label_std_a=NOISE, label_std_b=NOISE
    )
    display = HomogenizationDisplay.from_estimator(
        model,
        "b",
        stages=["before", "translated", "after"],
        names={"a": "survey A", "b": "survey B"},
    )
    display.figure_.savefig(path, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    draw(sys.argv[1])
