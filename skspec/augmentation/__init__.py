"""Spectra made more like those to come: broadening, shifts, noise, bad pixels, continua.

Every augmentation takes a `Spectra` and returns one, errors included, and updates the labels that it
changes: ``augment(X, y)``. In a Pipeline it acts at fit only.
"""

from skspec.augmentation._bad_pixels import BadPixels, TelluricMask
from skspec.augmentation._base import Augmentation
from skspec.augmentation._broadening import InstrumentBroadening, RotationalBroadening
from skspec.augmentation._compose import Compose, OneOf
from skspec.augmentation._continuum_jitter import ContinuumJitter
from skspec.augmentation._gaussian_noise import GaussianNoise
from skspec.augmentation._radial_velocity_shift import RadialVelocityShift

__all__ = [
    "Augmentation",
    "BadPixels",
    "Compose",
    "ContinuumJitter",
    "GaussianNoise",
    "InstrumentBroadening",
    "OneOf",
    "RadialVelocityShift",
    "RotationalBroadening",
    "TelluricMask",
]
