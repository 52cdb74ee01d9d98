import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from skspec import Spectra
from skspec.forward import FewStarsWarning, TheCannon, censoring_mask


def test_label_scaling_is_that_of_ho(draw_stars):
    spectra, labels = draw_stars(100)
    model = TheCannon().fit(spectra, labels)
    low, median, high = np.percentile(labels, [2.5, 50, 97.5], axis=0)
    assert_allclose(model.label_pivot_, median)
    assert_allclose(model.label_scale_, (high - low) / 4)
    wide = TheCannon(label_scale_factor=2.0).fit(spectra, labels)
    assert_allclose(wide.label_scale_, 2 * (high - low))
    assert_allclose(wide.predict_flux(labels), model.predict_flux(labels), atol=1e-6)


@pytest.mark.parametrize("degree", [1, 2])
def test_coefficients_are_weighted_least_squares_star_by_star(degree, draw_stars):
    """Given its scatter, every pixel solves its own normal equations."""
    spectra, labels = draw_stars(80, bad=0.05, scatter=0.01)
    model = TheCannon(degree, label_covariance=False).fit(spectra, labels)
    x = (labels.to_numpy() - model.label_pivot_) / model.label_scale_
    columns = [np.ones(80), *x.T]
    if degree == 2:
        columns += [x[:, i] * x[:, j] for i in range(3) for j in range(i, 3)]
    design = np.stack(columns, axis=1)
    for pixel in range(spectra.shape[1]):
        good = spectra.ivar[:, pixel] > 0
        variance = 1 / spectra.ivar[good, pixel] + model.scatter_[pixel] ** 2
        V, y = design[good] / np.sqrt(variance)[:, None], spectra.flux[good, pixel]
        theta = np.linalg.lstsq(V, y / np.sqrt(variance), rcond=None)[0]
        assert_allclose(model.theta_[:, pixel], theta, rtol=1e-6, atol=1e-9)


def test_linear_inversion_is_the_closed_form(draw_stars):
    spectra, labels = draw_stars(80, bad=0.02, degree=1)
    model = TheCannon(1, label_covariance=False).fit(spectra, labels)
    result = model.invert(spectra)
    B = model.theta_[1:].T
    for i in range(0, 80, 5):
        weight = np.where(
            spectra.ivar[i] > 0, 1 / (1 / np.maximum(spectra.ivar[i], 1e-9) + model.scatter_**2), 0
        )
        F = B.T @ (weight[:, None] * B)
        x = np.linalg.solve(F, B.T @ (weight * (spectra.flux[i] - model.theta_[0])))
        if np.any((x < model._likelihood.training.lower) | (x > model._likelihood.training.upper)):
            continue
        sigma = np.sqrt(np.diag(np.linalg.inv(F))) * model.label_scale_
        labels_found = model.label_pivot_ + x * model.label_scale_
        assert np.all(np.abs(result.labels[i] - labels_found) < 1e-4 * sigma)
        assert_allclose(result.formal_dist.std()[i], sigma, rtol=1e-3)


