"""An interrupted training goes on, and ends as if it had never been interrupted."""

import os
import signal
import subprocess
import sys
import zipfile
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("skorch")

from skspec.networks import fit_network  # noqa: E402
from skspec.networks._checkpoint import Checkpoint  # noqa: E402

N_BATCHES = 3
N_EPOCHS = 5


class Interrupted(Exception):
    """In place of a killed process."""


class Net(torch.nn.Module):
    """Draws random numbers in training, and keeps running means."""

    def __init__(self, n_in=3, width=6):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(n_in, width),
            torch.nn.BatchNorm1d(width),
            torch.nn.SiLU(),
            torch.nn.Dropout(0.2),
            torch.nn.Linear(width, 2),
        )

    def forward(self, x):
        return self.layers(x)


class LearnedScatter(torch.nn.Module):
    """A likelihood with a scatter of its own, that is trained along."""

    def __init__(self):
        super().__init__()
        self.log_scatter = torch.nn.Parameter(torch.zeros(2))

    def forward(self, predicted, target):
        z = (target - predicted) * (-self.log_scatter).exp()
        return (0.5 * z.square() + self.log_scatter).mean()


def noisy(x):
    return x + 0.1 * torch.randn_like(x)


def data(n=40, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    return x, np.sin(x @ rng.normal(size=(3, 2))) + 0.3 * rng.normal(size=(n, 2))


def train(checkpoint=None, *, valid=True, **options):
    x, y = data()
    arguments = {
        "module": Net,
        "criterion": LearnedScatter,
        "train": (x[:24], y[:24]),
        "valid": (x[24:], y[24:]) if valid else None,
        "n_epochs": N_EPOCHS,
        "batch_size": 8,
        "learning_rate": 0.05,
        "patience": 20,
        "n_threads": 1,
        "checkpoint": checkpoint,
        "checkpoint_every": 0.0,
    }
    return fit_network(**(arguments | options))


def interrupted_train(monkeypatch, path, after, **options):
    """Train until the file has been written so many times; whether it ended before."""
    write, times = Checkpoint.write, count(1)

    def write_and_stop(self, *args):
        write(self, *args)
        if next(times) == after:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "write", write_and_stop)
        try:
            train(path, **options)
        except Interrupted:
            return False
    return True


def assert_same(net, other):
    for part in ("module_", "criterion_"):
        states = [getattr(each, part).state_dict() for each in (net, other)]
        assert states[0].keys() == states[1].keys()
        for name in states[0]:
            assert torch.equal(states[0][name], states[1][name]), name
    assert len(net.history) == len(other.history)
    for epochs in zip(net.history, other.history):
        first, second = ({k: v for k, v in epoch.items() if k != "dur"} for epoch in epochs)
        assert first == second


@pytest.mark.parametrize("valid", [True, False])
@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "plateau", None])
@pytest.mark.parametrize("more", [{}, {"augment": noisy, "optimizer__weight_decay": 0.1}])
def test_nothing_is_lost(schedule, valid, more, tmp_path, monkeypatch):
    options = {"schedule": schedule, "valid": valid} | more
    whole, path = train(**options), tmp_path / "net.pt"
    # after a first batch, the last batch of an epoch, an epoch, in the middle of another, at the end
    for after in (1, N_BATCHES - 1, 1, N_BATCHES + 3, 2 * N_BATCHES + 2, 2):
        assert not interrupted_train(monkeypatch, path, after, **options)
    assert_same(train(path, **options), whole)


@given(st.lists(st.integers(1, 8), min_size=1, max_size=6))
@settings(max_examples=4, deadline=None)
def test_interrupted_again_and_again(tmp_path_factory, afters):
    path = tmp_path_factory.mktemp("checkpoint") / "net.pt"
    options = {"augment": noisy, "clip_norm": 0.5, "optimizer": torch.optim.AdamW}
    with pytest.MonkeyPatch.context() as monkeypatch:
        for after in afters:
            interrupted_train(monkeypatch, path, after, **options)
    assert_same(train(path, **options), train(**options))


