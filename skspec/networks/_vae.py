"""Variational autoencoder of standardised spectra, and its loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from skspec.solvers.statistics.gaussian_divergence import gaussian_divergence

__all__ = ["EvidenceLoss", "VariationalAutoencoder"]

LEAK = 0.1
WIDTHS = (16, 16, 16, 32, 32, 32, 64, 64, 64, 128, 128, 128, 256, 512)  # Sedaghat et al. 2021
SIZES = (7, 5, 5)  # of the first kernels; the others have 3
MIN_PIXELS = 20  # pixels that are left where the convolutions end
LOG_VARIANCE = (-16.0, 6.0)
FIRST_SCATTER = 0.3  # of the residuals, in standard deviations of a mean pixel
GAIN = 10.0  # the scatter has far to go, and learns so much faster than the network


class VariationalAutoencoder(nn.Module):
    """Spectra (n, channels, L) to a Gaussian of each of `n_latent` numbers, and back.

    Parameters
    ----------
    shape : tuple (maps, orders, L)
        See :class:`~skspec.networks.FluxScaler`.
    n_latent : int
    architecture : {"convolutional", "dense", "harps"}
        "harps" is "convolutional" with the 14 strides of the published network, whatever L.
    parameters : dict, optional
        Of the architecture: see :class:`ConvolutionalCoder`, :class:`DenseCoder`.
    sampled : bool
        False: an autoencoder without a posterior.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        n_latent: int,
        architecture: str,
        parameters: Mapping[str, Any] | None = None,
        sampled: bool = True,
    ):
        super().__init__()
        parameters = dict(parameters or {})
        if architecture == "harps":
            parameters = {"depth": len(WIDTHS)} | parameters
        coder = DenseCoder if architecture == "dense" else ConvolutionalCoder
        self.coder = coder(shape, **parameters)
        self.mean = nn.Linear(self.coder.n_deep, n_latent)
        self.log_variance = nn.Linear(self.coder.n_deep, n_latent) if sampled else None
        self.start = nn.Linear(n_latent, self.coder.n_deep)
        n_in, n_out = shape[0] * shape[1] * shape[2], shape[1] * shape[2]
        self.straight = None
        if getattr(self.coder, "straight", False):
            ways = nn.Linear(n_in, n_latent, bias=False), nn.Linear(n_latent, n_out, bias=False)
            self.straight = nn.ModuleList(ways)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Means and logarithms of the variances (n, n_latent) of the posterior; None without one."""
        deep = self.coder.down(x)
        mean = self.mean(deep)
        if self.straight is not None:
            mean = mean + self.straight[0](x.flatten(1))
        if self.log_variance is None:
            return mean, None
        return mean, self.log_variance(deep).clamp(*LOG_VARIANCE)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Spectra (n, orders, L)."""
        flux = self.coder.up(self.start(z))
        if self.straight is not None:
            flux = flux + self.straight[1](z).reshape(flux.shape)
        return flux

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        mean, log_variance = self.encode(x)
        z = mean
        if log_variance is not None:
            z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        return self.decode(z), mean, log_variance


