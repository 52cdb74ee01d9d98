"""Options of training: one block, the same in every estimator that trains a network."""

from inspect import signature

import pytest
from sklearn.base import clone

from skspec.discriminative import SpectralCNN
from skspec.forward import ThePayne
from skspec.latent import BetaVAE, DenoisingAutoencoder
from skspec.networks import NetworkOptions, ResumableOptions, TrainingOptions
from skspec.transfer import CycleStarNet

NETWORKS = [SpectralCNN, BetaVAE, DenoisingAutoencoder, CycleStarNet, ThePayne]
BLOCKS = [NetworkOptions, ResumableOptions, TrainingOptions]  # each holds the next


def options(cls):
    block = next(block for block in BLOCKS if issubclass(cls, block))
    return list(signature(block).parameters)


@pytest.mark.parametrize("cls", NETWORKS)
def test_every_option_is_a_parameter(cls):
    names = signature(cls).parameters
    assert set(options(cls)) < set(names)
    assert "shared" not in names
    given = {"max_iter": 7, "device": "cpu", "random_state": 3}
    if issubclass(cls, ResumableOptions):
        given["checkpoint"] = "file.pt"
    assert given.items() <= clone(cls(**given)).get_params().items()
    assert set(cls._parameter_constraints) == set(names)


def test_the_blocks_are_nested():
    assert set(options(ThePayne)) < set(options(CycleStarNet)) < set(options(BetaVAE))
    for name, each in signature(TrainingOptions).parameters.items():
        assert signature(BetaVAE).parameters[name].default == each.default


@pytest.mark.parametrize("cls", NETWORKS)
def test_wrong_options(cls):
    with pytest.raises(TypeError, match="'max_epochs'"):
        cls(max_epochs=3)
