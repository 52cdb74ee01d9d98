"""Generators and critics of two domains that share a latent description (O'Briain et al. 2021)."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["Critic", "Translator"]

LEAK = 0.1
KERNEL = 7
#: filters and strides of the convolutions: of a domain, of what is shared, of what is split off
DOMAIN = ((32, 4), (64, 4))
SHARED = ((128, 4), (256, 2), (512, 2))
SPLIT = ((32, 4), (32, 2), (32, 2))
CRITIC = (16, 32, 64, 128, 256)  # of stride 4, where spectra are long enough


class Translator(nn.Module):
    r"""From spectra of two domains to what both share, and back.

    .. math:: z = E_\mathrm{sh}(E_S(x_S)), \quad z = E_\mathrm{sh}(E_O(x_O)), \quad
              s = E_\mathrm{sp}(E_O(x_O)), \\
              \hat x_S = D_S(D_\mathrm{sh}(z)), \quad
              \hat x_O = D_O(D_\mathrm{sh}(z), D_\mathrm{sp}(s)).

    Parameters
    ----------
    n_in : int
        Numbers that describe a spectrum: pixels or components.
    n_shared, n_split : int
        Latent numbers; channels of these with "convolutional".
    architecture : {"dense", "convolutional"}
        "dense": every part is the identity plus a small network, so that training begins with spectra
        that are left as they are. "convolutional": the published one.
    hidden : int
        Width of the dense layers.
    """

    def __init__(self, n_in, n_shared, n_split, architecture="dense", hidden=128):
        super().__init__()
        if architecture == "dense":
            parts = _dense_parts(n_in, n_shared, n_split, hidden)
        else:
            parts = _convolutional_parts(n_in, n_shared, n_split)
        self.encoder_s, self.encoder_o, self.shared_encoder, self.split_encoder = parts[:4]
        self.shared_decoder, self.split_decoder, self.decoder_s, self.decoder_o = parts[4:]
        self.split_shape = (n_split,)
        if architecture == "convolutional":
            self.split_shape = (n_split, _lengths(n_in, DOMAIN + SPLIT)[-1])

    def synthetic_to_shared(self, x):
        return self.shared_encoder(self.encoder_s(x))

    def observed_to_shared(self, x):
        return self.shared_encoder(self.encoder_o(x))

    def split(self, x):
        """What observed spectra have and synthetic ones have not."""
        return self.split_encoder(self.encoder_o(x))

    def to_synthetic(self, z):
        return self.decoder_s(self.shared_decoder(z))

    def to_observed(self, z, s):
        s = s.reshape(len(s), *self.split_shape)
        return self.decoder_o(torch.cat([self.shared_decoder(z), self.split_decoder(s)], dim=1))


class Critic(nn.Module):
    """Logit of a spectrum being a real one of its domain.

    The published critics see the shared latent numbers, too. The dense one does not: with them,
    translations were worse (and differed more from seed to seed).
    """

    def __init__(self, n_in, n_shared, architecture="dense", hidden=128):
        super().__init__()
        self.architecture = architecture
        if architecture == "dense":
            self.judge = _perceptron(n_in, 1, hidden)
            return
        convolutions, length = _critic_convolutions(n_in)
        self.spectrum = nn.Sequential(_Channel(), *convolutions)
        layers, before = [], n_shared
        for after in (32, 64, 128, 256, 512):
            layers += [nn.Conv1d(before, after, 1), nn.LeakyReLU(LEAK)]
            before = after
        self.latent = nn.Sequential(*layers, nn.Flatten())
        deep = _lengths(n_in, DOMAIN + SHARED)[-1]
        self.judge = nn.Linear(length + before * deep, 1)

    def forward(self, x, z):
        if self.architecture == "dense":
            return self.judge(x)
        return self.judge(torch.cat([self.spectrum(x), self.latent(z)], dim=1))


# -- dense -----------------------------------------------------------------------------------------


def _perceptron(n_in, n_out, hidden):
    return nn.Sequential(
        nn.Linear(n_in, hidden),
        nn.LeakyReLU(LEAK),
        nn.Linear(hidden, hidden),
        nn.LeakyReLU(LEAK),
        nn.Linear(hidden, n_out),
    )


class _AlmostIdentity(nn.Module):
    """The first numbers as they are, cut or filled up with zeros, plus a network that begins with 0."""

    def __init__(self, n_in, n_out, hidden, n_kept=None):
        super().__init__()
        self.n_out, self.n_kept = n_out, min(n_kept or n_in, n_out)
        self.change = _perceptron(n_in, n_out, hidden)
        nn.init.zeros_(self.change[-1].weight)
        nn.init.zeros_(self.change[-1].bias)

    def forward(self, x):
        kept = nn.functional.pad(x[:, : self.n_kept], (0, self.n_out - self.n_kept))
        return kept + self.change(x)


def _dense_parts(n_in, n_shared, n_split, hidden):
    return (
        _AlmostIdentity(n_in, n_in, hidden),
        _AlmostIdentity(n_in, n_in, hidden),
        _AlmostIdentity(n_in, n_shared, hidden),
        nn.Sequential(_perceptron(n_in, n_split, hidden), nn.BatchNorm1d(n_split, affine=False)),
        _AlmostIdentity(n_shared, n_in, hidden),
        nn.Identity(),
        _AlmostIdentity(n_in, n_in, hidden),
        _AlmostIdentity(n_in + n_split, n_in, hidden, n_kept=n_in),
    )


# -- convolutional ---------------------------------------------------------------------------------


def _convolutional_parts(n_in, n_shared, n_split):
    shared = DOMAIN + SHARED
    if _lengths(n_in, shared)[-1] < 2:
        raise ValueError(
            f"{n_in} pixels are too few for architecture='convolutional': {_fewest(shared)} are "
            "needed. Take 'dense'."
        )
    lengths, deep, more = _lengths(n_in, shared), DOMAIN[-1][0], SPLIT[0][0]
    return (
        nn.Sequential(_Channel(), _convolutions(1, DOMAIN)),
        nn.Sequential(_Channel(), _convolutions(1, DOMAIN)),
        _to_latent(deep, SHARED, n_shared),
        _to_latent(deep, SPLIT, n_split),
        _from_latent(n_shared, SHARED, deep, lengths[len(DOMAIN) :]),
        _from_latent(n_split, SPLIT, more, lengths[len(DOMAIN) :]),
        _to_spectrum(deep, lengths),
        _to_spectrum(deep + more, lengths),
    )


class _Channel(nn.Module):
    def forward(self, x):
        return x[:, None]


def _convolutions(n_in, layers):
    out = []
    for n_out, stride in layers:
        out += [nn.Conv1d(n_in, n_out, KERNEL, stride), nn.LeakyReLU(LEAK)]
        n_in = n_out
    return nn.Sequential(*out)


def _to_latent(n_in, layers, n_latent):
    last = nn.Conv1d(layers[-1][0], n_latent, 1)
    return nn.Sequential(_convolutions(n_in, layers), last, nn.InstanceNorm1d(n_latent))


def _from_latent(n_latent, layers, n_out, lengths):
    widths = [width for width, _ in layers]
    first = [nn.Conv1d(n_latent, widths[-1], 1), nn.LeakyReLU(LEAK)]
    return nn.Sequential(*first, *_transposed([n_out, *widths], layers, lengths))


def _transposed(widths, layers, lengths):
    """Convolutions the other way round, each to the length that its counterpart came from."""
    out = []
    for k in reversed(range(len(layers))):
        stride = layers[k][1]
        missing = lengths[k] - ((lengths[k + 1] - 1) * stride + KERNEL)
        out += [
            nn.ConvTranspose1d(widths[k + 1], widths[k], KERNEL, stride, output_padding=missing),
            nn.LeakyReLU(LEAK),
        ]
    return out


def _to_spectrum(n_in, lengths):
    widths = [DOMAIN[0][0], DOMAIN[0][0], n_in]
    last = [nn.Conv1d(widths[0], 1, 1), nn.Flatten()]
    return nn.Sequential(*_transposed(widths, DOMAIN, lengths[: len(DOMAIN) + 1]), *last)


def _lengths(n_in, layers):
    """Pixels before and after each convolution, which is not padded."""
    lengths = [n_in]
    for _, stride in layers:
        lengths.append((lengths[-1] - KERNEL) // stride + 1)
    return lengths


def _fewest(layers):
    """Pixels of which two are left."""
    n = 2
    for _, stride in reversed(layers):
        n = (n - 1) * stride + KERNEL
    return n


def _critic_convolutions(n_in):
    """As many convolutions as the spectrum is long enough for, and the numbers that come out."""
    layers, length, before = [], n_in, 1
    for after in CRITIC:
        if length < KERNEL:
            break
        layers += [nn.Conv1d(before, after, KERNEL, 4), nn.LeakyReLU(LEAK)]
        length, before = (length - KERNEL) // 4 + 1, after
    return nn.Sequential(*layers, nn.Flatten()), before * length
