"""What nodes tell about labels: laws, errors and null."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest, spearmanr

from skspec.latent import latent_mutual_information, partial_rank_correlation

METHODS = ["ksg", "histogram"]


def gaussian(rho, n=1000, n_nodes=3, seed=0):
    """Nodes, and a label that the first of them knows."""
    rng = np.random.default_rng(seed)
    latents = rng.normal(size=(n, n_nodes))
    label = rho * latents[:, 0] + np.sqrt(1 - rho**2) * rng.normal(size=n)
    return latents, pd.DataFrame({"teff": 5500 + 400 * label})


def measured(latents, labels, method="ksg", **kwargs):
    defaults = {"n_permutations": 0, "n_splits": 0, "random_state": 0}
    return latent_mutual_information(latents, labels, method=method, **(defaults | kwargs))


class TestValue:
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("rho", [0.0, 0.4, 0.8])
    def test_gaussian(self, method, rho):
        found = measured(*gaussian(rho, 4000), method, n_splits=3)
        error = found.std.loc[0, "teff"]
        assert 0 < error < 0.03
        assert found.mi.loc[0, "teff"] == pytest.approx(-0.5 * np.log(1 - rho**2), abs=3.5 * error)

    def test_relation_with_a_turn(self):
        latents = np.linspace(-1, 1, 500)[:, None]
        found = measured(latents, latents**2)
        assert abs(spearmanr(latents, latents**2).statistic) < 0.01
        assert found.mi.iloc[0, 0] > 1

    @pytest.mark.parametrize("method", METHODS)
    def test_unit_and_order_do_not_matter(self, method):
        latents, labels = gaussian(0.7)
        order = [2, 0, 1]
        moved = (latents * [2, -0.001, 50] + [3, -1, 0])[:, order]
        found = measured(moved, labels * -3 + 7, method).mi
        # a reflection moves values that lie on the edge of a cell
        tolerance = {"ksg": 1e-9, "histogram": 0.02}[method]
        expected = measured(latents, labels, method).mi.to_numpy()[order]
        assert np.allclose(found, expected, atol=tolerance)

    def test_ranks_alone_matter_to_ksg(self):
        latents, labels = gaussian(0.7)
        expected = measured(latents, labels).mi
        assert np.allclose(measured(np.sinh(3 * latents), np.exp(labels / 400)).mi, expected)

    @pytest.mark.parametrize("method", METHODS)
    def test_classes(self, method):
        latents, _ = gaussian(0, 2000)
        survey = pd.Series(np.where(latents[:, 0] > 0, "MILES", "LAMOST"), name="survey")
        found = measured(latents, survey, method).mi["survey"]
        assert found[0] == pytest.approx(np.log(2), abs=0.05)
        assert abs(found[1]) < 0.03
        miles = survey == "MILES"
        for same in (survey.astype("category"), miles, miles.astype("boolean")):
            assert np.allclose(measured(latents, same, method).mi, found.to_frame(), atol=1e-9)

    def test_pairs_of_nodes(self):
        latents, _ = gaussian(0, 600)
        latents[:, 2] = latents[:, 1] + latents[:, 2]
        found = measured(latents, latents).mi.to_numpy()
        assert np.allclose(found, found.T, atol=0.02)
        assert found[1, 2] == pytest.approx(0.5 * np.log(2), abs=0.1)

    def test_many_equal_values(self):
        """A label in few steps, such as the gravity of a grid of models."""
        latents, labels = gaussian(0.8, 2000)
        steps = (labels / 200).round()
        found = measured(latents, steps, n_splits=2)
        assert 0.3 < found.mi.iloc[0, 0] < 0.51
        assert abs(found.mi.iloc[1, 0]) < 4 * found.std.iloc[1, 0]

    def test_all_numbers_of_bins(self):
        latents, labels = gaussian(0.7, 900)
        found = measured(latents, labels, "histogram", bins=[20, 5, 40])
        assert list(found.by_bins) == [5, 20, 40]
        assert found.mi.equals(found.by_bins[20].mi)  # 900 stars: 2 for each of 400 cells
        single = measured(latents, labels, "histogram", bins=5)
        assert single.mi.equals(found.by_bins[5].mi)

    def test_corrections(self):
        latents, labels = gaussian(0, 500)
        values = [
            measured(latents, labels, "histogram", bins=10, correction=name).mi.to_numpy()
            for name in ("none", "miller_madow", "grassberger")
        ]
        assert np.all(values[0] > values[1]) and np.all(values[1] > values[2])


class TestMissing:
    @pytest.mark.parametrize("method", METHODS)
    def test_unknown_labels_drop_out_label_by_label(self, method):
        latents, labels = gaussian(0.7, 500)
        labels["vsini"] = 5.0 + latents[:, 1]
        labels.loc[:99, "teff"] = np.nan
        labels.loc[100:149, "vsini"] = np.inf
        found = measured(latents, labels, method)
        assert found.n_stars.to_dict() == {"teff": 400, "vsini": 450}
        alone = measured(latents[100:], labels[["teff"]][100:], method)
        assert np.allclose(found.mi["teff"], alone.mi["teff"])

    def test_stars_without_latents(self):
        latents, labels = gaussian(0.7, 300)
        expected = measured(latents[10:], labels[10:]).mi
        latents[:10] = np.nan
        assert np.allclose(measured(latents, labels).mi, expected)

    def test_unknown_and_lonely_classes(self):
        latents, _ = gaussian(0, 100)
        kind = np.array(["G2V", "K0III"] * 50, dtype=object)
        kind[:5] = ["", None, np.nan, "O3", "WC"]
        assert measured(latents, kind).n_stars["label_0"] == 95

    def test_outlying_labels_are_clipped_for_histograms(self):
        latents, labels = gaussian(0.7, 500)
        expected = measured(latents, labels, "histogram")
        outlying = labels.copy()
        outlying.loc[500] = 1e9
        outlying.loc[501] = 1e5  # hidden by the other
        latents = np.vstack([latents, np.zeros((2, 3))])
        found = measured(latents, outlying, "histogram")
        assert found.n_stars["teff"] == 500
        assert np.allclose(found.mi, expected.mi)
        kept = measured(latents, outlying, "histogram", sigma_clip=None)
        assert kept.n_stars["teff"] == 502

    @pytest.mark.parametrize("method", METHODS)
    def test_constant_node_or_label_tells_nothing(self, method):
        latents, labels = gaussian(0.7, 300)
        latents[:, 1] = 0.1
        labels["mass"] = 1.0
        labels["survey"] = "MILES"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = measured(latents, labels, method, n_permutations=99, n_splits=2)
        assert found.mi["teff"][0] > 0.2
        for part, value in (
            (found.mi, 0),
            (found.std, 0),
            (found.p_value, 1),
            (found.normalised, 0),
        ):
            assert (part.loc[1] == value).all()
            assert (part[["mass", "survey"]] == value).all(axis=None)
        assert not found.stands_out()[["mass", "survey"]].any(axis=None)


class TestErrors:
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("rho", [0.0, 0.8])
    def test_follow_the_scatter_between_samples(self, method, rho):
        values, errors = [], []
        for seed in range(25):
            found = measured(*gaussian(rho, 400, 1, seed), method, n_splits=3, bins=5)
            values.append(found.mi.iloc[0, 0])
            errors.append(found.std.iloc[0, 0])
        ratio = np.sqrt(np.mean(np.square(errors))) / np.std(values, ddof=1)
        assert 0.6 < ratio < 2


class TestNull:
    @pytest.mark.parametrize("method", METHODS)
    def test_p_values_of_independent_labels_are_uniform(self, method):
        """Of the best of several nodes; two of the nodes are the same."""
        least = []
        for seed in range(60):
            rng = np.random.default_rng(seed)
            latents = rng.normal(size=(60, 3))
            latents[:, 2] = latents[:, 1] if method == "histogram" else latents[:, 2]
            found = measured(
                latents, rng.normal(size=60), method, n_permutations=99, bins=5, random_state=seed
            )
            least.append(found.p_value.min(axis=None))
        assert kstest(least, "uniform").pvalue > 0.01

    @pytest.mark.parametrize("method", METHODS)
    def test_level_parts_what_is_known_from_what_is_not(self, method):
        latents, labels = gaussian(0.5, 800, 12)
        labels["survey"] = np.where(latents[:, 1] > 0.5, "a", "b")
        labels["other"] = np.random.default_rng(5).normal(size=800)
        found = measured(latents, labels, method, n_permutations=99)
        known = np.zeros((12, 3), dtype=bool)
        known[0, 0] = known[1, 1] = True
        assert np.array_equal(found.mi > found.null, known)
        assert np.array_equal(found.p_value <= 0.0101, known)
        assert (found.null.nunique() == 1).all()

    @pytest.mark.parametrize("method", METHODS)
    def test_more_nodes_raise_the_level(self, method):
        latents, labels = gaussian(0, 200, 40)
        few = measured(latents[:, :1], labels, method, n_permutations=99, bins=5)
        many = measured(latents, labels, method, n_permutations=99, bins=5)
        assert many.null.iloc[0, 0] > few.null.iloc[0, 0]

    def test_same_seed_same_result(self):
        latents, labels = gaussian(0.5, 200)
        a, b = (measured(latents, labels, n_permutations=99, n_splits=2) for _ in range(2))
        for name in ("mi", "std", "null", "p_value"):
            assert getattr(a, name).equals(getattr(b, name))


class TestGroups:
    @pytest.mark.parametrize("method", METHODS)
    def test_repeated_stars_do_not_invent_a_relation(self, method):
        """Forty stars, observed twenty times each: their labels identify them."""
        rng = np.random.default_rng(0)
        star = np.repeat(np.arange(40), 20)
        latents = rng.normal(size=(40, 4))[star] + 0.01 * rng.normal(size=(800, 4))
        label = rng.normal(size=40)[star]
        kwargs = {"n_permutations": 99, "bins": 5}
        blind = measured(latents, label, method, **kwargs)
        grouped = measured(latents, label, method, groups=star, **kwargs)
        assert (blind.p_value < 0.02).all(axis=None)
        assert grouped.n_stars["label_0"] == 40
        assert (grouped.p_value > 0.02).all(axis=None)

    def test_spectrum_that_knows_the_label_stands_for_the_star(self):
        latents, labels = gaussian(0.7, 100)
        star = np.arange(100) // 2
        labels.iloc[::2] = np.nan
        found = measured(latents, labels, groups=star)
        assert found.n_stars["teff"] == 50
        assert np.allclose(found.mi, measured(latents[1::2], labels[1::2]).mi)

    def test_names_of_stars(self):
        latents, labels = gaussian(0.7, 100)
        names = np.array([f"HD {k // 2}" for k in range(100)])
        by_name, by_number = (
            measured(latents, labels, groups=g) for g in (names, np.arange(100) // 2)
        )
        assert by_name.n_stars.equals(by_number.n_stars)

    def test_missing_stars_are_stars_of_their_own(self):
        latents, labels = gaussian(0.7, 100)
        names = np.array(["HD 1"] * 50 + [None, "", np.nan] * 10 + ["HD 2"] * 20, dtype=object)
        assert measured(latents, labels, groups=names).n_stars["teff"] == 32


@pytest.fixture(scope="module")
def found():
    """One node that knows Teff, and two that know [Fe/H]."""
    latents, labels = gaussian(0.8, 600, 5)
    labels["feh"] = latents[:, 1] + latents[:, 2]
    return measured(latents, labels, "histogram", bins=(5, 10, 20), n_permutations=99)


class TestResult:
    def test_normalised(self, found):
        assert np.allclose(found.normalised.max(), 1)
        assert (found.normalised >= 0).all(axis=None)
        assert found.normalised.loc[0, "teff"] == 1

    def test_stands_out_with_every_number_of_bins(self, found):
        expected = np.zeros((5, 2), dtype=bool)
        expected[0, 0] = expected[1, 1] = expected[2, 1] = True
        assert np.array_equal(found.stands_out(), expected)
        assert found.stands_out(1.0).sum().tolist()[0] == 1
        one = found.by_bins[5].normalised["feh"]
        assert not found.stands_out(one[[1, 2]].min() + 1e-6)["feh"].all()

    def test_names(self):
        latents, labels = gaussian(0.5, 100)
        nodes = pd.DataFrame(latents, columns=[11, 85, 124])
        found = measured(nodes, labels)
        assert found.mi.index.tolist() == [11, 85, 124]
        assert found.mi.columns.tolist() == ["teff"]
        assert measured(latents, labels.to_numpy()).mi.columns.tolist() == ["label_0"]
        assert measured(latents, labels["teff"]).mi.columns.tolist() == ["teff"]

    def test_without_null_and_errors(self):
        found = measured(*gaussian(0.8, 100))
        assert found.null.isna().all(axis=None) and found.p_value.isna().all(axis=None)
        assert found.std.isna().all(axis=None)
        assert found.stands_out().loc[0, "teff"]

    def test_arguments_stay_as_they_are(self):
        latents, labels = gaussian(0.5, 100)
        before = latents.copy(), labels.copy()
        measured(latents, labels, "histogram", groups=np.arange(100) // 2, n_permutations=99)
        assert np.array_equal(latents, before[0]) and labels.equals(before[1])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"method": "gmm"}, "method must be"),
        ({"n_neighbors": 0}, "n_neighbors must be"),
        ({"method": "histogram", "bins": [1, 5]}, "bins must be integers >= 2"),
        ({"method": "histogram", "bins": 2.5}, "bins must be integers"),
        ({"method": "histogram", "correction": "panzeri"}, "correction must be"),
        ({"sigma_clip": -1}, "sigma_clip must be positive"),
        ({"n_permutations": 50}, "0 or at least 99"),
        ({"n_splits": -1}, "n_splits must be"),
        ({"groups": [1, 2]}, "give the star of each"),
        ({"n_neighbors": 40}, "Only 100 stars know the label 'teff', at least 168"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        measured(*gaussian(0.5, 100), **kwargs)


def test_bad_labels():
    latents, labels = gaussian(0.5, 100)
    with pytest.raises(ValueError, match="99 sets of labels for 100 stars"):
        measured(latents, labels[1:])
    with pytest.raises(ValueError, match="Two labels have the same name"):
        measured(latents, pd.concat([labels, labels], axis=1))
    labels["mass"] = np.where(np.arange(100) < 7, 1.0, np.nan)
    with pytest.raises(ValueError, match="Only 7 stars know the label 'mass', at least 20"):
        measured(latents, labels)


@pytest.fixture(scope="module")
def stars():
    """A node for each of two labels that go together, and one for none."""
    rng = np.random.default_rng(0)
    teff = rng.normal(size=800)
    logg = -0.9 * teff + 0.4 * rng.normal(size=800)
    latents = np.column_stack([teff, logg, rng.normal(size=800)]) + 0.2 * rng.normal(size=(800, 3))
    return latents, pd.DataFrame({"teff": teff, "logg": logg})


class TestPartialRankCorrelation:
    def test_a_node_knows_one_of_two_labels_that_go_together(self, stars):
        latents, labels = stars
        plain = spearmanr(latents[:, 0], labels["logg"]).statistic
        found = partial_rank_correlation(latents, labels)
        assert plain < -0.8
        assert abs(found.loc[0, "logg"]) < 0.15 and found.loc[0, "teff"] > 0.8
        assert abs(found.loc[1, "teff"]) < 0.15 and found.loc[1, "logg"] > 0.8
        assert found.loc[2].abs().max() < 0.15

    def test_stars_without_all_labels_are_left_out(self, stars):
        latents, labels = stars
        labels = labels.copy()
        labels.loc[:49, "logg"] = np.nan
        expected = partial_rank_correlation(latents[50:], labels[50:])
        assert np.allclose(partial_rank_correlation(latents, labels), expected)

    def test_bad_input(self, stars):
        latents, labels = stars
        with pytest.raises(ValueError, match="'survey' is a class"):
            partial_rank_correlation(latents, labels.assign(survey="MILES"))
        with pytest.raises(ValueError, match="0 stars have all labels"):
            partial_rank_correlation(latents, labels.assign(mass=np.nan))
