"""Forward models: learn labels -> flux, invert by likelihood."""

from skspec.forward._base import ForwardModel, InversionResult
from skspec.forward._the_cannon import TheCannon, censoring_mask

__all__ = ["ForwardModel", "InversionResult", "TheCannon", "censoring_mask"]
