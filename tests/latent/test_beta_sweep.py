import json

import numpy as np
import pandas as pd
import pytest
from helpers import LinearVAE
from joblib import parallel_config
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import spearmanr
from sklearn.decomposition import PCA

from skspec import Spectra
from skspec.datasets import SpectraStore
from skspec.latent import BetaSweep, BetaVAE, beta_sweep, node_dispersion
from skspec.networks import can_train

BETAS = [0.1, 4.0, 9.0, 1e5]
N_FACTORS = 4


@pytest.fixture(scope="module")
def spectra():
    """Four linear factors in 60 pixels, with noise of 0.1."""
    rng = np.random.default_rng(1)
    flux = rng.normal(size=(500, N_FACTORS)) @ rng.normal(size=(N_FACTORS, 60))
    return Spectra(flux + 0.1 * rng.normal(size=flux.shape), flux_err=0.1)


class Counting(LinearVAE):
    """Tells how often it was fitted, and fails when told to."""

    fits, broken = [], ()

    def fit(self, X, y=None):
        if self.beta in self.broken:
            raise RuntimeError("interrupted")
        self.fits.append((self.beta, self.n_latent))
        return super().fit(X)


def made_up(counts, n_latents=(8, 32), tolerance=1):
    """A sweep with given numbers of informative nodes, {beta: (per latent size)}."""
    mad = {
        (beta, size): np.where(np.arange(size) < number, 0.5, 0.001)
        for beta, numbers in counts.items()
        for size, number in zip(n_latents, numbers)
    }
    empty = pd.DataFrame()
    return BetaSweep(
        np.array(sorted(counts)), np.array(n_latents), mad, empty, "mse", empty, tolerance=tolerance
    )


def test_it_counts_the_factors(spectra):
    sweep = beta_sweep(LinearVAE(), spectra, BETAS, (6, 12))
    assert sweep.n_informative.to_numpy().tolist() == [
        [6, 12],
        [N_FACTORS] * 2,
        [N_FACTORS] * 2,
        [0, 0],
    ]
    assert sweep.best_beta == 4.0
    assert sweep.agreement.tolist() == [False, True, True, False]
    assert sweep.n_informative.index.name == "beta" and list(sweep.n_informative.columns) == [6, 12]


def test_what_is_recorded_is_that_of_the_fit(spectra):
    sweep = beta_sweep(LinearVAE(), spectra, BETAS, (6, 12))
    model = LinearVAE(12, beta=4.0).fit(spectra)
    latents = model.transform(spectra)
    mad = node_dispersion(latents)["mad"]
    assert_allclose(sweep.mad[4.0, 12], np.sort(mad)[::-1])
    residual = spectra.flux - model.inverse_transform(latents)
    assert sweep.measure == "chi2"
    assert_allclose(sweep.reconstruction.loc[4.0, 12], np.mean(residual**2) / 0.1**2)
    pairs = np.abs(spearmanr(latents[:, :N_FACTORS]).statistic[np.triu_indices(N_FACTORS, 1)])
    assert_allclose(sweep.leakage.loc[4.0, 12], pairs.mean())
    assert np.isnan(sweep.leakage.loc[1e5, 12])


def test_errors_unknown_or_partly_bad(spectra):
    plain = beta_sweep(LinearVAE(), spectra.flux, [4.0], [6])
    assert plain.measure == "mse" and plain.best_beta is None
    model = LinearVAE(6, beta=4.0).fit(spectra)
    residual = spectra.flux - model.inverse_transform(model.transform(spectra))
    assert_allclose(plain.reconstruction.loc[4.0, 6], np.mean(residual**2))
    mask = np.zeros(spectra.shape, dtype=bool)
    mask[:3] = True  # stars without latent numbers
    mask[10:, 5] = True
    masked = beta_sweep(LinearVAE(), spectra.replace(mask=mask), [4.0], [6])
    assert_allclose(masked.reconstruction.loc[4.0, 6], np.mean(residual[~mask] ** 2) / 0.1**2)
    assert_allclose(
        masked.mad[4.0, 6], np.sort(node_dispersion(model.transform(spectra[3:]))["mad"])[::-1]
    )


