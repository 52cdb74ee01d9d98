import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.stats import norm

from skspec.solvers.statistics.gaussian_divergence import gaussian_divergence


@pytest.mark.parametrize("mean, std", [(0.0, 1.0), (1.3, 0.2), (-0.4, 2.5)])
def test_against_the_integral(mean, std):
    here = norm(mean, std)
    wanted = quad(
        lambda x: here.pdf(x) * (here.logpdf(x) - norm.logpdf(x)), -20, 20, points=[mean]
    )[0]
    assert_allclose(gaussian_divergence(mean, std**2, 2 * np.log(std)), wanted, atol=1e-7)


def test_of_tensors():
    torch = pytest.importorskip("torch")
    mean, log_variance = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    given = gaussian_divergence(mean, log_variance.exp(), log_variance)
    normal = torch.distributions.Normal
    wanted = torch.distributions.kl_divergence(
        normal(mean, (0.5 * log_variance).exp()), normal(0.0, 1.0)
    )
    assert_allclose(given, wanted, rtol=1e-5, atol=1e-6)
