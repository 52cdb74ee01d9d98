"""Training sets with several spectra of each star: errors are those of stars not seen at all."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skspec.datasets import make_spectra
from skspec.forward import SLAM, SpectralGP, TheCannon, ThePayne
from skspec.forward._refits import refit_without
from skspec.likelihood import low_rank_errors

BOX = {"teff": (4500, 6500), "logg": (3.0, 4.8), "feh": (-0.8, 0.3)}
HOW = {"n_pixels": 150, "resolution": 4000, "label_ranges": BOX}
MODELS = [
    TheCannon(2),
    TheCannon(2, regularization=1e-3),
    SpectralGP(),
    SLAM(C=4, epsilon=0.1, gamma=0.1),
    pytest.param(
        ThePayne(hidden_layer_sizes=(10,), max_iter=40, cv=5, random_state=0),
        marks=pytest.mark.filterwarnings("ignore"),
    ),
]


@pytest.fixture(scope="module")
def repeats():
    """Six spectra of each of 30 stars, whose noise they share: what only one star has, is learned."""
    stars, y = make_spectra(30, random_state=6, snr=60, **HOW)
    star = np.repeat(np.arange(30), 6)
    rng = np.random.default_rng(1)
    flux = stars.flux[star] + 1e-3 * rng.normal(size=(180, 150))
    return stars[star].replace(flux=flux, meta={"star_id": star}), y.iloc[star]


@pytest.mark.parametrize("model", MODELS)
def test_a_star_is_held_out_with_all_its_spectra(repeats, model, monkeypatch):
    train, y = repeats
    residuals, method = [], type(model)._out_of_sample

    def spy(self, x, spectra):
        out = method(self, x, spectra)
        found = [out.held_out(pixels).residual for pixels in out.blocks]
        rows = np.arange(len(x)) if out.rows is None else out.rows
        residuals.append(np.concatenate(found, axis=1)[np.argsort(rows)])
        return out

    monkeypatch.setattr(type(model), "_out_of_sample", spy)
    model.fit(train, y)
    changed = np.where(train.meta["star_id"][:, None] == 7, train.flux + 0.01, train.flux)
    model.fit(train.replace(flux=changed), y)
    first, second = residuals
    own = train.meta["star_id"] == 7
    # what is said of a star does not depend on its own spectra; units of the flux may, a little
    exact = isinstance(model, TheCannon)
    assert_allclose(second[own] - 0.01, first[own], atol=1e-6 if exact else 2e-3)
    assert np.abs(second - first)[~own].max() > 1e-6


@pytest.mark.parametrize("model", [TheCannon(2), SpectralGP()])
def test_error_bars_are_those_of_new_stars(repeats, model):
    test, truth = make_spectra(200, random_state=5, snr=300, **HOW)
    model.fit(*repeats)
    dist = model.predict_dist(test)
    z = np.abs(dist.mean() - truth.to_numpy()) / dist.std()
    assert np.all(np.median(z, axis=0) < 2 * 0.67), np.median(z, axis=0)


def test_fold_without_a_good_star_in_a_pixel():
    """Where a fold could train no pixel, its stars have no residual of the whole flux."""
    train, y = make_spectra(60, random_state=6, snr=60, **HOW)
    ivar = train.ivar.copy()
    ivar[:, 40:60] = 0.0
    folds = refit_folds(TheCannon(1), train, y)
    last = folds == folds[0]
    ivar[np.flatnonzero(last)[:8], 40:60] = 1e4  # known to one fold alone
    model = TheCannon(1, label_covariance=False).fit(train.replace(ivar=ivar), y)
    assert np.isfinite(model.scatter_[40:60]).all()
    out = refit_without(model, model._to_scaled(y.to_numpy()), train.replace(ivar=ivar))
    found = out.held_out(slice(40, 60))
    assert_array_equal(found.residual[last], 0.0)
    assert_array_equal(found.jacobian[last], 0.0)


def refit_folds(model, train, y):
    from skspec.model_selection import check_cv

    fold = np.empty(len(y), dtype=int)
    for k, (_, rows) in enumerate(check_cv(5, len(y), None, shuffle=True).split(y)):
        fold[rows] = k
    return fold


def test_components_are_tried_on_other_stars():
    rng = np.random.default_rng(0)
    groups = np.repeat(rng.permutation(20), 3)
    residual = rng.normal(size=(60, 30)) * 1e-2

    class Out:
        blocks = [slice(None)]

        @staticmethod
        def held_out(pixels):
            return type("Held", (), {"residual": residual[:, pixels]})

    parts = low_rank_errors(Out, np.full((60, 30), 1e-6), np.ones(30, bool), 0.2, groups).parts
    assert sum(len(rows) for rows, _ in parts) == 60
    for rows, _ in parts:
        assert not np.intersect1d(groups[rows], np.delete(groups, rows)).size
