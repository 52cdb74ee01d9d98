import pickle
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from skspec._progress import StepCounter
from skspec.forward import TheCannon, ThePayne

pytest.importorskip("skorch")
SMALL = ThePayne((20,), learning_rate_init=0.02, max_iter=80, batch_size=32, random_state=0)


@pytest.fixture(scope="module")
def stars(draw_stars):
    return draw_stars(150, wiggle=1.0, bad=0.02)


@pytest.fixture(scope="module")
def model(stars):
    return clone(SMALL).fit(*stars)


def test_it_bends_where_a_polynomial_cannot(draw_stars):
    train, test = draw_stars(400, wiggle=3.0), draw_stars(100, wiggle=3.0, seed=1)
    payne = ThePayne((50, 50), random_state=0).fit(*train)
    errors = [
        np.sqrt(np.mean((m.predict(test[0]) - test[1].to_numpy()) ** 2, axis=0))
        for m in (payne, TheCannon().fit(*train))
    ]
    assert np.all(errors[0] < 0.9 * errors[1])


@pytest.mark.parametrize("cv", [None, 3])
def test_the_flux_is_the_mean_of_the_networks(cv, stars):
    model = clone(SMALL).set_params(cv=cv, max_iter=10).fit(*stars)
    assert len(model.networks_) == len(model.history_) == (cv or 1)
    assert model.coef_.shape == (1 + 20 * (cv or 1), 50)
    labels = stars[1].to_numpy()[:7]
    x = (labels - model.label_pivot_) / model.label_scale_
    flux, column = model.coef_[0], 1
    for network in model.networks_:
        flux = flux + network(x)[:, 1:] @ model.coef_[column : column + 20]
        column += 20
    assert_allclose(model.predict_flux(labels), flux)


@pytest.mark.parametrize("cv", [None, 3])
@pytest.mark.parametrize("activation", ["silu", "leaky_relu"])
def test_curvature_is_the_derivative_of_the_jacobian(cv, activation, stars):
    model = clone(SMALL).set_params(cv=cv, max_iter=10, activation=activation).fit(*stars)
    x = np.random.default_rng(0).normal(size=(5, 3))
    weight, step = np.random.default_rng(1).normal(size=(5, len(model.coef_))), 1e-5
    curvature = model._curvature(x, weight)
    for k in range(3):
        up, down = (model._features(x + s * step * np.eye(3)[k], True)[1] for s in (1, -1))
        second = np.einsum("mkq,mq->mk", up - down, weight) / (2 * step)
        assert_allclose(curvature[:, k], second, atol=1e-5)


def test_errors_come_from_the_stars_held_out(model, stars):
    """The reported errors are those of a model that was trained without those stars."""
    spectra, labels = stars
    held_out = np.any(model.cv_label_errors_ != 0, axis=1)
    assert held_out.sum() == 30  # a fifth
    residual = np.where(spectra.good, model.predict_flux(labels) - spectra.flux, 0.0)[held_out]
    n_good = spectra.good[held_out].sum(axis=0)
    assert_allclose(model.cv_mse_, np.sum(residual**2, axis=0) / n_good)
    photon = np.sum(spectra.variance[held_out], axis=0, where=spectra.good[held_out]) / n_good
    assert_allclose(model.scatter_, np.sqrt(np.maximum(model.cv_mse_ - photon, 0)), atol=1e-9)
    # those errors are one Newton step; the inversion of the same stars takes all of them
    found = model.predict(spectra[held_out]) - labels.to_numpy()[held_out]
    step = model.cv_label_errors_[held_out]
    for k in range(3):
        assert np.corrcoef(found[:, k], step[:, k])[0, 1] > 0.9


def test_with_folds_every_star_has_an_error(stars):
    folds = clone(SMALL).set_params(cv=3).fit(*stars)
    assert np.all(np.any(folds.cv_label_errors_ != 0, axis=1))


