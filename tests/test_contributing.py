"""What CONTRIBUTING.rst tells a stranger to write is a forward model, and takes part."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from skspec.cli import main

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
    """In a process of its own: workers that run already do not know the folder."""
    code = """
        from ridge_flux import RidgeFlux
        from skspec.testing import check_forward_model
        for result in check_forward_model(RidgeFlux(), param_grid={"alpha": [1e-3, 1.0]}):
            print(result["status"], result["law"])
        """
    path = os.pathsep.join([str(ridge_flux), str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert not done.returncode, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) > 30 and all(line.startswith("passed check_") for line in lines)


def test_it_takes_part_in_a_comparison(ridge_flux, capsys):
    arguments = ["--n-samples", "200", "--wavelength-range", "5100", "5250", "--no-report"]
    names = ["ridge_flux:RidgeFlux", "the_cannon"]
    assert main(["compare", *arguments, "--methods", *names, "--clean-training", "4"]) == 0
    assert "RidgeFlux, cleaned" in capsys.readouterr().out
    results = json.loads((ridge_flux / "skspec_compare" / "results.json").read_text())["methods"]
    assert [*results] == [*names, *(f"{name}_cleaned" for name in names)]
    mine, cannon = (results[name]["labels"]["teff"]["mae"] for name in names)
    assert mine < 2 * cannon
