"""Few stars are evaluated in double precision, by a copy that leaves the network alone."""

from copy import deepcopy

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skspec import Spectra

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from skspec.networks import in_batches  # noqa: E402
from skspec.networks._evaluation import MAX_DOUBLE_PRECISION, _in_double_precision  # noqa: E402


@pytest.fixture
def module():
    """Layers with buffers, an integer among them, and weights that two of them share."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.Linear(8, 8), nn.Linear(8, 8))
    net[3].weight = net[2].weight
    net[1].running_mean += torch.rand(4)
    net[0].weight.requires_grad_(False)
    return net.eval()


def test_a_copy_in_double_precision(module):
    before = deepcopy(module.state_dict())
    given, wanted = _in_double_precision(module), deepcopy(module).double()
    assert given[3].weight is given[2].weight and given[1].num_batches_tracked.dtype == torch.int64
    for (name, a), (other, b) in zip(given.named_parameters(), wanted.named_parameters()):
        assert name == other and a.dtype == torch.float64 and a.requires_grad == b.requires_grad
    for name, value in given.state_dict().items():
        assert torch.equal(value, wanted.state_dict()[name])
    x = torch.rand(2, 1, 10, dtype=torch.float64)
    assert torch.equal(given(x), wanted(x))
    for name, value in module.state_dict().items():
        assert value.dtype == before[name].dtype and torch.equal(value, before[name])
    with torch.no_grad():
        given[0].bias += 1
    assert torch.equal(module[0].bias, before["0.bias"])


@pytest.mark.parametrize("n", [1, MAX_DOUBLE_PRECISION, MAX_DOUBLE_PRECISION + 1, 600])
def test_batches(module, n):
    spectra = Spectra(np.random.default_rng(0).normal(size=(n, 10)))
    with torch.inference_mode():
        parts = [
            (rows, net(**x).numpy())
            for rows, net, x in in_batches(module, spectra, lambda s: {"input": s.flux[:, None]})
        ]
    assert_array_equal(np.concatenate([np.arange(n)[rows] for rows, _ in parts]), np.arange(n))
    expected = np.dtype(np.float64 if n <= MAX_DOUBLE_PRECISION else np.float32)
    assert {out.dtype for _, out in parts} == {expected}
