"""The page: figures, sliders and tables, and the sources they draw from. Nothing moves by itself."""

from __future__ import annotations

from html import escape

import numpy as np
from bokeh.layouts import column, row
from bokeh.models import (
    BoxZoomTool,
    Button,
    ColorBar,
    ColumnDataSource,
    CustomJS,
    DataTable,
    Div,
    GridPlot,
    HoverTool,
    LabelSet,
    LinearColorMapper,
    NumberFormatter,
    PanTool,
    RadioButtonGroup,
    Range1d,
    ResetTool,
    Select,
    StringFormatter,
    TableColumn,
    TextInput,
    Toolbar,
    ToolProxy,
    WheelZoomTool,
)

from skspec.explore._style import (
    ACCENT,
    LEFT_BORDER,
    MARK,
    OBSERVED,
    UNKNOWN,
    colours_of,
    plain_figure,
    sheet,
    slider,
)

__all__ = ["CURVES", "Page", "about_star", "about_start", "fit_of_star", "legend_of"]

MAX_SLIDERS = 12
N_TABLE_COLUMNS = 4
CURVES = ("observed", "decoded", "difference", "node", "label")
#: names of lines that would overlap at this zoom are left out
_THIN_OUT = """
const {start, end} = range, {x, name} = all.data, shown = {x: [], name: []};
const per_pixel = (end - start) / Math.max(strip.inner_width, 1);
for (let i = 0, last = -Infinity; i < x.length; i++)
  if (x[i] >= start && x[i] <= end && (x[i] - last) / per_pixel > 13) {
    shown.x.push(x[i]); shown.name.push(name[i]); last = x[i];
  }
names.data = shown;
"""


