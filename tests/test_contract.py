"""The laws of `skspec.testing`, kept by every regressor that `skspec.discovery` knows."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from skspec.augmentation import ContinuumJitter
from skspec.calibration import CalibratedRegressor, ResidualCovarianceRegressor
from skspec.discovery import all_estimators
from skspec.discriminative import KernelPCARegressor, SpectralCNN, TemplateMatch
from skspec.ensemble import AugmentedRegressor, ConsensusRegressor, DeepEnsembleRegressor
from skspec.forward import (
    SLAM,
    CorrectedModel,
    FullSpectrumFit,
    SpectralGP,
    TheCannon,
    ThePayne,
)
from skspec.latent import BetaVAE
from skspec.testing import laws_of

#: quick settings of the regressors, and a grid for a search over each; one without goes by its defaults
SETTINGS = {
    "TheCannon linear": (TheCannon(1), {"scatter": ["ml", "reml"]}),
    "TheCannon quadratic": (TheCannon(), {"degree": [1, 2]}),
    "SLAM": (SLAM(C=2, gamma=0.25, cv=3), {"C": [0.5, 2.0]}),
    "SLAM per pixel": (SLAM(C=[0.5, 4], epsilon=[0.05, 0.1], cv=3), {"gamma": [None, 0.2]}),
    "SpectralGP": (SpectralGP(), {"mean_degree": [0, 1]}),
    "SpectralGP quadratic": (SpectralGP(2), {"max_search": [20, 500]}),
    "ThePayne": (
        ThePayne((16,), max_iter=60, random_state=0),
        {"hidden_layer_sizes": [(8,), (16,)]},
    ),
    "ThePayne folds": (
        ThePayne((12,), learning_rate_init=0.02, max_iter=40, cv=3, random_state=0),
        {"criterion": ["l1", "l2"]},
    ),
    "FullSpectrumFit": (
        FullSpectrumFit(TheCannon(), continuum_degree=1, fit_rv=False),
        {"n_rounds": [1, 2]},
    ),
    "CorrectedModel": (CorrectedModel(TheCannon(1)), {"n_copies": [1, 2]}),
    "TheCannon, continuum free": (TheCannon(continuum_degree=1), {"continuum_degree": [0, 1]}),
    "TheCannon, coherent errors": (TheCannon(1, coherence=0.1), {"coherence": [0.1, 0.5]}),
    "TheCannon, label prior": (
        TheCannon(1, label_prior="training"),
        {"label_prior": ["flat", "training"]},
    ),
    "TemplateMatch": (TemplateMatch(), {"n_best": [20, 30]}),
    "KernelPCARegressor": (KernelPCARegressor(gamma=0.5, cv=3), {"gamma": [0.25, 1.0]}),
    "ConsensusRegressor": (
        ConsensusRegressor(
            [(f"kpca{g}", KernelPCARegressor(gamma=g, scale_pixels=False, cv=3)) for g in (1, 4)],
            cv=4,
        ),
        {"kpca4__gamma": [2.0, 4.0]},
    ),
    "SpectralCNN": (
        SpectralCNN(
            "strided",
            architecture_params={"n_filters": (), "hidden": (24, 16)},
            max_iter=30,
            batch_size=16,
            learning_rate_init=0.01,
            random_state=0,
        ),
        {"covariance": ["diagonal", "full"]},
    ),
    "BetaVAE": (
        BetaVAE(
            6,
            architecture="dense",
            architecture_params={"hidden": (24,)},
            max_iter=20,
            batch_size=16,
            learning_rate_init=0.01,
            random_state=0,
        ),
        {"beta": [0.5, 1.0]},
    ),
    "AugmentedRegressor": (
        AugmentedRegressor(TheCannon(1), ContinuumJitter(0.01, degree=0), 1, random_state=0),
        {"keep": [False, True]},
    ),
    "ResidualCovarianceRegressor": (ResidualCovarianceRegressor(cv=3), {"robust": [False, True]}),
    "CalibratedRegressor": (
        CalibratedRegressor(TheCannon(1), cv=3),
        {"method": ["scale", "conformal"]},
    ),
    "DeepEnsembleRegressor": (
        DeepEnsembleRegressor(
            ResidualCovarianceRegressor(cv=3), 3, max_samples=0.95, random_state=0
        ),
        {"max_samples": [0.5, 0.95]},
    ),
}
COVERED = {type(model) for model, _ in SETTINGS.values()}
REGRESSORS = SETTINGS | {
    name: (cls(), {}) for name, cls in all_estimators("regressor") if cls not in COVERED
}

#: their laws take longest, and hardly differ from those of others: with the slow tests
SLOW = (
    "SpectralGP quadratic",
    "ThePayne folds",
    "ConsensusRegressor",
    "BetaVAE",
    "AugmentedRegressor",
    "CorrectedModel",
)
#: laws that hardly differ between methods and cost much
SLOW_LAWS = ("check_correlated_labels_are_told_once",)
#: where the choice of hyperparameters in each pixel has ties, these may fall otherwise
EXCUSED = {("SLAM per pixel", "check_order_of_the_training_stars_leaves_the_flux")}


def laws():
    """A test for every regressor and every law that it has to keep."""
    for name, (model, grid) in REGRESSORS.items():
        for law in laws_of(model, param_grid=grid):
            slow = name in SLOW or law.__name__ in SLOW_LAWS
            if (name, law.__name__) not in EXCUSED:
                marks = [pytest.mark.slow] if slow else []
                yield pytest.param(model, law, id=f"{name}-{law.__name__[6:]}", marks=marks)


@pytest.mark.parametrize("estimator, law", list(laws()))
def test_laws(estimator, law, monkeypatch):
    if law.__name__ == "check_workers_and_backend_change_nothing":
        monkeypatch.setattr("skspec.forward._slam.CHUNK", 16)  # several tasks
    law(estimator)


# one of the checks has 11 stars and 5 labels: too few for the default degree, which is said
@pytest.mark.filterwarnings("ignore::skspec.forward.FewStarsWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([model for name, (model, _) in REGRESSORS.items() if name not in SLOW])
def test_sklearn_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::skspec.forward.FewStarsWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([REGRESSORS[name][0] for name in SLOW])
def test_sklearn_checks_that_take_long(estimator, check):
    check(estimator)


def test_every_regressor_is_tried():
    tried = {type(model) for model, _ in REGRESSORS.values()}
    assert tried == {cls for _, cls in all_estimators("regressor")}
    assert set(SLOW) <= set(REGRESSORS)
