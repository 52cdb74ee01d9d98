"""What happens on a served page: sliders move the spectrum, a click chooses a star."""

from __future__ import annotations

import time
from html import escape

import numpy as np
from bokeh.events import Tap

from skspec.explore._latent_space import comparable
from skspec.explore._page import CURVES, Page, about_star
from skspec.explore._style import TEMPLATE
from skspec.solvers.statistics.min_max import min_max_bins

__all__ = ["Session", "steady_limit"]

N_BINS = 1200  # of the spectra, until the page has said how wide it is
WAIT = 0.03  # seconds at least between two drawings
N_NEIGHBOURS = 8
MIN_CHANGE = 0.005  # of the flux, that the axis of differences shows
REACH = 0.04  # of the width of the scatter: a click further from any star chooses none


class Session:
    """The state of one open page, and its callbacks.

    Parameters
    ----------
    page : Page
    """

    def __init__(self, page):
        self.page, self.space = page, page.space
        self.star, self.start = None, self.space.centre
        self.latents = self.start.copy()
        self._due, self._quiet, self._cost, self._bins = set(), False, 0.0, N_BINS
        self.document = None
        self._connect()
        self._return_to_start()
        page.set_frame(self._start_flux)
        if len(self.space):
            page.set_colour(page.colour.value)

    @classmethod
    def open(cls, document, space, **options):
        """Put the page into a new document."""
        session = cls(Page(space, **options))
        document.add_root(session.page.root)
        document.title, document.template = f"{session.page.title} · skspec", TEMPLATE
        session.document = document
        return session

    def _connect(self):
        page = self.page
        for node, slider in page.sliders.items():
            slider.on_change("value", lambda _a, _o, new, node=node: self._moved(node, new))
        page.reset.on_click(self._return_to_start)
        for name in ("start", "end"):
            page.x_range.on_change(name, lambda _a, _o, _n: self._later("send"))
        page.spectrum.on_change("inner_width", lambda _a, _o, new: self._resized(new))
        for widget in (page.label, page.node):
            widget.on_change("value", lambda _a, _o, _n: self._later("redraw"))
        page.stars.on_change("active", lambda _a, _o, _n: self._later("redraw"))
        if not len(self.space):
            return
        for widget in (page.across, page.up):
            widget.on_change("value", lambda _a, _o, _n: self._set_axes())
        page.colour.on_change("value", lambda _a, _o, new: page.set_colour(new))
        page.find.on_change("value", lambda _a, _o, new: self._find(new))
        page.scatter.on_event(Tap, lambda event: self._tap(event.x, event.y))
        page.table.selected.on_change("indices", lambda _a, _o, new: self._go_to_neighbour(new))
        self._set_axes()

    # -- drawing, no more often than it takes ------------------------------------------------------

    def _later(self, what):
        """Draw soon, once for all that changes until then."""
        if self._quiet:
            return
        waiting = bool(self._due)
        self._due.add(what)
        if self.document is None:
            self._draw()
        elif not waiting:
            # messages that piled up while the model was busy are read first
            pause = max(WAIT, 0.3 * self._cost)
            self.document.add_timeout_callback(self._draw, int(1000 * pause))

    def _draw(self):
        began, due = time.perf_counter(), self._due
        self._due = set()
        if "redraw" in due:
            self._redraw()
        else:
            self._send()
        self._cost = time.perf_counter() - began

    def _redraw(self):
        """All curves anew, in full."""
        space = self.space
        nothing = np.full(len(space.wavelength), np.nan)
        decoded = space.decode(self.latents)
        curves = [
            nothing if self.star is None else self.star.observed,
            decoded,
            decoded - self._start_flux,
            *self._compared(nothing),
        ]
        self._full = space.ascending(*curves)
        limit = steady_limit(self._full[1][2], MIN_CHANGE * np.nanmedian(np.abs(self._start_flux)))
        self.page.difference.y_range.update(start=-limit, end=limit)
        self._send()

    def _send(self):
        """What the screen can show of the visible window."""
        window = self.page.x_range
        x, curves = min_max_bins(*self._full, window.start, window.end, self._bins)
        data = dict(zip(CURVES, curves.astype(np.float32)))
        self.page.curves.data = {"x": x} | data

    def _compared(self, nothing):
        """Change of the spectrum along the node next to that with the label, if one is chosen."""
        page, space, label = self.page, self.space, self.page.label.value
        page.comparison.visible = bool(label)
        if not label:
            page.verdict.text = ""
            return nothing, nothing
        node = int(page.node.value)
        near = self.star.row if page.stars.active and self.star is not None else None
        try:
            slope, n_stars = space.gradient(label, near)
        except ValueError as error:
            page.verdict.text = f"<span class=soft>{escape(str(error))}</span>"
            return nothing, nothing
        along, slope, r = comparable(space.response(self.latents, node), slope)
        turned = ", sign turned" if r < 0 else ""
        page.verdict.text = (
            f"<b>r = {r:.2f}</b> <span class=soft>· {n_stars} stars{turned}</span>"
        ).replace("-", "−")
        limit = steady_limit(np.concatenate([along, slope]), 1.0)
        page.comparison.y_range.update(start=-limit, end=limit)
        return along, slope

    def _resized(self, width):
        self._bins = max(int(width), 100)
        self._later("send")

    # -- what the user does ------------------------------------------------------------------------

    def _moved(self, node, value):
        if self._quiet:
            return
        self.latents[node] = value
        self._later("redraw")
        if self.page.node.value != str(node):
            self.page.node.value = str(node)

    def _return_to_start(self):
        """Sliders at the latent numbers of the chosen star, or of the median star."""
        self.latents = self.start.copy()
        self._quiet = True
        for node, slider in self.page.sliders.items():
            value = float(self.start[node])
            low, high = float(self.space.low[node]), float(self.space.high[node])
            slider.update(start=min(low, value), end=max(high, value), value=value)
        self._quiet = False
        self._start_flux = self.space.decode(self.start)
        self._later("redraw")

    def choose(self, row):
        """Show a star, its reconstruction and its neighbours."""
        page, space = self.page, self.space
        self.star = space.star(row)
        self.start = self.star.latents
        page.star.text = about_star(space, self.star)
        rows, distance = space.neighbours(row, N_NEIGHBOURS)
        self.shown = (int(row), rows)
        self._mark()
        page.table.selected.indices = []
        page.table.data = {
            "row": rows,
            "name": space.names[rows].tolist(),
            "distance": distance,
            **{f"c{k}": [c.text(r) for r in rows] for k, c in enumerate(page.table_columns)},
        }
        self._return_to_start()
        page.set_frame(self._start_flux, self.star.observed)

    def _set_axes(self):
        self.page.set_axes()
        if self.star is not None:
            self._mark()

    def _mark(self):
        """The chosen star and its neighbours in the scatter."""
        page, at = self.page, self.space.latents
        across, up = int(page.across.value), int(page.up.value)
        row, near = self.shown
        for source, rows in ((page.chosen, [row]), (page.near, near)):
            source.data = {"x": at[rows, across], "y": at[rows, up]}

    def _tap(self, x, y):
        """Choose the star nearest to the click, as the screen shows it."""
        page = self.page
        across = page.scatter.x_range.end - page.scatter.x_range.start
        up = page.scatter.y_range.end - page.scatter.y_range.start
        data = page.points.data
        square = ((data["x"] - x) / across) ** 2 + ((data["y"] - y) / up) ** 2
        nearest = int(np.argmin(square))
        if square[nearest] < REACH**2:
            self.choose(int(data["row"][nearest]))

    def _find(self, text):
        """Choose a star by its name or row."""
        text = text.strip()
        found = np.flatnonzero(self.space.names == text)
        if not found.size and text.isdecimal() and int(text) < len(self.space):
            found = np.array([int(text)])
        if found.size and self.space.seen[found[0]]:
            self.choose(int(found[0]))
        elif text:
            self.page.find.value = ""
            self.page.find.placeholder = f"there is no star {text[:24]}"

    def _go_to_neighbour(self, chosen):
        if chosen:
            self.choose(int(self.page.table.data["row"][chosen[0]]))


def steady_limit(values, least):
    """Half height of an axis about zero, in steps, so that it seldom changes."""
    finite = np.abs(values[np.isfinite(values)])
    wanted = max(np.quantile(finite, 0.999) if finite.size else 0.0, least, 1e-300)
    power = 10.0 ** np.floor(np.log10(wanted))
    return float(next(m for m in (1, 1.5, 2, 3, 5, 7, 10) if m * power >= wanted * 0.999) * power)
