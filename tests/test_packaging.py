"""What stands in several files of the checkout agrees."""

import re
import tomllib
from pathlib import Path

import pytest

from skspec import __version__

ROOT = Path(__file__).parents[1]


def pins(name):
    return dict(re.findall(r"^([\w.-]+)==([\w.+]+)$", (ROOT / name).read_text(), re.MULTILINE))


def lower_bounds():
    """What the library and its tests need, and from which version on."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    extras = {name: needed for name, needed in extras.items() if name not in ("doc", "dev")}
    needed = sum(extras.values(), project["dependencies"])
    return dict(text.split(">=") for text in needed if not text.startswith("skspec["))


@pytest.mark.parametrize(("package", "bound"), lower_bounds().items())
def test_oldest_versions_are_the_lower_bounds(package, bound):
    pinned = pins("constraints-oldest.txt")[package]
    assert re.fullmatch(re.escape(bound) + r"(\.0)*", pinned)


def test_what_is_tested_is_pinned():
    assert lower_bounds().keys() <= pins("constraints.txt").keys()


def test_pre_commit_formats_as_make_lint_does():
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert f"rev: v{pins('constraints.txt')['ruff']}\n" in text


def test_citation_has_the_version():
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