class Page:
    """All that is on the page, each part under the name by which callbacks reach it.

    Parameters
    ----------
    space : LatentSpace
    title : str
        Of the model and the data.
    n_points : int
        Stars drawn in the scatter at most.
    live : bool
        Whether there is a server behind it, which compares nodes with labels.
    """

    def __init__(self, space, *, title, n_points=20_000, live=True):
        self.space, self.title = space, title
        self.compares = live and space.labels is not None and len(space.labels.columns) > 0
        self.rows = space.sample(n_points) if len(space) else np.empty(0, dtype=int)
        self.nodes = space.nodes[:MAX_SLIDERS]
        self._make_sliders()
        self._make_spectra()
        parts = [self._left(), self._middle()]
        if len(space):
            self._make_scatter()
            self._make_table()
            parts.append(self._right())
        self.root = column(
            self._header(),
            row(*parts, sizing_mode="stretch_both", spacing=10),
            sizing_mode="stretch_both",
            name="page",
            styles={"padding": "10px 14px 8px"},
        )

    # -- sliders -----------------------------------------------------------------------------------

    def _make_sliders(self):
        space = self.space
        self.sliders = {
            int(k): slider(f"node {k}", space.low[k], space.high[k], space.centre[k])
            for k in self.nodes
        }
        self.reset = Button(
            label="back to the start", stylesheets=[sheet()], margin=(0, 12, 6, 6), name="reset"
        )
        self.star = _text(about_start(space), name="star")

    def _left(self):
        n, shown = len(self.space.nodes), len(self.nodes)
        more = f"<p class=soft>The {shown} most spread of {n}.</p>" if shown < n else ""
        self.notes = _text("", name="notes")
        title = "Informative nodes" if len(self.space) else "Nodes"
        parts = [_text(f"<h2>{title}</h2>{more}"), *self.sliders.values(), self.reset]
        parts.append(self.notes)
        if len(self.space):
            self.find = TextInput(
                placeholder="name or row of a star, Enter",
                stylesheets=[sheet()],
                sizing_mode="stretch_width",
                margin=(8, 12, 4, 6),
                name="find",
            )
            parts.append(self.find)
        parts.append(self.star)
        return column(
            *parts, width=232, sizing_mode="stretch_height", styles={"overflow-y": "auto"}
        )

    # -- spectra -----------------------------------------------------------------------------------

    def _make_spectra(self):
        x = self.space.wavelength
        self.x_range = Range1d(float(x.min()), float(x.max()))
        self.curves = ColumnDataSource(
            {name: np.empty(0) for name in ("x", *CURVES)}, name="curves"
        )
        self.spectrum = self._spectral_figure("flux")
        self.difference = self._spectral_figure("decoded − start", height=150)
        self.comparison = self._spectral_figure("normalised", height=170, visible=False)
        self._line(self.spectrum, "observed", OBSERVED, "observed", 1)
        self._line(self.spectrum, "decoded", ACCENT, "decoded", 1.3)
        self._line(self.difference, "difference", ACCENT, None, 1.2)
        self._line(self.comparison, "label", MARK, "observed flux, with the label", 1.1)
        self._line(self.comparison, "node", ACCENT, "decoded flux, along the node", 1.1)
        self.strip = self._line_strip()
        unit = "wavelength [Å]" if self.space.has_wavelength else "pixel"
        for fig in (self.spectrum, self.comparison):
            _legend(fig)
        self.difference.xaxis.axis_label = unit
        self.spectrum.xaxis.visible = False
        names = list(self.space.labels) if self.space.labels is not None else []
        self.label = _select(
            "compare with", [("", "no label"), *((n, n) for n in names)], "label", width=142
        )
        self.node = _select("node", [(str(k), str(k)) for k in self.nodes], "node", width=88)
        self.stars = RadioButtonGroup(
            labels=["all stars", "200 nearest"], active=0, stylesheets=[sheet()], name="stars"
        )
        self.verdict = _text("", name="verdict", margin=(5, 0, 0, 8))

    def _spectral_figure(self, label, **options):
        sizing = "stretch_width" if "height" in options else "stretch_both"
        fig = plain_figure(
            x_range=self.x_range,
            y_range=Range1d(0, 1),
            min_border_left=LEFT_BORDER,
            min_border_top=2,
            min_border_bottom=4,
            sizing_mode=sizing,
            name=label,
            **options,
        )
        tools = [PanTool(), BoxZoomTool(), WheelZoomTool(dimensions="width"), ResetTool()]
        fig.add_tools(*tools)
        fig.toolbar.active_scroll, fig.toolbar.active_drag = tools[2], tools[0]
        fig.yaxis.axis_label = label
        fig.vspan(
            x="x", source=self._line_source(), line_color="#f0d9c8", line_width=1, level="underlay"
        )
        return fig

    def _line(self, fig, name, color, legend, width):
        named = {} if legend is None else {"legend_label": legend}
        fig.line("x", name, source=self.curves, color=color, line_width=width, alpha=0.9, **named)

    def _line_source(self):
        if not hasattr(self, "_marks"):
            where = [x for at in self.space.lines.values() for x in at]
            self._marks = ColumnDataSource({"x": where})
        return self._marks

    def _line_strip(self):
        """Names of strong lines above the spectra, as many as fit at the zoom."""
        lines = sorted((at.mean(), name) for name, at in self.space.lines.items())
        everything = ColumnDataSource({"x": [x for x, _ in lines], "name": [n for _, n in lines]})
        names = ColumnDataSource({"x": [], "name": []})
        strip = plain_figure(
            x_range=self.x_range,
            y_range=Range1d(0, 1),
            height=52,
            sizing_mode="stretch_width",
            min_border_left=LEFT_BORDER,
            min_border_bottom=0,
            min_border_top=0,
            visible=bool(lines),
        )
        strip.axis.visible = strip.grid.visible = False
        strip.y_range.bounds = (0, 1)
        strip.add_layout(
            LabelSet(
                x="x",
                y=0.02,
                text="name",
                source=names,
                angle=np.pi / 2,
                text_baseline="middle",
                text_font_size="10px",
                text_color="#a3623a",
            )
        )
        thin_out = CustomJS(
            args={"range": self.x_range, "strip": strip, "all": everything, "names": names},
            code=_THIN_OUT,
        )
        for prop in ("start", "end"):
            self.x_range.js_on_change(prop, thin_out)
        strip.js_on_change("inner_width", thin_out)
        return strip

    def _middle(self):
        """The figures above each other, with one toolbar for all."""
        figures = (self.spectrum, self.difference, self.comparison)
        proxies = [ToolProxy(tools=list(same)) for same in zip(*(f.toolbar.tools for f in figures))]
        pan, _, wheel, _ = proxies
        parts = [self.strip, self.spectrum, self.difference]
        if self.compares:
            controls = (self.label, self.node, self.stars, self.verdict)
            parts += [
                row(*controls, sizing_mode="stretch_width", margin=(4, 0, 0, 16)),
                self.comparison,
            ]
        return GridPlot(
            children=[(part, k, 0) for k, part in enumerate(parts)],
            sizing_mode="stretch_both",
            toolbar=Toolbar(tools=proxies, logo=None, active_drag=pan, active_scroll=wheel),
            toolbar_location="above",
            rows=["max-content", "1fr", *["max-content"] * len(parts[2:])],
            cols=["1fr"],
        )

    # -- stars -------------------------------------------------------------------------------------

    def _make_scatter(self):
        space, nodes = self.space, self.space.nodes
        options = [(str(k), f"node {k}") for k in nodes]
        first, second = str(nodes[0]), str(nodes[min(1, len(nodes) - 1)])
        self.across, self.up = _select("x", options, "across"), _select("y", options, "up")
        self.across.value, self.up.value = first, second
        names = [c.name for c in space.columns]
        self.colour = _select("colour", [("", "none"), *((n, n) for n in names)], "colour")
        self.colour.value = names[0] if names else ""
        self.points = ColumnDataSource(self._point_columns(), name="points")
        self.chosen = ColumnDataSource({"x": [], "y": []}, name="chosen")
        self.near = ColumnDataSource({"x": [], "y": []}, name="near")
        self.mapper = LinearColorMapper(palette=[ACCENT], low=0, high=1, nan_color=UNKNOWN)
        self.scatter = self._scatter_figure()
        self.legend = _text("", name="legend")

    def _point_columns(self):
        at = self.space.latents[self.rows].astype(np.float32)
        return {
            "x": at[:, int(self.across.value)],
            "y": at[:, int(self.up.value)],
            "value": np.full(len(self.rows), np.nan, dtype=np.float32),
            "row": self.rows.astype(np.int32),
            "name": self.space.names[self.rows].tolist(),
        }

    def _scatter_figure(self):
        wheel, pan, hover = WheelZoomTool(), PanTool(), HoverTool(tooltips="@name")
        fig = plain_figure(
            x_range=Range1d(0, 1),
            y_range=Range1d(0, 1),
            sizing_mode="stretch_both",
            min_border_left=46,
            toolbar_location="above",
            name="scatter",
        )
        fig.add_tools(pan, BoxZoomTool(), wheel, ResetTool(), hover)
        fig.toolbar.active_scroll, fig.toolbar.active_drag, fig.toolbar.logo = wheel, pan, None
        size = float(np.clip(60 / max(len(self.rows), 1) ** 0.35, 2.5, 8))
        drawn = fig.scatter(
            "x",
            "y",
            source=self.points,
            size=size,
            line_color=None,
            fill_alpha=0.75,
            fill_color={"field": "value", "transform": self.mapper},
        )
        hover.renderers = [drawn]
        fig.scatter(
            "x",
            "y",
            source=self.near,
            size=10,
            fill_color=None,
            line_color="#1b1f24",
            line_width=1.4,
        )
        fig.scatter(
            "x", "y", source=self.chosen, size=15, fill_color=None, line_color=MARK, line_width=2.6
        )
        self.bar = ColorBar(
            color_mapper=self.mapper,
            width=8,
            padding=4,
            visible=False,
            major_label_text_font_size="10.5px",
            bar_line_color=None,
        )
        fig.add_layout(self.bar, "right")
        return fig

    def _make_table(self):
        self.table_columns = self.space.columns[:N_TABLE_COLUMNS]
        fields = {name: [] for name in ("name", "distance", "row")}
        fields |= {f"c{k}": [] for k in range(len(self.table_columns))}
        self.table = ColumnDataSource(fields, name="table")
        columns = [
            TableColumn(field="name", title="star", width=110),
            TableColumn(
                field="distance",
                title="distance",
                width=62,
                formatter=NumberFormatter(format="0.00", text_align="right"),
            ),
        ]
        columns += [
            TableColumn(
                field=f"c{k}",
                title=escape(c.name),
                width=64,
                formatter=StringFormatter(text_align="right"),
            )
            for k, c in enumerate(self.table_columns)
        ]
        self.table_view = DataTable(
            source=self.table,
            columns=columns,
            index_position=None,
            height=236,
            row_height=24,
            sizing_mode="stretch_width",
            sortable=False,
            reorderable=False,
            stylesheets=[sheet()],
            name="table_view",
        )

    def _right(self):
        n, shown = len(self.space), len(self.rows)
        count = f"{shown:,} stars".replace(",", " ")
        if shown < n:
            count = f"{count} drawn at random of {n:,}".replace(",", " ")
        choices = row(self.across, self.up, self.colour, sizing_mode="stretch_width")
        return column(
            _text(
                f"<h2>Latent space <span class=soft style='font-weight:400'>· {count}; click one"
                "</span></h2>"
            ),
            choices,
            self.scatter,
            self.legend,
            _text(
                "<h2>Nearest neighbours <span class=soft style='font-weight:400'>· in spreads of "
                "the informative nodes; click one</span></h2>"
            ),
            self.table_view,
            sizing_mode="stretch_height",
            styles={"width": "clamp(430px, 31vw, 700px)", "flex": "none"},
        )

    def _header(self):
        return _text(
            f"<h1>{escape(self.title)} <span class=soft style='font-weight:400; font-size:12.5px'>"
            f"· skspec explore · {escape(_what(self.space))}</span></h1>",
            sizing_mode="stretch_width",
            margin=(0, 0, 8, 6),
        )

    # -- colours -----------------------------------------------------------------------------------

    def set_colour(self, name):
        """Colour the stars by a column, or by nothing."""
        column = next((c for c in self.space.columns if c.name == name), None)
        palette, low, high = ([ACCENT], 0, 1) if column is None else colours_of(column)
        self.mapper.update(palette=palette, low=low, high=high)
        self.points.data["value"] = self.colour_values(column)
        self.legend.text = legend_of(column, palette)
        self.bar.visible = column is not None and not column.classes

    def colour_values(self, column):
        """What the colours of the stars stand for, NaN where unknown."""
        values = np.zeros(len(self.rows)) if column is None else column.values[self.rows]
        if column is not None and column.classes:
            values = np.where(values < 0, np.nan, values)
        return values.astype(np.float32)

    # -- frames ------------------------------------------------------------------------------------

    def set_axes(self):
        """The chosen nodes on the axes of the scatter."""
        nodes, axes = (
            (int(self.across.value), int(self.up.value)),
            (self.scatter.xaxis, self.scatter.yaxis),
        )
        at = self.space.latents[self.rows][:, nodes]
        self.points.data.update(dict(zip("xy", at.T.astype(np.float32))))
        for k, frame in enumerate((self.scatter.x_range, self.scatter.y_range)):
            low, high = np.percentile(at[:, k], (0.1, 99.9))
            _set_range(frame, low, high, 0.05)
            axes[k].axis_label = f"node {nodes[k]}"

    def set_frame(self, *spectra):
        """Flux axis that holds these spectra, the few largest outliers left out."""
        low, high = np.nanpercentile(np.concatenate(spectra), (0.2, 99.8))
        _set_range(self.spectrum.y_range, low, high, 0.08)


