"""Draw the audit of a model that was trained on locked labels: python doc/figures_audit.py FOLDER.

The training set is that of benchmarks/audit.py: [alpha/M] is a function of [Fe/H], but for 0.03 dex.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.audit import locked
from skspec.diagnostics import audit_labels
from skspec.forward import TheCannon
from skspec.plotting import LabelAuditDisplay, write_audit_page


def draw(folder):
    """Write the picture, and the page, into `folder`."""
    rng = np.random.default_rng(1)
    spectra, labels = locked(400, rng, planted=True)
    audit = audit_labels(TheCannon(), spectra, labels, decorrelated=locked(400, rng, False))
    print(audit)
    display = LabelAuditDisplay.from_audit(audit, name="The Cannon, [α/M] locked to [Fe/H]")
    display.figure_.savefig(folder / "audit.png", dpi=110)
    write_audit_page(audit, folder / "audit.html")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    draw(Path(sys.argv[1]))
