"""Laws of methods inside scikit-learn's pipelines and searches."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline

from skspec.base import MissingUncertaintyWarning, predict_dist
from skspec.metrics import (
    coverage_error_scorer,
    neg_crps_scorer,
    neg_log_likelihood_scorer,
)
from skspec.preprocessing import ContinuumNormalizer
from skspec.testing._assertions import assert_above, assert_finite, assert_warns
from skspec.testing._law import law
from skspec.testing._stars import draw_stars

SCORING = {
    "nll": neg_log_likelihood_scorer,
    "crps": neg_crps_scorer,
    "coverage": coverage_error_scorer,
    "mae": "neg_mean_absolute_error",
}


@law
def check_errors_arrive_at_test_time_in_a_search(trial):
    """Scores of a search equal those of a loop by hand, and differ from one that lost the errors."""
    spectra, labels = draw_stars(60, noise=0.05)
    spectra = _spoiled(spectra)
    pipeline = make_pipeline(ContinuumNormalizer(width=1e4), trial.new())
    step = pipeline.steps[-1][0]
    grid = {f"{step}__{key}": values for key, values in trial.param_grid.items()}
    if trial.is_forward:
        pipeline.set_params(**{f"{step}__ivar": "require"})
    folds = KFold(2, shuffle=True, random_state=0)
    search = GridSearchCV(
        pipeline, grid, scoring=SCORING, refit="crps", cv=folds, n_jobs=2, error_score="raise"
    ).fit(spectra, labels)
    for scorer in SCORING:
        assert_finite(search.cv_results_[f"mean_test_{scorer}"], f"scores {scorer}")
    with_errors, without = [], []
    for fit_rows, test_rows in folds.split(spectra):
        model = clone(pipeline).set_params(**search.best_params_)
        model.fit(spectra[fit_rows], labels.iloc[fit_rows])
        held_out, truth = spectra[test_rows], labels.iloc[test_rows]
        with_errors.append(neg_crps_scorer(model, held_out, truth))
        if trial.is_forward:
            model.set_params(**{f"{step}__ivar": "auto"})
            with assert_warns(MissingUncertaintyWarning):
                without.append(neg_crps_scorer(model, held_out.replace(ivar=None), truth))
    best = search.cv_results_["mean_test_crps"][search.best_index_]
    assert_allclose(best, np.mean(with_errors), rtol=1e-4, err_msg="search and loop by hand")
    if trial.is_forward:
        assert_above(best, np.mean(without) * (1 - 1e-2), "score with errors beside one without")
        assert_above(abs(best / np.mean(without) - 1), 1e-3, "what errors change in the score")
    assert_array_equal(predict_dist(search, spectra).shape, (60, 3))


def _spoiled(spectra):
    """With a third of the pixels ten times noisier: who knows which does better, not by luck."""
    rng = np.random.default_rng(0)
    more = np.where(rng.random(spectra.shape) < 0.3, 0.5, 0.0)
    flux = spectra.flux + more * rng.normal(size=spectra.shape)
    return spectra.replace(flux=flux, ivar=1 / (spectra.variance + more**2))
