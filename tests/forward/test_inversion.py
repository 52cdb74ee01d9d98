"""The batched inversion against a loop over stars with scipy's least squares."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import least_squares

from skspec import Spectra
from skspec.base import CorrelatedLabelsWarning
from skspec.forward import SLAM, TheCannon
from skspec.forward._slam_pixels import rbf_kernel
from skspec.likelihood import FluxBasis, Inversion, compress
from skspec.solvers.linear.levenberg_marquardt import levenberg_marquardt

MODELS = {
    "TheCannon linear": TheCannon(1, label_covariance=False),
    "TheCannon quadratic": TheCannon(label_covariance=False),
    "SLAM": SLAM(C=2, gamma=1 / 3, label_covariance=False),  # inverted in a reduced basis
    "SLAM per pixel": SLAM(C=[0.5, 4], gamma=[0.2, 0.5], label_covariance=False),
}
every_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(scope="module")
def fitted(draw_stars):
    spectra, labels = draw_stars(90, bad=0.02, noise=0.01)
    return {name: model.fit(spectra, labels) for name, model in MODELS.items()}


def scipy_invert(model, spectra, i, start, loss="linear"):
    """Slow, obviously right: one star, residuals of all pixels, from the given labels."""
    variance = model.noise(spectra[[i]]).variance()[0]
    good = np.isfinite(variance)
    sigma, scale = np.sqrt(variance[good]), model.label_scale_

    def residual(x):
        flux = model.predict_flux(model.label_pivot_ + x * scale)[0]
        return (flux[good] - spectra.flux[i, good]) / sigma

    def jacobian(x):
        slope = model.flux_jacobian(model.label_pivot_ + x * scale)[0]
        return slope[good] * scale / sigma[:, None]

    found = least_squares(
        residual,
        np.clip(
            (start - model.label_pivot_) / scale,
            model._likelihood.training.lower,
            model._likelihood.training.upper,
        ),
        jacobian,
        bounds=(model._likelihood.training.lower, model._likelihood.training.upper),
        loss=loss,
        xtol=1e-12,
        ftol=1e-12,
        gtol=1e-12,
    )
    return model.label_pivot_ + found.x * scale, found, good.sum()


@every_model
@pytest.mark.parametrize("errors", ["varied", "separable", "same", None])
def test_as_scipy_star_by_star(name, errors, fitted, draw_stars):
    model = fitted[name]
    # without known errors the noise is that of the training set
    bad = 0.05 if errors == "varied" else 0.0
    spectra, labels = draw_stars(25, errors=errors or "same", bad=bad, seed=4)
    if errors is None:
        ivar = np.full(spectra.shape, np.inf)
        ivar[0, 0] = 1e4  # one pixel of one star is known: no warning
        spectra = spectra.replace(ivar=ivar)
    result = model.invert(spectra)
    truth = labels.to_numpy()
    assert result.converged.mean() > (0.99 if "Cannon" in name else 0.8)  # SLAM bends sharply here
    worse = 0
    for i in np.flatnonzero(result.converged):
        found, fit, n_good = scipy_invert(model, spectra, i, truth[i])
        chi2 = 2 * fit.cost
        assert result.n_good[i] == n_good
        assert result.chi2[i] <= chi2 + 1e-3  # several starts: it may find a better minimum
        if result.chi2[i] < chi2 - 1e-3:
            worse += 1
            continue
        assert result.chi2[i] == pytest.approx(chi2, abs=1e-3)
        assert result.reduced_chi2[i] == pytest.approx(chi2 / (n_good - 3), abs=1e-4)
        if np.any(np.abs(fit.active_mask)):
            continue
        cov = np.linalg.inv(fit.jac.T @ fit.jac) * np.outer(model.label_scale_, model.label_scale_)
        sigma = np.sqrt(np.diag(cov))
        assert np.all(np.abs(result.labels[i] - found) < 0.01 * sigma)
        assert_allclose(
            result.formal_cov[i] / np.outer(sigma, sigma), cov / np.outer(sigma, sigma), atol=5e-3
        )
    assert worse <= 3


@every_model
def test_fisher_information_is_that_of_the_result(name, fitted, draw_stars):
    model = fitted[name]
    spectra, _ = draw_stars(30, bad=0.05, seed=5)
    result = model.invert(spectra)
    fisher = model.fisher_information(result.labels, spectra)
    by_hand = np.einsum(
        "npk,np,npl->nkl",
        model.flux_jacobian(result.labels),
        1 / model.noise(spectra).variance(),
        model.flux_jacobian(result.labels),
    )
    assert_allclose(fisher, by_hand, rtol=1e-8)
    std = np.sqrt(np.diagonal(np.linalg.inv(by_hand), axis1=1, axis2=2))
    assert_allclose(result.formal_dist.std(), std, rtol=1e-3)


def test_noise_variance(fitted, draw_stars):
    model = fitted["SLAM"]
    spectra, _ = draw_stars(5, bad=0.1)
    variance = model.noise(spectra).variance()
    with np.errstate(divide="ignore"):
        expected = 1 / spectra.ivar + model.scatter_**2
    assert_allclose(variance, expected, rtol=1e-6)
    plain = model.noise(spectra.replace(ivar=np.inf)).variance()
    assert_allclose(plain[0], model.training_variance_ + model.scatter_**2, rtol=1e-6)


@every_model
def test_labels_stop_at_the_box_and_say_so(name, fitted, draw_stars):
    model = fitted[name]
    spectra, _ = draw_stars(100, noise=0.1, errors="same")  # so noisy that many run away
    result = model.invert(spectra)
    found = (result.labels - model.label_pivot_) / model.label_scale_
    edge = np.minimum(
        found - model._likelihood.training.lower, model._likelihood.training.upper - found
    )
    assert np.all(edge >= -1e-9)
    assert result.at_bound.any(axis=1).mean() > 0.1
    assert_allclose(edge[result.at_bound], 0, atol=1e-6)
    assert np.all(edge[~result.at_bound] > 1e-9)
    assert not result.inside_training[result.at_bound.any(axis=1)].any()
    assert np.isfinite(result.dist.std()).all()
    some = np.flatnonzero(result.converged)[:40]
    chi2 = [2 * scipy_invert(model, spectra, i, result.labels[i])[1].cost for i in some]
    assert np.mean(result.chi2[some] <= np.add(chi2, 1e-2)) > 0.9  # a wall can hide a lower place
    assert model.invert(draw_stars(90)[0]).at_bound.mean() < 0.05


def test_within_the_range_but_far_from_any_training_star(draw_stars):
    """Hot stars of low gravity, where only the diagonal was trained."""
    spectra, labels = draw_stars(600)
    u = (labels - labels.mean()) / (labels.max() - labels.min())
    diagonal = np.abs(u["teff"] - u["logg"]) < 0.15
    model = TheCannon(label_covariance=False)
    with pytest.warns(CorrelatedLabelsWarning, match=r"teff and logg: \+0\.95"):
        model.fit(spectra[diagonal], labels[diagonal])
    result = model.invert(spectra)
    off = (np.abs(u["teff"] - u["logg"]) > 0.7).to_numpy()
    assert off.sum() > 20
    low, high = labels[diagonal].min().to_numpy(), labels[diagonal].max().to_numpy()
    within = np.all((result.labels > low) & (result.labels < high), axis=1)
    assert (off & within).sum() > 10
    assert result.inside_training[off & within].mean() < 0.3
    assert result.inside_training[diagonal].mean() > 0.85


# -- robust losses ---------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("loss", ["soft_l1", "huber"])
def test_robust_minimum_is_that_of_scipy(name, loss, fitted, draw_stars):
    model = fitted[name]
    spectra, labels = draw_stars(20, bad=0.05, seed=6)
    flux = spectra.flux.copy()
    flux[:, ::9] += 0.3  # cosmic rays nobody masked
    spectra = spectra.replace(flux=np.where(spectra.good, flux, 0))
    plain = model.invert(spectra)
    model.set_params(inversion__loss=loss)
    try:
        robust = model.invert(spectra)
    finally:
        model.set_params(inversion__loss="linear")
    assert robust.converged.mean() > 0.8
    same = []
    for i in range(20):
        found, fit, _ = scipy_invert(model, spectra, i, robust.labels[i], loss)
        same.append(np.abs(found - robust.labels[i]) / plain.formal_dist.std()[i])
    same = np.array(same)[robust.converged]
    assert np.max(same) < 0.02
    error = [np.abs(r.labels - labels).to_numpy() / r.formal_dist.std() for r in (plain, robust)]
    assert np.median(error[1]) < 0.6 * np.median(error[0])
    assert np.median(error[1]) < 2


# -- starts and minima -----------------------------------------------------------------------------


class _Wells:
    """chi2 of one parameter with two minima, the deeper one at +1."""

    def __call__(self, x, rows):
        t = x[..., 0]
        residual = np.stack([2 * (t**2 - 1), 0.5 * (t - 1)], axis=-1)
        slope = np.stack([4 * t, np.full_like(t, 0.5)], axis=-1)
        return (
            np.sum(residual**2, axis=-1),
            np.sum(residual * slope, axis=-1)[..., None],
            np.sum(slope**2, axis=-1)[..., None, None],
        )


def test_starts_find_their_own_minimum():
    x0 = np.array([[[-1.5], [1.7], [-0.7]]] * 4)
    found = levenberg_marquardt(_Wells(), x0, np.array([-2.0]), np.array([2.0]))
    assert found.converged.all()
    assert_allclose(found.x[:, 1, 0], 1, atol=1e-4)
    assert np.all(found.x[:, [0, 2], 0] < -0.8)
    assert np.all(found.chi2[:, 1] < found.chi2[:, 0])


def test_several_starts_find_the_global_minimum():
    """Flux even in the label but for one faint pixel, so that chi2 has two wells."""
    rng = np.random.default_rng(0)
    teff = np.linspace(-1, 1, 201)
    shape = rng.uniform(0.05, 0.1, 40)

    def truth(t):
        flux = 1 + np.asarray(t)[:, None] ** 2 * shape
        flux[:, -1] += 0.02 * np.asarray(t)
        return flux

    flux = truth(teff)
    model = TheCannon(scatter=0.0, label_covariance=False, inversion=Inversion(n_init=2))
    model.fit(Spectra(flux, flux_err=0.002), teff[:, None])
    fresh = rng.uniform(0.5, 0.9, 300) * rng.choice([-1, 1], 300)
    spectra = Spectra(truth(fresh) + 0.002 * rng.normal(size=(300, 40)), flux_err=0.002)
    # by brute force: the global minimum on a fine grid
    grid = np.linspace(-1.1, 1.1, 2001)
    chi2 = ((spectra.flux[:, None] - model.predict_flux(grid[:, None])) ** 2).sum(axis=2) / 0.002**2
    result = model.invert(spectra)
    assert_allclose(result.chi2, chi2.min(axis=1), atol=0.3)
    assert np.all(result.chi2 <= chi2.min(axis=1) + 1e-6)
    assert np.mean(np.sign(result.labels[:, 0]) == np.sign(fresh)) > 0.99


def test_best_of_the_training_labels_is_not_enough(fitted, draw_stars):
    """More starts never end in a worse minimum."""
    model = fitted["SLAM"]
    spectra, _ = draw_stars(60, noise=0.05, seed=8)
    few = model.set_params(inversion__n_init=1).invert(spectra)
    many = model.set_params(inversion__n_init=8).invert(spectra)
    model.set_params(inversion__n_init=4)
    sure = many.converged & few.converged
    assert sure.mean() > 0.7
    assert np.all((many.chi2 <= few.chi2 + 0.02)[sure])


def test_too_few_steps_are_not_called_converged(fitted, draw_stars):
    model = fitted["TheCannon quadratic"]
    spectra, _ = draw_stars(40, seed=9)
    hasty = TheCannon(label_covariance=False, inversion=Inversion(max_iter=1)).fit(
        *draw_stars(90, bad=0.02)
    )
    steps = hasty.invert(spectra).n_iter
    assert steps.max() < model.invert(spectra).n_iter.max() + 5
    assert np.all(model.invert(spectra).n_iter >= 1)


# -- the reduced basis -----------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.01, 0.001])
def test_compression_error_is_below_its_tolerance(noise):
    rng = np.random.default_rng(0)
    centres, coef = rng.normal(size=(60, 2)), rng.normal(size=(61, 300)) * 0.05

    def features(x):
        return np.concatenate([np.ones((len(x), 1)), rbf_kernel(x, centres, 0.5)], axis=1)

    points = rng.uniform(-2, 2, (400, 2))
    sigma = noise * rng.uniform(0.5, 2, 300)
    sigma[17] = np.inf
    basis = compress(features, points, coef, sigma, tol=0.05)
    assert len(basis.flux) < 61
    fresh = rng.uniform(-2, 2, (500, 2))
    for sample, limit in ((points, 0.05), (fresh, 0.1)):
        exact = features(sample) @ coef
        reduced = basis.spectra(sample)
        missing = np.delete((exact - reduced) / sigma, 17, axis=1)
        assert np.sqrt(np.mean(np.sum(missing**2, axis=1))) < limit
    assert_allclose(basis.flux[:, 17], 0)
    rough = basis.leading()
    assert 1 <= len(rough.flux) <= len(basis.flux)
    assert_allclose(rough.flux, basis.flux[: len(rough.flux)])


def test_few_features_are_not_compressed():
    def features(x):
        return np.concatenate([np.ones((len(x), 1)), x], axis=1)

    coef = np.random.default_rng(0).normal(size=(3, 20))
    x = np.random.default_rng(1).normal(size=(5, 2))
    basis = compress(features, x, coef, np.ones(20))
    assert_allclose(basis.spectra(x), features(x) @ coef)
    assert_allclose(FluxBasis.of_features(features, coef).spectra(x), features(x) @ coef)
