import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skspec import Spectra
from skspec.diagnostics import synthetic_gap
from skspec.plotting import SyntheticGapDisplay, _synthetic_gap
from skspec.plotting._line_names import strong_lines

WAVELENGTH = np.linspace(5100, 5299, 100)
QUICK = {"n_permutations": 99}


def draw(n, seed, change=0.0, noise=0.01):
    rng = np.random.default_rng(seed)
    flux = 0.8 + 0.03 * rng.normal(size=(n, 2)) @ np.random.default_rng(0).normal(size=(2, 100))
    if not noise:
        return Spectra(flux + change, wavelength=WAVELENGTH)
    flux += change + noise * rng.normal(size=flux.shape)
    return Spectra(flux, flux_err=noise, wavelength=WAVELENGTH)


LINE = np.zeros(100)
LINE[36] = -0.1  # 5172.4 Angstrom


@pytest.fixture(scope="module")
def sets():
    return draw(40, 1, noise=0), draw(40, 2, LINE)


def test_before_and_after_in_one_embedding(sets):
    synthetic, observed = sets
    mended = synthetic.replace(flux=synthetic.flux + LINE)
    display = SyntheticGapDisplay.from_spectra(
        synthetic, observed, {"corrected": mended}, perplexity=10, gap_params=QUICK
    )
    assert list(display.embedding) == ["synthetic", "corrected", "observed"]
    assert [len(xy) for xy in display.embedding.values()] == [40, 40, 40]
    first, second = display.axes_
    assert_array_equal(first.collections[0].get_offsets(), second.collections[0].get_offsets())
    assert display.gaps["synthetic"].auc > 0.9 > 0.75 > display.gaps["corrected"].auc
    auc = display.gaps["corrected"].auc
    assert second.get_title(loc="left").startswith(f"corrected: AUC {auc:.3f}")
    assert "perplexity 10" in first.get_ylabel()
    assert display.gaps["synthetic"].noise_matched
    display.figure_.canvas.draw()


@pytest.mark.slow
def test_same_seed_same_picture_and_few_stars(sets):
    synthetic, observed = sets
    one, two = (
        SyntheticGapDisplay.from_spectra(
            synthetic, observed, max_stars=20, random_state=3, gap_params=QUICK
        )
        for _ in "ab"
    )
    assert_array_equal(one.embedding["observed"], two.embedding["observed"])
    assert len(one.embedding["observed"]) == 20 and one.perplexity == 40 / 3


def test_worst_lines_are_named(sets):
    gap = synthetic_gap(*sets, **QUICK)
    _, ax = plt.subplots()
    display = SyntheticGapDisplay.from_gap(gap, ax=ax, medium="air", n_worst=1)
    assert [t.get_text() for t in display.axes_[0].texts] == ["Mg b"]
    assert display.axes_[0].get_xlabel() == "wavelength [Å]"
    with pytest.raises(ValueError, match="no embedding.*from_spectra"):
        display.plot()


@pytest.mark.parametrize("medium, used", [("air", "air"), (None, "vacuum")])
@pytest.mark.parametrize("which", [0, 1])
def test_lines_are_of_the_medium_of_the_spectra(sets, monkeypatch, medium, used, which):
    seen = []

    def spy(wavelength, medium):
        seen.append(medium)
        return strong_lines(wavelength, medium=medium)

    monkeypatch.setattr(_synthetic_gap, "strong_lines", spy)
    known = [s.replace(medium=medium if k == which else None) for k, s in enumerate(sets)]
    gap = synthetic_gap(*known, **QUICK)
    assert gap.medium == medium
    SyntheticGapDisplay.from_gap(gap, ax=plt.subplots()[1])
    assert seen == [used]


def test_pixels_of_several_sets_without_wavelength(sets):
    synthetic, observed = (s.replace(wavelength=None) for s in sets)
    labels = np.random.default_rng(0).normal(size=(40, 2))
    gaps = {
        "means": synthetic_gap(synthetic, observed, **QUICK),
        "pairs": synthetic_gap(
            synthetic, observed, synthetic_labels=labels, observed_labels=labels, **QUICK
        ),
    }
    display = SyntheticGapDisplay.from_gap(gaps)
    assert display.axes_[1].get_xlabel() == "pixel"
    assert len(display.axes_[1].collections) == 1 and "36" in {
        t.get_text() for t in display.axes_[0].texts
    }
    display.figure_.canvas.draw()


def test_names_must_differ(sets):
    with pytest.raises(ValueError, match="same name"):
        SyntheticGapDisplay.from_spectra(*sets, {"synthetic": sets[0]})


def test_wings_of_balmer_lines_are_theirs():
    from skspec.plotting._synthetic_gap import _name

    lines = {"Hδ": [4101.7], "Fe I": [4090.0]}
    assert [_name(x, lines) for x in (4110.0, 4096.0, 4091.0, 4120.0)] == [
        "Hδ",
        "Hδ",
        "Fe I",
        "4120",
    ]
    assert _name(5000.0, {}) == "5000"
