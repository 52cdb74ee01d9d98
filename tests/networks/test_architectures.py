import numpy as np
import pytest
from numpy.testing import assert_allclose

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from skspec.networks import (  # noqa: E402
    AttentionNetwork,
    ConvolutionalAutoencoder,
    Dropout,
    ResidualNetwork,
    SpectralNetwork,
    StarNet,
    StridedNetwork,
)

SMALL = {
    "starnet": {"hidden": (16, 8)},
    "strided": {"hidden": (16, 8)},
    "attention": {"width": 4},
    "residual": {"width": 4, "hidden": (16, 8)},
}


def network(architecture, shape=(2, 1, 40), **options):
    torch.manual_seed(0)
    settings = {"covariance": "diagonal", "knows_noise": False} | options
    parameters = SMALL.get(architecture) if isinstance(architecture, str) else None
    return SpectralNetwork(architecture, shape, 3, parameters=parameters, **settings).eval()


@pytest.mark.parametrize("n_pixels", [1, 2, 3, 5, 8, 17, 64])
@pytest.mark.parametrize("architecture", SMALL)
def test_any_number_of_pixels_and_orders(architecture, n_pixels):
    for maps, orders in ((1, 1), (2, 1), (2, 3)):
        net = network(architecture, (maps, orders, n_pixels))
        mean, variance, factor = net(torch.randn(4, maps * orders, n_pixels))
        assert mean.shape == variance.shape == (4, 3)
        assert factor is None
        net.train()(torch.randn(4, maps * orders, n_pixels))[0].sum().backward()


def test_published_starnet():
    net = StarNet(1, 7214)
    head = 3 * 128 + 3
    assert sum(p.numel() for p in net.parameters()) + head == 7_419_191


def test_published_residual_network_ends_with_2048_features():
    assert ResidualNetwork(8, 4096, hidden=(8,)).dense[0].in_features == 2048


def test_published_autoencoder_halves_three_times():
    net = ConvolutionalAutoencoder((1, 8, 4096), 100)
    assert net.deep == (256, 512)
    assert net.to_latent.out_features == 100


@pytest.mark.parametrize("n_pixels", [1, 2, 7, 8, 9, 33])
def test_autoencoder_gives_back_the_shape(n_pixels):
    net = ConvolutionalAutoencoder((2, 3, n_pixels), 4, width=2)
    assert net(torch.randn(5, 6, n_pixels)).shape == (5, 3, n_pixels)


@pytest.mark.parametrize("gate", ["sigmoid", "softmax"])
def test_attention_is_relative_and_decides(gate):
    torch.manual_seed(0)
    net = AttentionNetwork(2, 32, n_orders=2, width=4, gate=gate).eval()
    x = torch.randn(5, 2, 32)
    attention = net.attention(x)
    assert attention.shape == (5, 2, 32)
    assert (attention >= 0).all()
    assert_allclose(attention.mean(dim=(1, 2)).detach(), 1, atol=0.05)
    coarse = net._maps(x)[1]
    features = torch.randn(5, 8, 2, 32)
    alpha = net.gates[0].attention(features, coarse)
    out = net.gates[0](features, coarse)
    if gate == "softmax":
        assert_allclose(alpha.sum(dim=(1, 2, 3)).detach(), 1, rtol=1e-5)
        assert_allclose(out.detach(), (alpha * features).sum(dim=(2, 3)).detach(), rtol=1e-5)
    else:
        assert (alpha < 1).all()
        assert_allclose(out.detach(), (alpha * features).mean(dim=(2, 3)).detach(), rtol=1e-5)


def test_orders_are_not_mixed_before_the_attention():
    torch.manual_seed(0)
    net = AttentionNetwork(3, 16, n_orders=3, width=2).eval()
    x = torch.randn(1, 3, 16)
    other = x.clone()
    other[:, 1] += 1
    (one, _), (two, _) = net._maps(x), net._maps(other)
    for first, second in zip(one, two):
        assert torch.equal(first[:, :, [0, 2]], second[:, :, [0, 2]])
        assert not torch.equal(first[:, :, 1], second[:, :, 1])


def test_dropout_on_request_is_the_same_for_all_stars():
    layer = Dropout(0.5).eval()
    x = torch.ones(6, 50)
    assert torch.equal(layer(x), x)
    layer.sampling = True
    out = layer(x)
    assert torch.equal(out, out[:1].expand(6, 50))
    assert set(out.unique().tolist()) == {0.0, 2.0}
    assert Dropout(0.0).eval()(x) is x


def test_a_module_of_ones_own():
    class Mean(nn.Module):
        def __init__(self, n_channels, n_pixels):
            super().__init__()
            self.unit = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.unit * x.mean(dim=2)

    given = Mean(2, 40)
    for architecture in (Mean, given):
        net = network(architecture)
        assert net.head.mean.in_features == 2
        assert net.body is not given
    for bad, got in ((nn.Identity(), r"\(2, 2, 40\)"), (nn.LSTM(40, 3), "tuple")):
        with pytest.raises(ValueError, match=rf"into features .n, any number., and gave {got}"):
            network(bad)


def test_denoiser_frozen_or_tuned():
    denoiser = ConvolutionalAutoencoder((2, 1, 40), 4, width=2)
    x = torch.randn(3, 2, 40)
    for fine_tune in (False, True):
        net = network("strided", denoiser=denoiser, fine_tune=fine_tune).train()
        assert net.denoiser is not denoiser
        assert net.denoiser.training == fine_tune
        assert torch.equal(net.seen(x)[:, 1:], x[:, 1:])  # the mask
        net(x)[0].sum().backward()
        assert all((p.grad is not None) == fine_tune for p in net.denoiser.parameters())
    assert all(p.requires_grad for p in denoiser.parameters())


def test_seeded_by_torch():
    first, second = network("starnet"), network("starnet")
    for a, b in zip(first.parameters(), second.parameters()):
        assert torch.equal(a, b)
    assert np.isfinite(StridedNetwork(1, 5)(torch.randn(2, 1, 5)).detach().numpy()).all()
