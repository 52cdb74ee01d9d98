"""Generators and critics of two domains."""

import pytest

torch = pytest.importorskip("torch")

from skspec.networks._translation import Critic, Translator  # noqa: E402


def test_dense_networks_begin_by_leaving_spectra_as_they_are():
    torch.manual_seed(0)
    net, x = Translator(6, 8, 2, "dense", 16), torch.randn(20, 6)
    for z in (net.synthetic_to_shared(x), net.observed_to_shared(x)):
        assert z.shape == (20, 8)
        assert torch.equal(net.to_synthetic(z), x)
        assert torch.equal(net.to_observed(z, net.split(x)), x)


def test_split_numbers_have_no_scale_of_their_own():
    torch.manual_seed(0)
    s = Translator(6, 4, 3, "dense", 16).split(torch.randn(500, 6))
    assert torch.allclose(s.mean(0), torch.zeros(3), atol=1e-4)
    assert torch.allclose(s.std(0), torch.ones(3), atol=0.05)


@pytest.mark.parametrize("n_pixels", [1535, 1600, 2049])
def test_convolutions_lead_back_to_every_length(n_pixels):
    net, x = Translator(n_pixels, 5, 2, "convolutional"), torch.randn(2, n_pixels)
    z, s = net.observed_to_shared(x), net.split(x)
    assert z.shape[1] == 5 and s.shape[1] == 2
    assert net.to_observed(z, s.flatten(1)).shape == net.to_synthetic(z).shape == x.shape
    assert Critic(n_pixels, 5, "convolutional")(x, z).shape == (2, 1)


def test_the_published_size():
    """O'Briain et al. 2021: 7167 pixels, 25 x 24 shared and 4 x 24 split numbers."""
    net = Translator(7167, 25, 4, "convolutional")
    x = torch.zeros(1, 7167)
    assert net.observed_to_shared(x).shape == (1, 25, 24)
    assert net.split(x).shape == (1, 4, 24)

    def count(module):
        return sum(p.numel() for p in module.parameters())

    assert count(net.encoder_s) == count(net.encoder_o) == 14_656
    assert count(net.shared_encoder) == 1_217_945
    assert count(net.split_encoder) == 28_900
    assert count(Critic(7167, 25, "convolutional")) == pytest.approx(495_000, rel=0.001)


def test_too_few_pixels():
    with pytest.raises(ValueError, match="1534 pixels are too few .* 1535 are needed"):
        Translator(1534, 5, 2, "convolutional")
