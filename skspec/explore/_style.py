"""Style of the page: colours, style sheets, and the figures and widgets that all of it is made of."""

from __future__ import annotations

import numpy as np
from bokeh.models import InlineStyleSheet, Slider
from bokeh.palettes import Viridis256
from bokeh.plotting import figure
from jinja2 import Template

from skspec.plotting._style import INK, QUIET, colour

__all__ = [
    "ACCENT",
    "LEFT_BORDER",
    "MARK",
    "OBSERVED",
    "TEMPLATE",
    "UNKNOWN",
    "colours_of",
    "plain_figure",
    "sheet",
    "slider",
]

ACCENT, MARK, OBSERVED, LINE = colour(0), colour(1), "#5f6873", "#e3e6ea"
UNKNOWN = "#d3d7dc"
LEFT_BORDER = 62  # pixels: one for all figures, so that their wavelengths lie above each other
FONT = '-apple-system, "Segoe UI", "Helvetica Neue", Arial, "Liberation Sans", sans-serif'

TEMPLATE = Template(
    """{% extends base %}
{% block postamble %}<style>
html, body { height: 100%; margin: 0; background: #fff; }
body { font-family: FONT; color: INK; }
</style>{% endblock %}""".replace("FONT", FONT).replace("INK", INK)
)

_SHEET = f"""
:host {{ --font: {FONT}; color: {INK}; font-family: var(--font); font-size: 12.5px; }}
.bk-clearfix, .bk-input, .bk-btn, label {{ font-family: var(--font); font-size: 12.5px; }}
.bk-input {{ height: 27px; min-height: 27px; padding: 0 8px; border-color: {LINE}; }}
.bk-btn {{ padding: 4px 10px; border-color: {LINE}; }}
:host(.inline) .bk-input-group {{ flex-direction: row; align-items: center; gap: 6px; }}
:host(.inline) label {{ color: #59636e; white-space: nowrap; }}
.bk-slider-title {{ font-size: 12px; margin-bottom: 3px; }}
.bk-slider-value {{ font-variant-numeric: tabular-nums; }}
.noUi-target {{ height: 4px !important; border: none; box-shadow: none; background: {LINE}; }}
.noUi-handle {{ width: 13px !important; height: 13px !important; right: -7px !important;
  top: -5px !important; border-radius: 50% !important; border: 2px solid {ACCENT}; box-shadow: none;
  background: #fff; }}
h1 {{ font-size: 16px; font-weight: 650; margin: 0; letter-spacing: -.01em; }}
h2 {{ font-size: 12.5px; font-weight: 650; margin: 0; }}
p {{ margin: 2px 0; }}
.soft {{ color: #59636e; }}
.dot {{ display: inline-block; width: 9px; height: 9px; border-radius: 50%; margin-right: 5px; }}
.key {{ display: inline-block; margin: 0 12px 1px 0; white-space: nowrap; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: 1px 12px; margin: 4px 0 0; }}
dt {{ color: #59636e; }} dd {{ margin: 0; font-variant-numeric: tabular-nums; }}
.slick-header-column, .slick-cell {{ font-family: var(--font); font-size: 12px; }}
.slick-header-column {{ background: #fff !important; color: #59636e; font-weight: 600; }}
"""


def sheet():
    """Style sheet of one widget (they do not see that of the page)."""
    return InlineStyleSheet(css=_SHEET)


def slider(title, low, high, value):
    """A slider that takes little room."""
    step = max((high - low) / 400, 1e-12)
    digits = "0.00" if high - low > 1 else "0.000"
    return Slider(
        title=title,
        start=low,
        end=high,
        value=value,
        step=step,
        format=digits,
        name=title,
        bar_color=ACCENT,
        tooltips=False,
        sizing_mode="stretch_width",
        stylesheets=[sheet()],
        margin=(0, 12, 7, 6),
    )


def plain_figure(**options):
    """A figure in the look of this library."""
    options = {"tools": "", "toolbar_location": None, "min_border_right": 12} | options
    fig = figure(output_backend="canvas", **options)
    fig.outline_line_color = None
    fig.stylesheets = [InlineStyleSheet(css=":host(:focus) { outline: none; }")]
    fig.grid.grid_line_color = "#eef0f2"
    for axis in fig.axis:
        axis.axis_line_color = axis.major_tick_line_color = QUIET
        axis.minor_tick_line_color = None
        axis.major_label_text_font_size = axis.axis_label_text_font_size = "11px"
        axis.major_label_text_color = axis.axis_label_text_color = INK
        axis.major_label_text_font = axis.axis_label_text_font = FONT
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_standoff = 4
    fig.xaxis.formatter.use_scientific = False
    return fig


def colours_of(column):
    """Palette, limits, and names of the classes that a column is coloured by."""
    if column.classes:
        palette = [colour(k) for k in range(len(column.classes))]
        if len(palette) > 8:
            palette[8:] = ["#b0a08a", UNKNOWN][: len(palette) - 8]
        return palette, -0.5, len(palette) - 0.5
    low, high = np.nanpercentile(column.values, (5, 95))
    if not low < high:
        low, high = low - 0.5, low + 0.5
    return list(Viridis256), float(low), float(high)
