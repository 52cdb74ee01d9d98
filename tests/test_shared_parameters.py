"""Parameters that a family shares: in the signature, the constraints and the docs of every member."""

import pickle
import subprocess
import sys
from inspect import Parameter, getdoc, signature
from numbers import Real

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils._repr_html.common import get_docstring
from sklearn.utils.estimator_checks import (
    check_no_attributes_set_in_init,
    check_parameters_default_constructible,
)

from skspec._shared_parameters import SharedParameters
from skspec._sklearn import Interval, StrOptions, fit_context
from skspec.base import LabelRegressor
from skspec.distributions import MultivariateNormal

POSITIVE = Interval(Real, 0, None, closed="neither")


class Parent(LabelRegressor):
    """A family.

    Parameters
    ----------
    tol : float, default=1e-3
        When to stop.

        Not before.
    lower, upper : float
        Limits
        of all.
    ivar : {"auto", "ignore"}
        Errors.

    Attributes
    ----------
    mean_ : ndarray
    """

    _parameter_constraints: dict = {
        "tol": [POSITIVE],
        "lower": [Real],
        "upper": [Real],
        "ivar": [StrOptions({"auto", "ignore"})],
    }

    def __init__(self, *, tol=1e-3, lower=0.0, upper=1.0, ivar="auto"):
        self.tol = tol
        self.lower = lower
        self.upper = upper
        self.ivar = ivar

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y):
        _, y = self._validate_fit(X, y)
        self.mean_ = y.mean(axis=0)
        return self

    def predict_dist(self, X):
        shape = (len(self._validate_predict(X)), len(self.mean_))
        return MultivariateNormal(np.broadcast_to(self.mean_, shape), scale=np.ones(shape))


class Child(Parent):
    """One of the family.

    Its formula is short.

    Parameters
    ----------
    degree : int
        Of the polynomial.
    upper : float
        Another limit.

    Examples
    --------
    >>> 1 + 1
    2
    """

    _parameter_constraints: dict = {"degree": [Real], "upper": [POSITIVE]}

    def __init__(self, degree=2, *, upper=5.0, **shared):
        super().__init__(upper=upper, **shared)
        self.degree = degree


class Grandchild(Child):
    """Without a word on its parameters.

    References
    ----------
    Nobody 2020.
    """

    def __init__(self, depth=1, **shared):
        super().__init__(**shared)
        self.depth = depth


class Plain(Child):
    """Neither constructor nor parameters of its own."""


class Undocumented(Child):
    def __init__(self, depth=1, **shared):
        super().__init__(**shared)
        self.depth = depth


class Explicit(Parent):
    """Lists everything.

    Parameters
    ----------
    tol : float
        Its own.
    """

    _parameter_constraints: dict = {"tol": [POSITIVE]}

    def __init__(self, tol=2.0):
        super().__init__(tol=tol)


class Traced:
    """A parent of another kind.

    Parameters
    ----------
    trace : bool
        Whether to tell.
    """

    _parameter_constraints: dict = {"trace": ["boolean"]}

    def __init__(self, *, trace=False, **shared):
        super().__init__(**shared)
        self.trace = trace


class Both(Traced, Child):
    """Of two parents, without a constructor.

    Parameters
    ----------
    trace : bool
        Whether to shout.
    """


class Named(SharedParameters):
    def __init__(self, name="", **shared):
        super().__init__(**shared)
        self.name = name


class Bare(SharedParameters):
    """Without parameters."""


TWO_CLASSES = """
import inspect
from skspec._shared_parameters import SharedParameters
class A(SharedParameters):
    "A."
    def __init__(self, *, a=1):
        self.a = a
class B(A):
    "B."
    def __init__(self, b=2, **shared):
        super().__init__(**shared)
        self.b = b
"""
MEMBERS = [Child, Grandchild, Both, Plain, Undocumented]


def names(cls):
    return list(signature(cls).parameters)


def printed(*arguments):
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_signature_names_every_parameter():
    assert names(Child) == ["degree", "upper", "tol", "lower", "ivar"]
    assert names(Grandchild) == ["depth", "degree", "upper", "tol", "lower", "ivar"]
    assert names(Both) == ["trace", "degree", "upper", "tol", "lower", "ivar"]
    kinds = {name: each.kind for name, each in signature(Grandchild).parameters.items()}
    assert kinds.pop("depth") is Parameter.POSITIONAL_OR_KEYWORD
    assert set(kinds.values()) == {Parameter.KEYWORD_ONLY}
    defaults = {name: each.default for name, each in signature(Child).parameters.items()}
    assert defaults == {"degree": 2, "upper": 5.0, "tol": 1e-3, "lower": 0.0, "ivar": "auto"}


@pytest.mark.parametrize("cls", MEMBERS)
def test_what_is_given_arrives(cls):
    given = {name: 7 for name in names(cls)}
    assert cls(**given).get_params() == given
    assert vars(cls(**given)) == given


