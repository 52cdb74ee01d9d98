"""Draw what `make_spectra` makes: python doc/figures_make_spectra.py PATH.

Noise-free spectra of `synthesize` for changing labels, one panel each, and one noisy star.
"""

from __future__ import annotations

import sys

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from skspec.datasets import synthesize

SUN = {"teff": 5772, "logg": 4.44, "feh": 0.0}
#: Title, what varies, its values, what stays, wavelength range [Angstrom], names of lines (vacuum).
PANELS = [
    (
        "Temperature: H$\\beta$ grows, iron fades",
        "teff",
        [4500, 5200, 6000, 7000],
        SUN,
        (4835, 4965),
        {
            "H$\\beta$": 4862.7,
            "Fe I ": 4872.9,
            "Fe I  ": 4892.5,
            "Fe I": 4920.5,
            "Fe II": 4925.8,
            "Ba II": 4935.4,
            "Fe I   ": 4959.0,
        },
    ),
    (
        "Gravity at 5000 K: the wings of Mg b",
        "logg",
        [1.0, 2.5, 3.8, 4.8],
        SUN | {"teff": 5000},
        (5140, 5215),
        {
            "Mg b$_4$": 5168.0,
            "Fe II": 5171.2,
            "Mg b$_2$": 5174.1,
            "Mg b$_1$": 5185.05,
            "Ti II": 5190.2,
            "Cr I": 5207.3,
        },
    ),
    (
        "Metallicity: every metal line",
        "feh",
        [-2.0, -1.0, -0.5, 0.2],
        SUN,
        (5255, 5345),
        {
            "Ca I, Fe I": 5271.0,
            "Fe II": 5277.5,
            "Fe I": 5284.9,
            "Fe II ": 5318.2,
            "Fe I ": 5325.7,
            "Fe I  ": 5329.6,
        },
    ),
    (
        "Gravity: the calcium triplet and Paschen lines at 6500 K",
        "logg",
        [1.0, 2.5, 3.8, 4.8],
        SUN | {"teff": 6500},
        (8480, 8690),
        {"Ca II": 8500.4, "Ca II ": 8544.4, "P14": 8600.8, "Ca II  ": 8664.5},
    ),
    (
        "Rotation (km/s)",
        "vsini",
        [2, 20, 50, 100],
        SUN,
        (5860, 5920),
        {"Ca I": 5859.1, "Na D$_2$": 5891.6, "Na D$_1$": 5897.6},
    ),
]
NAMES = {
    "teff": "$T_{\\rm eff}$ = %g K",
    "logg": "log g = %g",
    "feh": "[Fe/H] = %+g",
    "vsini": "v sin i = %g",
}


def draw_panel(axes, title, name, values, fixed, limits, lines):
    """One panel: spectra for several values of one label, with the names of lines above."""
    wavelength = np.linspace(*limits, 1500)
    colours = plt.get_cmap("viridis")(np.linspace(0.0, 0.88, len(values)))
    flux = synthesize({**fixed, name: values}, wavelength, resolution=12_000)
    for row, value, colour in zip(flux, values, colours):
        axes.plot(wavelength, row, color=colour, lw=1.0, label=NAMES[name] % value)
    for text, position in lines.items():
        if limits[0] < position < limits[1]:
            axes.plot([position, position], [1.02, 1.05], color="0.4", lw=0.8)
            axes.text(position, 1.07, text.strip(), ha="center", va="bottom", fontsize=8)
    axes.set(xlim=limits, ylim=(0.1, 1.2), ylabel="normalised flux")
    axes.set_title(title, loc="left", fontsize=10)
    axes.legend(loc="lower left", ncol=len(values), fontsize=8, frameon=False, handlelength=1.2)


def draw(path):
    """Write the picture to `path`."""
    figure, panels = plt.subplots(len(PANELS), figsize=(10, 2.6 * len(PANELS)))
    for axes, panel in zip(panels, PANELS):
        draw_panel(axes, *panel)
    panels[-1].set_xlabel("vacuum wavelength [Angstrom]")
    figure.tight_layout(h_pad=0.6)
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    draw(sys.argv[1])