class ConvolutionalCoder(nn.Module):
    """Convolutions of stride 2 until some 20 pixels are left, and the same way back.

    The spectrum is padded with zeros at both ends.

    Parameters
    ----------
    shape : tuple (maps, orders, L)
    depth : int, optional
        Number of strides; default: as many as leave at least 20 pixels, at most 14.
    width : int
        Filters of the first convolution; the deepest of the 14 has 32 times as many.
    """

    def __init__(self, shape, depth=None, width=16):
        super().__init__()
        maps, orders, length = shape
        if depth is None:
            depth = max(0, min(len(WIDTHS), (length // MIN_PIXELS).bit_length() - 1))
        widths = [w * width // 16 for w in WIDTHS[:depth]] or [width]
        step = 2**depth
        self.length, left = length, -(-length // step)
        if depth == len(WIDTHS):
            left = max(left, MIN_PIXELS)
        missing = left * step - length
        self.margin = (missing // 2, missing - missing // 2)
        down, before = [], maps * orders
        for k, after in enumerate(widths[:depth]):
            size = SIZES[k] if k < len(SIZES) else 3
            down += [
                nn.Conv1d(before, after, size, stride=2, padding=size // 2),
                nn.LeakyReLU(LEAK),
            ]
            before = after
        down += [nn.Conv1d(before, widths[-1], 3, padding=1), nn.LeakyReLU(LEAK)]
        self.encoder = nn.Sequential(*down, nn.Flatten())
        self.deep = (widths[-1], left)
        self.n_deep = widths[-1] * left
        up = [nn.LeakyReLU(LEAK), nn.ConvTranspose1d(widths[-1], widths[-1], 3, padding=1)]
        for before, after in zip(widths[:depth][::-1], [*widths[:depth][-2::-1], orders]):
            up += [nn.LeakyReLU(LEAK), nn.ConvTranspose1d(before, after, 4, stride=2, padding=1)]
        last = orders if depth else widths[-1]
        self.decoder = nn.Sequential(*up, nn.Conv1d(last, orders, 3, padding=1))
        _initialise(self)

    def down(self, x):
        return self.encoder(F.pad(x, self.margin))

    def up(self, deep):
        flux = self.decoder(deep.reshape(len(deep), *self.deep))
        return flux[:, :, self.margin[0] : self.margin[0] + self.length]


def _initialise(module):
    """Weights that keep the size of a signal through many leaky layers (He et al. 2015)."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv1d, nn.ConvTranspose1d)):
            nn.init.kaiming_normal_(layer.weight, a=LEAK, nonlinearity="leaky_relu")
            nn.init.zeros_(layer.bias)


class DenseCoder(nn.Module):
    """Dense layers to the latent numbers and back: fast on a CPU, for spectra of a few thousand pixels.

    Parameters
    ----------
    shape : tuple (maps, orders, L)
    hidden : sequence of int
        Widths on the way down.
    straight : bool
        Linear paths beside the layers: better for a few hundred stars, but what collapses is then slow
        to do so.
    """

    def __init__(self, shape, hidden=(512, 256), straight=False):
        super().__init__()
        self.straight = straight
        maps, orders, length = shape
        self.out, self.n_deep = (orders, length), hidden[-1]
        widths = [maps * orders * length, *hidden]
        down = [nn.Flatten()]
        for before, after in zip(widths, hidden):
            down += [nn.Linear(before, after), nn.SiLU()]
        self.down = nn.Sequential(*down)
        up = [nn.SiLU()]
        for before, after in zip(hidden[::-1], hidden[-2::-1]):
            up += [nn.Linear(before, after), nn.SiLU()]
        self.last = nn.Sequential(*up, nn.Linear(hidden[0], orders * length))

    def up(self, deep):
        return self.last(deep).reshape(len(deep), *self.out)


class EvidenceLoss(nn.Module):
    r"""Negative evidence lower bound of spectra x, with a weight on its second term.

    .. math:: \sum_j \tfrac12 \left[\frac{(x_j - \hat x_j)^2}{\sigma_j^2 + s_j^2}
              + \ln(\sigma_j^2 + s_j^2)\right]
              + \beta \sum_d \tfrac12 \left[\mu_d^2 + \varsigma_d^2 - 1 - \ln \varsigma_d^2\right]

    over good pixels and latent numbers, averaged over stars and divided by the number of pixels. The
    scatter :math:`s_j` of each pixel, what no latent number explains, is learned.

    Parameters
    ----------
    shape : tuple (orders, L)
    beta : float
    reduction : {"sum", "mean"}
        Of the first term over good pixels.
    """

    def __init__(self, shape: tuple[int, int], beta: float = 1.0, reduction: str = "sum"):
        super().__init__()
        self.beta, self.reduction = beta, reduction
        self.log_scatter = nn.Parameter(torch.zeros(shape))

    @property
    def scatter(self) -> torch.Tensor:
        """Of each pixel (orders, L), in the units of x."""
        return FIRST_SCATTER * (GAIN * self.log_scatter).exp()

    def terms(
        self, predicted: tuple[torch.Tensor, ...], x: torch.Tensor, variance: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Misfit of each star, reduced over good pixels, and its divergence from the prior."""
        flux, mean, log_variance = predicted
        variance = variance.expand_as(x)
        good = variance.isfinite()
        variance = torch.where(good, variance, 1.0) + self.scatter.square()
        misfit = 0.5 * ((x - flux).square() / variance + variance.log()) * good
        misfit = misfit.sum(dim=(1, 2))
        if self.reduction == "mean":
            misfit = misfit / good.sum(dim=(1, 2)).clamp(min=1)
        if log_variance is None:
            return misfit, torch.zeros_like(misfit)
        kl = gaussian_divergence(mean, log_variance.exp(), log_variance)
        return misfit, kl.sum(dim=1)

    def forward(
        self, predicted: tuple[torch.Tensor, ...], target: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """Of a batch; the target is (x, variance, weight), the variance of a bad pixel infinite."""
        x, variance, weight = target
        misfit, kl = self.terms(predicted, x, variance)
        size = 1 if self.reduction == "mean" else self.log_scatter.numel()
        return (weight * (misfit + self.beta * kl)).mean() / size
