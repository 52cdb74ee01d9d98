"""A spectrum along a latent number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from skspec.latent import LatentTraversal, latent_traversal, latent_traversals
from skspec.plotting._latent_panels import curve, line_table, mark_lines, name_lines, windows_of
from skspec.plotting._style import INK, QUIET, panels, styled

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from numpy.typing import ArrayLike
    from sklearn.base import BaseEstimator

    from skspec._typing import AxesLike, SpectraLike, Windows

__all__ = ["TraversalDisplay"]


class TraversalDisplay:
    """Spectra of one star while one of its latent numbers is varied, and their differences below.

    Of several nodes: the spectrum of the star, and below it the differences, a panel per node.

    Parameters
    ----------
    traversals : sequence of LatentTraversal
        Of the same star.
    lines : dict of str to float or sequence of float, optional
        Lines to be named, name -> wavelengths [Angstrom]; default: strong ones.
    windows : sequence of (float, float), optional
        Wavelength ranges to be drawn side by side instead of all.
    name : str or None
        For the title.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        Row by row: the spectra, then the differences of each node, a column per window.
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        traversals: Sequence[LatentTraversal],
        *,
        lines: Mapping[str, ArrayLike] | None = None,
        windows: Windows | None = None,
        name: str | None = None,
    ):
        self.traversals = list(traversals)
        self.lines = lines
        self.windows = windows
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: SpectraLike,
        node: int | Sequence[int] | None = None,
        values: ArrayLike | None = None,
        *,
        n_values: int = 9,
        star: int | None = None,
        lines: Mapping[str, ArrayLike] | None = None,
        windows: Windows | None = None,
        name: str | None = None,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Vary latent numbers of a star and draw its spectra.

        Parameters
        ----------
        estimator, X, values, n_values, star
            See :func:`~skspec.latent.latent_traversal`.
        node : int or sequence of int, optional
            Default: all informative nodes.
        lines, windows, name, ax, **kwargs
            See :meth:`from_traversal`.
        """
        if isinstance(node, int | np.integer):
            found = latent_traversal(estimator, X, node, values, n_values, star=star)
        else:
            found = latent_traversals(estimator, X, node, n_values, star=star)
        return cls.from_traversal(found, lines=lines, windows=windows, name=name, ax=ax, **kwargs)

    @classmethod
    def from_traversal(
        cls,
        traversals: LatentTraversal | Sequence[LatentTraversal] | Mapping[Any, LatentTraversal],
        *,
        lines: Mapping[str, ArrayLike] | None = None,
        windows: Windows | None = None,
        name: str | None = None,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw a traversal, or several of the same star.

        Parameters
        ----------
        traversals : LatentTraversal, or sequence or dict of them
        lines : dict of str to float or sequence of float, optional
            Lines to be named, name -> wavelengths [Angstrom]; {} for none. Default: strong lines, in
            vacuum unless the spectra say "air".
        windows : sequence of (float, float), optional
            Wavelength ranges [Angstrom] (pixels, without wavelengths) to be drawn side by side.
        name : str, optional
        ax : array of Axes, optional
            One per window for the spectra, and for each node.
        **kwargs
            For :meth:`plot`.

        Raises
        ------
        ValueError
            When there is no traversal, or no pixel in a window.
        """
        if isinstance(traversals, LatentTraversal):
            traversals = [traversals]
        each = traversals.values() if isinstance(traversals, Mapping) else traversals
        display = cls(list(each), lines=lines, windows=windows, name=name)
        if not display.traversals:
            raise ValueError("There is no traversal to draw.")
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: AxesLike | None = None, *, cmap: str | Colormap = "viridis") -> Self:
        """Draw.

        Parameters
        ----------
        ax : array of Axes, optional
            Default: a new figure.
        cmap : str or Colormap
            From low to high values.

        Returns
        -------
        TraversalDisplay
        """
        first, single = self.traversals[0], len(self.traversals) == 1
        where, unit = first.wavelength, "wavelength [Å]"
        if where is None:
            where, unit = np.arange(first.flux.shape[1]), "pixel"
        parts = windows_of(where, self.windows)
        lines = line_table(self.lines, first.wavelength, first.medium)
        n_rows, n_columns = 1 + len(self.traversals), len(parts)
        heights = [1.7] + [1.0 if single or n_columns == 1 else 0.8] * (n_rows - 1)
        with styled():
            size = (11 / n_columns, 2.1 if single else max(1.0, 2.0 - 0.1 * n_rows))
            self.axes_ = panels(
                ax,
                n_rows * n_columns,
                n_rows=n_rows,
                size=size,
                sharex="col",
                gridspec_kw={"height_ratios": heights},
            )
            grid = self.axes_.reshape(n_rows, n_columns)
            height = 0.0
            for column, pixels in enumerate(parts):
                self._spectra(grid[0, column], where, pixels, cmap)
                for axes, traversal in zip(grid[1:, column], self.traversals):
                    self._differences(axes, traversal, where, pixels, cmap)
                for axes in grid[:, column]:
                    axes.margins(x=0.005)
                    mark_lines(axes, lines)
                height = max(height, name_lines(grid[0, column], lines))
                grid[-1, column].set_xlabel(unit)
            self._words(grid, height)
            self._bar(grid, cmap)
        self.figure_ = self.axes_[0].figure
        return self

    def _spectra(self, axes, where, pixels, cmap):
        first = self.traversals[0]
        if len(self.traversals) == 1:
            for flux, shade in zip(first.flux, _shades(first.values, cmap)):
                curve(axes, where, flux, pixels, first.order, color=shade, lw=0.8)
        else:
            curve(axes, where, first.reference, pixels, first.order, color=INK, lw=0.8)

    def _differences(self, axes, traversal, where, pixels, cmap):
        axes.axhline(0, color=QUIET, lw=0.7)
        for flux, shade in zip(traversal.difference, _shades(traversal.values, cmap)):
            curve(axes, where, flux, pixels, traversal.order, color=shade, lw=0.8)

    def _words(self, grid, height):
        grid[0, 0].set_ylabel("flux")
        single = len(self.traversals) == 1
        for axes, traversal in zip(grid[1:, 0], self.traversals):
            axes.set_ylabel("difference" if single else f"node {traversal.node}")
        title = self.name or (f"node {self.traversals[0].node}" if single else "")
        if title:
            grid[0, 0].set_title(title, pad=6 + height)

    def _bar(self, grid, cmap):
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import ListedColormap, Normalize

        shades = ListedColormap(_shades(np.linspace(0, 1, 256), cmap))
        single, values = len(self.traversals) == 1, self.traversals[0].values
        scale = Normalize(values.min(), values.max()) if single else Normalize(0, 1)
        beside = grid if single else grid[1:]
        bar = grid[0, 0].figure.colorbar(
            ScalarMappable(scale, shades),
            ax=list(beside.flat),
            aspect=25,
            pad=0.01,
            shrink=min(1, 4 / len(grid)),
        )
        bar.set_label("latent number", labelpad=None if single else -20)
        if single:
            here = self.traversals[0].latents[self.traversals[0].node]
            bar.ax.axhline(here, color="white", lw=1.5)
        else:
            bar.set_ticks([0, 1], labels=["lowest", "highest"])
        bar.outline.set_visible(False)


def _shades(values, cmap):
    """Colours (m, 4) from low to high values, as far as light can be seen on white."""
    from matplotlib import colormaps

    cmap = colormaps[cmap] if isinstance(cmap, str) else cmap
    span = np.ptp(values)
    return cmap(0.9 * (values - np.min(values)) / span if span else np.full(len(values), 0.45))