def test_cleaning_folds_the_stars(stars):
    spectra, labels = stars
    wrong = labels.copy()
    wrong.loc[[3, 77], "teff"] += 1500
    model = (
        clone(SMALL)
        .set_params(clean_training=5.0, inversion__clean_rounds=1, max_iter=30)
        .fit(spectra, wrong)
    )
    assert {3, 77} <= set(model.training_outliers_.tolist())
    assert len(model.training_outliers_) < 10
    assert len(model.networks_) == 5


def test_refit_improves_on_the_validation_set(stars):
    refitted, plain = (
        clone(SMALL).set_params(refit_output=r, max_iter=15).fit(*stars) for r in (True, False)
    )
    assert_array_equal(refitted.networks_[0].layers[0][0], plain.networks_[0].layers[0][0])
    assert np.isfinite(refitted.penalty_).all()
    assert np.isinf(plain.penalty_).all()
    assert refitted.cv_mse_.mean() < plain.cv_mse_.mean()


def test_a_pixel_that_cannot_be_trained(stars):
    spectra, labels = stars
    ivar = spectra.ivar.copy()
    ivar[:, 5] = 0
    ivar[1:, 6] = 0
    model = clone(SMALL).fit(spectra.replace(ivar=ivar), labels)
    assert_array_equal(np.flatnonzero(np.isinf(model.scatter_)), [5, 6])
    assert np.isfinite(model.coef_).all()
    assert np.isfinite(model.predict(spectra)).all()


def test_noisy_stars_count_less(draw_stars):
    spectra, labels = draw_stars(150, noise=0.002, errors="same")
    noisy = np.arange(150) % 3 == 0
    rng = np.random.default_rng(0)
    flux = spectra.flux + 0.3 * noisy[:, None] * rng.normal(size=spectra.shape)
    known = spectra.replace(flux=flux, ivar=1 / np.where(noisy[:, None], 0.3, 0.002) ** 2)
    good, blind = (
        clone(SMALL).fit(s, labels).predict_flux(labels)
        for s in (
            known.replace(ivar=np.broadcast_to(known.ivar, flux.shape)),
            known.replace(ivar=None),
        )
    )
    assert np.std(good - spectra.flux) < 0.6 * np.std(blind - spectra.flux)


def test_labels_need_no_torch(model, stars, tmp_path):
    (tmp_path / "model.pickle").write_bytes(pickle.dumps((model, stars[0][:5])))
    code = (
        "import pickle, sys\n"
        f"model, spectra = pickle.load(open({str(tmp_path / 'model.pickle')!r}, 'rb'))\n"
        "print(*model.predict(spectra)[:, 0])\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert_allclose(np.array(done.stdout.split(), float), model.predict(stars[0][:5])[:, 0])


@pytest.mark.parametrize("patience", [2, 200])
def test_progress_counts_every_epoch(patience, stars):
    told = []
    model = clone(SMALL).set_params(cv=2, max_iter=12, n_iter_no_change=patience)
    model.set_callbacks(StepCounter(lambda done, total: told.append((done, total))))
    model.fit(*stars)
    assert told == [(k + 1, 24) for k in range(24)]
    assert model.n_iter_ <= 12


@pytest.mark.parametrize("hidden", [(), (0,), (10, -1), ((3, 4), (5, 6)), (2.5,)])
def test_bad_widths(hidden, stars):
    with pytest.raises(ValueError, match="hidden_layer_sizes must be positive integers"):
        ThePayne(hidden).fit(*stars)


def test_one_width_is_one_layer(stars):
    assert len(ThePayne(7, max_iter=1).fit(*stars).networks_[0].layers) == 1


def test_a_device_that_is_not_there(stars):
    with pytest.raises(ValueError, match="device='cuda:99' cannot be used"):
        ThePayne(device="cuda:99").fit(*stars)
    assert clone(SMALL).set_params(max_iter=1).fit(*stars).device_ in ("cpu", "cuda")


@pytest.mark.filterwarnings("ignore:overflow|invalid:RuntimeWarning")
def test_training_that_diverges(stars):
    with pytest.raises(ValueError, match="diverged: lower learning_rate_init=1e\\+30"):
        ThePayne((5,), activation="leaky_relu", learning_rate_init=1e30, max_iter=5).fit(*stars)
