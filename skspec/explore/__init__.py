"""The interactive page of a latent model: what ``skspec explore`` opens.

:class:`LatentSpace` holds what it shows, :func:`serve` serves it on this machine, and
:func:`write_static` writes it as one HTML file. Needs bokeh.
"""

from importlib import import_module

from skspec.explore._latent_space import LatentSpace, Star

_LAZY = {"serve": "_server", "write_static": "_static"}

__all__ = ["LatentSpace", "Star", "serve", "write_static"]


def __getattr__(name):
    if name not in _LAZY:
        raise AttributeError(f"module 'skspec.explore' has no attribute {name!r}")
    try:
        return getattr(import_module(f"skspec.explore.{_LAZY[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "bokeh":
            raise
        raise ImportError(
            "The interactive page needs bokeh: python -m pip install 'skspec[explore]'.",
            name="bokeh",
        ) from error
