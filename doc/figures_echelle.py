"""Draw a star as an echelle spectrograph sees it: python doc/figures_echelle.py PATH."""

from __future__ import annotations

import sys

import matplotlib

matplotlib.use("Agg")

from skspec.datasets import make_spectra
from skspec.plotting import EchelleDisplay
from skspec.preprocessing import EchelleLayout


def draw(path):
    """Write the picture to `path`."""
    spectra, _ = make_spectra(
        1,
        wavelength=(4950, 5400),
        n_pixels=6000,
        resolution=50_000,
        snr=None,
        label_ranges={"teff": (5000, 5000), "logg": (4.5, 4.5), "feh": (0, 0)},
        random_state=0,
    )
    layout = EchelleLayout(8, 4096, method="cubic", wavelength_range=(4930, 5430)).fit(spectra)
    display = EchelleDisplay.from_estimator(layout, spectra)
    display.figure_.savefig(path, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    draw(sys.argv[1])
