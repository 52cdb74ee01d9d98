"""The private names of scikit-learn that its whole contrib world uses, imported in one place."""

from sklearn.base import _fit_context as fit_context
from sklearn.utils._param_validation import HasMethods, Hidden, Interval, Options, StrOptions

__all__ = ["HasMethods", "Hidden", "Interval", "Options", "StrOptions", "fit_context"]
