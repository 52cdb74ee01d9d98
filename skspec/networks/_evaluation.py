"""A trained network on spectra, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from skspec.spectra import Spectra

__all__ = ["in_batches"]

BATCH = 256
MAX_BATCH_VALUES = 2**24  # numbers in a batch
MAX_DOUBLE_PRECISION = 64  # stars


def in_batches(
    module: torch.nn.Module, spectra: Spectra, inputs: Callable[..., Any]
) -> Iterator[Any]:
    """Batches of a network's input, on the device of the network.

    A few stars are evaluated in double precision: then rounding does not depend on how many they are,
    and time is no matter.

    Parameters
    ----------
    module : torch module
        In evaluation mode.
    spectra : Spectra
    inputs : callable
        From `Spectra` to a dict of arrays.

    Yields
    ------
    rows : slice
    module : torch module
        The same, or a copy of it in double precision.
    inputs : dict of tensors
    """
    device, dtype = next(module.parameters()).device, torch.float32
    if len(spectra) <= MAX_DOUBLE_PRECISION and device.type == "cpu":
        module, dtype = _in_double_precision(module), torch.float64
    size = min(BATCH, max(1, MAX_BATCH_VALUES // spectra.shape[1]))
    for start in range(0, len(spectra), size):
        rows = slice(start, start + size)
        arrays = inputs(spectra[rows])
        yield (
            rows,
            module,
            {k: torch.tensor(a, dtype=dtype, device=device) for k, a in arrays.items()},
        )


def _in_double_precision(module):
    """A copy: the network itself stays as it was trained, whoever else uses it meanwhile.

    Converting the weights on the way takes half the time of ``deepcopy(module).double()``.
    """
    converted = {}
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            double = tensor.detach().double()
            if isinstance(tensor, nn.Parameter):
                double = nn.Parameter(double, tensor.requires_grad)
            converted[id(tensor)] = double
    return deepcopy(module, converted)