@pytest.mark.parametrize("cls", MEMBERS)
def test_defaults(cls):
    expected = {name: each.default for name, each in signature(cls).parameters.items()}
    assert cls().get_params() == expected


@pytest.mark.parametrize("cls", [*MEMBERS, Explicit, Named, Bare, LabelRegressor])
def test_a_wrong_keyword_is_named(cls):
    with pytest.raises(TypeError, match="'degre'"):
        cls(degre=1)


def test_too_many_positions():
    with pytest.raises(TypeError, match="positional"):
        Child(1, 2)


def test_a_class_without_parameters_has_none():
    assert names(Bare) == names(LabelRegressor) == []
    assert LabelRegressor().get_params() == {}


def test_constraints_are_those_of_all_parents():
    assert list(Child._parameter_constraints) == names(Child)
    assert Child._parameter_constraints["upper"] == [POSITIVE]
    assert Parent._parameter_constraints["upper"] == [Real]
    assert set(Grandchild._parameter_constraints) == set(names(Child))
    assert set(Both._parameter_constraints) == {*names(Child), "trace"}


def test_constraints_are_checked():
    X, y = np.eye(3), np.arange(3.0)
    Child().fit(X, y)
    with pytest.raises(ValueError, match="'tol' parameter of Grandchild"):
        Grandchild(tol=-1).fit(X, y)
    with pytest.raises(ValueError, match="'upper' parameter of Both"):
        Both(upper=-1).fit(X, y)


def test_docs_are_completed():
    assert getdoc(Child) == (
        "One of the family.\n\nIts formula is short.\n\n"
        "Parameters\n----------\n"
        "degree : int\n    Of the polynomial.\n"
        "upper : float\n    Another limit.\n"
        "tol : float, default=1e-3\n    When to stop.\n\n    Not before.\n"
        "lower : float\n    Limits\n    of all.\n"
        'ivar : {"auto", "ignore"}\n    Errors.\n\n'
        "Examples\n--------\n>>> 1 + 1\n2"
    )


def test_docs_without_a_section():
    doc = getdoc(Grandchild)
    assert doc.startswith("Without a word on its parameters.\n\nParameters\n----------\ndegree : ")
    assert doc.endswith("    Errors.\n\nReferences\n----------\nNobody 2020.")
    assert "Attributes" not in doc


def test_docs_without_a_constructor():
    head, _, entries = getdoc(Plain).partition("\n\nParameters\n----------\n")
    assert head == "Neither constructor nor parameters of its own."
    assert getdoc(Child).partition("Parameters\n----------\n")[2].startswith(entries)
    assert Undocumented.__doc__ is None


def test_the_nearest_parent_documents():
    assert "Another limit." in Grandchild.__doc__
    assert "Whether to shout." in Both.__doc__
    assert "Whether to tell." not in Both.__doc__
    assert "When to stop." in Both.__doc__


def test_scikit_learn_finds_the_docs():
    for name in names(Child):
        assert get_docstring(Child, "Parameters", name), name


def test_a_class_that_lists_everything_is_left_alone():
    assert names(Explicit) == ["tol"]
    assert Explicit._parameter_constraints == {"tol": [POSITIVE]}
    assert "Limits" not in Explicit.__doc__
    assert Explicit().get_params() == {"tol": 2.0}
    assert names(Parent) == ["tol", "lower", "upper", "ivar"]


@pytest.mark.parametrize("cls", MEMBERS)
def test_clone_and_pickle(cls):
    estimator = cls(degree=5, tol=0.5)
    for copy in (clone(estimator), pickle.loads(pickle.dumps(estimator))):
        assert type(copy) is cls
        assert copy.get_params() == estimator.get_params()


def test_pickled_by_value():
    """As joblib sends classes that a notebook defines."""
    code = (
        f"{TWO_CLASSES}\n"
        "from joblib import Parallel, delayed\n"
        "def told(b): return str(inspect.signature(type(b))), vars(b)\n"
        "print(*Parallel(n_jobs=2)([delayed(told)(B(3, a=4))])[0])"
    )
    assert printed("-c", code) == "(b=2, *, a=1) {'a': 4, 'b': 3}\n"


@pytest.mark.parametrize("cls", [Parent, *MEMBERS, Explicit])
def test_scikit_learn_accepts_the_constructor(cls):
    name = cls.__name__
    check_parameters_default_constructible(name, cls())
    check_no_attributes_set_in_init(name, cls())


def test_without_docstrings():
    code = f"{TWO_CLASSES}\nprint(inspect.signature(B), vars(B(3, a=4)), B.__doc__)"
    assert printed("-OO", "-c", code) == "(b=2, *, a=1) {'a': 4, 'b': 3} None\n"
