"""A network from spectra to a Gaussian over labels: denoiser, architecture, head."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from inspect import signature
from typing import Any, Self

import torch
from torch import nn

from skspec.networks._architectures import (
    AttentionNetwork,
    Dropout,
    ResidualNetwork,
    StarNet,
    StridedNetwork,
)
from skspec.networks._gaussian import GaussianHead

__all__ = ["ARCHITECTURES", "SpectralNetwork"]

ARCHITECTURES = {
    "starnet": StarNet,
    "residual": ResidualNetwork,
    "attention": AttentionNetwork,
    "strided": StridedNetwork,
}


class SpectralNetwork(nn.Module):
    """Spectra (n, channels, pixels) and noise levels (n,) to mean, d and L of the labels.

    Parameters
    ----------
    architecture : str, module class or module
        Key of ``ARCHITECTURES``; a class is called with the numbers of channels and pixels (and of
        orders, as ``n_orders``, if it takes that), a module is copied. Its output is (n, features).
    shape : tuple (maps, orders, L)
        See :class:`~skspec.networks.FluxScaler`.
    n_labels : int
    parameters : dict
        More arguments of the class.
    denoiser : module, optional
        From spectra to spectra (n, orders, L), in front of the rest; copied.
    fine_tune : bool
        Whether to train the denoiser too.
    **head
        For :class:`~skspec.networks.GaussianHead`.

    Raises
    ------
    ValueError
        When the output of the architecture is not (n, features).
    """

    def __init__(
        self,
        architecture: str | type[torch.nn.Module] | torch.nn.Module,
        shape: tuple[int, int, int],
        n_labels: int,
        *,
        parameters: Mapping[str, Any] | None = None,
        denoiser: torch.nn.Module | None = None,
        fine_tune: bool = False,
        **head: Any,
    ):
        super().__init__()
        self.shape, self.fine_tune = tuple(shape), fine_tune
        self.denoiser = deepcopy(denoiser)
        if denoiser is not None:
            self.denoiser.requires_grad_(fine_tune)
        self.body = _built(architecture, self.shape, parameters or {})
        self.head = GaussianHead(self._n_features(architecture), n_labels, **head)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.denoiser is not None and not self.fine_tune:
            self.denoiser.eval()
        return self

    def _n_features(self, architecture):
        maps, orders, length = self.shape
        device = next((p.device for p in self.body.parameters()), None)
        self.body.eval()
        with torch.no_grad():
            out = self.body(torch.zeros(2, maps * orders, length, device=device))
        self.body.train()
        if not torch.is_tensor(out) or out.ndim != 2 or len(out) != 2:
            got = tuple(out.shape) if torch.is_tensor(out) else type(out).__name__
            raise ValueError(
                f"architecture={architecture!r} must turn spectra (n, {maps * orders}, {length}) into "
                f"features (n, any number), and gave {got} for n = 2."
            )
        return out.shape[1]

    def seen(self, x: torch.Tensor) -> torch.Tensor:
        """The spectra as the architecture sees them: denoised, if there is a denoiser."""
        if self.denoiser is None:
            return x
        n_orders = self.shape[1]
        return torch.cat([self.denoiser(x), x[:, n_orders:]], dim=1)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Last hidden layer (n, features)."""
        return self.body(self.seen(x))

    def forward(
        self, x: torch.Tensor, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        return self.head(self.features(x), noise)

    def attention(self, x: torch.Tensor) -> torch.Tensor:
        """Attention (n, orders, L) of an attention network."""
        return self.body.attention(self.seen(x))

    def sample_dropout(self, on: bool) -> None:
        """Whether dropout acts in evaluation."""
        for module in self.modules():
            if isinstance(module, Dropout):
                module.sampling = on


def _built(architecture, shape, parameters):
    if isinstance(architecture, nn.Module):
        return deepcopy(architecture)
    maps, orders, length = shape
    cls = ARCHITECTURES.get(architecture, architecture)
    if "n_orders" in signature(cls).parameters:
        parameters = {"n_orders": orders} | parameters
    return cls(maps * orders, length, **parameters)
