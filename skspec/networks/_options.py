"""Options of training that the estimators with a network share. Nothing here needs PyTorch."""

from __future__ import annotations

from numbers import Integral, Real
from os import PathLike
from typing import TYPE_CHECKING

from skspec._shared_parameters import SharedParameters
from skspec._sklearn import Interval

if TYPE_CHECKING:
    from skspec._typing import RandomState

__all__ = ["NetworkOptions", "ResumableOptions", "TrainingOptions"]

THREADS_FROM = 2e5  # numbers in a batch, below which one thread is faster than several


class TrainingOptions(SharedParameters):
    """Mixin: what every training of a network can be told.

    Parameters
    ----------
    learning_rate_init : float
        Falls to zero along a cosine.
    max_iter : int
        Epochs at most.
    batch_size : int
        Stars per step.
    validation_fraction : float
        Of the stars, held out to stop in time and to choose the best state.
    device : str
        Where to train: "auto", "cpu", "cuda", "cuda:1", ...
    random_state : int, RandomState instance or None
        Of the held-out stars, initial weights, batches and noise.
    """

    _parameter_constraints: dict = {
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "device": [str],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        learning_rate_init: float = 0.001,
        max_iter: int = 100,
        batch_size: int = 64,
        validation_fraction: float = 0.1,
        device: str = "auto",
        random_state: RandomState | None = None,
        **shared,
    ):
        super().__init__(**shared)
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.validation_fraction = validation_fraction
        self.device = device
        self.random_state = random_state


class ResumableOptions(TrainingOptions):
    """Mixin: a training of one network, which goes on from where it was interrupted.

    Parameters
    ----------
    checkpoint : path-like or None
        File in which ``fit`` keeps the training: interrupted and called again with the same parameters
        and stars, it goes on from there and ends as it would have. One file for one fit. It needs a
        `random_state`.
    """

    _parameter_constraints: dict = {"checkpoint": [str, PathLike, None]}

    def __init__(self, *, checkpoint: PathLike | None = None, **shared):
        super().__init__(**shared)
        self.checkpoint = checkpoint


class NetworkOptions(ResumableOptions):
    """Mixin: what a training by :func:`~skspec.networks.fit_network` can be told.

    Parameters
    ----------
    learning_rate_init : float
        Of AdamW; falls to zero along a cosine.
    weight_decay : float
        Of AdamW; more of it for a few hundred stars.
    n_iter_no_change : int
        Stop after so many epochs without a better validation loss.
    clip_norm : float or None
        Largest norm of a gradient.
    amp : bool
        Products in bfloat16 when training.
    compile : bool or str
        Compile the network for training (True or the name of a backend of ``torch.compile``).
    """

    _parameter_constraints: dict = {
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "clip_norm": [Interval(Real, 0, None, closed="neither"), None],
        "amp": ["boolean"],
        "compile": ["boolean", str],
    }

    def __init__(
        self,
        *,
        weight_decay: float = 0.01,
        n_iter_no_change: int = 30,
        clip_norm: float | None = 1.0,
        amp: bool = False,
        compile: bool | str = False,
        **shared,
    ):
        super().__init__(**shared)
        self.weight_decay = weight_decay
        self.n_iter_no_change = n_iter_no_change
        self.clip_norm = clip_norm
        self.amp = amp
        self.compile = compile

    def _n_threads(self, n_numbers):
        """For spectra of so many numbers."""
        return 1 if n_numbers * self.batch_size < THREADS_FROM else None

    def _fit_network(self, module, criterion, train, valid, **options):
        """Train a module as told; sets `net_`, `history_` and `n_iter_`. `device_` is known."""
        from torch.optim import AdamW

        from skspec.networks import fit_network, training_history

        told = {
            "n_epochs": self.max_iter,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate_init,
            "patience": self.n_iter_no_change,
            "device": self.device_,
            "optimizer": AdamW,
            "optimizer__weight_decay": self.weight_decay,
            "clip_norm": self.clip_norm,
            "amp": self.amp,
            "compile": self.compile,
            "checkpoint": self.checkpoint,
        }
        self.net_ = fit_network(module, criterion, train, valid, **told | options)
        self.history_ = training_history(self.net_, self.learning_rate_init)
        self.n_iter_ = len(self.history_["dur"])
