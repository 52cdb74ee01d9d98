"""What a notebook shows of an estimator: every parameter explained, and a link to its page."""

import re
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path

import pytest
from sklearn.base import BaseEstimator
from sklearn.utils._repr_html.common import get_docstring

import skspec
from skspec.calibration import ResidualCovarianceRegressor

ROOMS = sorted(path.parent.name for path in Path(skspec.__file__).parent.glob("*/__init__.py"))


def estimators():
    """Public estimators of all rooms that can be made."""
    for room in ROOMS:
        module = import_module(f"skspec.{room}")
        for name in getattr(module, "__all__", []):
            cls = getattr(module, name)
            at_home = getattr(cls, "__module__", "").startswith(f"skspec.{room}.")
            if isinstance(cls, type) and issubclass(cls, BaseEstimator) and at_home:
                yield room, cls


def made(cls):
    needed = [p.name for p in signature(cls).parameters.values() if p.default is Parameter.empty]
    return cls(**dict.fromkeys(needed, ResidualCovarianceRegressor()))


ALL = [pytest.param(room, cls, id=f"{room}.{cls.__name__}") for room, cls in estimators()]


def test_all_are_found():
    assert len(ALL) > 30


@pytest.mark.parametrize(("room", "cls"), ALL)
def test_every_parameter_is_explained(room, cls):
    estimator = made(cls)
    shown = estimator._repr_html_()
    assert f'href="{estimator._get_doc_link()}"' in shown
    for name in signature(cls).parameters:
        entry = get_docstring(cls, "Parameters", name)
        assert entry, f"{name} has no entry of its own"
        description = entry.partition("<br><br>")[2]
        assert description.strip(), f"{name} has no description"
        assert "See :class:" not in description, f"{name} is explained elsewhere"
        assert f"--doc-link-{name};" in shown


@pytest.mark.parametrize(("room", "cls"), ALL)
def test_link_to_the_page(room, cls):
    page = f"skspec.{room}.{cls.__name__}.html"
    address = made(cls)._get_doc_link()
    assert address == f"https://skspec.readthedocs.io/en/latest/generated/{page}"


@pytest.mark.parametrize(("room", "cls"), ALL)
def test_the_page_exists(room, cls):
    """Or rather: sphinx is told to make it."""
    api = Path(skspec.__file__).parents[1] / "doc" / "api.rst"
    if not api.exists():
        pytest.skip("without the sources of the documentation")
    section = api.read_text().partition(f".. currentmodule:: skspec.{room}\n")[2]
    section = section.partition(".. currentmodule::")[0]
    assert re.search(rf"^   {cls.__name__}$", section, re.MULTILINE)


def test_estimators_of_others_have_no_page():
    class Mine(ResidualCovarianceRegressor):
        """Mine."""

    Mine.__module__ = "mine"
    assert Mine()._get_doc_link() == ""
