"""Weights that balance targets and classes."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skspec import Spectra
from skspec.latent import balancing_weights

TABLES = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from(["dwarf", "giant", "hot"])),
    min_size=1,
    max_size=40,
)


def sums(weight, *keys):
    return pd.Series(weight).groupby([np.asarray(key) for key in keys]).sum()


class TestBalance:
    def test_equation(self):
        target = ["a", "a", "a", "b", "c", "c", "d"]
        group = ["G", "G", "G", "G", "M", "M", "M"]
        expected = np.array([1 / 6, 1 / 6, 1 / 6, 1 / 2, 1 / 4, 1 / 4, 1 / 2])
        found = balancing_weights(target, group, cap=None)
        assert np.allclose(found, expected / expected.mean())

    @settings(max_examples=40, deadline=None)
    @given(TABLES)
    def test_classes_count_alike_and_targets_within_them(self, table):
        target, group = zip(*table)
        weight = balancing_weights(target, group, cap=None)
        assert weight.mean() == pytest.approx(1)
        assert np.ptp(sums(weight, group)) < 1e-9 * len(table)
        per_target = sums(weight, group, target)
        assert (per_target.groupby(level=0).agg(np.ptp) < 1e-9 * len(table)).all()

    @settings(max_examples=40, deadline=None)
    @given(TABLES)
    def test_one_key_alone(self, table):
        target, group = zip(*table)
        assert np.ptp(sums(balancing_weights(target, cap=None), target)) < 1e-9 * len(table)
        assert np.ptp(sums(balancing_weights(None, group, cap=None), group)) < 1e-9 * len(table)

    @settings(max_examples=40, deadline=None)
    @given(TABLES, st.floats(1, 20))
    def test_cap(self, table, cap):
        target, group = zip(*table)
        free, capped = (balancing_weights(target, group, cap=c) for c in (None, cap))
        assert capped.mean() == pytest.approx(1)
        assert capped.max() <= cap * (1 + 1e-9)
        # what is not cut keeps its proportions, and the order stays
        below = capped < capped.max() * (1 - 1e-9)
        ratio = capped[below] / free[below]
        assert ratio.size == 0 or np.ptp(ratio) < 1e-9 * ratio.max()
        assert np.all(np.diff(capped[np.argsort(free)]) >= -1e-9)
        if free.max() <= cap:
            assert np.allclose(capped, free)

    @settings(max_examples=40, deadline=None)
    @given(TABLES, st.randoms(use_true_random=False))
    def test_order_and_names_do_not_matter(self, table, random):
        target, group = map(np.array, zip(*table))
        order = list(range(len(table)))
        random.shuffle(order)
        names = np.array([f"star {t}" for t in target])
        weight = balancing_weights(target, group)
        assert np.allclose(balancing_weights(names[order], group[order]), weight[order])


class TestMissing:
    @pytest.mark.parametrize("missing", [None, np.nan, ""])
    def test_target_of_its_own(self, missing):
        target = pd.Series(["a", "a", missing, missing], dtype=object)
        assert np.allclose(balancing_weights(target), [2 / 3, 2 / 3, 4 / 3, 4 / 3])

    def test_numbers(self):
        assert np.allclose(
            balancing_weights([1.0, 1, np.nan, np.nan]), [2 / 3, 2 / 3, 4 / 3, 4 / 3]
        )

    def test_class_counts_as_the_average_target(self):
        target, group = ["a", "b", "c", "d", "d"], ["G", "G", "M", None, None]
        weight = balancing_weights(target, group, cap=None)
        assert weight[3:].sum() == pytest.approx(weight[:3].mean())
        assert weight[2] == pytest.approx(2 * weight[0])

    def test_nothing_known(self):
        assert np.allclose(balancing_weights(None, [None] * 4), 1)


def test_weights_travel_with_the_spectra():
    spectra = Spectra(np.ones((3, 5)), meta={"star_id": ["a", "a", "b"]})
    weight = balancing_weights(spectra.meta["star_id"])
    spectra = spectra.replace(meta={**spectra.meta, "weight": weight})
    assert np.allclose(spectra[1:].meta["weight"], [0.75, 1.5])


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "Give the target"),
        ((["a", "b"], ["G"]), {}, "2 targets for 1 classes"),
        ((["a"],), {"cap": 0.5}, "cap must be a number of at least 1"),
        ((["a"],), {"cap": "all"}, "cap must be"),
    ],
)
def test_bad_input(args, kwargs, message):
    with pytest.raises(ValueError, match=message):
        balancing_weights(*args, **kwargs)