def _set_range(frame, low, high, margin):
    margin = margin * (high - low) or 0.5
    low, high = low - margin, high + margin
    frame.update(start=low, end=high, reset_start=low, reset_end=high)


def about_start(space):
    """What is shown before a star is chosen."""
    if len(space):
        return "<h2>The median star</h2><p class=soft>Click a star to see its spectrum.</p>"
    return "<h2>Latent zero</h2><p class=soft>Without --data there are no stars to compare.</p>"


def about_star(space, star):
    """Name, fit and labels of a star."""
    facts = [("row", str(star.row)), fit_of_star(star)]
    facts += [(c.name, c.text(star.row)) for c in space.columns[:12]]
    cells = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts)
    return f"<h2>{escape(star.name)}</h2><dl>{cells}</dl>"


def fit_of_star(star):
    """How well the reconstruction fits: name and value of the best measure there is."""
    if np.isfinite(star.reduced_chi2):
        return ("reduced χ²", f"{star.reduced_chi2:.3g}")
    return ("rms difference", f"{star.rms:.3g}")


def legend_of(column, palette):
    """Classes and their colours, or what the colour bar shows."""
    if column is None:
        return ""
    if not column.classes:
        return f"<span class=soft>colour: {escape(column.name)}, 5th to 95th percentile</span>"
    count = np.bincount(column.values[column.values >= 0].astype(int), minlength=len(palette))
    keys = "".join(
        f"<span class=key><span class=dot style='background:{c}'></span>{escape(name)} "
        f"<span class=soft>{k}</span></span>"
        for name, c, k in zip(column.classes, palette, count)
    )
    return f"<div>{keys}</div>"


