import numpy as np
import pandas as pd
import pytest

from skspec.explore._columns import columns_of, star_names


def only(values, name="x"):
    found = columns_of(None, {name: values}, len(values))
    return found[0] if found else None


def test_labels_come_first_and_win():
    labels = pd.DataFrame({"teff": [5000.0, 6000.0, np.nan]})
    meta = {"survey": np.array(["a", "b", "a"]), "teff": np.zeros(3), "medium": "air"}
    found = columns_of(labels, meta, 3)
    assert [c.name for c in found] == ["teff", "survey"]
    assert [found[0].text(k) for k in range(3)] == ["5000", "6000", "–"]


def test_classes_by_how_common_they_are():
    column = only(np.array(["b", "a", "b", "", "b", "a"]))
    assert column.classes == ("b", "a")
    assert column.values.tolist() == [0, 1, 0, -1, 0, 1]
    assert column.text(3) == "–" and column.text(1) == "a"


def test_rare_classes_share_one():
    names = np.repeat([f"c{k}" for k in range(14)], np.arange(40, 12, -2))
    column = only(names)
    assert column.classes[:2] == ("c0", "c1") and column.classes[-1] == "5 others"
    assert len(column.classes) == 10 and column.values.max() == 9


@pytest.mark.parametrize(
    "values",
    [
        np.array([f"star {k}" for k in range(50)]),
        np.full(50, "all"),
        np.full(50, 3.0),
        np.full(50, np.nan),
        np.ones((50, 2)),
        [[1, 2]] * 50,
        np.ones(7),
    ],
)
def test_what_says_nothing_is_left_out(values):
    assert columns_of(None, {"x": values}, 50) == []


def test_small_integers_and_truth_values_are_classes():
    assert only(np.array([0, 3, 3, 0])).classes == ("0", "3")
    assert only(np.array([True, False, True])).classes == ("True", "False")
    assert only(np.arange(30)).classes == ()


def test_bytes():
    assert only(np.array([b"F", b"G", b"F"])).classes == ("F", "G")


def test_names_of_stars():
    assert star_names({"star_id": np.array([b"HD 1", b"HD 2"])}, 2).tolist() == ["HD 1", "HD 2"]
    assert star_names({"star_id": np.array([4, 5])}, 2).tolist() == ["4", "5"]
    assert star_names({"star_id": np.array([4])}, 2).tolist() == ["star 0", "star 1"]