def test_blocks_change_nothing(spectra, monkeypatch):
    whole = beta_sweep(LinearVAE(), spectra, [4.0], [6])
    monkeypatch.setattr("skspec.latent._beta_sweep.BLOCK", 60 * 7)
    parts = beta_sweep(LinearVAE(), spectra, [4.0], [6])
    assert_allclose(parts.reconstruction, whole.reconstruction, rtol=1e-12)
    assert_allclose(parts.mad[4.0, 6], whole.mad[4.0, 6])


def test_a_store_is_read_in_parts(spectra, tmp_path, monkeypatch):
    pytest.importorskip("zarr")
    store = SpectraStore.write(tmp_path / "stars", spectra)
    monkeypatch.setattr("skspec.latent._beta_sweep.BLOCK", 60 * 70)
    found = beta_sweep(LinearVAE(), store, [4.0], [6])
    whole = beta_sweep(LinearVAE(), spectra, [4.0], [6])
    assert_allclose(found.reconstruction, whole.reconstruction, rtol=1e-6)
    assert_allclose(found.mad[4.0, 6], whole.mad[4.0, 6], rtol=1e-6)


def test_jobs_change_nothing(spectra):
    with parallel_config("threading"):
        one, two = (beta_sweep(LinearVAE(), spectra, BETAS, (6, 12), n_jobs=n) for n in (1, 2))
    for key in one.mad:
        assert_array_equal(one.mad[key], two.mad[key])
    pd.testing.assert_frame_equal(one.reconstruction, two.reconstruction)
    pd.testing.assert_frame_equal(one.leakage, two.leakage)


def test_an_interrupted_sweep_goes_on(spectra, tmp_path, monkeypatch):
    Counting.fits.clear()
    monkeypatch.setattr(Counting, "broken", (4.0,))
    with pytest.raises(RuntimeError, match="interrupted"):
        beta_sweep(Counting(), spectra, BETAS, (6, 12), out=tmp_path / "sweep")
    assert Counting.fits == [(0.1, 6), (0.1, 12)]
    monkeypatch.setattr(Counting, "broken", ())
    sweep = beta_sweep(Counting(), spectra, BETAS, (6, 12), out=tmp_path / "sweep")
    assert Counting.fits[2:] == [(beta, n) for beta in BETAS[1:] for n in (6, 12)]
    again = beta_sweep(Counting(), spectra, BETAS, (6, 12), out=tmp_path / "sweep")
    assert len(Counting.fits) == 8 and again.best_beta == sweep.best_beta == 4.0
    whole = beta_sweep(LinearVAE(), spectra, BETAS, (6, 12))
    assert_array_equal(again.mad[0.1, 12], whole.mad[0.1, 12])
    pd.testing.assert_frame_equal(again.leakage, whole.leakage)
    assert not list((tmp_path / "sweep").glob("*.part"))


def test_results_of_something_else_are_refused(spectra, tmp_path):
    beta_sweep(LinearVAE(), spectra, [4.0], [6], out=tmp_path)
    for model, stars, more in (
        (LinearVAE(sigma=0.2), spectra, {}),
        (LinearVAE(), spectra[:-1], {}),
        (LinearVAE(), spectra[::-1], {}),
        (LinearVAE(), spectra.replace(meta={"weight": np.ones(500)}), {}),
        (LinearVAE(), spectra, {"threshold": 0.1}),
    ):
        with pytest.raises(ValueError, match="another folder in `out`"):
            beta_sweep(model, stars, [4.0], [6], out=tmp_path, **more)
    (path,) = tmp_path.glob("*.json")
    assert json.loads(path.read_text())["stamp"]["shape"] == [500, 60]


