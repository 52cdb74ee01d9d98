import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.model_selection import KFold
from sklearn.svm import SVR

from skspec.forward import SLAM


def standardised(labels):
    labels = np.asarray(labels)
    return (labels - labels.mean(axis=0)) / labels.std(axis=0)


def svr(x, y, *, C=2.0, epsilon=0.05, gamma=1 / 3):
    return SVR(C=C, epsilon=epsilon, gamma=gamma, tol=1e-6).fit(x, y)


@pytest.fixture(scope="module")
def stars(draw_stars):
    return draw_stars(80, n_pixels=24, wiggle=0.5)


def test_every_pixel_is_a_support_vector_regression(stars, draw_stars):
    spectra, labels = stars
    model = SLAM(C=2, gamma=1 / 3, svr_tol=1e-7).fit(spectra, labels)
    fresh = draw_stars(30, n_pixels=24, wiggle=0.5, seed=3)[1]
    x = standardised(labels)
    x_fresh = (fresh.to_numpy() - labels.to_numpy().mean(axis=0)) / labels.to_numpy().std(axis=0)
    assert_allclose(model.labels_fit_, x, atol=1e-12)
    flux = model.predict_flux(fresh)
    for pixel in range(24):
        y = spectra.flux[:, pixel]
        reference = svr(x, (y - y.mean()) / y.std())
        expected = y.mean() + y.std() * reference.predict(x_fresh)
        assert np.abs(flux[:, pixel] - expected).max() < 1e-4 * y.std()
        assert np.all(np.abs(model.dual_coef_[:, pixel]) <= 2 * (1 + 1e-9))
    assert_allclose(model.dual_coef_.sum(axis=0), 0, atol=1e-8)


def test_bad_pixels_are_left_out_star_by_star(draw_stars):
    spectra, labels = draw_stars(60, n_pixels=12, bad=0.1)
    model = SLAM(C=2, gamma=1 / 3, svr_tol=1e-7).fit(spectra, labels)
    x = standardised(labels)
    for pixel in range(12):
        good = spectra.good[:, pixel]
        assert not good.all()
        y = spectra.flux[good, pixel]
        assert model.flux_mean_[pixel] == pytest.approx(y.mean())
        assert model.flux_std_[pixel] == pytest.approx(y.std())
        expected = y.mean() + y.std() * svr(x[good], (y - y.mean()) / y.std()).predict(x)
        assert np.abs(model.predict_flux(labels)[:, pixel] - expected).max() < 1e-4 * y.std()
        assert_array_equal(model.dual_coef_[~good, pixel], 0)


@pytest.mark.parametrize("C", [1, [0.5, 4]])
def test_batched_equals_libsvm(C, draw_stars):
    spectra, labels = draw_stars(60, n_pixels=16, bad=0.03)
    batched, libsvm = (
        SLAM(C=C, gamma=[0.2, 0.5], solver=s).fit(spectra, labels) for s in ("batched", "libsvm")
    )
    assert_array_equal(batched.gamma_, libsvm.gamma_)
    assert_array_equal(batched.C_, libsvm.C_)
    unit = spectra.flux.std(where=spectra.good, axis=0)
    difference = batched.predict_flux(labels) - libsvm.predict_flux(labels)
    assert np.abs(difference / unit).max() < 1e-4
    assert_allclose(batched.scatter_, libsvm.scatter_, rtol=1e-2, atol=1e-5)
    moved = (batched.predict(spectra) - libsvm.predict(spectra)) / batched.invert(
        spectra
    ).formal_dist.std()
    assert np.abs(moved).max() < 0.05


def test_hyperparameters_of_every_pixel_are_kept(stars):
    spectra, labels = stars
    two = labels[["teff", "feh"]]
    model = SLAM(C=2).fit(spectra, two)
    assert set(model.gamma_) <= {0.15, 0.375}  # 0.3 / K and 0.75 / K
    assert_array_equal(model.C_, 2.0)
    assert_array_equal(model.epsilon_, 0.05)
    listed = SLAM(C=2, gamma=[0.15, 0.375]).fit(spectra, two)
    assert_array_equal(listed.gamma_, model.gamma_)


def by_hand(spectra, labels, cv):
    """Residuals of every star by models of the other folds, and those models."""
    x, n = standardised(labels), len(labels)

    def residuals(point):
        C, epsilon, gamma = point
        out = np.empty(spectra.shape)
        for pixel in range(spectra.shape[1]):
            y = spectra.flux[:, pixel]
            z = (y - y.mean()) / y.std()
            for fit, test in KFold(cv, shuffle=True, random_state=0).split(x):
                model = svr(x[fit], z[fit], C=C, epsilon=epsilon, gamma=gamma)
                out[test, pixel] = (z[test] - model.predict(x[test])) * y.std()
        return out

    assert n == len(spectra)
    return residuals


def test_cross_validated_error_is_that_of_a_loop(stars):
    spectra, labels = stars
    model = SLAM(C=2, gamma=1 / 3, cv=4).fit(spectra, labels)
    residual = by_hand(spectra, labels, 4)((2, 0.05, 1 / 3))
    assert_allclose(model.cv_mse_, np.mean(residual**2, axis=0), rtol=5e-3)
    photon = np.mean(1 / spectra.ivar, axis=0)
    scatter2 = np.maximum(np.mean(residual**2, axis=0) - photon, 0)
    assert_allclose(model.scatter_**2, scatter2, atol=5e-3 * model.cv_mse_.max())
    assert np.median(model.cv_mse_ / model.training_mse_) > 1.05


def test_without_errors_the_scatter_is_the_cross_validated_error(stars):
    spectra, labels = stars
    model = SLAM(C=2).fit(spectra.flux, labels)
    assert_allclose(model.scatter_**2, model.cv_mse_, rtol=1e-9)