@pytest.mark.parametrize(("every", "broken"), [(0.0, 1), (0.0, 5), (1e9, 3), (1e9, 5), (1e9, 13)])
def test_broken_off_in_the_middle_of_a_step(every, broken, tmp_path):
    calls = count(1)

    def breaking(x):
        if next(calls) == broken:
            raise Interrupted
        return noisy(x)

    breaking.__qualname__, path = noisy.__qualname__, tmp_path / "net.pt"
    with pytest.raises(Interrupted):
        train(path, augment=breaking, checkpoint_every=every)
    assert_same(train(path, augment=noisy, checkpoint_every=every), train(augment=noisy))


def test_killed_while_writing(tmp_path):
    path = tmp_path / "net.pt"
    code = (
        "import os, signal, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from test_checkpoint import count, noisy, train\n"
        "fsync, times = os.fsync, count(1)\n"
        "def kill(file):\n"
        "    fsync(file)\n"
        "    if next(times) == 11:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "os.fsync = kill\n"
        "train(sys.argv[2], augment=noisy)\n"
    )
    arguments = [sys.executable, "-c", code, os.path.dirname(__file__), str(path)]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    assert sorted(os.listdir(tmp_path)) == ["net.pt", "net.pt.part"]
    assert_same(train(path, augment=noisy), train(augment=noisy))
    assert os.listdir(tmp_path) == ["net.pt"]


@pytest.mark.parametrize("patience", [2, 20])
def test_the_best_state_survives(patience, tmp_path, monkeypatch):
    options = {"patience": patience, "n_epochs": 12, "learning_rate": 0.3, "schedule": None}
    whole, path = train(**options), tmp_path / "net.pt"
    losses = whole.history[:, "valid_loss"]
    assert 0 < np.argmin(losses) < len(losses) - 1
    assert (len(losses) < 12) == (patience == 2)
    for after in (5, 4 * len(losses) - 1):
        assert not interrupted_train(monkeypatch, path, after, **options)
        assert_same(train(path, **options), whole)
        path.unlink()


def test_the_criterion_goes_back_to_its_best_state():
    x, y = data()
    net = train(patience=2, n_epochs=12, learning_rate=0.3, schedule=None)
    best = min(net.history[:, "valid_loss"])
    assert best < net.history[-1, "valid_loss"]
    with torch.no_grad():
        x, y = (torch.tensor(part[24:], dtype=torch.float32) for part in (x, y))
        assert float(net.criterion_(net.module_(x), y)) == pytest.approx(best, abs=1e-6)
    assert not net.criterion_.training
    assert not train(valid=False, n_epochs=1).criterion_.training


def test_a_criterion_to_start_from():
    first = train()
    states = first.module_.state_dict(), first.criterion_.state_dict()
    still = {"learning_rate": 1e-12, "n_epochs": 1, "schedule": None}
    after = train(state=states, **still).criterion_.log_scatter
    assert torch.allclose(after, first.criterion_.log_scatter)
    assert torch.allclose(train(state=states[0], **still).criterion_.log_scatter, torch.zeros(2))


@pytest.mark.parametrize("every", [0.0, 1e9])
def test_what_is_finished_is_returned_at_once(every, tmp_path, monkeypatch):
    monkeypatch.setattr("skspec.networks._checkpoint.SHARE", 1e-9)  # too little for every epoch
    path, told = tmp_path / "net.pt", []
    whole = train(path, checkpoint_every=every)
    written = path.stat().st_mtime_ns
    monkeypatch.setattr(Net, "forward", None)
    again = train(path, on_epoch=lambda: told.append(1))
    assert_same(again, whole)
    assert len(told) == N_EPOCHS
    assert path.stat().st_mtime_ns == written


