import re
from html.parser import HTMLParser

import numpy as np
import pytest
from numpy.testing import assert_allclose

pytest.importorskip("bokeh")

from skspec.explore import _static as static
from skspec.explore import write_static


class Loads(HTMLParser):
    """Whatever the tags of a page would fetch."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found += [v for k, v in attributes if k in ("src", "href", "srcset", "data", "action")]


def test_one_file_that_fetches_nothing(space, tmp_path):
    path = write_static(space, tmp_path / "page.html", title="a <b> & c")
    text = path.read_text("utf-8")
    assert Loads(text).found == []
    assert not re.search(r"@import|url\(\s*['\"]?(https?:)?//", text)
    assert "<title>a &lt;b&gt; &amp; c · skspec</title>" in text
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_an_old_file_stays_when_writing_fails(space, tmp_path, monkeypatch):
    (tmp_path / "page.html").write_text("old")
    monkeypatch.setattr(static.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_static(space, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == "old"


def test_what_is_left_out_is_said(space, monkeypatch):
    monkeypatch.setattr(static, "MAX_PIXELS", 50)
    monkeypatch.setattr(static, "STAR_VALUES", 2 * 40 * 30)
    page = static.static_page(space, "toy", n_points=100)
    assert "30 of 150 stars come with their spectra" in page.notes.text
    assert "3 pixels are averaged into one" in page.notes.text
    assert "Neighbours are sought among the stars drawn" in page.notes.text
    assert "one node at a time" in page.notes.text
    assert len(page.points.data["x"]) == 100
    assert (page.points.data["spectrum"] >= 0).sum() == 30
    assert len(page.curves.data["x"]) == 40


def test_averages_leave_bad_pixels_out(space):
    curve = np.arange(120.0)
    curve[:3], curve[4] = np.nan, np.nan
    x, (mean,) = static._averaged(space, [curve], 3)
    assert np.isnan(mean[0])
    assert_allclose(mean[1:], [4, *np.arange(7, 120, 3)])
    assert_allclose(x[0], space.wavelength[:3].mean())


def test_without_stars(bare):
    page = static.static_page(bare, "toy")
    assert "one node at a time about zero" in page.notes.text
    assert not hasattr(page, "scatter")
