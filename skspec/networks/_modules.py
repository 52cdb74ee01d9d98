"""Torch modules and losses."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import nn

from skspec.networks._perceptron import LEAK

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["DenseNetwork", "WeightedLoss"]

LAYERS = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "leaky_relu": lambda: nn.LeakyReLU(LEAK),
}


class DenseNetwork(nn.Module):
    """Dense hidden layers and a linear output.

    Parameters
    ----------
    n_in, n_out : int
    hidden : sequence of int
        Widths of the hidden layers.
    activation : {"sigmoid", "tanh", "silu", "leaky_relu"}
    """

    def __init__(self, n_in: int, n_out: int, hidden: Sequence[int], activation: str):
        super().__init__()
        widths = [n_in, *hidden]
        steps = []
        for before, after in pairwise(widths):
            steps += [nn.Linear(before, after), LAYERS[activation]()]
        self.hidden = nn.Sequential(*steps)
        self.output = nn.Linear(widths[-1], n_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(self.hidden(x))

    def arrays(self) -> tuple[list[tuple[np.ndarray, np.ndarray]], tuple[np.ndarray, np.ndarray]]:
        """Hidden layers and output layer, each ``(weight (n_in, n_out), bias)``, as numpy."""
        layers = [step for step in self.hidden if isinstance(step, nn.Linear)]
        return [_arrays(layer) for layer in layers], _arrays(self.output)


def _arrays(layer):
    return tuple(p.detach().double().cpu().numpy() for p in (layer.weight.T, layer.bias))


class WeightedLoss(nn.Module):
    """Mean of ``weight * |predicted - wanted|**power``; the target is ``(wanted, weight)``."""

    def __init__(self, power: float = 2):
        super().__init__()
        self.power = power

    def forward(self, predicted: torch.Tensor, target: tuple[torch.Tensor, ...]) -> torch.Tensor:
        wanted, weight = target
        residual = predicted - wanted
        size = residual.square() if self.power == 2 else residual.abs()
        return (weight * size).mean()
