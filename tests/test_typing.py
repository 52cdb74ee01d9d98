"""Everything public is annotated: parameters and returns of functions, methods and constructors."""

import functools
import inspect
from importlib import import_module
from pathlib import Path

import pytest

import skspec

ROOT = Path(skspec.__file__).parent
SPECIAL = {"__init__", "__call__", "__getitem__", "__len__"}


def _public(path):
    return not any(part.startswith("_") for part in path.relative_to(ROOT).parts)


MODULES = sorted(
    {
        ".".join(("skspec", *path.relative_to(ROOT).with_suffix("").parts))
        for path in ROOT.rglob("*.py")
        if _public(path)
    }
    | {
        ".".join(("skspec", *path.parent.relative_to(ROOT).parts))
        for path in ROOT.rglob("__init__.py")
        if _public(path.parent)
    }
)


def _function(member):
    """What was written with `def`, under descriptors and decorators; None for anything else."""
    if isinstance(member, property):
        member = member.fget
    elif isinstance(member, functools.cached_property):
        member = member.func
    elif isinstance(member, (classmethod, staticmethod)):
        member = member.__func__
    elif hasattr(member, "fn"):  # of available_if
        member = member.fn
    member = inspect.unwrap(member) if callable(member) else member
    if not inspect.isfunction(member) or not _ours(member):
        return None
    return member


def _ours(thing):
    return thing.__module__.split(".")[0] == "skspec"


def _functions(name, thing):
    if not inspect.isclass(thing):
        yield name, _function(thing)
        return
    for base in filter(_ours, thing.__mro__):
        for key, member in vars(base).items():
            if key in SPECIAL or not key.startswith("_"):
                yield f"{base.__name__}.{key}", _function(member)


def _missing(function):
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        if parameter.name not in ("self", "cls") and parameter.annotation is parameter.empty:
            yield parameter.name
    if signature.return_annotation is signature.empty and function.__name__ != "__init__":
        yield "return"


@pytest.mark.parametrize("module", MODULES)
def test_public_names_are_annotated(module):
    module = import_module(module)
    bare = {
        f"{name}: {', '.join(_missing(function))}"
        for exported in getattr(module, "__all__", [])
        for name, function in _functions(exported, getattr(module, exported))
        if function is not None and any(_missing(function))
    }
    assert not bare


def test_type_checkers_are_told():
    assert (ROOT / "py.typed").exists()
