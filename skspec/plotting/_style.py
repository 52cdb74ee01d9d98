"""One look for all figures: colours that colour-blind readers tell apart, no global state."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np

__all__ = ["colour", "figure", "label_text", "label_unit", "log_ticks", "panels", "plain", "styled"]

INK = "#1b1f24"
QUIET = "#8a929c"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7b5ea7", "#6b6b6b")
_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": QUIET,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.facecolor": "white",
    "font.size": 9.5,
    "grid.color": "#e8eaed",
    "grid.linewidth": 0.7,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "text.color": INK,
    "xtick.color": QUIET,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.color": QUIET,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8.5,
}
_TEXT = {
    "teff": r"$T_\mathrm{eff}$",
    "logg": r"$\log g$",
    "feh": "[Fe/H]",
    "m_h": "[M/H]",
    "mh": "[M/H]",
    "alpha_m": r"[$\alpha$/M]",
    "alpham": r"[$\alpha$/M]",
    "alphafe": r"[$\alpha$/Fe]",
    "mgfe": "[Mg/Fe]",
    "vsini": r"$v\,\sin i$",
    "vmacro": r"$v_\mathrm{macro}$",
    "rv": "RV",
}
_UNITS = {"teff": "K", "vsini": "km/s", "vmacro": "km/s", "rv": "km/s"}


def label_text(name: str, *, unit: bool = False) -> str:
    """A label as it is printed on an axis, with its unit where asked for."""
    text = _TEXT.get(name.lower()) or plain(name)
    return f"{text} [{label_unit(name)}]" if unit and label_unit(name) else text


def plain(text: str) -> str:
    """`text` for matplotlib to print as it is, which takes dollars for formulae.

    Outside of formulae ``_``, ``^`` and braces mean nothing; but legends leave out names that begin with
    ``_``.
    """
    text = text.replace("$", r"\$")
    return r"$\_$" + text[1:] if text.startswith("_") else text


def label_unit(name: str) -> str:
    """Unit of a known label, an empty string for others."""
    name = name.lower()
    return _UNITS.get(name, "dex" if name in _TEXT else "")


def colour(index: int) -> str:
    """Colour of the `index`-th method."""
    return _COLOURS[index % len(_COLOURS)]


@contextmanager
def styled():
    """The look of this library, for what is drawn inside."""
    with _matplotlib().rc_context(_STYLE):
        yield


def _matplotlib():
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            'Figures need matplotlib: pip install "skspec[all]"', name="matplotlib"
        ) from error
    return matplotlib


def figure(n_rows, n_columns, size, **kwargs):
    """A figure that belongs to nobody's window, and its axes (n_rows, n_columns)."""
    _matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(fig)
    return fig, fig.subplots(n_rows, n_columns, squeeze=False, **kwargs)


def panels(ax, n_panels, *, size=(3.4, 3.2), n_rows=1, **kwargs):
    """`ax` as a flat array of `n_panels` axes, on a new pyplot figure when it is None."""
    if ax is None:
        _matplotlib()
        import matplotlib.pyplot as plt

        n_columns = n_panels // n_rows
        _, ax = plt.subplots(
            n_rows,
            n_columns,
            figsize=(size[0] * n_columns, size[1] * n_rows),
            squeeze=False,
            layout="constrained",
            **kwargs,
        )
    axes = np.atleast_1d(ax).ravel()
    if len(axes) != n_panels:
        raise ValueError(f"{len(axes)} axes were given, {n_panels} are needed.")
    return axes


def log_ticks(axis):
    """Plain numbers at 1, 2, 5 on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
