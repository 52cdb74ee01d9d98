import json

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skspec import Spectra
from skspec.diagnostics import (
    attenuation_tables,
    available_methods,
    compare,
    label_tables,
    make_method,
    method_table,
    snr_tables,
)
from skspec.diagnostics._tuned_svr import TunedSVR


@pytest.fixture
def methods(make_linear, failing, linear_set):
    return {"melts": failing, "linear": make_linear(linear_set[2]), "ridge": Ridge()}


@pytest.fixture
def comparison(methods, linear_set):
    spectra, labels, _ = linear_set
    return compare(methods, spectra, labels, test_size=0.5, random_state=2)


class TestCompare:
    def test_one_failure_loses_nothing_else(self, comparison):
        assert list(comparison.results) == ["melts", "linear", "ridge"]
        assert list(comparison.succeeded) == ["linear", "ridge"]
        assert comparison.failures["melts"] == (
            "fitting: RuntimeError: the emulator melted (in fit)"
        )
        assert comparison.complete

    def test_metrics(self, comparison):
        metrics = comparison.metrics()
        assert list(metrics["label"]) == ["teff", "teff", "logg", "logg"]
        assert list(metrics["method"]) == ["linear", "ridge"] * 2
        best = metrics[metrics["method"] == "linear"].set_index("label")
        assert best["eta"].between(0.7, 1.4).all()
        assert best["coverage_1"].between(0.58, 0.78).all()
        assert_allclose(best["formal_coverage_1"], best["coverage_1"])
        ridge = metrics[metrics["method"] == "ridge"]
        assert ridge["formal_coverage_1"].isna().all()
        assert (ridge["eta"] < 0.6).all()
        error = comparison.results["ridge"].mean[:, 0] - comparison.labels[:, 0]
        assert_allclose(ridge["rmse"].iloc[0], np.sqrt(np.mean(error**2)))

    def test_reference_is_the_first_method_with_gradients(self, comparison, linear_set):
        assert comparison.reference == "linear"
        spectra, labels, jacobian = linear_set
        star = comparison.star[7]
        fisher = spectra.ivar[star, 0] * jacobian.T @ jacobian
        assert_allclose(comparison.bound.fisher[7], fisher)

    def test_reference_may_be_a_fitted_model(self, make_linear, linear_set):
        spectra, labels, jacobian = linear_set
        truth = make_linear(jacobian).fit(spectra, labels)
        out = compare({"ridge": Ridge()}, spectra, labels, reference=truth)
        assert out.reference == "LinearForward" and out.metrics()["eta"].notna().all()

    def test_unknown_reference(self, linear_set):
        with pytest.raises(ValueError, match="none of the methods"):
            compare({"ridge": Ridge()}, *linear_set[:2], reference="slam")

    def test_by_snr(self, comparison):
        table = comparison.by_snr()
        assert list(dict.fromkeys(table["snr"])) == ["200-300", "100-200", "60-100", "20-60"]
        linear = table[(table["method"] == "linear") & (table["label"] == "teff")]
        assert linear["robust_std"].is_monotonic_increasing
        assert_allclose(linear["robust_std"], linear["bound"], rtol=0.5)

    def test_predictions_line_up_with_their_stars(self, comparison, linear_set):
        frame = comparison.predictions_frame()
        labels = linear_set[1].to_numpy()
        assert len(frame) == 400
        assert_allclose(frame["teff_true"], labels[frame["star"], 0])
        assert {"logg_std", "logg_formal_std", "logg_bound", "chi2", "at_bound"} <= set(frame)

    def test_out_of_fold_predicts_every_star_once(self, make_linear, linear_set):
        spectra, labels, _ = linear_set
        out = compare({"linear": make_linear()}, spectra, labels, cv=5)
        assert_array_equal(np.sort(out.star), np.arange(400))
        assert len(out.results["linear"].fit_seconds) == 5
        frame = out.predictions_frame()
        assert np.std(frame["teff"] - frame["teff_true"]) < 60

    def test_missing_labels_are_left_out(self, methods, linear_set):
        spectra, labels, _ = linear_set
        labels = labels.copy()
        labels.iloc[:100, 1] = np.nan
        out = compare(methods, spectra, labels)
        assert out.star.min() >= 100 and len(out.star) + out.n_train == 300

    def test_too_few_stars(self, methods, linear_set):
        with pytest.raises(ValueError, match="Only 9 of 9 stars have all labels"):
            compare(methods, linear_set[0][:9], linear_set[1][:9])

    def test_pipeline_around_a_forward_model(self, make_linear, linear_set):
        spectra, labels, jacobian = linear_set
        pipe = make_pipeline(FunctionTransformer(), make_linear(jacobian))
        out = compare({"pipe": pipe}, spectra, labels)
        assert out.reference == "pipe" and "chi2" in out.results["pipe"].quality

    def test_arrays_without_errors(self, make_linear, linear_set):
        spectra, labels, jacobian = linear_set
        methods = {"linear": make_linear(jacobian), "ridge": Ridge()}
        out = compare(methods, spectra.flux, labels.to_numpy())
        assert out.label_names == ["label_0", "label_1"]
        assert len(out.by_snr()) == 0 and out.metrics()["eta"].notna().all()

    def test_removed_training_stars_are_told(self, make_linear, linear_set):
        class Cleaned(type(make_linear())):
            def fit(self, X, y):
                self.training_outliers_ = np.array([3, 5])
                return super().fit(X, y)

        out = compare({"cleaned": Cleaned()}, *linear_set[:2], cv=2)
        assert out.results["cleaned"].n_removed == [2, 2]
        assert out.to_dict()["methods"]["cleaned"]["training_stars_removed"] == [2, 2]

    def test_warnings_are_kept(self, make_linear, linear_set):
        class Warning_(type(make_linear())):
            def fit(self, X, y):
                import warnings

                warnings.warn("careful", UserWarning, stacklevel=2)
                return super().fit(X, y)

        out = compare({"warns": Warning_()}, *linear_set[:2])
        assert out.results["warns"].warnings == ["careful"]


