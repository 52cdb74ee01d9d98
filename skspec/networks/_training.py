"""Training through skorch: seeded, with the best state of a validation set, silent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from skorch import NeuralNetRegressor
from skorch.callbacks import EarlyStopping, GradientNormClipping, LRScheduler
from skorch.helper import predefined_split
from torch.utils.data import DataLoader, Dataset

from skspec.networks._checkpoint import Checkpoint

if TYPE_CHECKING:
    from skspec._typing import PathLike

__all__ = ["fit_network", "limited_threads", "resolve_device", "training_history"]

#: of the "plateau" schedule: epochs without a better validation loss, then the factor of the rate
PLATEAU = {"patience": 5, "factor": 0.3}
#: arguments that leave the result of a training as it is, but for rounding; the last is told in parts
FREE = {"device", "n_threads", "on_epoch", "checkpoint", "checkpoint_every", "parameters"}

N_FINGERPRINT = 16  # stars, by which data are known again


def resolve_device(device: str) -> str:
    """Torch's name of a device; "auto" is the GPU where there is one.

    Raises
    ------
    ValueError
        When torch does not know the device, or was built without it.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={device!r} cannot be used ({reason}); try 'auto'.") from None
    return device


def fit_network(
    module: type[torch.nn.Module],
    criterion: type[torch.nn.Module],
    train: Any,
    valid: Any,
    *,
    n_epochs: int,
    batch_size: int,
    learning_rate: float,
    patience: int,
    device: str = "cpu",
    n_threads: int | None = None,
    seed: int = 0,
    optimizer: type[torch.optim.Optimizer] = torch.optim.Adam,
    schedule: str | None = "cosine",
    clip_norm: float | None = None,
    augment: Callable[..., Any] | None = None,
    amp: bool = False,
    compile: bool | str = False,
    state: Any = None,
    on_epoch: Callable = lambda: None,
    checkpoint: PathLike | None = None,
    checkpoint_every: float = 60.0,
    **parameters: Any,
) -> Any:
    """Train a module, and leave it in the state that was best on the validation set.

    Parameters
    ----------
    module, criterion : torch module classes
    train, valid : tuple of (inputs, target, ...), StarStream or AugmentedStars
        Arrays with a row per star, or a stream of such. Inputs may be a dict of such arrays, which are
        then named arguments of the module. One target goes to the criterion as it is, several as a
        tuple. Without a validation set (None) training ends in its last state.
    n_epochs : int
        The learning rate falls to zero over so many, along a cosine.
    batch_size : int
        At most so many stars per step; batches of an epoch are of equal size but for one star.
    learning_rate : float
    patience : int
        Stop after so many epochs without a better validation loss.
    device : str
    n_threads : int or None
        CPU threads, None for torch's own choice. Several only slow each other down in small
        networks.
    seed : int
        Of initial weights and batches. Torch's own generators are left as they were.
    optimizer : torch optimizer class
    schedule : {"cosine", "one_cycle", "plateau", None}
        Of the learning rate. "one_cycle" rises to it during the first tenth and then falls along a
        cosine; "plateau" takes 0.3 of it after 5 epochs without a better validation loss; None leaves
        it.
    clip_norm : float or None
        Largest norm of the gradient of a step.
    augment : callable or None
        Called with the inputs of each training batch, tensors on the device; returns those that the
        module gets.
    amp : bool
        Products in bfloat16.
    compile : bool or str
        Compile the module, by torch's default or the backend named.
    state : dict, (dict, dict) or None
        State of a module to start from; with that of the criterion, a pair.
    on_epoch : callable
        Called after each epoch.
    checkpoint : path-like or None
        File in which the training is kept. Where it exists, the training goes on from there, and the
        result is the same, to the last bit, as without the interruption; what was finished is returned
        at once. `on_epoch` is called for the epochs of before, too. The batches that were done are not
        drawn again: `augment` must take its random numbers from torch.
    checkpoint_every : float
        Seconds between two writings within an epoch. After each epoch the file is written anyhow,
        unless that would take a tenth of the time.
    **parameters
        For skorch: ``module__width=...``, ``optimizer__weight_decay=...``

    Returns
    -------
    NeuralNetRegressor
        With the trained `module_` in evaluation mode and `history`; it holds none of the data.

    Raises
    ------
    ValueError
        When the checkpoint cannot be read, or is of a training with other settings or data.
    """
    settings = {key: value for key, value in (locals() | parameters).items() if key not in FREE}
    train, valid = (
        _Rows(part, device) if isinstance(part, tuple) else part for part in (train, valid)
    )
    n_steps = n_epochs * _n_batches(len(train), batch_size)
    net = (_MixedPrecision if amp else _Net)(
        module,
        criterion=criterion,
        optimizer=optimizer,
        lr=learning_rate,
        device=device,
        train_split=valid and predefined_split(valid),
        iterator_train=_Batches,
        iterator_valid=_Batches,
        iterator_train__generator=np.random.default_rng(seed),
        iterator_train__augment=augment,
        batch_size=batch_size,
        callbacks__print_log=None,
        callbacks=_callbacks(valid, patience, schedule, learning_rate, n_steps, clip_norm),
        verbose=0,
        compile=bool(compile),
        **_backend(compile),
        **parameters,
    )
    # asking for the state of a GPU would start it, where only the CPU is wanted
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=gpus), limited_threads(n_threads):
        torch.manual_seed(seed)
        net.initialize()
        if state is not None:
            _start_from(net, state)
        net.notify("on_train_begin", X=train, y=None)
        if checkpoint is not None:
            settings |= _described(train, valid)
            Checkpoint(checkpoint, checkpoint_every, settings).resume(net)
        for _ in net.history:
            on_epoch()
        # skorch's own loop would take Ctrl-C for the end of training
        while len(net.history) < n_epochs and not (valid and dict(net.callbacks_)["stop"].stopped_):
            net.fit_loop(train, epochs=1)
            on_epoch()
        net.notify("on_train_end", X=train, y=None)
    return _at_rest(net)


