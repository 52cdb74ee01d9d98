import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal

torch = pytest.importorskip("torch")

from skspec.networks import GaussianHead, GaussianLoss  # noqa: E402


def draw(n, n_labels, seed, full=True):
    rng = np.random.default_rng(seed)
    mean, y = rng.normal(size=(2, n, n_labels))
    variance = rng.uniform(0.1, 3, (n, n_labels))
    factor = np.tril(rng.normal(size=(n, n_labels, n_labels)), -1) * full + np.eye(n_labels)
    return y, mean, variance, factor


@settings(max_examples=20, deadline=None)
@given(n_labels=st.integers(1, 6), seed=st.integers(0, 99), full=st.booleans())
def test_likelihood_is_that_of_scipy(n_labels, seed, full):
    y, mean, variance, factor = draw(5, n_labels, seed, full)
    cov = factor * variance[:, None] @ np.swapaxes(factor, 1, 2)
    wanted = -np.mean([multivariate_normal(m, c).logpdf(x) for x, m, c in zip(y, mean, cov)])
    tensors = [torch.tensor(a) for a in (mean, variance, factor)]
    assert_allclose(GaussianLoss()(tensors, torch.tensor(y)), wanted)
    if not full:  # independent labels are a special case
        assert_allclose(GaussianLoss()((*tensors[:2], None), torch.tensor(y)), wanted)


def test_validation_with_rescaled_variance():
    y, mean, variance, factor = (torch.tensor(a) for a in draw(5000, 2, 1))
    losses = [
        float(GaussianLoss(rescale=r).eval()((mean, variance * v, factor), y))
        for r in (False, True)
        for v in (1.0, 9.0)
    ]
    assert losses[1] != pytest.approx(losses[0], rel=0.01)
    assert losses[3] == pytest.approx(losses[2], rel=1e-3)
    assert losses[2] < min(losses[:2])
    assert float(GaussianLoss(rescale=True)((mean, variance, factor), y)) == losses[0]  # training
    one = GaussianLoss(rescale=True).eval()((y[:1], variance[:1], factor[:1]), y[:1])
    assert np.isfinite(float(one))


def test_beta_weighs_the_terms_by_the_variance():
    y, mean, variance, _ = (torch.tensor(a) for a in draw(9, 2, 0, full=False))
    mean.requires_grad_()
    loss = GaussianLoss(beta=1.0)
    (slope,) = torch.autograd.grad(loss((mean, variance, None), y), mean)
    assert_allclose(slope, (mean - y).detach() / 9)  # that of least squares
    loss.eval()  # validated by the likelihood itself
    assert loss((mean, variance, None), y) == GaussianLoss()((mean, variance, None), y)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
@pytest.mark.parametrize("n_labels", [1, 3])
def test_more_noise_never_narrows(covariance, n_labels):
    torch.manual_seed(0)
    head = GaussianHead(7, n_labels, covariance, knows_noise=True)
    features = torch.randn(20, 7)
    last = 0.0
    for noise in (0.0, 0.1, 1.0, 30.0):
        mean, variance, factor = head(features, torch.full((20,), noise))
        total = variance if factor is None else (factor**2 @ variance[:, :, None])[:, :, 0]
        assert (total > last).all()
        last = total
        assert (mean == head(features, torch.ones(20))[0]).all()
    assert (factor is None) == (covariance == "diagonal" or n_labels == 1)


def test_without_noise_there_is_one_variance():
    head = GaussianHead(7, 2, "diagonal", knows_noise=False)
    assert head.photon is None
    assert (head(torch.zeros(1, 7))[1] > 0).all()