def test_selection_by_folds_takes_the_best_of_the_grid(stars):
    spectra, labels = stars
    model = SLAM(C=[0.1, 1, 8], epsilon=[0.05, 0.3], gamma=[0.1, 0.5], selection="folds", cv=3)
    model.fit(spectra, labels)
    residuals = by_hand(spectra, labels, 3)
    points = [(C, e, g) for C in (0.1, 1, 8) for e in (0.05, 0.3) for g in (0.1, 0.5)]
    scores = np.array([np.sum(residuals(p) ** 2, axis=0) for p in points])
    chosen = np.array([points.index(p) for p in zip(model.C_, model.epsilon_, model.gamma_)])
    assert len(set(chosen)) > 1
    ours, best = scores[chosen, np.arange(24)], scores.min(axis=0)
    assert np.all(ours <= best * 1.005)  # ties may fall otherwise
    assert np.mean(chosen == scores.argmin(axis=0)) > 0.9
    assert_allclose(model.cv_mse_, ours / len(labels), rtol=1e-2)


def test_selection_by_leave_one_out_is_close_to_the_best(draw_stars):
    spectra, labels = draw_stars(40, n_pixels=8, wiggle=0.5)
    model = SLAM(C=[0.1, 8], gamma=[0.1, 0.6], epsilon=0.1).fit(spectra, labels)
    residuals = by_hand(spectra, labels, 40)
    points = [(C, 0.1, g) for C in (0.1, 8) for g in (0.1, 0.6)]
    scores = np.array([np.sum(residuals(p) ** 2, axis=0) for p in points])
    chosen = [points.index(p) for p in zip(model.C_, model.epsilon_, model.gamma_)]
    assert np.all(scores[chosen, np.arange(8)] <= scores.min(axis=0) * 1.15)
    assert np.mean(np.array(chosen) == scores.argmin(axis=0)) > 0.6


def test_fold_label_errors_are_those_of_real_fold_models(draw_stars):
    """Against SLAMs that were trained without the fold and invert it fully."""
    spectra, labels = draw_stars(80, n_pixels=60, wiggle=0.4)
    model = SLAM(C=4, gamma=0.15, cv=4).fit(spectra, labels)
    real, formal = np.empty((80, 3)), np.empty((80, 3))
    for fit, test in KFold(4, shuffle=True, random_state=0).split(labels):
        part = SLAM(C=4, gamma=0.15, cv=4, label_covariance=False)
        part.fit(spectra[fit], labels.iloc[fit])
        found = part.invert(spectra[test])
        real[test] = found.labels - labels.to_numpy()[test]
        formal[test] = found.formal_dist.std()
    ours = model.cv_label_errors_
    for k in range(3):
        assert np.corrcoef(ours[:, k], real[:, k])[0, 1] > 0.85
    assert_allclose(np.median(np.abs(ours), axis=0), np.median(np.abs(real), axis=0), rtol=0.25)
    assert np.median(np.abs(ours - real) / formal) < 0.25


def test_switched_off(stars):
    spectra, labels = stars
    model = SLAM(C=2, label_covariance=False).fit(spectra, labels)
    assert_array_equal(model.label_covariance_, 0)
    result = model.invert(spectra)
    assert_array_equal(result.dist.cov(), result.formal_cov)
    on = SLAM(C=2).fit(spectra, labels).invert(spectra)
    assert_allclose(on.dist.cov(), on.formal_cov + on.model_cov)
    variance = np.diagonal(on.model_cov, axis1=1, axis2=2)
    assert np.all(variance >= 0)
    assert np.all(variance.sum(axis=1) > 0)


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"C": [1, -1]}, "C must be positive"),
        ({"C": [0.0]}, "C must be positive"),
        ({"C": []}, "C must be a number or a list of numbers"),
        ({"gamma": [[0.1, 0.2]]}, "gamma must be a number or a list"),
        ({"gamma": [0.1, np.nan]}, "gamma must be a number or a list"),
        ({"epsilon": [-0.1, 0.1]}, "epsilon must"),
        ({"C": -1.0}, "'C' parameter"),
        ({"gamma": "scale"}, "'gamma' parameter"),
        ({"selection": "best"}, "'selection' parameter"),
        ({"cv": 1}, "'cv' parameter"),
    ],
)
def test_wrong_hyperparameters(parameters, message, stars):
    with pytest.raises(ValueError, match=message):
        SLAM(**parameters).fit(*stars)


def test_a_pixel_dead_in_training_carries_no_weight(stars):
    spectra, labels = stars
    ivar = spectra.ivar.copy()
    ivar[:, 3] = 0
    model = SLAM(C=2).fit(spectra.replace(ivar=ivar), labels)
    wild = spectra.replace(flux=np.where(np.arange(24) == 3, 7.0, spectra.flux))
    sane = spectra.replace(ivar=ivar)
    moved = np.abs(model.predict(wild) - model.predict(sane)) / model.predict_dist(sane).std()
    assert np.max(moved) < 1e-3


def test_cv_mse_is_there_without_label_errors():
    """The pixel errors are SLAM's noise model: they do not hang on `label_covariance`."""
    from skspec.datasets import make_spectra

    spectra, labels = make_spectra(40, n_pixels=30, random_state=0)
    model = SLAM(C=2, gamma=0.3, label_covariance=False).fit(spectra, labels)
    assert model.cv_mse_.shape == (30,)
    excess = np.maximum(model.cv_mse_ - model.training_variance_, 0)
    np.testing.assert_allclose(model.scatter_**2, excess, rtol=1e-6, atol=1e-12)
