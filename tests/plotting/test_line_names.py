import numpy as np
import pytest

from skspec.plotting._line_names import strong_lines


def test_lines_of_the_grid_only():
    lines = strong_lines(np.linspace(4800, 6600, 50))
    assert list(lines) == ["Hβ", "Mg b", "Fe I 5270", "Na D", "TiO 6159", "Hα"]
    assert all((at > 4800).all() and (at < 6600).all() for at in lines.values())
    assert lines["Hα"] == pytest.approx([6564.61], abs=0.02)  # vacuum
    assert strong_lines([100.0, 200.0]) == {}


def test_lines_in_air():
    assert strong_lines([6500, 6600], medium="air")["Hα"] == pytest.approx([6562.80])


def test_h_band():
    assert "Br 11" in strong_lines([15100, 17000])


def test_a_multiplet_that_is_cut():
    assert len(strong_lines([5170.0, 5180.0])["Mg b"]) == 1