class TestTextTables:
    def test_labels(self, comparison):
        table = label_tables(comparison)[0]
        assert table.title == "teff" and table.header[:3] == ["method", "bias", "MAE"]
        assert [row[0] for row in table.rows] == ["linear", "ridge", "Cramér-Rao bound"]
        rmse = table.header.index("RMSE")
        assert (0, rmse) in table.best and (1, rmse) not in table.best
        assert table.rows[1][table.header.index("formal 1σ")] == "–"

    def test_snr_in_rows(self, comparison):
        table = snr_tables(comparison)[1]
        assert [row[0] for row in table.rows] == ["200-300", "100-200", "60-100", "20-60"]
        assert table.header == ["S/N", "stars", "linear", "ridge", "Cramér-Rao bound"]
        assert sum(int(row[1]) for row in table.rows) == 200

    def test_thin_bins_are_not_judged(self, methods, linear_set):
        snr = np.repeat([50.0, 80.0, 250.0], [200, 197, 3])
        out = compare(methods, *linear_set[:2], snr=snr, cv=2)
        table = snr_tables(out)[0]
        assert table.rows[0][:4] == ["200-300", "3", "–", "–"]
        assert not any(row == 0 for row, _ in table.best)

    def test_attenuation_in_rows(self, comparison):
        table = attenuation_tables(comparison)[0]
        assert table.header == ["S/N", "stars", "linear", "ridge"]
        slopes = np.array([row[2:] for row in table.rows], dtype=float)
        assert slopes[-1, 1] < slopes[0, 1]  # ridge shrinks where the noise is large
        marked = {(row, column - 2) for row, column in table.best}
        assert marked >= {(row, abs(pair - 1).argmin()) for row, pair in enumerate(slopes)}

    def test_methods(self, comparison):
        rows = method_table(comparison).rows
        assert rows[0] == ["melts", *["failed"] * 5] and rows[1][3] == "0 of 200"