def _what(space):
    """Sizes, in words."""
    stars = f"{len(space):,} stars · ".replace(",", " ") if len(space) else ""
    n_pixels, n_nodes = len(space.wavelength), space.latents.shape[1]
    informative = f"{len(space.nodes)} of {n_nodes} nodes " + (
        "informative" if len(space) else "move the spectrum"
    )
    return f"{stars}{n_pixels:,} pixels · {informative}".replace(",", " ")


def _text(html, **options):
    options = {"sizing_mode": "stretch_width", "margin": (0, 6, 4, 6)} | options
    return Div(text=html, stylesheets=[sheet()], **options)


def _select(title, options, name, width=None):
    return Select(
        title=title,
        options=options,
        value=options[0][0] if options else "",
        name=name,
        sizing_mode=None if width else "stretch_width",
        width=width,
        stylesheets=[sheet()],
        margin=(0, 4, 2, 4),
        css_classes=["inline"],
    )


def _legend(fig):
    legend = fig.legend[0]
    legend.orientation, legend.location = "horizontal", "bottom_right"
    legend.label_text_font_size = "11px"
    legend.background_fill_alpha, legend.border_line_color = 0.75, None
    legend.padding, legend.spacing, legend.margin = 2, 12, 2
    legend.glyph_width, legend.click_policy = 16, "hide"
