"""The page as one HTML file: what a server would compute is computed beforehand, within a size."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from bokeh.embed import file_html
from bokeh.events import Tap
from bokeh.models import ColumnDataSource, CustomJS
from bokeh.resources import INLINE

from skspec.explore._page import CURVES, Page, about_start, fit_of_star, legend_of
from skspec.explore._session import MIN_CHANGE, N_NEIGHBOURS, REACH, steady_limit
from skspec.explore._static_code import AXES, CHOOSE, COLOUR, FIND, MOVE, NEIGHBOUR, TAP
from skspec.explore._style import ACCENT, TEMPLATE, colours_of

if TYPE_CHECKING:
    from skspec._typing import PathLike
    from skspec.explore._latent_space import LatentSpace

__all__ = ["write_static"]

N_STEPS = 21  # decoded spectra along each node
MAX_PIXELS = 4096  # longer spectra are averaged
MAX_POINTS = 10_000
STAR_VALUES = 2 * 10**6  # pixels of observed and decoded spectra of stars
MAX_NODES, MAX_COLUMNS = 24, 12  # offered as axes and as colours of the scatter


def write_static(
    space: LatentSpace, path: PathLike, *, title: str = "Latent space", n_points: int = MAX_POINTS
) -> Path:
    """Write the page as one HTML file that needs no server and no network.

    Sliders move one node at a time about the median star, between spectra decoded beforehand. A
    sample of the stars comes with its spectra. The page states both. The file is at most about
    20 MB, however many stars and pixels there are.

    Parameters
    ----------
    space : LatentSpace
    path : path-like
        File to write, all of it or nothing.
    title : str
        Headline.
    n_points : int
        Stars in the scatter at most, chosen at random; no more than 10 000.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ImportError
        Without bokeh (``pip install skspec[explore]``).
    """
    page = static_page(space, title, n_points)
    html = file_html(page.root, resources=INLINE, title=f"{title} · skspec", template=TEMPLATE)
    path = Path(path)
    part = path.with_name(path.name + ".part")
    part.write_text(html, encoding="utf-8")
    os.replace(part, path)
    return path


def static_page(space, title, n_points=MAX_POINTS):
    """The page with its callbacks in JavaScript."""
    page = Page(space, title=title, n_points=min(n_points, MAX_POINTS), live=False)
    bins = -(-len(space.wavelength) // MAX_PIXELS)
    start = space.decode(space.centre)
    x, (flux,) = _averaged(space, [start], bins)
    nothing = np.full(len(x), np.nan, dtype=np.float32)
    page.curves.data = {"x": x, **dict.fromkeys(CURVES, nothing)} | {
        "decoded": flux,
        "difference": np.zeros_like(flux),
    }
    page.set_frame(start)
    shared = _shared(page, flux)
    _connect_sliders(page, shared, bins)
    n_spectra = _connect_stars(page, shared, bins) if len(space) else 0
    page.notes.text = _notes(page, bins, n_spectra)
    return page


def _averaged(space, curves, bins):
    """Curves (k, P) with `bins` pixels averaged into one, in single precision."""
    x, curves = space.ascending(*curves)
    if bins == 1:
        return x, curves.astype(np.float32)
    edges = np.arange(0, len(x), bins)
    good = np.isfinite(curves)
    count = np.add.reduceat(good, edges, axis=1, dtype=float)
    total = np.add.reduceat(np.where(good, curves, 0.0), edges, axis=1)
    mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return np.add.reduceat(x, edges) / np.diff([*edges, len(x)]), mean.astype(np.float32)


def _shared(page, start):
    """What a moved slider and a chosen star both touch."""
    if not len(page.space):
        page.chosen = page.near = ColumnDataSource({"x": [], "y": []})
        page.table = None
    return {
        "sliders": list(page.sliders.values()),
        "centre": [s.value for s in page.sliders.values()],
        "beginning": ColumnDataSource({"flux": start}),
        "curves": page.curves,
        "star": page.star,
        "chosen": page.chosen,
        "near": page.near,
        "table": page.table,
        "difference": page.difference.y_range,
        "least": float(steady_limit(np.zeros(1), MIN_CHANGE * np.nanmedian(np.abs(start)))),
    }


def _connect_sliders(page, shared, bins):
    """Spectra along each node, decoded here; a slider shows what lies between two of them."""
    space, flux = page.space, []
    for node in page.nodes:
        latents = np.tile(space.centre, (N_STEPS, 1))
        latents[:, node] = np.linspace(space.low[node], space.high[node], N_STEPS)
        flux += [_averaged(space, [space.decode(z)], bins)[1].ravel() for z in latents]
    move = CustomJS(
        code=MOVE,
        args=shared
        | {
            "low": space.low[page.nodes].tolist(),
            "high": space.high[page.nodes].tolist(),
            "steps": ColumnDataSource({"flux": np.concatenate(flux)}),
            "n_steps": N_STEPS,
            "about": about_start(space),
        },
    )
    for slider in page.sliders.values():
        slider.js_on_change("value", move)
    back = "sliders.forEach((s, k) => { s.value = centre[k]; });"
    page.reset.js_on_click(CustomJS(code=back, args=shared))


def _connect_stars(page, shared, bins):
    """Callbacks of the scatter and its table; how many stars come with spectra."""
    space, nodes = page.space, page.space.nodes[:MAX_NODES]
    page.set_colour(page.colour.value)
    page.set_axes()
    at = space.latents[page.rows]
    rows, spectra, fits = _spectra_of_stars(page, bins)
    where = np.full(len(page.rows), -1, dtype=np.int32)
    where[np.searchsorted(page.rows, rows)] = np.arange(len(rows))
    data = {"spectrum": where} | {f"z{j}": at[:, k].astype(np.float32) for j, k in enumerate(nodes)}
    for j, column in enumerate(space.columns[:MAX_COLUMNS]):
        data[f"v{j}"] = page.colour_values(column)
        data[f"t{j}"] = [column.text(row) for row in page.rows]
    page.points.data.update(data)
    choose = CustomJS(
        code=CHOOSE,
        args=shared
        | {
            "points": page.points,
            "spectrum": page.spectrum.y_range,
            "spread": space.spread[nodes].tolist(),
            "n_near": N_NEIGHBOURS,
            "fits": fits,
            "n_columns": len(page.table_columns),
            "spectra": ColumnDataSource({"flux": spectra}),
            "names": [c.name for c in space.columns[:MAX_COLUMNS]],
        },
    )
    frame = {"x_range": page.scatter.x_range, "y_range": page.scatter.y_range}
    go = {"points": page.points, "choose": choose, "table": page.table}
    page.scatter.js_on_event(Tap, CustomJS(code=TAP, args=go | frame | {"reach": REACH}))
    page.table.selected.js_on_change("indices", CustomJS(code=NEIGHBOUR, args=go))
    page.find.js_on_change("value", CustomJS(code=FIND, args=go))
    axes = CustomJS(
        code=AXES,
        args=frame
        | {
            "points": page.points,
            "chosen": page.chosen,
            "near": page.near,
            "across": page.across,
            "up": page.up,
            "nodes": [str(k) for k in nodes],
            "x_axis": page.scatter.xaxis[0],
            "y_axis": page.scatter.yaxis[0],
        },
    )
    for select in (page.across, page.up):
        select.options = select.options[:MAX_NODES]
        select.js_on_change("value", axes)
    _connect_colours(page)
    return len(rows)


def _connect_colours(page):
    none = {"name": "", "palette": [ACCENT], "low": 0, "high": 1, "legend": "", "bar": False}
    choices = [none | {"column": -1}]
    for j, column in enumerate(page.space.columns[:MAX_COLUMNS]):
        palette, low, high = colours_of(column)
        choices.append(
            {
                "name": column.name,
                "column": j,
                "palette": palette,
                "low": low,
                "high": high,
                "legend": legend_of(column, palette),
                "bar": not column.classes,
            }
        )
    page.colour.options = page.colour.options[: 1 + MAX_COLUMNS]
    zeros = ColumnDataSource({"value": np.zeros(len(page.rows), dtype=np.float32)})
    page.colour.js_on_change(
        "value",
        CustomJS(
            code=COLOUR,
            args={
                "colours": choices,
                "mapper": page.mapper,
                "points": page.points,
                "legend": page.legend,
                "bar": page.bar,
                "zeros": zeros,
            },
        ),
    )


def _spectra_of_stars(page, bins):
    """Rows of the stars that come with spectra, all of these one after another, and how they fit."""
    space = page.space
    n_pixels = -(-len(space.wavelength) // bins)
    n = min(len(page.rows), STAR_VALUES // (2 * n_pixels))
    rows = np.sort(np.random.default_rng(1).choice(page.rows, n, replace=False))
    flux, fits = [], []
    for row in rows:
        star = space.star(row)
        flux.append(_averaged(space, [star.observed, star.decoded], bins)[1].ravel())
        fits.append(fit_of_star(star))
    return rows, np.concatenate(flux), fits


def _notes(page, bins, n_spectra):
    """What was left out to keep the file small."""
    notes = [
        f"Sliders move one node at a time about {'the median star' if len(page.space) else 'zero'}; "
        f"spectra between {N_STEPS} decoded ones are interpolated."
    ]
    if n_spectra:
        some = "All" if n_spectra == len(page.space) else f"{n_spectra} of {len(page.space)}"
        notes.append(f"{some} stars come with their spectra.")
        if len(page.rows) < len(page.space):
            notes.append("Neighbours are sought among the stars drawn.")
    if bins > 1:
        notes.append(f"{bins} pixels are averaged into one.")
    return "".join(f"<p class=soft>{text}</p>" for text in notes)
