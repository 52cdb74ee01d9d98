"""Noise drawn anew for every batch, so that a network never sees the same spectrum twice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from skspec._typing import Range
    from skspec.networks._flux_scaler import FluxScaler
    from skspec.spectra import Spectra

__all__ = ["FreshNoise"]


class FreshNoise:
    r"""Adds noise to the inputs of a batch: a callable for :func:`~skspec.networks.fit_network`.

    With :math:`s` the noise of a pixel at a S/N of 1, and the S/N :math:`q` of the star as observed, a
    S/N :math:`t` is drawn log-uniformly and noise of variance :math:`s^2 (t^{-2} - q^{-2})_+` is added:
    stars that are noisier already stay as they are. With ``"ivar"`` the noise is that of the errors:
    the spectra themselves are taken to have none.

    It is called with a dict of ``x`` (n, channels, L), ``unit_noise`` (n, orders, L), ``snr`` (n,) and
    perhaps the noise level ``noise`` (n,), which rises with what is added; out come ``x`` and ``noise``.

    Parameters
    ----------
    snr : "ivar", float or (low, high)
    """

    def __init__(self, snr: str | Range):
        self.snr = snr if isinstance(snr, str) else tuple(np.broadcast_to(snr, 2).tolist())

    def inputs(self, scaler: FluxScaler, spectra: Spectra) -> dict[str, np.ndarray]:
        """What it needs to know of `spectra`, scaled by `scaler`.

        Raises
        ------
        ValueError
            For "ivar", when no error is known.
        """
        if self.snr == "ivar" and not spectra.has_errors:
            raise ValueError(
                "Noise can be drawn from the errors only where there are some: pass "
                "Spectra(flux, ivar=...), or give a S/N instead of 'ivar'."
            )
        unit, snr = scaler.unit_noise(spectra)
        return {"unit_noise": unit, "snr": snr}

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        x, unit, snr = inputs["x"], inputs["unit_noise"], inputs["snr"]
        if self.snr == "ivar":
            size, grows = 1.0 / snr, torch.ones_like(snr)
        else:
            low, high = (math.log(value) for value in self.snr)
            drawn = torch.exp(low + (high - low) * torch.rand_like(snr))
            size = (drawn**-2 - snr**-2).clamp(min=0.0).sqrt()
            grows = (snr / drawn).clamp(min=1.0)
        fresh = size[:, None, None] * unit * torch.randn_like(unit)
        x = torch.cat([x[:, : unit.shape[1]] + fresh, x[:, unit.shape[1] :]], dim=1)
        if "noise" not in inputs:
            return {"x": x}
        noise = inputs["noise"]
        return {"x": x, "noise": torch.where(grows.isfinite(), noise * grows, noise)}

    def once(self, inputs: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
        """The same for arrays, with a seed of its own."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            out = self({key: torch.from_numpy(array) for key, array in inputs.items()})
        return {key: tensor.numpy() for key, tensor in out.items()}
