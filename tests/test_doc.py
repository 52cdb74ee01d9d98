"""What the pages refer to exists."""

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.rst"), *ROOT.glob("doc/*.rst"), *ROOT.glob("doc/user_guide/*.rst")])


def found(name):
    """Whether a dotted name of skspec can be imported."""
    parts = name.split(".")
    for stop in range(len(parts), 0, -1):
        try:
            there = import_module(".".join(parts[:stop]))
        except ImportError:
            continue
        for part in parts[stop:]:
            if not hasattr(there, part):
                return False
            there = getattr(there, part)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_exist(page):
    text = page.read_text()
    if page.name == "whats_new.rst":  # what was renamed has old names
        text = "\n".join(re.findall(r":\w+:`[^`]*`", text))
    names = re.findall(r"\bskspec(?:\.[A-Za-z_]\w*)+", text)
    ends = (".rst", ".py", ".html", ".json", ".npz")
    names = {name for name in names if not name.endswith(ends)}
    assert [name for name in sorted(names) if not found(name)] == []
