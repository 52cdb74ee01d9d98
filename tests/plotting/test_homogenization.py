import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from skspec.plotting import HomogenizationDisplay
from skspec.transfer._label_homogenizer import offset_and_trend


@pytest.fixture(scope="module")
def homogenised():
    """What the display reads of a homogeniser; survey A has no [Mg/Fe]."""
    rng = np.random.default_rng(0)
    target = pd.DataFrame({"teff": rng.uniform(4000, 6500, 60), "mgfe": rng.normal(0, 0.1, 60)})
    before = target.assign(teff=1.05 * target["teff"] - 150, mgfe=np.nan)
    after = target + [40, 0.02] * rng.normal(size=target.shape)
    stages = {
        "target": target,
        "before": before,
        "translated": after,
        "model": after,
        "after": after,
    }
    report = {
        stage: offset_and_trend(stages[stage][names], target[names])
        for stage, names in (("before", ["teff"]), ("after", ["teff", "mgfe"]))
    }
    report = pd.concat(report, names=["stage", "label"]).swaplevel()

    class Homogenised:
        cv_labels_ = {"b": pd.concat(stages, axis=1)}
        report_ = pd.concat({"b": report}).sort_index()

    return Homogenised()


def test_differences_and_lines(homogenised):
    display = HomogenizationDisplay.from_estimator(homogenised, names={"a": "X", "b": "Y"})
    assert display.axes_.shape == (2, 2)
    frame = homogenised.cv_labels_["b"]
    zero, points, line = display.axes_[0, 0].lines
    assert_allclose(points.get_ydata(), frame["before", "teff"] - frame["target", "teff"])
    assert_allclose(np.diff(line.get_ydata()) / np.diff(line.get_xdata()), 0.05, rtol=1e-3)
    assert "trend 5" in display.axes_[0, 0].texts[0].get_text()
    assert display.axes_[0, 1].texts[0].get_text() == "not among its labels"
    assert display.axes_[0, 0].get_title(loc="left") == "labels of X"
    assert display.axes_[1, 0].get_title(loc="left") == "from spectra of X"
    assert display.axes_[1, 0].get_xlabel() == r"$T_\mathrm{eff}$ [K], Y"
    assert display.axes_[0, 0].get_ylim() == display.axes_[1, 0].get_ylim()


def test_axes_of_the_caller_and_unknown_stages(homogenised):
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(1, 2)
    display = HomogenizationDisplay.from_estimator(homogenised, ax=axes, stages=["after"])
    assert display.axes_[0, 0] is axes[0]
    with pytest.raises(ValueError, match="no stage 'later'; stages are before"):
        display.plot(stages=["later"])
