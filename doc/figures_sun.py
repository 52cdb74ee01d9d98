"""Fit the Sun with a model of the MILES stars: python doc/figures_sun.py PATH.

Needs the real spectra: SKSPEC_DATA names their folder. The Sun of the Gaia FGK benchmark stars
(R = 47 000) is smoothed to the resolution of MILES, from which it is absent.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter1d

matplotlib.use("Agg")

from skspec import Spectra
from skspec.forward import FullSpectrumFit
from skspec.plotting import SpectrumFitDisplay

DATA = Path(os.environ.get("SKSPEC_DATA", Path(__file__).parents[2] / "shared" / "data"))
FWHM = 2.5  # of MILES [Angstrom]
RANGE = 4830, 6780  # of the benchmark stars, less the edges


def training_stars():
    """Raw MILES spectra of 4000-7000 K, and their labels."""
    file = np.load(DATA / "miles" / "miles.npz")
    labels = pd.DataFrame(file["labels"], columns=file["label_names"])
    stars = labels["teff"].between(4000, 7000).to_numpy()
    wavelength = file["wavelength"]
    pixels = (wavelength > RANGE[0]) & (wavelength < RANGE[1])
    flux = file["flux"][stars][:, pixels].astype(float)
    return Spectra(flux, wavelength=wavelength[pixels]), labels[stars]


def sun(wavelength):
    """The Sun at the resolution and on the pixels of MILES."""
    file = np.load(DATA / "gaia_benchmark_highres" / "gaia_benchmark_highres.npz")
    row = list(file["star_id"]).index("Sun")
    step = file["wavelength"][1] - file["wavelength"][0]
    width = np.sqrt(FWHM**2 - (np.mean(RANGE) / 47000) ** 2) / np.sqrt(8 * np.log(2))
    smooth = gaussian_filter1d(file["flux"][row].astype(float), width / step)
    return Spectra(np.interp(wavelength, file["wavelength"], smooth), wavelength=wavelength)


def draw(path):
    """Write the picture to `path`, and print what was found."""
    spectra, labels = training_stars()
    model = FullSpectrumFit(continuum_degree=15).fit(spectra, labels)
    star = sun(spectra.wavelength)
    print(model.invert(star).to_frame().T.to_string(header=False))
    display = SpectrumFitDisplay.from_estimator(model, star, name="The Sun")
    display.figure_.savefig(path, dpi=130)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    draw(sys.argv[1])
