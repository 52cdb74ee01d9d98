"""A training kept in a file: what was interrupted goes on from there, as if nothing had happened."""

from __future__ import annotations

import json
import os
import pickle
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from skorch.callbacks import Callback
from skorch.history import History

if TYPE_CHECKING:
    from skspec._typing import PathLike, RandomState

__all__ = ["Checkpoint", "StateFile", "check_resumable", "random_states", "set_random_states"]

FORMAT = "skspec checkpoint 1"
SHARE = 0.1  # of the time, that writing at the end of every epoch may take
SAMPLE = 1000  # numbers of an array, by which it is known again
TOLERANCE = {"rtol": 1e-3, "atol": 1e-5}  # other machines round differently


class StateFile:
    """A file that keeps the state of a training; what is written replaces what was there, or nothing.

    Parameters
    ----------
    path : path-like
    every : float
        Seconds between two writings.
    settings : dict
        All that shapes the training.

    Raises
    ------
    ValueError
        When there is no such folder, or `path` is one.
    """

    def __init__(self, path, every, settings):
        self.path, self.every = Path(path).resolve(), every
        if not self.path.parent.is_dir() or self.path.is_dir():
            wrong = "is a folder" if self.path.is_dir() else f"needs a folder {self.path.parent}"
            raise ValueError(f"checkpoint={str(path)!r} {wrong}; give the path of a file.")
        self.settings = {
            name: leaf for key in settings for name, leaf in _leaves(key, settings[key])
        }
        self.cost, self.written = 0.0, time.monotonic()

    @property
    def is_due(self):
        return time.monotonic() - self.written >= self.every

    def read(self):
        """The state in the file, None where there is none yet.

        Raises
        ------
        ValueError
            When the file cannot be read, or is of another training.
        """
        if not self.path.exists():
            return None
        state = _read(self.path)
        self._compare(state["settings"])
        return state

    def _compare(self, saved):
        now, differences = self.settings, {}
        for name in {**saved, **now}:
            was, is_ = saved.get(name, "not given"), now.get(name, "not given")
            if _same(was, is_):
                continue
            if torch.is_tensor(was) or torch.is_tensor(is_) or len(was + is_) > 100:
                differences[name.split(".")[0]] = "differs"
            else:
                differences[name] = f"was {was} and is {is_}"
        if differences:
            told = [f"{name} {what}" for name, what in differences.items()]
            told.sort(key=lambda text: text.endswith("differs"))  # first what can be named
            raise ValueError(
                f"The checkpoint {self.path} is of another training: {', '.join(told[:5])}"
                f"{', and more' * (len(told) > 5)}. Delete the file to begin anew, or give another path."
            )

    def save(self, **state):
        """Write all, or leave what was there: a file that is replaced is never half of each."""
        start = time.monotonic()
        unfinished = self.path.with_name(self.path.name + ".part")
        with open(unfinished, "wb") as file:
            torch.save({"format": FORMAT, "settings": self.settings, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, self.path)
        self.written = time.monotonic()
        self.cost = self.written - start


class Checkpoint(StateFile, Callback):
    """Writes the state of a skorch training to a file, and takes it up from there.

    It must be the last of the callbacks, and joins them in :meth:`resume`. Its `every` counts within an
    epoch.
    """

    def __init__(self, path, every, settings):
        super().__init__(path, every, settings)
        self.batches, self.pending = [], False

    # -- reading -----------------------------------------------------------------------------------

    def resume(self, net):
        """Put a net back to where its training was left, if it ever began.

        Raises
        ------
        ValueError
            When the file cannot be read, or is of another training.
        """
        net.callbacks_.append(("checkpoint", self))
        state = self.read()
        if state is None:
            return
        for name, part in _parts(net).items():
            part.load_state_dict(state["parts"][name])
        for name, callback in net.callbacks_[:-1]:
            vars(callback).update(state["callbacks"][name])
        progress = json.loads(state["progress"])
        net.history = History(progress["epochs"])
        self.batches = progress["batches"]
        net.iterator_train__skip = len(self.batches)
        net.iterator_train__generator.bit_generator.state = progress["shuffling"]
        set_random_states(net.device, state["random"])

    # -- writing -----------------------------------------------------------------------------------

    def on_epoch_begin(self, net, **kwargs):
        self.shuffling = net.iterator_train__generator.bit_generator.state
        net.history[-1]["batches"].extend(self.batches)

    def on_batch_end(self, net, training, **kwargs):
        if training and self.is_due:
            self.write(net, net.history[:-1], net.history[-1]["batches"])

    def on_epoch_end(self, net, **kwargs):
        n_batches = net.history[-1, "train_batch_count"] + len(self.batches)
        net.history.record("train_batch_count", n_batches)
        self.batches, net.iterator_train__skip = [], 0
        self.shuffling = net.iterator_train__generator.bit_generator.state
        self.pending = True
        if time.monotonic() - self.written >= min(self.every, self.cost / SHARE):
            self.write(net, net.history, [])

    def on_train_end(self, net, **kwargs):
        if self.pending:
            self.write(net, net.history, [])

    def write(self, net, epochs, batches):
        progress = {"epochs": epochs, "batches": batches, "shuffling": self.shuffling}
        self.save(
            progress=json.dumps(progress),
            parts={name: part.state_dict() for name, part in _parts(net).items()},
            callbacks={name: _memory(callback) for name, callback in net.callbacks_[:-1]},
            random=random_states(net.device),
        )
        self.pending = False


def check_resumable(checkpoint: PathLike | None, random_state: RandomState | None) -> None:
    """Refuse a checkpoint where no rerun would be the same training.

    Raises
    ------
    ValueError
        With a checkpoint and without a `random_state`.
    """
    if checkpoint is not None and random_state is None:
        raise ValueError(
            "With checkpoint=... give a random_state, such as random_state=0: only then is a rerun the "
            "same training, that can go on where it was interrupted."
        )


def _read(path):
    """State in a file, without running any code from it."""
    try:
        with zipfile.ZipFile(path) as archive:
            whole = archive.testzip() is None  # torch reads damaged tensors without a word
        state = torch.load(path, map_location="cpu", weights_only=True) if whole else {}
    except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, EOFError, ValueError):
        state = {}
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(
            f"{path} cannot be read as a checkpoint: it is damaged, or another kind of file. Delete "
            "it to begin the training anew, or give another path."
        )
    return state


