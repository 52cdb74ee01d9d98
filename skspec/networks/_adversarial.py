"""Training of translators against critics, with unpaired spectra of two domains."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from skspec._short_repr import ShortRepr
from skspec.networks._checkpoint import StateFile, random_states, set_random_states
from skspec.networks._training import limited_threads
from skspec.networks._translation import Critic, Translator

if TYPE_CHECKING:
    from skspec._typing import PathLike

__all__ = ["LOSSES", "Domain", "distance", "fit_translator"]

#: of every block of steps
LOSSES = (
    "synthetic",
    "synthetic_cycle",
    "observed",
    "observed_cycle",
    "adversarial",
    "critic",
)
BLOCK = 100  # steps whose mean losses are kept
DIVERGED = 10.0  # times the smallest distance of a block so far
BETAS = (0.5, 0.999)
MAX_GRADIENT_NORM = 10.0


@dataclass
class Domain(ShortRepr):
    """Spectra of one domain, as tensors on the device.

    Attributes
    ----------
    x : (n, q)
        Standardised pixels, or components.
    metric : (n, q), (n, q, q) or None
        Weights that make :func:`distance` a mean of squared residuals over errors.
    noise : (n, q), (n, q, q) or None
        Factors that make noise like that of each star from independent normal numbers.
    """

    x: torch.Tensor
    metric: torch.Tensor | None = None
    noise: torch.Tensor | None = None

    @classmethod
    def on(cls, device: str, *arrays: np.ndarray | None) -> Domain:
        return cls(*(a if a is None else torch.as_tensor(a).to(device) for a in arrays))


def distance(a, b, metric):
    """``(a - b)^T M (a - b)`` of each star, averaged over stars; a matrix of (n, q) is diagonal."""
    difference = a - b
    return (difference * _times(metric, difference)).sum(dim=1).mean()


def _times(matrix, vector):
    if matrix.ndim == 2:
        return matrix * vector
    return torch.einsum("nij,nj->ni", matrix, vector)


def fit_translator(
    synthetic: Domain,
    observed: Domain,
    *,
    n_shared: int,
    n_split: int,
    architecture: str,
    parameters: Mapping[str, Any],
    weights: tuple[float, float, float],
    n_steps: int,
    batch_size: int,
    learning_rate: float,
    device: str,
    seed: int,
    n_threads: int | None = None,
    checkpoint: PathLike | None = None,
    checkpoint_every: float = 60.0,
    on_block: Callable = lambda: None,
) -> tuple[Any, dict[str, np.ndarray], bool]:
    r"""Train a translator and its critics by turns, with Adam.

    With :math:`d` the :func:`distance`, :math:`S \to O` a synthetic star translated with the split
    latents of an observed one of the batch, :math:`C` the critics' probability and
    :math:`w` the weights, the translator minimises

    .. math:: w_S [d(S \to S) + d(S \to O \to S)] + w_O [d(O \to O) + d(O \to S \to O)]
              - w_A \ln C_O(S \to O) - w_A \ln C_S(O \to S),

    the critics the cross-entropy of telling these from the reconstructions. Where synthetic spectra have
    no metric of their own, they get noise and metric of an observed star, drawn anew each time.

    Parameters
    ----------
    synthetic, observed : Domain
    n_shared, n_split, architecture, parameters
        Of :class:`Translator`.
    weights : (float, float, float)
        :math:`w_S, w_O, w_A`.
    n_steps, batch_size, learning_rate
        The learning rate falls to zero along a cosine.
    device, seed, n_threads, checkpoint, checkpoint_every
        See :func:`~skspec.networks.fit_network`.
    on_block : callable
        Called after every 100 steps.

    Returns
    -------
    translator : Translator
        In evaluation mode.
    history : dict of ndarray
        Mean of each of `LOSSES` over blocks of 100 steps.
    diverged : bool
        Whether training was stopped because of losses that grew tenfold or were not finite; the
        translator is then that of the best block.

    Raises
    ------
    ValueError
        When they were not finite from the first block on.
    """
    settings = {k: v for k, v in locals().items() if k in _SHAPING}
    settings |= {"synthetic": vars(synthetic), "observed": vars(observed)}
    with torch.random.fork_rng(devices=_gpus(device)), limited_threads(n_threads):
        torch.manual_seed(seed)
        duel = _Duel(synthetic, observed, settings).to(device)
        file = None
        if checkpoint is not None:
            file = StateFile(checkpoint, checkpoint_every, settings)
            duel.take_up(file.read())
        for _ in duel.history:
            on_block()
        while not duel.is_over:
            duel.block()
            on_block()
            if file is not None and (file.is_due or duel.is_over):
                file.save(**duel.state())
    history = dict(zip(LOSSES, np.array(duel.history).reshape(-1, len(LOSSES)).T))
    return duel.result(), history, duel.diverged


_SHAPING = {
    "n_shared",
    "n_split",
    "architecture",
    "parameters",
    "weights",
    "n_steps",
    "batch_size",
    "learning_rate",
    "seed",
}


def _gpus(device):
    return [torch.device(device)] if torch.device(device).type == "cuda" else []


class _Duel(nn.Module):
    """Translator, critics and what trains them."""

    def __init__(self, synthetic, observed, settings):
        super().__init__()
        self.data, self.settings = (synthetic, observed), settings
        n_in, architecture = synthetic.x.shape[1], settings["architecture"]
        n_shared, parameters = settings["n_shared"], settings["parameters"]
        self.translator = Translator(
            n_in, n_shared, settings["n_split"], architecture, **parameters
        )
        self.critics = nn.ModuleList(
            Critic(n_in, n_shared, architecture, **parameters) for _ in range(2)
        )
        self.history, self.best, self.diverged = [], None, False

    def to(self, device):
        super().to(device)  # before the optimizers, which hold the parameters
        rate, n_steps = self.settings["learning_rate"], self.settings["n_steps"]
        parts = (self.translator, self.critics)
        self.optimizers = [torch.optim.Adam(part.parameters(), rate, BETAS) for part in parts]
        self.schedules = [
            torch.optim.lr_scheduler.CosineAnnealingLR(each, n_steps) for each in self.optimizers
        ]
        return self

    @property
    def is_over(self):
        return self.diverged or len(self.history) * BLOCK >= self.settings["n_steps"]

    # -- what is kept ------------------------------------------------------------------------------

    def _kept(self):
        return {
            "networks": self,
            "generator": self.optimizers[0],
            "critic": self.optimizers[1],
            "schedule_0": self.schedules[0],
            "schedule_1": self.schedules[1],
        }

    def state(self):
        return {
            "parts": {name: part.state_dict() for name, part in self._kept().items()},
            "progress": json.dumps([self.history, self.diverged]),
            "best": self.best,
            "random": random_states(self.data[0].x.device),
        }

    def take_up(self, state):
        if state is None:
            return
        for name, part in self._kept().items():
            part.load_state_dict(state["parts"][name])
        self.history, self.diverged = json.loads(state["progress"])
        self.best = state["best"]
        set_random_states(self.data[0].x.device, state["random"])

    def result(self):
        if self.diverged and self.best is None:
            raise ValueError(
                "The training of the networks diverged in its first steps: lower learning_rate_init="
                f"{self.settings['learning_rate']}."
            )
        if self.diverged:
            self.translator.load_state_dict(self.best)
        return self.translator.eval().requires_grad_(False)

    # -- training ----------------------------------------------------------------------------------

    def block(self):
        """Some steps, and whether they went well."""
        n_steps = min(BLOCK, self.settings["n_steps"] - BLOCK * len(self.history))
        losses = torch.stack([self.step() for _ in range(n_steps)]).mean(dim=0).tolist()
        self.history.append(losses)
        apart = [sum(each[:4]) for each in self.history]
        self.diverged = not np.isfinite(losses).all() or apart[-1] > DIVERGED * min(apart)
        if apart[-1] == min(apart):
            self.best = {k: v.detach().clone() for k, v in self.translator.state_dict().items()}

    def draw(self):
        """A batch of each domain: spectra and metrics."""
        synthetic, observed = self.data
        size, device = self.settings["batch_size"], observed.x.device

        def some(of):
            return torch.randint(len(of.x), (size,), device=device)

        rows, others, like = some(synthetic), some(observed), some(observed)
        x = synthetic.x[rows]
        metric = observed.metric[like] if synthetic.metric is None else synthetic.metric[rows]
        if synthetic.metric is None and observed.noise is not None:
            x = x + _times(observed.noise[like], torch.randn_like(x))
        return x, metric, observed.x[others], observed.metric[others]

    def step(self):
        x_s, metric_s, x_o, metric_o = self.draw()
        net, (critic_s, critic_o) = self.translator, self.critics
        of_synthetic, of_observed, adversarial = self.settings["weights"]
        z_s, z_o, s = net.synthetic_to_shared(x_s), net.observed_to_shared(x_o), net.split(x_o)
        s_s, o_o, o_s = net.to_synthetic(z_s), net.to_observed(z_o, s), net.to_synthetic(z_o)
        s_o = net.to_observed(z_s, s[torch.randperm(len(s), device=s.device)])
        s_o_s = net.to_synthetic(net.observed_to_shared(s_o))
        o_s_o = net.to_observed(net.synthetic_to_shared(o_s), s)
        apart = torch.stack(
            [
                distance(s_s, x_s, metric_s),
                distance(s_o_s, x_s, metric_s),
                distance(o_o, x_o, metric_o),
                distance(o_s_o, x_o, metric_o),
            ]
        )
        fooled = _entropy(critic_o(s_o, z_s), 1.0) + _entropy(critic_s(o_s, z_o), 1.0)
        loss = of_synthetic * apart[:2].sum() + of_observed * apart[2:].sum()
        self._descend(0, loss + adversarial * fooled)
        (z_s, z_o), spectra = (z_s.detach(), z_o.detach()), (s_s, o_s, o_o, s_o)
        s_s, o_s, o_o, s_o = (each.detach() for each in spectra)
        told = _entropy(critic_s(s_s, z_s), 1.0) + _entropy(critic_s(o_s, z_o), 0.0)
        told = told + _entropy(critic_o(o_o, z_o), 1.0) + _entropy(critic_o(s_o, z_s), 0.0)
        self._descend(1, told)
        return torch.stack([*apart.detach(), fooled.detach(), told.detach()])

    def _descend(self, which, loss):
        optimizer, part = self.optimizers[which], (self.translator, self.critics)[which]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(part.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        self.schedules[which].step()


def _entropy(logit, truth):
    return binary_cross_entropy_with_logits(logit, torch.full_like(logit, truth))
