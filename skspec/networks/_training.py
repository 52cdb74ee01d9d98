"""Training through skorch: seeded, with the best state of a validation set, silent."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager

import numpy as np
import torch
from skorch import NeuralNetRegressor
from skorch.callbacks import EarlyStopping, LRScheduler
from skorch.helper import predefined_split
from torch.utils.data import DataLoader, TensorDataset

__all__ = ["fit_network", "resolve_device"]


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
    module,
    criterion,
    train,
    valid,
    *,
    n_epochs,
    batch_size,
    learning_rate,
    patience,
    device="cpu",
    n_threads=None,
    seed=0,
    optimizer=torch.optim.Adam,
    on_epoch: Callable = lambda: None,
    **parameters,
):
    """Train a module, and leave it in the state that was best on the validation set.

    Parameters
    ----------
    module, criterion : torch module classes
    train, valid : tuple of (inputs, target, ...)
        Arrays with a row per star. One target goes to the criterion as it is, several as a tuple.
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
    on_epoch : callable
        Called after each epoch.
    **parameters
        For skorch: ``module__width=...``, ``optimizer__weight_decay=...``

    Returns
    -------
    NeuralNetRegressor
        With the trained `module_` in evaluation mode and `history`.
    """
    train, valid = (_dataset(arrays, device) for arrays in (train, valid))
    stop = _Stop(patience=patience, load_best=True, threshold=0.0)
    n_steps = n_epochs * _n_batches(len(train), batch_size)
    schedule = LRScheduler("CosineAnnealingLR", T_max=n_steps, step_every="batch")
    net = NeuralNetRegressor(
        module, criterion=criterion, optimizer=optimizer, lr=learning_rate, device=device,
        train_split=predefined_split(valid), iterator_train=_Batches, iterator_valid=_Batches,
        iterator_train__generator=np.random.default_rng(seed), batch_size=batch_size,
        callbacks=[("stop", stop), ("schedule", schedule)], callbacks__print_log=None, verbose=0,
        **parameters,
    )  # fmt: skip
    # asking for the state of a GPU would start it, where only the CPU is wanted
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=gpus), _threads(n_threads):
        torch.manual_seed(seed)
        net.initialize()
        net.notify("on_train_begin", X=train, y=None)
        for _ in range(n_epochs):  # skorch's own loop would take Ctrl-C for the end of training
            net.fit_loop(train, epochs=1)
            on_epoch()
            if dict(net.callbacks_)["stop"].stopped:
                break
        net.notify("on_train_end", X=train, y=None)
    net.module_.eval()
    net.iterator_valid = DataLoader  # to predict from any data
    return net


@contextmanager
def _threads(number):
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _dataset(arrays, device):
    # a copy: torch may not share memory with the caller
    return TensorDataset(*(torch.tensor(a, dtype=torch.float32, device=device) for a in arrays))


def _n_batches(n, batch_size):
    return -(-n // batch_size)


class _Batches:
    """Batches of tensors that already lie on the device; shuffled if a generator is given."""

    def __init__(self, dataset, batch_size, generator=None):
        self.tensors, self.generator = dataset.tensors, generator
        self.n_batches = _n_batches(len(dataset), batch_size)

    def __iter__(self):
        inputs, *targets = self.tensors
        rows = np.arange(len(inputs))
        if self.generator is not None and self.n_batches > 1:
            self.generator.shuffle(rows)
        for part in np.array_split(rows, self.n_batches):
            if len(part) == len(inputs):
                yield inputs, _one_or_tuple(targets)
                continue
            part = torch.from_numpy(part).to(inputs.device)
            yield inputs[part], _one_or_tuple([target[part] for target in targets])


def _one_or_tuple(targets):
    return targets[0] if len(targets) == 1 else tuple(targets)


class _Stop(EarlyStopping):
    """Says that training should stop instead of interrupting it."""

    stopped = False

    def on_epoch_end(self, net, **kwargs):
        try:
            super().on_epoch_end(net, **kwargs)
        except KeyboardInterrupt:
            self.stopped = True

    def _sink(self, text, verbose):
        """Silent."""
