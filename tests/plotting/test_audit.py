import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import Ridge

from skspec import Spectra
from skspec.diagnostics import audit_labels
from skspec.plotting import LabelAuditDisplay, write_audit_page


class Reader(RegressorMixin, BaseEstimator):
    """Its predictions are the first pixels."""

    def predict(self, X):
        return np.asarray(X.flux)[:, :3]


@pytest.fixture(scope="module")
def stars():
    """Predictions of which [Mg/Fe] follows [Fe/H]."""
    rng = np.random.default_rng(0)
    y = pd.DataFrame(
        rng.normal(size=(300, 3)) * [500, 0.3, 0.1] + [5000, 0, 0], columns=["teff", "feh", "mgfe"]
    )
    predicted = y + rng.normal(size=(300, 3)) * [50, 0.03, 0.01]
    predicted["mgfe"] += 0.1 * y["feh"]
    flux = np.column_stack([predicted, np.ones((300, 3))])
    meta = {"snr": np.exp(rng.uniform(3.1, 5.6, 300))}
    return Spectra(flux, wavelength=np.linspace(5160, 5190, 6), meta=meta), y


@pytest.fixture(scope="module")
def audit(stars):
    return audit_labels(Reader(), *stars, refit=False)


def test_four_panels(audit):
    display = LabelAuditDisplay.from_audit(audit, name="a <reader>")
    leakage, attribution, attenuation, flags = display.axes_
    texts = [text.get_text() for text in leakage.texts]
    assert len(texts) == 9 and texts[7].startswith("+0.3")
    assert len(leakage.patches) == 1  # the frame of the one that is flagged
    assert [t.get_text() for t in leakage.get_yticklabels()][2] == "[Mg/Fe]"
    assert attenuation.get_ylabel() == "slope" and len(attenuation.containers) == 3
    assert attenuation.get_xticklabels()[0].get_text() == "20-60"
    marks = [t.get_text() for t in flags.texts if t.get_text() in ("flag", "pass", "not tested")]
    assert marks == [
        {True: "flag", False: "pass", None: "not tested"}[flag] for flag in audit.flags
    ]
    assert flags.get_title(loc="left") == "300 stars: flagged"
    assert display.figure_.get_suptitle() == "a <reader>"


def test_bars_of_own_lines(stars):
    X, y = stars
    _, ax = plt.subplots(2, 2)
    display = LabelAuditDisplay.from_estimator(
        Ridge(), X, y, tests=["attribution"], line_windows={"mgfe": [(5165, 5175)]}, ax=ax
    )
    assert display.axes_[1] is ax[0, 1]
    (bar,) = display.axes_[1].patches
    share = display.audit["attribution"].table.set_index("label")["share"]["mgfe"]
    assert bar.get_width() == pytest.approx(100 * share)
    for axes in (display.axes_[0], display.axes_[2]):
        assert "not asked for" in axes.texts[0].get_text()


def test_page(audit, tmp_path, read_page):
    path = write_audit_page(audit, tmp_path / "audit.html", title="Reader & <others>")
    page = path.read_text("utf-8")
    found = read_page(page)
    for address in found.addresses:
        assert address.startswith(("data:", "#"))
        assert not address.startswith("#") or address[1:] in found.ids
    assert not re.search(r"https?://", page) and "<script" not in page
    assert "Reader &amp; &lt;others&gt;" in page
    assert set(audit.tests) <= found.ids
    for test in audit.tests.values():
        assert test.title in page
    assert page.count('class="failed"') == sum(flag is True for flag in audit.flags)
    slope = audit.leakage.loc["mgfe", "feh"]
    assert f"<td>{slope:.3f}</td>" in page
    assert "e+0" not in re.sub('base64,[^"]*', "", page)
    assert "What helps" in page and "censoring" in page