def _callbacks(valid, patience, schedule, learning_rate, n_steps, clip_norm):
    """skorch callbacks, by name."""
    out = []
    if valid:
        out.append(("stop", _Stop(patience=patience, threshold=0.0)))
    if schedule == "cosine":
        falling = LRScheduler("CosineAnnealingLR", T_max=n_steps, step_every="batch")
        out.append(("schedule", falling))
    elif schedule == "one_cycle":
        cycle = LRScheduler(
            torch.optim.lr_scheduler.OneCycleLR,
            max_lr=learning_rate,
            total_steps=n_steps + 1,
            pct_start=max(0.1, 2 / (n_steps + 1)),
            step_every="batch",
        )
        out.append(("schedule", cycle))
    elif schedule == "plateau":
        monitor = "valid_loss" if valid else "train_loss"
        plateau = LRScheduler("ReduceLROnPlateau", monitor=monitor, **PLATEAU)
        out.append(("schedule", plateau))
    if clip_norm is not None:
        out.append(("clip", GradientNormClipping(clip_norm)))
    return out


def _start_from(net, state):
    """Give module and perhaps criterion a state."""
    states = (state,) if isinstance(state, Mapping) else state
    for part, given in zip((_plain(net.module_), net.criterion_), states):
        part.load_state_dict(given)


def _described(train, valid):
    """What tells data apart: their numbers, and the first few stars."""
    augmentation = getattr(train, "augmentation", None)
    out = {} if augmentation is None else {"augmentation": augmentation}
    for name, part in (("train", train), ("valid", valid)):
        out |= {name: part, f"n_{name}": len(part) if part else 0}
        if part:
            batches = part.batches(_n_batches(len(part), N_FINGERPRINT))
            out[name] = next(batches)
            batches.close()
    return out


def training_history(net: Any, learning_rate: float) -> dict:
    """``train_loss``, ``valid_loss`` and ``dur`` [s] of every epoch, as arrays.

    Raises
    ------
    ValueError
        When no epoch had a finite validation loss.
    """
    history = {key: np.array(net.history[:, key]) for key in ("train_loss", "valid_loss", "dur")}
    if not np.isfinite(history["valid_loss"]).any():
        raise ValueError(
            f"The training of the network diverged: lower learning_rate_init={learning_rate}."
        )
    return history


