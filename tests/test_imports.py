"""The house of doc/design.rst: imports run downward only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import skspec

ROOT = Path(skspec.__file__).parent

# from the ground up; what shares a line is one storey, whose rooms may only know themselves
STOREYS = [
    {"_version", "_typing", "_wavelengths", "_pixel_values"},
    {"_label_values"},
    {"solvers"},
    {"_common_grid", "_containers"},
    {"spectra", "distributions"},
    {"_sklearn", "_shared_parameters", "_short_repr", "_progress", "_wrappers"},
    {"base", "model_selection"},
    {"metrics", "_spectrum_domain"},
    {"likelihood", "_out_of_fold"},
    {"datasets"},
    {"preprocessing", "augmentation"},
    {"networks"},
    {"forward", "discriminative", "latent", "transfer"},
    {"calibration"},
    {"ensemble"},
    {"diagnostics"},
    {"plotting"},
    {"discovery"},
    {"testing"},
    {"explore"},
    {"cli", "__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(STOREYS) for room in rooms}
SAME_STOREY_ALLOWED = {
    ("__main__", "cli"),
}
FOUNDATION = {"spectra", "distributions"}


def room_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_modules(path, *, top_level_only=False):
    """Absolute names of the modules that a file imports."""
    tree = ast.parse(path.read_text())
    nodes = _eager(tree) if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:  # relative: resolve against the package of the file
                package = ("skspec", *path.relative_to(ROOT).parts[:-1])
                base = ".".join(package[: len(package) - node.level + 1])
            else:
                base = ""
            module = ".".join(part for part in (base, node.module) if part)
            if module == "skspec":
                yield from (f"skspec.{alias.name}" for alias in node.names)
            else:
                yield module


def _eager(node):
    """Nodes executed when the module is imported (function bodies left out)."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return  # read by type checkers only
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from _eager(child)


FILES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")
# names that `skspec/__init__.py` re-exports, and where they live
EXPORTED = {
    "Spectra": "spectra",
    "concatenate": "spectra",
    "MultivariateNormal": "distributions",
    "predict_dist": "base",
    "domain_score": "base",
    "LabelRegressor": "base",
    "__version__": "_version",
    "air_to_vacuum": "_wavelengths",
    "vacuum_to_air": "_wavelengths",
}


def rooms_used(path):
    for module in imported_modules(path):
        top, _, rest = module.partition(".")
        if top == "skspec" and rest:
            name = rest.split(".")[0]
            yield EXPORTED.get(name, name)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_downward(path):
    here = room_of(path)
    assert here in LEVEL, f"{here} has no place in the house: add it to STOREYS and doc/design.rst"
    for there in set(rooms_used(path)) - {here}:
        assert there in LEVEL, f"{path.name} imports skspec.{there}, which has no place"
        down = LEVEL[there] < LEVEL[here] or (here, there) in SAME_STOREY_ALLOWED
        assert down, f"skspec.{here} must not import skspec.{there}"


@pytest.mark.parametrize("room", sorted(FOUNDATION))
def test_the_foundation_needs_only_numpy_and_scipy(room):
    for module in imported_modules(ROOT / f"{room}.py", top_level_only=True):
        assert module.split(".")[0] in {"numpy", "scipy", "skspec"} | sys.stdlib_module_names


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if room_of(p) == "solvers"],
    ids=lambda p: str(p.relative_to(ROOT / "solvers")),
)
def test_solvers_know_no_classes_of_ours(path):
    assert set(rooms_used(path)) <= {"solvers"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_private_names_of_scikit_learn_have_one_door(path):
    """What may change without notice is imported by ``skspec/_sklearn.py`` alone."""
    if path == ROOT / "_sklearn.py":
        pytest.skip("it is the door")
    for node in ast.walk(ast.parse(path.read_text())):
        module = getattr(node, "module", None) or ""
        for alias in node.names if isinstance(node, (ast.Import, ast.ImportFrom)) else ():
            parts = f"{module}.{alias.name}".strip(".").split(".")
            private = any(part.startswith("_") for part in parts[1:])
            assert parts[0] != "sklearn" or not private, (
                f"{'.'.join(parts)}: see skspec/_sklearn.py"
            )


HEAVY = (
    *("torch", "skorch", "matplotlib", "rich", "emcee", "bokeh", "zarr"),
    *("astropy", "specutils", "pooch", "xarray", "polars"),
)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_are_imported_late(path):
    if room_of(path) in ("networks", "explore"):
        pytest.skip("behind a lazy import of its package")
    for module in imported_modules(path, top_level_only=True):
        assert module.split(".")[0] not in HEAVY, f"import {module} inside the function using it"


def loaded_by(code):
    """Which of the heavy packages a fresh interpreter has loaded after `code`."""
    watched = (*HEAVY, "sklearn", "pandas")
    code = f"import sys; {code}; print(*[m for m in {watched} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_skspec_is_light():
    assert loaded_by("import skspec; skspec.Spectra, skspec.MultivariateNormal") == set()


def test_methods_load_without_heavy_packages():
    rooms = sorted(p.name for p in ROOT.iterdir() if (p / "__init__.py").exists())
    code = "import " + ", ".join(f"skspec.{room}" for room in rooms if room != "networks")
    # scikit-learn's own callbacks import rich where it is installed
    assert not loaded_by(code) & (set(HEAVY) - {"rich"})


def test_lazy_names():
    assert skspec.predict_dist is skspec.base.predict_dist
    for name in skspec.__all__:
        assert getattr(skspec, name) is not None
        assert name in dir(skspec)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        skspec.nonsense  # noqa: B018


@pytest.mark.parametrize("room", sorted(p.parent.name for p in ROOT.glob("*/__init__.py")))
def test_public_names_exist(room):
    module = getattr(skspec, room)
    for name in getattr(module, "__all__", []):
        assert getattr(module, name) is not None
