"""Results print in a few lines, whatever they hold."""

import pickle
from dataclasses import dataclass, field, fields, is_dataclass, replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA

import skspec
from skspec import MultivariateNormal
from skspec._short_repr import ShortRepr
from skspec.datasets import make_spectra
from skspec.diagnostics import calibration_report, cramer_rao_bound, efficiency, information_map
from skspec.explore import LatentSpace
from skspec.forward import PosteriorSamples, TheCannon
from skspec.latent import latent_mutual_information
from skspec.networks import can_train

ROOT = Path(skspec.__file__).parent
# of arrays that no user prints
NOT_THESE = {"solvers", *(() if can_train() else ("networks",))}


def results():
    """All dataclasses without an underscore, of all rooms."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if NOT_THESE & set(parts) or "@dataclass" not in path.read_text():
            continue
        module = import_module(".".join(("skspec", *parts)))
        for name, cls in vars(module).items():
            ours = isinstance(cls, type) and cls.__module__ == module.__name__
            if ours and is_dataclass(cls) and not name.startswith("_"):
                yield cls


def large(annotation):
    """A value that is as large as they come."""
    rng = np.random.default_rng(0)
    text = str(annotation)
    if "DataFrame" in text or "object" in text:
        return pd.DataFrame(rng.normal(size=(500, 20))).add_prefix("column_")
    if text.startswith("dict"):
        return {f"a key of some length, {k}": rng.normal(size=(500, 20)) for k in range(30)}
    if text.startswith(("list", "tuple", "frozenset", "set")):
        return [f"an item of some length, {k}" for k in range(50)]
    if "Callable" in text:
        return large
    if text.startswith("str"):
        return "words and " * 100
    if "MultivariateNormal" in text:
        return MultivariateNormal(np.zeros((500, 20)), cov=np.eye(20))
    number = {"int": 123456, "float": 1 / 3, "bool": True, "bool | None": True}
    return number.get(text, rng.normal(size=(500, 20, 20)))


@pytest.mark.parametrize("cls", list(results()), ids=lambda cls: cls.__name__)
def test_results_of_any_size_print_in_a_few_lines(cls):
    result = object.__new__(cls)
    for each in fields(cls):
        object.__setattr__(result, each.name, large(each.type))
    shown = repr(result)
    assert len(shown) < 500
    assert cls.__name__ in shown


@pytest.fixture(scope="module")
def fitted():
    spectra, labels = make_spectra(n_samples=150, n_pixels=200, random_state=0)
    return TheCannon().fit(spectra, labels), spectra, labels


def test_bound(fitted):
    model, spectra, labels = fitted
    bound = cramer_rao_bound(model, labels, spectra.ivar)
    teff, logg, feh = (f"{value:.4g}" for value in np.median(bound.std(), axis=0))
    assert repr(bound) == (
        "<CramerRaoBound: n_stars=150, n_bounded=150,\n"
        f" median_std={{teff: {teff}, logg: {logg}, feh: {feh}}}>"
    )
    nothing = replace(bound, fisher=np.full((2, 3, 3), np.nan), label_names=None)
    assert repr(nothing) == "<CramerRaoBound: n_stars=2, n_bounded=0>"
    assert repr(bound[:0]) == "<CramerRaoBound: n_stars=0, n_bounded=0>"
    assert repr(pickle.loads(pickle.dumps(bound))) == repr(bound)
    assert len(repr(efficiency(labels, model.predict(spectra), bound))) < 500


def test_others(fitted):
    model, spectra, labels = fitted
    shown = repr(information_map(model, labels, spectra.ivar))
    assert shown.endswith("wavelength=[200] from 4800 to 5400, n_stars=150>")
    report = calibration_report(model, spectra, labels)
    assert "table=DataFrame [4 x 12]" in repr(report)
    assert str(report).startswith("coverage [%]")  # printed, it still is the report
    space = LatentSpace(PCA(3).fit(spectra), spectra, labels)
    assert repr(space) == (
        "<LatentSpace: model=PCA(n_components=3), n_stars=150, columns=[teff, logg, feh],\n"
        " nodes=[0, 1, 2], wavelength=[200] from 4800 to 5400>"
    )
    assert len(repr(space.star(3))) < 500
    assert len(repr(latent_mutual_information(space.latents, labels))) < 500


def test_forward(fitted):
    model, spectra, labels = fitted
    result = model.invert(spectra)
    (teff, _, _), (std, _, _) = (
        np.median(result.labels, axis=0),
        np.median(result.dist.std(), axis=0),
    )
    shown = repr(result)
    assert shown.startswith(f"<InversionResult: n_stars=150, median={{teff: {teff:.4g}, logg: ")
    assert f"median_std={{teff: {std:.4g}, logg: " in shown
    told = (
        f"inside_training={result.inside_training.sum()},",
        f"at_bound={result.at_bound.any(1).sum()}>",
    )
    for part in (f"reduced_chi2={np.median(result.reduced_chi2):.4g}", "converged=150", *told):
        assert part in shown
    assert "n_stars=0" in repr(result[:0])
    blind = model.invert(spectra[:2].replace(ivar=0.0))
    assert "median={teff: nan" in repr(blind) and "converged=0" in repr(blind)
    noise = model.noise(spectra)
    assert repr(noise) == "<PixelNoise: n_stars=150, n_pixels=200, n_shared=0>"
    noise = replace(noise, shared=np.ones((3, 200)), correlation_length=5)
    assert repr(noise)[-40:] == "n_pixels=200, n_shared=3, correlation_length=5>"[-40:]


def test_posterior_samples():
    drawn = np.random.default_rng(0).normal(size=(4, 600, 2))
    time = np.array([[5.0, 5], [5, 90], [5, 6], [90, 90]])
    samples = PosteriorSamples(drawn, np.full(4, 0.3), time, 300, ["teff", "feh"])
    assert repr(samples) == (
        "<PosteriorSamples: n_stars=4, n_samples=600, converged=2, label_names=[teff, feh]>"
    )


@dataclass(frozen=True)
class Result(ShortRepr):
    values: object
    hidden: object = field(default=None, repr=False)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.array([1.0, 2.5, np.nan]), "[1, 2.5, nan]"),
        (np.array([1, 2]), "[1, 2]"),
        (np.array([True, False]), "[True, False]"),
        (np.arange(10), "[10] from 0 to 9"),
        (np.linspace(4000, 5000, 11), "[11] from 4000 to 5000"),
        (np.array([3.0, 1, 2, 9, np.inf]), "[5] of median 2.5"),
        (np.full(5, np.nan), "[5]"),
        (np.array([3, 1, 2, 9, 8]), "[5]"),
        (np.ones((5, 2)), "[5 x 2]"),
        (np.ones((5, 2)) > 0, "[5 x 2] with 10 true"),
        (np.array(["a"] * 5), "[5]"),
        (np.empty((0, 3)), "[0 x 3]"),
        (np.empty(0), "[]"),
        (np.broadcast_to(1.0, 10**7), "[10000000]"),
        (np.array(2.0), "array(2.)"),
        (np.float64(1 / 3), "0.3333"),
        (np.int64(3), "3"),
        (pd.Series([1.0]), "Series [1]"),
        ({"a": 1 / 3, "b": (1, 2)}, "{a: 0.3333, b: (1, 2)}"),
        ({"a": Result(1), "b": Result(2)}, "{a, b}"),
        ({k: np.ones(9) for k in range(30)}, "{30 items}"),
        (["teff", "logg"], "[teff, logg]"),
        (("word " * 9,) * 9, "(9 items)"),
        ("word " * 30, repr("word " * 11 + "...").replace(" ...", "...")),
        (PCA(3), "PCA(n_components=3)"),
        (Result(["a"] * 15), "<Result>"),
    ],
)
def test_values(value, shown):
    assert repr(Result(value, hidden=np.ones(3))) == f"<Result: values={shown}>"


@pytest.mark.parametrize("nothing", [None, {}, [], ()])
def test_what_says_nothing_is_left_out(nothing):
    assert repr(Result(nothing)) == "<Result>"


def test_a_repr_of_its_own_stays():
    @dataclass
    class Own(ShortRepr):
        a: int = 1

        def __repr__(self):
            return "mine"

    @dataclass
    class Heir(Own):
        b: int = 2

    assert repr(Own()) == repr(Heir()) == "mine"
