"""Hidden layers of a trained dense network as plain numpy, with their derivatives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import expit

__all__ = ["ACTIVATIONS", "Perceptron"]

LEAK = 0.01  # slope of leaky_relu below zero


def _sigmoid(z):
    s = expit(z)
    first = s * (1 - s)
    return s, first, first * (1 - 2 * s)


def _tanh(z):
    t = np.tanh(z)
    first = 1 - t**2
    return t, first, -2 * t * first


def _silu(z):
    s = expit(z)
    bell = s * (1 - s)
    return z * s, s + z * bell, bell * (2 + z * (1 - 2 * s))


def _leaky_relu(z):
    slope = np.where(z > 0, 1.0, LEAK)
    return z * slope, slope, np.zeros_like(z)


#: name -> function ``z -> value, first and second derivative``
ACTIVATIONS = {"sigmoid": _sigmoid, "tanh": _tanh, "silu": _silu, "leaky_relu": _leaky_relu}


class Perceptron:
    """Features of a dense network: a constant, and the activations of its last hidden layer.

    Parameters
    ----------
    layers : list of (weight (n_in, n_out), bias (n_out,))
        Hidden layers, the first first.
    activation : {"sigmoid", "tanh", "silu", "leaky_relu"}

    Examples
    --------
    >>> import numpy as np
    >>> from skspec.networks import Perceptron
    >>> network = Perceptron([(np.array([[1.0, 2.0]]), np.zeros(2))], "tanh")
    >>> network(np.array([[0.5]])).round(3)
    array([[1.   , 0.462, 0.762]])
    """

    def __init__(self, layers: Sequence[tuple[np.ndarray, np.ndarray]], activation: str):
        self.layers = [(np.asarray(w, dtype=float), np.asarray(b, dtype=float)) for w, b in layers]
        self.activation = activation

    def __len__(self) -> int:
        return 1 + len(self.layers[-1][1])

    def __call__(
        self, x: np.ndarray, derivative: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Features (m, q) at inputs (m, K); with `derivative` also (m, K, q)."""
        if not derivative:
            return _after_constant(self._values(x), 1.0)
        *_, (value, _, _, slope) = self._trace(x)
        return _after_constant(value, 1.0), _after_constant(slope, 0.0)

    def curvature(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """``sum_q weight_q phi_q''`` at inputs (m, K) for weights (m, q): (m, K, K)."""
        out, pull = np.zeros(()), weight[:, 1:]
        trace = list(self._trace(x, before=True))
        for (matrix, _), (_, first, second, slope) in zip(self.layers[::-1], trace[::-1]):
            out = out + (slope * (pull * second)[:, None]) @ np.swapaxes(slope, 1, 2)
            pull = (pull * first) @ matrix.T
        return out

    def _values(self, x):
        for matrix, bias in self.layers:
            x = ACTIVATIONS[self.activation](x @ matrix + bias)[0]
        return x

    def _trace(self, x, before=False):
        """Of each layer the activations, their two derivatives, and the slope (m, K, width).

        The slope is that of the activations, or with `before` that of what enters them.
        """
        slope = np.broadcast_to(np.eye(x.shape[1]), (len(x), x.shape[1], x.shape[1]))
        for matrix, bias in self.layers:
            x, first, second = ACTIVATIONS[self.activation](x @ matrix + bias)
            inner = slope @ matrix
            slope = inner * first[:, None]
            yield x, first, second, inner if before else slope


def _after_constant(values, constant):
    column = np.full((*values.shape[:-1], 1), constant)
    return np.concatenate([column, values], axis=-1)
