"""The registry: what is in it, what it says, and the pages written from it."""

import inspect
import re
import runpy
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from helpers import RidgeRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skspec.augmentation import GaussianNoise
from skspec.calibration import CalibratedRegressor, ResidualCovarianceRegressor
from skspec.discovery import KINDS, all_estimators, capabilities, capability_table
from skspec.discriminative import SpectralCNN
from skspec.ensemble import AugmentedRegressor, ConsensusRegressor, DeepEnsembleRegressor
from skspec.forward import SLAM, FullSpectrumFit, TheCannon, ThePayne
from skspec.preprocessing import ContinuumNormalizer

ROOT = Path(__file__).parents[1]


def names(kind=None):
    return [name for name, _ in all_estimators(kind)]


def test_the_list():
    everything = all_estimators()
    assert names() == sorted(set(names()))
    assert all(inspect.isclass(cls) and cls.__name__ == name for name, cls in everything)
    for base in ("ForwardModel", "LabelRegressor", "SpectraTransformer", "Augmentation"):
        assert base not in names()
    assert set().union(*map(names, KINDS)) == set(names())


def test_kinds():
    assert "SLAM" in names("forward")
    assert "SpectralCNN" in names("discriminative")
    assert "CalibratedRegressor" in names("wrapper")
    assert "FullSpectrumFit" in names("forward") and "FullSpectrumFit" in names("wrapper")
    assert "GaussianNoise" in names("augmentation") and "GaussianNoise" in names("transformer")
    assert "CycleStarNet" in names("transfer")
    assert not set(names("forward")) & set(names("discriminative"))
    of_regressors = set(names("forward")) | set(names("discriminative")) | set(names("wrapper"))
    assert set(names("regressor")) <= of_regressors
    assert names(["latent", "transfer"]) == sorted({*names("latent"), *names("transfer")})
    with pytest.raises(ValueError, match="no kind classifier; known: .*forward"):
        all_estimators(["forward", "classifier"])


def test_nothing_heavy_is_imported_and_what_lacks_a_package_is_listed():
    code = """
import sys

class NotInstalled:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("torch", "skorch"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NotInstalled())
from skspec.discovery import all_estimators, capabilities
print({name: capabilities(cls).extra for name, cls in all_estimators()})
assert not {"matplotlib", "astropy", "bokeh", "pytest"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    extra = eval(done.stdout)  # noqa: S307
    assert list(extra) == names()
    needs = {"BetaVAE", "CycleStarNet", "DenoisingAutoencoder", "SpectralCNN", "ThePayne"}
    assert {name for name, needed in extra.items() if needed == "nn"} == needs


def test_capabilities_of_a_class():
    assert capabilities(TheCannon) == capabilities(TheCannon())
    assert capabilities(SLAM).parallel and not capabilities(TheCannon).parallel
    assert capabilities(TheCannon).velocity and capabilities(TheCannon).continuum
    assert capabilities(ThePayne).gpu and capabilities(ThePayne).extra == "nn"
    assert capabilities(SpectralCNN).full_covariance
    assert not capabilities(SpectralCNN(covariance="diagonal")).full_covariance
    assert capabilities(GaussianNoise).kinds == ("transformer", "augmentation")


def test_capabilities_of_what_is_wrapped():
    assert capabilities(CalibratedRegressor).velocity is None
    assert capabilities(CalibratedRegressor()).velocity is None
    assert capabilities(CalibratedRegressor(TheCannon())).velocity is True
    assert capabilities(CalibratedRegressor(SpectralCNN())).velocity is False
    assert capabilities(CalibratedRegressor(SpectralCNN())).extra == "nn"
    inside = make_pipeline(ContinuumNormalizer(), ThePayne())
    search = GridSearchCV(inside, {"thepayne__cv": [2, 3]})
    assert capabilities(search) == capabilities(inside) == capabilities(ThePayne())
    deep = DeepEnsembleRegressor(CalibratedRegressor(inside))
    assert capabilities(deep).gpu and capabilities(deep).speed == "minutes"
    both = ConsensusRegressor([("a", TheCannon()), ("b", SLAM()), ("c", "drop")])
    assert capabilities(both).broadening and capabilities(both).speed == "minutes"
    mixed = ConsensusRegressor([("a", TheCannon()), ("b", SpectralCNN())])
    assert capabilities(mixed).velocity is False
    assert capabilities(FullSpectrumFit).velocity is True  # its own
    assert capabilities(FullSpectrumFit(ThePayne())).gpu is True
    assert capabilities(ResidualCovarianceRegressor(Ridge())).velocity is False
    assert capabilities(AugmentedRegressor(TheCannon())).speed == "seconds"


class Louder(RidgeRegressor):
    _capabilities = {"speed": "seconds", "out_of_core": True}


class Loudest(Louder):
    _capabilities = {"speed": "minutes"}


def test_declared_capabilities_add_to_those_of_the_bases():
    assert capabilities(RidgeRegressor).kinds == ("regressor", "discriminative")
    assert capabilities(Loudest).speed == "minutes"
    assert capabilities(Loudest).out_of_core
    assert capabilities(Loudest).full_covariance


def test_every_method_says_how_long_it_takes():
    table = capability_table("regressor")
    alone = ~table["kinds"].map(lambda kinds: "wrapper" in kinds)
    assert set(table.loc[alone, "speed"]) == {"seconds", "minutes"}
    assert table.index.tolist() == names("regressor")


def test_the_page_is_what_the_registry_says():
    """Otherwise: python doc/capability_table.py."""
    script = runpy.run_path(str(ROOT / "doc" / "capability_table.py"))
    page = script["PAGE"].read_text()
    assert script["rendered"](page) == page
    for name in names():
        assert name in page


def test_what_the_api_page_lists_is_there():
    rooms = re.split(r"\.\. currentmodule:: (\S+)\n", (ROOT / "doc" / "api.rst").read_text())
    for room, text in zip(rooms[1::2], rooms[2::2]):
        module = import_module(room)
        listed = re.findall(r"^   (\w+)$", text.split("\n``")[0], re.MULTILINE)
        assert [name for name in listed if not hasattr(module, name)] == [], room


@pytest.mark.parametrize("room", ["calibration", "ensemble", "forward", "likelihood"])
def test_public_names_are_in_the_api_page(room):
    listed = (ROOT / "doc" / "api.rst").read_text().split()
    assert set(import_module(f"skspec.{room}").__all__) <= set(listed)


def test_every_estimator_is_in_the_api_and_every_regressor_in_the_changes():
    listed = (ROOT / "doc" / "api.rst").read_text().split()
    assert set(names()) <= set(listed)
    news = (ROOT / "doc" / "whats_new.rst").read_text()
    assert [name for name in names("regressor") if name not in news] == []
