"""Names of labels are printed as they are, whatever is in them."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from skspec.diagnostics import audit_labels, compare
from skspec.forward import TheCannon
from skspec.plotting import (
    FluxTrendDisplay,
    LatentScatterDisplay,
    SigmaDisplay,
    write_audit_page,
    write_report,
)
from skspec.plotting._style import label_text, plain

NAMES = ["[Fe/H]_$x", "<b>", "_$^{$"]
SHOWN = [r"[Fe/H]_\$x", "<b>", r"$\_$\$^{\$"]


@pytest.fixture(scope="module")
def named(stars):
    spectra, labels = stars
    return spectra, labels.set_axis(NAMES, axis=1)


def drawn(display):
    """What a figure says, once drawn."""
    display.figure_.canvas.draw()
    return "\n".join(text.get_text() for text in display.figure_.findobj(Text))


@pytest.mark.parametrize("text", ["$", "a$b^$", r"\$", "_", "__$a", "{^", *NAMES])
def test_text_is_no_formula(text):
    fig = Figure()
    fig.text(0, 0, plain(text))
    fig.canvas.draw()
    assert plain(text).replace(r"$\_$", "_").replace(r"\$", "$") == text
    assert plain(text).replace(r"$\_$", "").count("$") == plain(text).count(r"\$")


def test_known_labels_and_others():
    assert label_text("teff", unit=True) == r"$T_\mathrm{eff}$ [K]"
    assert [label_text(name) for name in NAMES] == SHOWN


def test_displays(named):
    spectra, labels = named
    model = TheCannon(1).fit(spectra, labels)
    said = drawn(SigmaDisplay.from_estimator(model, spectra, labels))
    assert all(name in said for name in SHOWN)
    trend = FluxTrendDisplay.from_estimator(
        model, spectra, labels, wavelengths=spectra.wavelength[40], label=NAMES[0]
    )
    assert all(name in drawn(trend) for name in SHOWN)
    classes = np.where(np.arange(len(labels)) % 2, *NAMES[::2])
    latents = labels / labels.std()
    scatter = LatentScatterDisplay.from_latents(latents.to_numpy(), classes, label=NAMES[0])
    assert all(name in drawn(scatter) for name in SHOWN[::2])


def test_pages(named, tmp_path, read_page):
    comparison = compare({"c": TheCannon(1)}, *named, titles={"c": "Cannon"}, settings={})
    audit = audit_labels(TheCannon(1).fit(*named), *named, refit=False)
    for path in (
        write_report(comparison, tmp_path / "report.html"),
        write_audit_page(audit, tmp_path / "audit.html"),
    ):
        page = path.read_text("utf-8")
        read_page(page)
        assert "&lt;b&gt;" in page and "[Fe/H]_$x" in page