def _parts(net):
    """All that has a state of its own: what is trained, and what trains it."""
    parts = {"module": net.module_, "criterion": net.criterion_, "optimizer": net.optimizer_}
    schedule = getattr(dict(net.callbacks_).get("schedule"), "lr_scheduler_", None)
    return parts if schedule is None else parts | {"schedule": schedule}


def _memory(callback):
    """What a callback has found out: by convention its attributes end in an underscore."""
    kept = {k: v for k, v in vars(callback).items() if k.endswith("_")}
    kept = {k: float(v) if isinstance(v, np.floating) else v for k, v in kept.items()}
    return {k: v for k, v in kept.items() if v is None or isinstance(v, (int, float, list))}


def random_states(device):
    states = [torch.get_rng_state()]
    if torch.device(device).type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def set_random_states(device, states):
    torch.set_rng_state(states[0])
    if torch.device(device).type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)


def _leaves(name, value):
    """Names, and the text or sample of numbers by which a setting is known again."""
    if isinstance(value, torch.nn.Module):
        yield name, repr(value)
        value = value.state_dict()
    if isinstance(value, np.ndarray):
        value = torch.as_tensor(value) if value.dtype.kind in "biuf" else value.tolist()
    if torch.is_tensor(value):
        flat = value.detach().flatten()
        yield name, flat[:: max(1, len(flat) // SAMPLE)].double().cpu()
    elif isinstance(value, (Mapping, list, tuple)):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, part in items:
            yield from _leaves(f"{name}.{key}", part)
    elif value is None or isinstance(value, (bool, int, float, str, np.generic)):
        yield name, repr(value.item() if isinstance(value, np.generic) else value)
    elif hasattr(value, "__qualname__"):
        yield name, value.__qualname__
    else:
        yield from _leaves(name, type(value))
        yield from _leaves(name, vars(value) if hasattr(value, "__dict__") else {})


def _same(a, b):
    if not (torch.is_tensor(a) and torch.is_tensor(b)):
        return type(a) is type(b) and a == b
    size = a[a.isfinite()].abs().max() if a.isfinite().any() else 0.0
    relative, absolute = TOLERANCE["rtol"], TOLERANCE["atol"] * float(size)
    return a.shape == b.shape and torch.allclose(a, b, relative, absolute, equal_nan=True)