def test_each_fit_has_its_own_checkpoint(spectra, tmp_path):
    class Kept(Counting):
        seen = []

        def __init__(self, n_latent=8, *, beta=1.0, sigma=0.1, random_state=None, checkpoint=None):
            super().__init__(n_latent, beta=beta, sigma=sigma, random_state=random_state)
            self.checkpoint = checkpoint

        def fit(self, X, y=None):
            self.seen.append(self.checkpoint.name)
            return super().fit(X)

    beta_sweep(Kept(checkpoint=str(tmp_path / "state.pt")), spectra, [4.0], [6, 12])
    assert Kept.seen == ["state_beta_4.0_latent_6.pt", "state_beta_4.0_latent_12.pt"]


@pytest.mark.parametrize(
    "counts, best",
    [
        ({0.1: (8, 30), 0.3: (7, 12), 1: (6, 6), 3: (6, 5), 10: (0, 0)}, 1),
        ({0.1: (6, 6), 0.3: (6, 12), 1: (6, 6), 3: (5, 5)}, 1),  # agreement must last
        ({0.1: (8, 20), 1: (6, 6), 3: (3, 3), 10: (1, 0), 30: (0, 0)}, 1),  # up to the collapse
        ({0.1: (8, 9), 1: (8, 8), 3: (7, 7), 10: (7, 6)}, 3),  # a full space says nothing
        ({0.1: (8, 20), 1: (6, 9), 3: (0, 0)}, None),
        ({0.1: (5, 5), 1: (5, 8)}, 0.1),
        ({0.1: (0, 0), 1: (0, 0)}, None),
        ({1: (6, 6)}, 1),
    ],
)
def test_best_beta(counts, best):
    assert made_up(counts).best_beta == best


def test_tolerance_and_more_sizes():
    counts = {0.1: (6, 7), 1: (5, 5), 3: (5, 5)}
    assert made_up(counts).best_beta == 0.1
    assert made_up(counts, tolerance=0).best_beta == 1
    three = {0.1: (6, 7, 8), 1: (5, 5, 6), 3: (4, 4, 4)}
    assert made_up(three, (8, 16, 32)).best_beta == 1
    assert made_up({1: (5,), 3: (4,)}, (8,)).best_beta is None


def test_weak_choices_are_told(spectra):
    with pytest.warns(UserWarning, match="All 6 nodes of the smallest latent space"):
        assert beta_sweep(LinearVAE(), spectra, [0.0, 0.1], (6, 12)).best_beta is None
    with pytest.warns(UserWarning, match="6, 12 nodes do not agree, so best_beta is None"):
        beta_sweep(LinearVAE(), spectra, [0.1, 1e5], (6, 12))
    with pytest.warns(UserWarning, match="agree at beta=4, and not at the next"):
        assert beta_sweep(LinearVAE(), spectra, [0.1, 4.0], (6, 12)).best_beta == 4.0


def test_mistakes_get_a_sentence(spectra):
    with pytest.raises(TypeError, match="PCA has no parameter beta and n_latent"):
        beta_sweep(PCA(), spectra, [1.0])
    for betas in ([], [-1.0], [np.nan]):
        with pytest.raises(ValueError, match="betas must be numbers from 0"):
            beta_sweep(LinearVAE(), spectra, betas)
    for sizes in ([], [0], [2.5]):
        with pytest.raises(ValueError, match="n_latents must be whole numbers"):
            beta_sweep(LinearVAE(), spectra, [1.0], sizes)


@pytest.mark.skipif(not can_train(), reason="no PyTorch")
def test_a_real_one(spectra):
    model = BetaVAE(
        architecture="dense", architecture_params={"hidden": (16,)}, max_iter=3, random_state=0
    )
    sweep = beta_sweep(model, spectra[:80], [0.0, 1.0], [2])
    assert sweep.mad[0.0, 2].shape == (2,) and np.isfinite(sweep.reconstruction).all().all()
    again = beta_sweep(model, spectra[:80], [1.0], [2])
    assert_array_equal(again.mad[1.0, 2], sweep.mad[1.0, 2])
    assert model.beta == 1.0 and model.n_latent == 128  # untouched