class TestResultsFile:
    def test_written_after_every_method(self, methods, linear_set, tmp_path):
        seen = {}

        def progress(name, done, total, doing):
            if done == 0 and (tmp_path / "results.json").exists():
                seen[name] = json.loads((tmp_path / "results.json").read_text())

        compare(methods, *linear_set[:2], out=tmp_path, progress=progress)
        assert list(seen["melts"]["methods"]) == ["linear"]  # the reference goes first
        assert list(seen["ridge"]["methods"]) == ["melts", "linear"]
        assert not seen["ridge"]["complete"]
        final = json.loads((tmp_path / "results.json").read_text())
        assert final["complete"] and list(final["methods"]) == ["melts", "linear", "ridge"]
        assert final["methods"]["melts"]["status"] == "failed"
        assert not list(tmp_path.glob("*.part"))

    def test_an_interrupt_keeps_what_was_done(self, methods, linear_set, tmp_path):
        def progress(name, done, total, doing):
            if name == "ridge":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            compare(methods, *linear_set[:2], out=tmp_path, progress=progress)
        assert "linear" in json.loads((tmp_path / "results.json").read_text())["methods"]
        assert set(pd.read_csv(tmp_path / "predictions.csv")["method"]) == {"linear"}

    def test_holds_numbers_that_match_the_tables(self, comparison, tmp_path):
        data = json.loads(comparison.to_json(tmp_path / "r.json").read_text())
        entry = data["methods"]["linear"]
        metrics = comparison.metrics().set_index(["label", "method"])
        assert entry["labels"]["teff"]["rmse"] == pytest.approx(
            metrics.loc[("teff", "linear"), "rmse"]
        )
        assert np.shape(entry["predictions"]["cov"]) == (200, 2, 2)
        assert data["methods"]["ridge"]["labels"]["teff"]["formal_coverage_1"] is None
        assert len(entry["by_snr"]) == 8


class TestSplits:
    def test_compare_splits_by_star(self, make_linear, linear_set):
        spectra, labels, jacobian = linear_set
        groups = np.repeat([f"HD {k}" for k in range(100)], 4)
        out = compare({"linear": make_linear(jacobian)}, spectra, labels, groups=groups)
        tested = set(groups[out.star])
        assert len(out.star) == 4 * len(tested)


class TestMethods:
    def test_baselines_predict_distributions(self, linear_set):
        spectra, labels, _ = linear_set
        methods = {name: make_method(name, 300) for name in ("ridge", "pca_svr")}
        out = compare(methods, spectra[:120], labels[:120])
        assert not out.failures

    def test_pca_svr_is_tuned(self):
        assert isinstance(make_method("pca_svr", 100).estimator, TunedSVR)

    def test_unknown(self):
        with pytest.raises(ValueError, match="no method 'magic'; known: .*ridge"):
            make_method("magic", 100)

    def test_settings_reach_those_who_have_them(self):
        for name, method in available_methods().items():
            estimator = method.build(100, n_jobs=2, clean_training=4.0, random_state=1)
            if "clean_training" in estimator.get_params():
                assert estimator.clean_training == 4.0, name


def test_bad_pixels_reach_no_baseline(linear_set):
    spectra, labels, _ = linear_set
    mask = np.zeros(spectra.shape, dtype=bool)
    mask[:, 3] = True
    poisoned = spectra.flux.copy()
    poisoned[:, 3] = 1e9
    poisoned = Spectra(poisoned, ivar=spectra.ivar, mask=mask)
    clean = spectra.replace(mask=mask)
    means = [
        compare({"ridge": make_method("ridge", 300)}, X, labels).results["ridge"].mean
        for X in (poisoned, clean)
    ]
    assert_allclose(*means)


def test_progress_inside_a_long_fit():
    """Steps of a fit that tells of them arrive as fractions, in order, and nothing stays behind."""
    from skspec.datasets import make_spectra
    from skspec.forward import SLAM

    spectra, labels = make_spectra(40, n_pixels=600, random_state=0)
    told = []
    comparison = compare(
        {"slam": SLAM(C=2, gamma=0.3, cv=2)},
        spectra,
        labels,
        progress=lambda name, done, total, doing: told.append(done),
    )
    assert told == sorted(told)
    assert sum(done != int(done) for done in told) >= 3  # three chunks of pixels
    assert "_skl_callbacks" not in vars(comparison.results["slam"].model)
