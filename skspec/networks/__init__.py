"""Networks: the one place that knows PyTorch and skorch, imported when a network is trained."""

from importlib import import_module
from importlib.util import find_spec

from skspec.networks._flux_scaler import FluxScaler
from skspec.networks._options import NetworkOptions, ResumableOptions, TrainingOptions
from skspec.networks._perceptron import ACTIVATIONS, Perceptron
from skspec.networks._split import split_stars

_LAZY = {
    "AttentionNetwork": "_architectures",
    "AugmentedStars": "_augmented_stars",
    "ConvolutionalAutoencoder": "_autoencoder",
    "DenseNetwork": "_modules",
    "Domain": "_adversarial",
    "Dropout": "_architectures",
    "EvidenceLoss": "_vae",
    "FreshNoise": "_fresh_noise",
    "GaussianHead": "_gaussian",
    "GaussianLoss": "_gaussian",
    "ResidualNetwork": "_architectures",
    "SpectralNetwork": "_spectral_network",
    "StarNet": "_architectures",
    "StarStream": "_stream",
    "StridedNetwork": "_architectures",
    "VariationalAutoencoder": "_vae",
    "WeightedLoss": "_modules",
    "check_resumable": "_checkpoint",
    "fit_network": "_training",
    "fit_translator": "_adversarial",
    "in_batches": "_evaluation",
    "resolve_device": "_training",
    "training_history": "_training",
}

__all__ = [
    "ACTIVATIONS",
    "AttentionNetwork",
    "AugmentedStars",
    "ConvolutionalAutoencoder",
    "DenseNetwork",
    "Domain",
    "Dropout",
    "EvidenceLoss",
    "FluxScaler",
    "FreshNoise",
    "GaussianHead",
    "GaussianLoss",
    "NetworkOptions",
    "Perceptron",
    "ResidualNetwork",
    "ResumableOptions",
    "SpectralNetwork",
    "StarNet",
    "StarStream",
    "StridedNetwork",
    "TrainingOptions",
    "VariationalAutoencoder",
    "WeightedLoss",
    "can_train",
    "check_resumable",
    "fit_network",
    "fit_translator",
    "in_batches",
    "resolve_device",
    "split_stars",
    "training_history",
]


def can_train() -> bool:
    """Whether PyTorch and skorch are installed."""
    return all(find_spec(name) is not None for name in ("torch", "skorch"))


def __getattr__(name):
    if name not in _LAZY:
        raise AttributeError(f"module 'skspec.networks' has no attribute {name!r}")
    try:
        return getattr(import_module(f"skspec.networks.{_LAZY[name]}"), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in ("torch", "skorch"):
            raise
        raise ImportError(
            f"Training a network needs PyTorch and skorch, and {missing} is not installed: "
            "python -m pip install 'skspec[nn]'."
        ) from error
