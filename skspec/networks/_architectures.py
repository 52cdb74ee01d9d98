"""Networks from standardised spectra (n, channels, pixels) to features, one class each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["AttentionNetwork", "Dropout", "ResidualNetwork", "StarNet", "StridedNetwork"]


class Dropout(nn.Dropout):
    """Dropout that can also be asked for in evaluation: then all stars lose the same features.

    Set ``sampling`` for that. A star's prediction does not depend on its companions in the batch.
    """

    sampling = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training or not self.sampling or self.p == 0:
            return super().forward(x)
        kept = torch.rand(x.shape[1:], device=x.device) >= self.p
        return x * kept / (1 - self.p)


def _dense(n_in, widths, dropout, last=None, layer=nn.ReLU):
    """Dense layers with dropout; `last` is that after the last of them."""
    layers = []
    for k, width in enumerate(widths):
        layers += [nn.Linear(n_in, width), layer()]
        final = last is not None and k == len(widths) - 1
        layers.append(Dropout(last if final else dropout))
        n_in = width
    return nn.Sequential(*layers)


def _initialise(module):
    """He's initial weights, for layers followed by a ReLU."""
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class StridedNetwork(nn.Module):
    """Two convolutions with strides, and dense layers: fast, for long spectra.

    Parameters
    ----------
    n_channels, n_pixels : int
    n_filters : sequence of int
        Of each convolution; none leaves dense layers alone, of which the first sees every pixel.
    kernel_sizes, strides : sequence of int
        Of each convolution; a short spectrum is not strided over.
    hidden : sequence of int
        Widths of the dense layers.
    dropout : float
        After the dense layers.
    """

    def __init__(
        self,
        n_channels: int,
        n_pixels: int,
        *,
        n_filters: Sequence[int] = (8, 16),
        kernel_sizes: Sequence[int] = (16, 8),
        strides: Sequence[int] = (4, 4),
        hidden: Sequence[int] = (256, 128),
        dropout: float = 0.0,
    ):
        super().__init__()
        layers, before = [], n_channels
        for width, size, stride in zip(n_filters, kernel_sizes, strides):
            stride = min(stride, max(1, n_pixels // size))
            around = nn.ConstantPad1d(((size - 1) // 2, size // 2), 0.0)
            layers += [around, nn.Conv1d(before, width, size, stride), nn.SiLU()]
            before, n_pixels = width, (n_pixels - 1) // stride + 1
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        self.dense = _dense(before * n_pixels, hidden, dropout, layer=nn.SiLU)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(self.convolutions(x))


class StarNet(nn.Module):
    """Two convolutions, a pool and two dense layers (Fabbro et al. 2018).

    Parameters
    ----------
    n_channels, n_pixels : int
    n_filters : (int, int)
    kernel_size : int
    pool : int
    hidden : sequence of int
        Widths of the dense layers.
    dropout : float
        After the dense layers; none as published.
    """

    def __init__(
        self,
        n_channels: int,
        n_pixels: int,
        *,
        n_filters: Sequence[int] = (4, 16),
        kernel_size: int = 8,
        pool: int = 4,
        hidden: Sequence[int] = (256, 128),
        dropout: float = 0.0,
    ):
        super().__init__()
        convolutions, before = [], n_channels
        for width in n_filters:
            around = nn.ConstantPad1d(((kernel_size - 1) // 2, kernel_size // 2), 0.0)
            convolutions += [around, nn.Conv1d(before, width, kernel_size), nn.ReLU()]
            before = width
        length = min(pool, n_pixels)
        self.convolutions = nn.Sequential(*convolutions, nn.MaxPool1d(length), nn.Flatten())
        n_flat = before * (n_pixels // length)
        self.dense = _dense(n_flat, hidden, dropout)
        _initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(self.convolutions(x))


class _ResidualBlock(nn.Module):
    def __init__(self, width, n_pixels, dropout):
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv1d(width, width, 7, padding=3),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Conv1d(width, width, 5, padding=2),
            nn.BatchNorm1d(width),
        )
        self.n_pixels = n_pixels // min(4, n_pixels)
        self.after = nn.Sequential(nn.AvgPool1d(min(4, n_pixels)), nn.ReLU(), Dropout(dropout))

    def forward(self, x):
        return self.after(x + self.path(x))


class ResidualNetwork(nn.Module):
    """Residual convolutions over all orders at once, as channels.

    Parameters
    ----------
    n_channels, n_pixels : int
    width : int
        Filters of each convolution; the time goes with its square.
    n_blocks : int
        Each with two convolutions, a skip, and a pool over 4 pixels.
    hidden : sequence of int
        Widths of the dense layers.
    dropout : float
        After each block and each dense layer but the last. The published network has 0.3, which here
        shrank predictions towards the mean and doubled the errors.
    """

    def __init__(
        self,
        n_channels: int,
        n_pixels: int,
        *,
        width: int = 128,
        n_blocks: int = 4,
        hidden: Sequence[int] = (1024, 1024, 512),
        dropout: float = 0.0,
    ):
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv1d(n_channels, width, 7, padding=3), nn.BatchNorm1d(width), nn.ReLU()
        )
        blocks = []
        for _ in range(n_blocks):
            blocks.append(_ResidualBlock(width, n_pixels, dropout))
            n_pixels = blocks[-1].n_pixels
        self.blocks = nn.Sequential(*blocks, nn.Flatten())
        self.dense = _dense(width * n_pixels, hidden, dropout, last=0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(self.blocks(self.first(x)))


def _convolutions(n_in, n_out, number):
    layers = []
    for _ in range(number):
        layers += [
            nn.Conv2d(n_in, n_out, (1, 15), padding=(0, 7)),
            nn.BatchNorm2d(n_out),
            nn.ReLU(),
        ]
        n_in = n_out
    return nn.Sequential(*layers)


class AttentionGate(nn.Module):
    r"""Additive attention of a coarse map g on a finer one x (Oktay et al. 2018).

    .. math:: q = \psi^T \mathrm{ReLU}(W_x x + W_g g + b) + b_\psi

    and :math:`\alpha` is its sigmoid, or its softmax over all positions. Out comes the mean over
    positions of :math:`\alpha x`, or for the softmax the sum.

    Parameters
    ----------
    n_fine, n_coarse : int
        Channels of x and g.
    gate : {"sigmoid", "softmax"}
    width : int
        Channels of the attention.
    """

    def __init__(self, n_fine, n_coarse, gate, width=4):
        super().__init__()
        self.gate = gate
        self.fine = nn.Conv2d(n_fine, width, 1)
        self.coarse = nn.Conv2d(n_coarse, width, 1, bias=False)
        self.psi = nn.Conv2d(width, 1, 1)

    def attention(self, x, g):
        """Attention alpha (n, 1, orders, pixels)."""
        g = F.interpolate(self.coarse(g), size=x.shape[2:], mode="bilinear", align_corners=False)
        q = self.psi(F.relu(self.fine(x) + g))
        if self.gate == "sigmoid":
            return torch.sigmoid(q)
        return torch.softmax(q.flatten(1), dim=1).reshape(q.shape)

    def forward(self, x, g):
        seen = self.attention(x, g) * x
        return seen.mean(dim=(2, 3)) if self.gate == "sigmoid" else seen.sum(dim=(2, 3))


class AttentionNetwork(nn.Module):
    """Convolutions along the orders, and attention gates that choose the pixels that count.

    Features at three resolutions are gated by the coarsest ones and averaged over all pixels. Pools
    are along the spectrum only: neighbouring orders are not mixed.

    Parameters
    ----------
    n_channels, n_pixels : int
        Channels are maps times orders.
    n_orders : int
    width : int
        Filters of the first convolution, half those of the others; the time goes with its square.
    gate : {"sigmoid", "softmax"}
        See :class:`AttentionGate`.
    """

    def __init__(
        self,
        n_channels: int,
        n_pixels: int,
        *,
        n_orders: int = 1,
        width: int = 64,
        gate: str = "sigmoid",
    ):
        super().__init__()
        self.image = (n_channels // n_orders, n_orders, n_pixels)
        wide = 2 * width
        first = [*_convolutions(self.image[0], width, 1), *_convolutions(width, wide, 1)]
        self.fine = nn.Sequential(*first)
        pools = [
            nn.MaxPool2d((1, min(2, n_pixels))),
            nn.MaxPool2d((1, min(2, max(n_pixels // 2, 1)))),
        ]
        self.middle = nn.Sequential(pools[0], *_convolutions(wide, wide, 3))
        self.coarse = nn.Sequential(pools[1], *_convolutions(wide, wide, 3))
        self.last = _convolutions(wide, wide, 3)
        self.gates = nn.ModuleList(AttentionGate(wide, wide, gate) for _ in range(3))

    def _maps(self, x):
        fine = self.fine(x.reshape(len(x), *self.image))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        return (fine, middle, coarse), self.last(coarse)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps, g = self._maps(x)
        return torch.cat([gate(x, g) for gate, x in zip(self.gates, maps)], dim=1)

    def attention(self, x: torch.Tensor) -> torch.Tensor:
        """Mean of the three attention maps, each relative to its mean: (n, orders, pixels)."""
        maps, g = self._maps(x)
        total = 0.0
        for gate, x in zip(self.gates, maps):
            alpha = gate.attention(x, g)
            alpha = alpha / alpha.mean(dim=(2, 3), keepdim=True)
            total = total + F.interpolate(
                alpha, size=self.image[1:], mode="bilinear", align_corners=False
            )
        return total[:, 0] / len(self.gates)
