"""Draw models among real stars, before and after a correction: python doc/figures_gap.py FOLDER.

Kurucz models at the labels of 210 MILES dwarfs, corrected by pairs of other stars (five folds); see
benchmarks/synthetic_gap.py. Needs the spectra of SKSPEC_DATA.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.synthetic_gap import gap_sets, real_pair
from skspec.plotting import SyntheticGapDisplay


def draw(folder):
    """Write the pictures into `folder`."""
    models, stars, y = real_pair()
    sets = gap_sets(models, stars, y)
    titles = {"models": "Kurucz models", "corrected (both)": "corrected models"}
    sets = {title: sets[name] for name, title in titles.items()}
    first, *rest = sets
    display = SyntheticGapDisplay.from_spectra(
        sets[first],
        stars,
        {name: sets[name] for name in rest},
        name=first,
        gap_params={"synthetic_labels": y, "observed_labels": y},
    )
    display.figure_.savefig(folder / "gap_tsne.png", dpi=110)
    display.plot_pixels(medium="air")
    display.figure_.savefig(folder / "gap_pixels.png", dpi=110)
    for name, gap in display.gaps.items():
        print(name, gap, gap.worst_lines(), sep="\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    draw(Path(sys.argv[1]))
