import re
import subprocess
import sys
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from skspec.diagnostics import Comparison, MethodResult
from skspec.plotting import write_report
from skspec.plotting._report_figures import coverage_figure


@pytest.fixture(scope="module")
def page(comparison, tmp_path_factory):
    return write_report(comparison, tmp_path_factory.mktemp("report") / "r.html").read_text("utf-8")


def test_needs_no_other_file(page, read_page):
    found = read_page(page)
    for address in found.addresses:
        assert address.startswith(("data:", "#")), address[:60]
        assert not address.startswith("#") or address[1:] in found.ids
    assert not re.search(r"https?://", page) and "<script" not in page


def test_holds_every_method_and_failure(page):
    for title in ("The Cannon", "Ridge", "Broken &lt;one&gt;"):
        assert title in page
    assert "no &lt;tags&gt; &amp; no spectra" in page
    assert "<tags>" not in page


def test_numbers_are_those_of_the_tables(page, comparison):
    metrics = comparison.metrics().set_index(["label", "method"])
    assert f"{metrics.loc[('teff', 'ridge'), 'rmse']:.1f}" in page
    assert "160 stars" in page and "Cramér-Rao bound" in page


def test_same_comparison_same_bytes(page, comparison, tmp_path):
    assert write_report(comparison, tmp_path / "r.html").read_text("utf-8") == page


def test_without_a_survivor_or_snr(tmp_path):
    failed = Comparison(
        label_names=["teff"],
        labels=np.ones((3, 1)),
        star=np.arange(3),
        fold=np.zeros(3, int),
        snr=np.full(3, np.nan),
        n_train=9,
        results={"a": MethodResult("a", "A", error="fitting: no")},
    )
    text = write_report(failed, tmp_path / "r.html").read_text("utf-8")
    assert "<b>A failed</b> while fitting: no" in text and "How to read this" in text


def test_unknown_noise_and_cleaning_are_told(comparison, tmp_path):
    told = replace(
        comparison, spectra=comparison.spectra.replace(ivar=None), reference="the_cannon"
    )
    told.results = {"ridge": replace(comparison.results["ridge"], n_removed=[7])}
    text = write_report(told, tmp_path / "r.html").read_text("utf-8")
    assert "no physical limit" in text and "left out 7 training stars" in text


@pytest.mark.parametrize("n_methods", [1, 4, 6, 9])
def test_names_of_axes_do_not_run_into_each_other(comparison, n_methods):
    ridge = comparison.results["ridge"]
    results = {f"{k}": replace(ridge, name=f"{k}") for k in range(n_methods)}
    fig = coverage_figure(replace(comparison, results=results))
    fig.canvas.draw()
    assert len(fig.axes) == 2 * n_methods
    boxes = [one.xaxis.label.get_window_extent() for one in fig.axes]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_importing_the_displays_imports_no_matplotlib():
    code = "import sys, skspec.plotting; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
