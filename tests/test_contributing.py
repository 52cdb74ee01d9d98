"""What CONTRIBUTING.rst tells a stranger to write is a forward model, and takes part."""

import importlib
import json
import re
import sys
import textwrap
from pathlib import Path

import pytest

from skspec.cli import main
from skspec.testing import check_forward_model

ROOT = Path(__file__).parents[1]


def listing():
    """The forward model of the page."""
    page = (ROOT / "CONTRIBUTING.rst").read_text()
    found = re.search(r"^\.\. code-block:: python\n\n((?:(?: {4}.*)?\n)+)", page, re.MULTILINE)
    return textwrap.dedent(found[1])


@pytest.fixture
def ridge_flux(tmp_path, monkeypatch):
    """The page's file, in the current folder."""
    (tmp_path / "ridge_flux.py").write_text(listing())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    yield tmp_path
    sys.modules.pop("ridge_flux", None)


def test_it_is_short_and_the_template():
    assert len(listing().strip().splitlines()) <= 40
    assert listing().strip() in (ROOT / "doc" / "templates" / "forward_model.py").read_text()


def test_it_keeps_the_laws(ridge_flux):
    sys.path.insert(0, str(ridge_flux))
    model = importlib.import_module("ridge_flux").RidgeFlux()
    results = check_forward_model(model, param_grid={"alpha": [1e-3, 1.0]})
    assert len(results) > 30 and {each["status"] for each in results} == {"passed"}


def test_it_takes_part_in_a_comparison(ridge_flux, capsys):
    arguments = ["--n-samples", "200", "--wavelength-range", "5100", "5250", "--no-report"]
    names = ["ridge_flux:RidgeFlux", "the_cannon"]
    assert main(["compare", *arguments, "--methods", *names, "--clean-training", "4"]) == 0
    assert "RidgeFlux, cleaned" in capsys.readouterr().out
    results = json.loads((ridge_flux / "skspec_compare" / "results.json").read_text())["methods"]
    assert [*results] == [*names, *(f"{name}_cleaned" for name in names)]
    mine, cannon = (results[name]["labels"]["teff"]["mae"] for name in names)
    assert mine < 2 * cannon