def test_batches_that_were_done_are_not_read(tmp_path, monkeypatch):
    path, seen = tmp_path / "net.pt", []
    interrupted_train(monkeypatch, path, 2 * (N_BATCHES + 1) + 1)

    def looking(x):
        seen.append(len(x))
        return x

    with pytest.raises(ValueError, match="augment"):
        train(path, augment=looking)
    monkeypatch.setattr(f"{__name__}.noisy", looking)
    options = {"augment": noisy}
    interrupted_train(monkeypatch, tmp_path / "other.pt", 2 * (N_BATCHES + 1) + 1, **options)
    assert len(seen) == 2 * N_BATCHES + 1
    train(tmp_path / "other.pt", **options)
    assert len(seen) == N_EPOCHS * N_BATCHES


def test_every_epoch_is_told(tmp_path, monkeypatch):
    told = []
    interrupted_train(monkeypatch, tmp_path / "net.pt", 2 * (N_BATCHES + 1) + 2)
    train(tmp_path / "net.pt", on_epoch=lambda: told.append(1))
    assert len(told) == N_EPOCHS


def test_the_net_at_rest_knows_nothing_of_the_file(tmp_path):
    net = train(tmp_path / "net.pt")
    names = [name for name, _ in net.callbacks_]
    assert names == [name for name, _ in train().callbacks_]
    assert net.iterator_train__skip == 0


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"batch_size": 6}, "batch_size was 8 and is 6"),
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"schedule": None}, "schedule was 'cosine' and is None"),
        ({"optimizer": torch.optim.AdamW}, "optimizer was Adam and is AdamW"),
        ({"module__width": 7}, "module__width was not given and is 7"),
        ({"valid": False}, "n_valid was 16 and is 0"),
        ({"state": Net().state_dict()}, "state differs"),
        ({"train": data(24, seed=1)}, r"train differs\. "),
        ({"train": data(25)}, "n_train was 24 and is 25"),
    ],
)
def test_another_training_is_refused(changed, told, tmp_path):
    train(tmp_path / "net.pt", n_epochs=1)
    with pytest.raises(ValueError, match=f"of another training: .*{told}.*Delete the file"):
        train(tmp_path / "net.pt", **({"n_epochs": 1} | changed))


def test_rounding_is_not_another_training(tmp_path):
    train(tmp_path / "net.pt", n_epochs=1)
    x, y = data()
    train(tmp_path / "net.pt", n_epochs=1, n_threads=2, train=(x[:24] * (1 + 1e-6), y[:24]))


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "net.pt"
    train(path, n_epochs=1)
    whole = path.read_bytes()
    broken = [b"", b"no checkpoint", whole[:100], whole[: len(whole) // 2], whole[:-1]]
    with zipfile.ZipFile(path) as archive:
        parts = [archive.read(name) for name in archive.namelist()]
    for place in (whole.index(part) + len(part) // 2 for part in parts if len(part) > 8):
        broken.append(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as a checkpoint: it is damaged"):
            train(path, n_epochs=1)
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="another kind of file"):
        train(path, n_epochs=1)


def test_a_path_that_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="needs a folder .*nowhere; give the path of a file"):
        train(tmp_path / "nowhere" / "net.pt")
    with pytest.raises(ValueError, match="is a folder"):
        train(tmp_path)


def test_settings_of_all_kinds(tmp_path):
    class Picky(Net):
        def __init__(self, **kwargs):
            super().__init__()

    parameters = {
        "module__inner": Net(),
        "module__array": np.arange(3),
        "module__names": np.array(["a"]),
        "module__nested": {"a": [1, (2.5, None)]},
        "module__function": noisy,
        "module__object": np.random.default_rng(0),
        "module__number": np.float64(1),
    }
    path = tmp_path / "net.pt"
    train(path, module=Picky, n_epochs=1, **parameters)
    train(path, module=Picky, n_epochs=1, **parameters)
    for name, other, told in [
        ("module__nested", {"a": [1, (2.5, 3)]}, "module__nested.a.1.1 was None and is 3"),
        ("module__array", np.arange(3) * 2, "module__array differs"),
        ("module__inner", Net(), "module__inner differs"),
    ]:
        with pytest.raises(ValueError, match=told):
            train(path, module=Picky, n_epochs=1, **(parameters | {name: other}))