def _backend(compile):
    return {"compile__backend": compile} if isinstance(compile, str) else {}


def _plain(module):
    """The module inside a compiled one."""
    return getattr(module, "_orig_mod", module)


def _at_rest(net):
    """The net without data, moments of the optimizer and compiled code: small, and it pickles."""
    net.module_ = _plain(net.module_).eval()
    net.criterion_.eval()
    net.callbacks_ = [(k, each) for k, each in net.callbacks_ if not isinstance(each, Checkpoint)]
    net.compile, net.train_split = False, None
    net.optimizer_.state.clear()
    net.optimizer_.zero_grad()
    net.iterator_train__augment = None
    net.iterator_valid = DataLoader  # to predict from any data
    return net


class _Net(NeuralNetRegressor):
    """Compiles the module, if at all, and not the loss."""

    def torch_compile(self, module, name):
        return super().torch_compile(module, name) if name == "module" else module


class _MixedPrecision(_Net):
    """Products of the module in bfloat16, its output and the loss in single precision."""

    def infer(self, x, **fit_params):
        with torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16):
            out = super().infer(x, **fit_params)
        if torch.is_tensor(out):
            return out.float()
        return tuple(part if part is None else part.float() for part in out)


@contextmanager
def limited_threads(number):
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Rows(Dataset):
    """Inputs (an array or a dict of them) and targets on the device, as copies in float32."""

    def __init__(self, arrays, device):
        def copied(array):  # torch may not share memory with the caller
            return torch.tensor(array, dtype=torch.float32, device=device)

        inputs, *targets = arrays
        named = isinstance(inputs, Mapping)
        self.inputs = {k: copied(a) for k, a in inputs.items()} if named else copied(inputs)
        self.targets = [copied(target) for target in targets]

    def __len__(self):
        return len(self.targets[0])

    def __getitem__(self, rows):
        inputs = self.inputs
        named = isinstance(inputs, dict)
        inputs = {k: a[rows] for k, a in inputs.items()} if named else inputs[rows]
        return inputs, _one_or_tuple([target[rows] for target in self.targets])

    def batches(self, n_batches, generator=None, skip=0):
        """All but the first `skip` of so many batches; shuffled if a generator is given."""
        rows = np.arange(len(self))
        if generator is not None and n_batches > 1:
            generator.shuffle(rows)
        device = self.targets[0].device
        for part in np.array_split(rows, n_batches)[skip:]:
            whole = n_batches == 1
            yield self[slice(None) if whole else torch.from_numpy(part).to(device)]


def _n_batches(n, batch_size):
    return -(-n // batch_size)


class _Batches:
    """Batches of a dataset, on its device, but the first `skip`; shuffled if a generator is given."""

    def __init__(self, dataset, batch_size, generator=None, augment=None, skip=0):
        self.dataset, self.generator, self.skip = dataset, generator, skip
        self.augment = augment or (lambda inputs: inputs)
        self.n_batches = _n_batches(len(dataset), batch_size)

    def __iter__(self):
        for inputs, targets in self.dataset.batches(self.n_batches, self.generator, self.skip):
            yield self.augment(inputs), targets


def _one_or_tuple(targets):
    return targets[0] if len(targets) == 1 else tuple(targets)


class _Stop(EarlyStopping):
    """Says that training should stop instead of interrupting it; the criterion has a best state, too."""

    stopped_ = False

    def on_epoch_end(self, net, **kwargs):
        try:
            super().on_epoch_end(net, **kwargs)
        except KeyboardInterrupt:
            self.stopped_ = True
        if self.best_epoch_ == len(net.history):
            parts = (net.module_, net.criterion_)
            self.best_model_weights_ = [deepcopy(part.state_dict()) for part in parts]

    def on_train_end(self, net, **kwargs):
        if self.best_model_weights_ is not None and self.best_epoch_ != len(net.history):
            for part, best in zip((net.module_, net.criterion_), self.best_model_weights_):
                part.load_state_dict(best)

    def _sink(self, text, verbose):
        """Silent."""
