import pickle
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

torch = pytest.importorskip("torch")
pytest.importorskip("skorch")

from skspec.networks import (  # noqa: E402
    ACTIVATIONS,
    DenseNetwork,
    Perceptron,
    WeightedLoss,
    fit_network,
    resolve_device,
)


@pytest.fixture(scope="module")
def waves():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2))
    return x, np.sin(x @ rng.normal(size=(2, 7))), np.ones((60, 7))


def train(data, *, width=20, activation="silu", power=2, valid=None, **options):
    settings = {
        "n_epochs": 40,
        "batch_size": 16,
        "learning_rate": 0.02,
        "patience": 40,
        "n_threads": 1,
    }
    valid = valid or tuple(a[40:] for a in data)
    return fit_network(
        DenseNetwork,
        WeightedLoss,
        tuple(a[:40] for a in data),
        valid,
        **(settings | options),
        module__n_in=2,
        module__n_out=7,
        module__hidden=(width,),
        module__activation=activation,
        criterion__power=power,
    )


def output(net, x):
    hidden, (matrix, bias) = net.module_.arrays()
    return Perceptron(hidden, net.module__activation)(x) @ np.vstack([bias, matrix])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_numpy_repeats_torch(activation, waves):
    net = train(waves, activation=activation, n_epochs=2)
    assert_allclose(output(net, waves[0]), net.predict(waves[0].astype(np.float32)), atol=1e-5)


@pytest.mark.parametrize("power", [1, 2])
def test_it_learns_and_repeats_itself(power, waves):
    x, y, _ = waves
    first, second = (train(waves, power=power, seed=3) for _ in range(2))
    assert_array_equal(output(first, x), output(second, x))
    assert not np.allclose(output(first, x), output(train(waves, power=power, seed=4), x))
    assert np.std(output(first, x)[40:] - y[40:]) < 0.75 * np.std(y[40:])


def test_the_best_state_is_restored(waves):
    x, y, w = waves
    noisy = y + np.random.default_rng(1).normal(size=y.shape)
    net = train((x, noisy, w), width=100, n_epochs=200, patience=10)
    losses = net.history[:, "valid_loss"]
    assert len(losses) < 200
    assert np.argmin(losses) == len(losses) - 11
    assert_allclose(np.mean((output(net, x[40:]) - noisy[40:]) ** 2), min(losses), rtol=1e-4)


def test_without_weight_a_pixel_pulls_nothing(waves):
    x, y, w = waves
    spoilt, weight = y.copy(), w.copy()
    spoilt[::3, 2], weight[::3, 2] = 1e6, 0
    zeroed = np.where(weight > 0, y, 0)
    first, second = (output(train((x, flux, weight)), x) for flux in (spoilt, zeroed))
    assert_array_equal(first, second)


@pytest.mark.parametrize("batch_size", [1, 39, 40, 1000])
def test_any_batch_size(batch_size, waves):
    net = train(waves, batch_size=batch_size, n_epochs=1)
    sizes = [
        batch["train_batch_size"]
        for batch in net.history[-1]["batches"]
        if "train_batch_size" in batch
    ]
    assert sum(sizes) == 40
    assert len(sizes) == -(-40 // batch_size)
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "plateau", None])
def test_schedules(schedule, waves):
    for n_epochs in (1, 2, 3, 8, 9, 10, 40):
        net = train(waves, schedule=schedule, n_epochs=n_epochs, batch_size=40)
        assert len(net.history) == n_epochs
        rate = net.optimizer_.param_groups[0]["lr"]
        assert rate < (0.02 if schedule == "cosine" else 0.020001)
        if n_epochs == 40 and schedule in ("cosine", "one_cycle"):
            assert rate < 1e-4


def test_without_a_validation_set_the_last_state_stays(waves):
    data = tuple(a[:40] for a in waves)
    settings = {"n_epochs": 3, "batch_size": 16, "learning_rate": 0.02, "patience": 40}
    sizes = {f"module__{k}": v for k, v in {"n_in": 2, "n_out": 7, "hidden": (5,)}.items()}
    nets = [
        fit_network(
            DenseNetwork,
            WeightedLoss,
            data,
            None,
            **settings,
            **sizes,
            module__activation="silu",
            state=state,
        )
        for state in (None, train(waves, width=5).module_.state_dict())
    ]
    assert nets[1].history[0, "train_loss"] < nets[0].history[0, "train_loss"]


def test_named_inputs_and_augmentation(waves):
    x, y, w = waves
    seen = []

    def augment(inputs):
        seen.append(inputs["x"].shape)
        return {"x": inputs["x"] + 1.0}

    named = tuple(({"x": x[rows]}, y[rows], w[rows]) for rows in (slice(40), slice(40, None)))
    net = fit_network(
        DenseNetwork,
        WeightedLoss,
        *named,
        n_epochs=2,
        batch_size=16,
        learning_rate=0.02,
        patience=40,
        augment=augment,
        module__n_in=2,
        module__n_out=7,
        module__hidden=(5,),
        module__activation="silu",
    )
    assert len(seen) == 6  # the batches of training alone
    assert len(pickle.dumps(net)) < 60_000


def test_the_generators_and_the_data_are_left_alone(waves):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    copies = [a.copy() for a in waves]
    for array in waves:
        array.flags.writeable = False
    train(waves, n_epochs=2)
    for array, copy in zip(waves, copies):
        array.flags.writeable = True
        assert_array_equal(array, copy)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_silent_and_tells_of_each_epoch(waves, capsys):
    told = []
    train(waves, n_epochs=5, on_epoch=lambda: told.append(1))
    assert len(told) == 5
    assert capsys.readouterr() == ("", "")


def test_threads_are_given_back(waves):
    before, during = torch.get_num_threads(), []
    train(waves, n_epochs=1, n_threads=1, on_epoch=lambda: during.append(torch.get_num_threads()))
    assert during == [1]
    assert torch.get_num_threads() == before


def test_ctrl_c_is_not_taken_for_the_end_of_training(waves):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(waves, on_epoch=interrupt)


def test_devices():
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    for device in ("nonsense", "cuda:99"):
        with pytest.raises(ValueError, match=f"device='{device}' cannot be used .*try 'auto'"):
            resolve_device(device)


def test_without_them_the_sentence_says_what_to_install():
    code = (
        "import sys; sys.modules['skorch'] = None\n"
        "from skspec.datasets import make_spectra\n"
        "from skspec.diagnostics import available_methods\n"
        "from skspec.discriminative import SpectralCNN\n"
        "from skspec.forward import ThePayne\n"
        "from skspec.latent import DenoisingAutoencoder\n"
        "assert not {'the_payne', 'spectral_cnn'} & set(available_methods())\n"
        "for model in (ThePayne(), SpectralCNN(), DenoisingAutoencoder()):\n"
        "    try:\n"
        "        model.fit(*make_spectra(10, n_pixels=20, random_state=0))\n"
        "    except ImportError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert line.startswith("Training a network needs PyTorch and skorch")
        assert "pip install 'skspec[nn]'" in line