@pytest.mark.parametrize("ratio", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("scatter", ["ml", "reml"])
def test_scatter_is_recovered(ratio, scatter, draw_stars):
    """systems.md 16.2: within 5 %; the median over pixels takes out their sampling noise."""
    n = 3000
    spectra, labels = draw_stars(n, errors="same", noise=0.01, scatter=0.01 * ratio)
    model = TheCannon(scatter=scatter, label_covariance=False).fit(spectra, labels)
    assert np.median(model.scatter_) == pytest.approx(0.01 * ratio, rel=0.05)


def test_reml_undoes_the_bias_of_few_stars(draw_stars):
    medians = {}
    for kind in ("ml", "reml"):
        found = []
        for seed in range(8):
            spectra, labels = draw_stars(25, errors=None, noise=0.01, seed=seed)
            found.append(TheCannon(scatter=kind, label_covariance=False).fit(spectra, labels))
        medians[kind] = np.sqrt(np.mean([m.scatter_**2 for m in found]))
    assert medians["reml"] == pytest.approx(0.01, rel=0.05)
    assert medians["ml"] == pytest.approx(0.01 * np.sqrt(15 / 25), rel=0.05)


def test_fixed_scatter(draw_stars):
    model = TheCannon(scatter=0.02).fit(*draw_stars(60))
    assert_allclose(model.scatter_, 0.02)


def test_residual_mse(draw_stars):
    spectra, labels = draw_stars(60, bad=0.05)
    model = TheCannon().fit(spectra, labels)
    residual = np.where(spectra.good, spectra.flux - model.predict_flux(labels), np.nan)
    assert_allclose(model.training_mse_, np.nanmean(residual**2, axis=0), rtol=1e-8)
    assert np.median(model.cv_mse_ / model.training_mse_) > 1.2  # 10 terms, 60 stars


# -- terms, censoring, regularisation --------------------------------------------------------------


def test_terms(draw_stars):
    spectra, labels = draw_stars(80)
    some = TheCannon(terms=[("teff",), ("teff", "teff"), ("logg", "feh"), (1,)]).fit(
        spectra, labels
    )
    assert some.terms_ == ["1", "teff", "teff^2", "logg*feh", "logg"]
    assert some.theta_.shape == (5, 50)
    every = [(i,) for i in range(3)] + [(i, j) for i in range(3) for j in range(i, 3)]
    assert_allclose(
        TheCannon(terms=every).fit(spectra, labels).predict(spectra),
        TheCannon().fit(spectra, labels).predict(spectra),
        rtol=1e-6,
    )
    with pytest.raises(ValueError, match="unknown label 'vsini'.*teff.*logg.*feh"):
        TheCannon(terms=[("vsini",)]).fit(spectra, labels)


def test_third_degree_fits_a_cubic(draw_stars):
    spectra, labels = draw_stars(200, noise=1e-4)
    u = (labels["teff"].to_numpy() - 5500) / 800
    bent = spectra.replace(flux=spectra.flux + 0.05 * (u**3)[:, None])
    mse = [TheCannon(d).fit(bent, labels).cv_mse_.mean() for d in (2, 3)]
    assert mse[1] < 0.01 * mse[0]


def test_censored_label_leaves_no_trace(draw_stars):
    spectra, labels = draw_stars(80)
    censored = np.arange(50) >= 20
    model = TheCannon(censoring={"logg": censored}).fit(spectra, labels)
    holds = np.array(["logg" in term for term in model.terms_])
    assert holds.sum() == 4
    assert_array_equal(model.theta_[np.ix_(holds, censored)], 0.0)
    assert np.all(model.theta_[np.ix_(~holds, censored)] != 0)
    assert np.all(model.theta_[:, ~censored] != 0)
    moved = labels.assign(logg=labels["logg"] + 0.5)
    assert_array_equal(
        model.predict_flux(moved)[:, censored], model.predict_flux(labels)[:, censored]
    )
    assert np.abs(model.predict_flux(moved) - model.predict_flux(labels))[:, ~censored].min() > 0
    assert_array_equal(model.flux_jacobian(labels)[:, censored, 1], 0.0)
    free = TheCannon().fit(spectra, labels)
    assert_allclose(model.theta_[:, ~censored], free.theta_[:, ~censored], rtol=1e-6, atol=1e-9)
    # in the censored pixels, the fit of the other two labels alone
    alone = TheCannon().fit(spectra, labels[["teff", "feh"]])
    assert_allclose(
        model.theta_[np.ix_(~holds, censored)], alone.theta_[:, censored], rtol=1e-5, atol=1e-8
    )


def test_censoring_by_wavelength(draw_stars):
    spectra, labels = draw_stars(80)
    windows = [(5003, 5008), (5015, 5020.2)]
    mask = censoring_mask(spectra.wavelength, windows)
    by_hand = [not any(a <= w <= b for a, b in windows) for w in spectra.wavelength]
    assert_array_equal(mask, by_hand)
    assert_array_equal(
        TheCannon(censoring={"feh": windows}).fit(spectra, labels).theta_,
        TheCannon(censoring={"feh": mask}).fit(spectra, labels).theta_,
    )


@pytest.mark.parametrize(
    "censoring, message",
    [
        ({"vsini": np.zeros(50, bool)}, "censoring names 'vsini'; labels:.*teff"),
        ({"feh": np.zeros(49, bool)}, r"censoring\['feh'\] has shape \(49,\).*50 pixels"),
    ],
)
def test_censoring_mistakes(censoring, message, draw_stars):
    with pytest.raises(ValueError, match=message):
        TheCannon(censoring=censoring).fit(*draw_stars(60))


def test_windows_need_wavelengths(draw_stars):
    spectra, labels = draw_stars(60)
    with pytest.raises(ValueError, match="need spectra with a wavelength"):
        TheCannon(censoring={"feh": [(5000, 5005)]}).fit(spectra.replace(wavelength=None), labels)


def test_l1_from_nothing_to_everything(draw_stars):
    spectra, labels = draw_stars(80)
    kept, errors = [], []
    for fraction in (1.0, 0.3, 0.03, 1e-4):
        model = TheCannon(regularization=fraction, regularization_units="fraction")
        model.fit(spectra, labels)
        kept.append(np.mean(model.theta_[1:] != 0))
        errors.append(np.mean(model.training_mse_))
    assert kept[0] == 0
    assert np.all(np.diff(kept) > 0)
    assert kept[-1] > 0.95
    assert np.all(np.diff(errors) < 0)
    free = TheCannon().fit(spectra, labels)
    assert_allclose(model.theta_, free.theta_, atol=2e-3)
    one = TheCannon(regularization=1.5, regularization_units="fraction").fit(spectra, labels)
    assert_array_equal(one.theta_[1:], 0)
    weight = 1 / (1 / spectra.ivar + one.scatter_**2)
    mean = np.sum(weight * spectra.flux, axis=0) / np.sum(weight, axis=0)
    assert_allclose(one.theta_[0], mean, rtol=1e-6)


def test_l1_at_the_optimum(draw_stars):
    """No coefficient can be moved to lower ``sum w r^2 + Lambda |theta|_1``."""
    spectra, labels = draw_stars(80)
    model = TheCannon(scatter=0.005, regularization=2000.0).fit(spectra, labels)
    assert 0.1 < np.mean(model.theta_[1:] == 0) < 0.9
    x = (labels.to_numpy() - model.label_pivot_) / model.label_scale_
    design = model._features(x)
    weight = 1 / (1 / spectra.ivar + 0.005**2)
    gradient = -2 * design.T @ (weight * (spectra.flux - design @ model.theta_))
    scale = 2 * np.abs(design.T @ (weight * np.abs(spectra.flux))).max()
    assert np.abs(gradient[0]).max() < 1e-7 * scale
    zero = model.theta_[1:] == 0
    assert np.all(np.abs(gradient[1:][zero]) <= 2000 * (1 + 1e-4))
    expected = -2000 * np.sign(model.theta_[1:][~zero])
    assert_allclose(gradient[1:][~zero], expected, atol=2000 * 1e-3)


def test_l1_pixel_by_pixel(draw_stars):
    spectra, labels = draw_stars(80)
    penalty = np.where(np.arange(50) < 25, 0.0, 1e9)
    model = TheCannon(regularization=penalty).fit(spectra, labels)
    assert np.all(model.theta_[1:, 25:] == 0)
    assert np.mean(model.theta_[1:, :25] != 0) > 0.99
    with pytest.raises(ValueError, match="regularization must not be negative"):
        TheCannon(regularization=-penalty).fit(spectra, labels)


def test_warm_start_gives_the_same_answer(draw_stars):
    spectra, labels = draw_stars(80)
    warm = TheCannon(regularization_units="fraction", warm_start=True)
    for fraction in (0.5, 0.1, 0.02):
        warm.set_params(regularization=fraction).fit(spectra, labels)
        cold = clone(warm).fit(spectra, labels)
        assert_allclose(warm.theta_, cold.theta_, atol=1e-5)
    warm.fit(*draw_stars(80, n_pixels=20))  # another shape: starts cold
    assert warm.theta_.shape == (10, 20)


# -- few stars -------------------------------------------------------------------------------------


def test_few_stars_get_a_lower_degree_and_a_word(draw_stars):
    spectra, labels = draw_stars(9)
    said = "9 training stars cannot hold the 10 terms.*degree 1"
    with pytest.warns(FewStarsWarning, match=said) as record:
        model = TheCannon().fit(spectra, labels)
    assert record[0].filename == __file__
    assert model.theta_.shape == (4, 50)
    assert np.isfinite(model.predict(spectra)).all()


def test_too_few_stars_for_the_terms(draw_stars):
    spectra, labels = draw_stars(3)
    with pytest.raises(ValueError, match="No pixel has as many good stars as the model has terms"):
        TheCannon(terms=[("teff",), ("logg",), ("feh",)]).fit(spectra, labels)


def test_a_pixel_with_too_few_good_stars_is_left_out(draw_stars):
    spectra, labels = draw_stars(60)
    ivar = spectra.ivar.copy()
    ivar[5:, 7] = 0
    model = TheCannon().fit(spectra.replace(ivar=ivar), labels)
    assert np.isinf(model.scatter_[7])
    assert np.isfinite(np.delete(model.scatter_, 7)).all()
    result = model.invert(spectra)
    assert_array_equal(result.n_good, 49)
    wild = spectra.replace(flux=np.where(np.arange(50) == 7, 5.0, spectra.flux))
    assert_allclose(model.predict(wild), result.labels, rtol=1e-10)


# -- leaving stars out -----------------------------------------------------------------------------


@pytest.mark.parametrize("errors", ["varied", None])
def test_leave_one_out_label_errors_are_those_of_real_refits(errors, draw_stars):
    spectra, labels = draw_stars(40, errors=errors, wiggle=0.6)
    model = TheCannon().fit(spectra, labels)
    real, formal = np.empty((40, 3)), np.empty((40, 3))
    mse = np.zeros(50)
    for i in range(40):
        rest = np.arange(40) != i
        # without the star, at the scatter of all: the scatter of a pixel hardly hangs on one star
        without = TheCannon(label_covariance=False).fit(spectra[rest], labels[rest])
        found = without.invert(spectra[[i]])
        real[i] = found.labels[0] - labels.to_numpy()[i]
        formal[i] = found.formal_dist.std()[0]
        mse += (spectra.flux[i] - without.predict_flux(labels[i : i + 1])[0]) ** 2 / 40
    assert_allclose(model.cv_mse_, mse, rtol=0.06)
    assert np.median(np.abs(model.cv_mse_ / mse - 1)) < 0.01
    ours = model.cv_label_errors_
    for k in range(3):
        assert np.corrcoef(ours[:, k], real[:, k])[0, 1] > 0.97
    assert_allclose(ours.std(axis=0), real.std(axis=0), rtol=0.15)
    assert np.median(np.abs(ours - real) / formal) < 0.2


def test_plain_arrays_and_no_names(draw_stars):
    spectra, labels = draw_stars(60, errors=None)
    model = TheCannon().fit(spectra.flux, labels.to_numpy())
    assert model.label_names_in_ == ["label_0", "label_1", "label_2"]
    assert model.terms_[:3] == ["1", "label_0", "label_1"]
    assert_allclose(model.predict(spectra.flux), model.predict(Spectra(spectra.flux)))
    frame = model.invert(spectra.flux).to_frame()
    assert {"label_0", "label_0_std", "label_0_formal_std", "chi2", "at_bound"} <= set(frame)
    assert len(frame) == 60


def test_logarithm_of_a_label(draw_stars):
    spectra, labels = draw_stars(80)
    model = TheCannon(log_labels=["teff"]).fit(spectra, labels)
    assert model.terms_[1] == "log(teff)"
    truth = labels.to_numpy()
    h = np.array([1.0, 1e-3, 1e-3])
    for k in range(3):
        step = h * (np.arange(3) == k)
        slope = (model.predict_flux(truth[:4] + step) - model.predict_flux(truth[:4] - step)) / 2
        assert_allclose(model.flux_jacobian(truth[:4])[..., k], slope / h[k], rtol=1e-4, atol=1e-9)
    error = (model.predict(spectra) - truth).std(axis=0)
    assert np.all(error < 0.2 * truth.std(axis=0))


def test_logarithm_needs_positive_labels(draw_stars):
    spectra, labels = draw_stars(40)
    with pytest.raises(ValueError, match="log_labels names 'feh'.*positive"):
        TheCannon(log_labels=["feh"]).fit(spectra, labels)
