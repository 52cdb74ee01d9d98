"""The public laws: they find what is wrong, and say what."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers import RidgeRegressor
from sklearn.linear_model import Ridge

from skspec import MultivariateNormal
from skspec.forward import TheCannon
from skspec.testing import (
    check_forward_model,
    check_regressor,
    draw_stars,
    laws_of,
    parametrize_with_laws,
)
from skspec.testing._assertions import (
    assert_above,
    assert_below,
    assert_raises,
    assert_same,
    assert_warns,
)

TEMPLATES = Path(__file__).parents[2] / "doc" / "templates"


def broken_laws(estimator, *names):
    """Of the laws named (default: all), what those that are broken say."""
    said = {}
    for law in laws_of(estimator):
        if not names or law.__name__ in names:
            try:
                law(estimator)
            except Exception as error:
                said[law.__name__] = error
    return said


def test_a_regressor_that_looks_at_bad_pixels():
    law = "check_masked_pixels_change_nothing"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = broken_laws(RidgeRegressor(), law)[law]
    message = str(said) + "".join(getattr(said, "__notes__", []))
    assert "RidgeRegressor()" in message
    assert "breaks the law check_masked_pixels_change_nothing: A masked pixel changes" in message
    assert "limit 1e-06" in message or isinstance(said, ValueError)


class Sinner(TheCannon):
    """TheCannon with one sin, which one law each must find."""

    def __init__(self, sin=None, *, inversion=None):
        super().__init__(1, inversion=inversion)
        self.sin = sin

    def _fit_flux(self, x, spectra, context):
        super()._fit_flux(x, spectra, context)
        if self.sin == "seed":
            self.theta_ = self.theta_ + 1e-6 * np.random.normal(size=self.theta_.shape)  # noqa: NPY002

    def predict_dist(self, X):
        dist = super().predict_dist(X)
        mean, cov = dist.mean(), dist.cov()
        if self.sin == "narrows":
            cov = cov / np.maximum(1, np.trace(cov, axis1=1, axis2=2) / 1e4)[:, None, None] ** 2
        if self.sin == "batch":
            mean = mean + 0.1 * np.nanmean(mean - self.label_pivot_, axis=0)
        if self.sin == "overconfident":
            cov = cov / 100
        if self.sin == "diagonal":
            cov = cov * np.eye(cov.shape[1])
        if self.sin == "blind":
            mean = np.nan_to_num(mean)
        return MultivariateNormal(mean, cov=cov, label_names=dist.label_names)

    def predict(self, X, return_std=False):
        if self.sin == "mean":
            return super().predict(X, return_std) + 1e-9
        return super().predict(X, return_std)

    def flux_jacobian(self, labels):
        return super().flux_jacobian(labels) * (1.001 if self.sin == "jacobian" else 1)

    _parameter_constraints = TheCannon._parameter_constraints | {"sin": [str, None]}


@pytest.mark.parametrize(
    "sin, law, numbers",
    [
        ("seed", "check_same_fit_same_result_and_pickle", "Mismatched elements"),
        ("narrows", "check_more_noise_never_narrows_an_interval", "not above the limit"),
        ("batch", "check_stars_do_not_know_of_each_other", "largest difference in sigma"),
        ("overconfident", "check_it_works_at_all", "fraction of labels within one sigma"),
        ("diagonal", "check_capabilities_are_true", "full_covariance is said to be True"),
        ("blind", "check_star_without_a_good_pixel", "should be NaN"),
        ("mean", "check_predict_is_the_mean_of_the_distribution", "Mismatched elements"),
        ("jacobian", "check_jacobian_is_the_finite_difference", "derivative by label 0"),
    ],
)
def test_sins_are_found(sin, law, numbers):
    assert broken_laws(Sinner(), law) == {}
    said = broken_laws(Sinner(sin), law)
    assert isinstance(said[law], AssertionError)
    assert f"breaks the law {law}: " in str(said[law])
    assert f"sin='{sin}'" in str(said[law])
    assert numbers in str(said[law])


def test_errors_of_the_method_pass_with_a_note():
    class Unfinished(RidgeRegressor):
        def predict_dist(self, X):
            raise NotImplementedError("to be written")

    law = "check_it_works_at_all"
    with pytest.raises(NotImplementedError) as caught:
        next(one for one in laws_of(Unfinished()) if one.__name__ == law)(Unfinished())
    assert caught.value.__notes__ == [
        f"Unfinished() breaks the law {law}: The toy is easy: small errors, and error bars of "
        "their size."
    ]


def test_all_of_them_or_the_first():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_regressor(RidgeRegressor(), on_fail=None)
        with pytest.raises(Exception, match=r".") as first:
            check_regressor(RidgeRegressor())
    failed = [result for result in results if result["status"] == "failed"]
    assert 1 < len(failed) < len(results)
    assert all((r["status"] == "failed") == (r["exception"] is not None) for r in results)
    assert type(first.value) is type(failed[0]["exception"])


def test_what_is_no_method():
    with pytest.raises(TypeError, match=r"Ridge\(\) is no skspec.LabelRegressor"):
        check_regressor(Ridge())
    with pytest.raises(TypeError, match="no skspec.forward.ForwardModel"):
        check_forward_model(RidgeRegressor())


def test_more_is_asked_of_forward_models():
    of_all = {law.__name__ for law in laws_of(RidgeRegressor())}
    of_forward = {law.__name__ for law in laws_of(TheCannon())}
    assert {"check_jacobian_is_the_finite_difference", "check_ivar_policies"} <= of_forward
    assert of_all < of_forward
    assert all(law.__name__.startswith("check_") and law.__doc__ for law in laws_of(TheCannon()))


def test_a_law_alone():
    from skspec.testing._label_laws import check_it_works_at_all

    check_it_works_at_all(TheCannon(1))
    with pytest.raises(AssertionError, match="overconfident"):
        check_it_works_at_all(Sinner("overconfident"))


@parametrize_with_laws([TheCannon(1)], param_grids=[{"scatter": ["ml", "reml"]}])
def test_parametrised(estimator, law):
    law(estimator)


@pytest.mark.parametrize("name", ["regressor", "forward_model"])
def test_templates_keep_the_laws(name):
    """As a newcomer runs them."""
    path = os.pathsep.join([str(TEMPLATES.parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "error", str(TEMPLATES / f"{name}.py")],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert not done.returncode, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) > 20 and all(line.startswith("passed check_") for line in lines)


def test_pytest_is_not_needed():
    code = "import sys; sys.modules['pytest'] = None; import skspec.testing"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_assertions():
    assert_above([1.0, 2.0], 0, "x")
    assert_below(1, 1, "x", strict=False)
    with pytest.raises(AssertionError, match=r"x: 2 of 3 not below the limit: 2 \(limit 1\), nan"):
        assert_below([0.5, 2.0, np.nan], 1, "x")
    with pytest.raises(AssertionError, match="no ValueError; expected one that says 'mend'"):
        with assert_raises(ValueError, "mend"):
            pass
    with pytest.raises(AssertionError, match="it should say 'mend'"):
        with assert_raises(ValueError, "mend"):
            raise ValueError("what?")
    with pytest.raises(KeyError):
        with assert_raises(ValueError, "mend"):
            raise KeyError("mend")
    with assert_warns(UserWarning, "twice"):
        warnings.warn("said twice", stacklevel=1)
    with pytest.raises(AssertionError, match="no UserWarning that says 'thrice', but"):
        with pytest.warns(UserWarning, match="twice"), assert_warns(UserWarning, "thrice"):
            warnings.warn("said twice", stacklevel=1)
    one = MultivariateNormal(np.zeros((2, 2)), cov=np.eye(2) + np.zeros((2, 2, 2)))
    two = MultivariateNormal(np.ones((2, 2)), cov=np.eye(2) + np.zeros((2, 2, 2)))
    with pytest.raises(AssertionError, match=r"apples: largest difference in sigma: .* 1 \(limit"):
        assert_same(one, two, what="apples")


def test_the_stars():
    spectra, labels = draw_stars(30, bad=0.1)
    assert spectra.shape == (30, 50) and labels.shape == (30, 3)
    assert 0.02 < np.mean(~spectra.good) < 0.2
    assert not draw_stars(30, bad=0.1, errors=None)[0].has_errors
