"""Convolutional autoencoder of standardised spectra."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    import torch

__all__ = ["ConvolutionalAutoencoder"]


class ConvolutionalAutoencoder(nn.Module):
    """Spectra (n, channels, L) to spectra (n, orders, L) through a narrow middle.

    Four convolutions, of which three halve the length while there is anything to halve, a dense layer
    to `n_latent` numbers, and the same way back.

    Parameters
    ----------
    shape : tuple (maps, orders, L)
        See :class:`~skspec.networks.FluxScaler`.
    n_latent : int
    width : int
        Filters of the first convolution; the deepest has eight times as many.
    """

    def __init__(self, shape: tuple[int, int, int], n_latent: int, width: int = 32):
        super().__init__()
        maps, orders, length = shape
        n_halvings = min(3, max(0, length.bit_length() - 3))
        self.length, step = length, 2**n_halvings
        self.padded = -(-length // step) * step
        widths = [width * 2**k for k in range(n_halvings + 1)]
        down = [nn.Conv1d(maps * orders, width, 3, padding=1), nn.ReLU()]
        for before, after in zip(widths, widths[1:]):
            down += [nn.Conv1d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        self.down = nn.Sequential(*down, nn.Flatten())
        self.deep = (widths[-1], self.padded // step)
        self.to_latent = nn.Linear(self.deep[0] * self.deep[1], n_latent)
        self.from_latent = nn.Sequential(
            nn.Linear(n_latent, self.deep[0] * self.deep[1]), nn.ReLU()
        )
        up = []
        for before, after in zip(widths[::-1], widths[-2::-1]):
            up += [nn.ConvTranspose1d(before, after, 4, stride=2, padding=1), nn.ReLU()]
        up += [nn.Conv1d(width, width, 3, padding=1), nn.ReLU()]
        self.up = nn.Sequential(*up, nn.Conv1d(width, orders, 3, padding=1))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Latent numbers (n, n_latent)."""
        return self.to_latent(self.down(nn.functional.pad(x, (0, self.padded - self.length))))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Spectra (n, orders, L) of latent numbers."""
        deep = self.from_latent(z).reshape(len(z), *self.deep)
        return self.up(deep)[:, :, : self.length]

    def forward(self, x: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        return self.decode(self.encode(x))
