"""Pairs of latent numbers, coloured by what is known of the stars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from skspec.latent import node_dispersion
from skspec.plotting._style import colour, label_text, panels, plain, styled

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from numpy.typing import ArrayLike
    from sklearn.base import BaseEstimator

    from skspec._typing import AxesLike, SpectraLike

__all__ = ["LatentScatterDisplay"]

_MAX_STARS = 20_000  # more are drawn from
_MAX_CLASSES = 8
_NAMED = 6  # nodes up to which panels are large enough for their correlation
_OTHER = "#c9ced4"


class LatentScatterDisplay:
    """Scatter of all pairs of some nodes, coloured by a label or a class.

    Each panel of a small figure tells the rank correlation of its pair: nodes of a disentangled model
    have none, and no structure either.

    Parameters
    ----------
    latents : ndarray of shape (n, k)
        Latent numbers of stars.
    nodes : sequence of int of length k
        Their numbers.
    by : array-like of shape (n,) or None
        Label (numbers) or class (anything else) of each star; unknown (NaN, None) is drawn in grey.
        Classes are ordered by name, or as those of a pandas Categorical.
    label : str or None
        What `by` is; default: its name.
    name : str or None
        For the title.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (k (k - 1) / 2,)
        Row by row of the lower triangle.
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        latents: np.ndarray,
        nodes: Sequence[int],
        *,
        by: ArrayLike | None = None,
        label: str | None = None,
        name: str | None = None,
    ):
        self.latents = latents
        self.nodes = nodes
        self.by = by
        self.label = label
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: SpectraLike,
        by: ArrayLike | None = None,
        *,
        nodes: ArrayLike | None = None,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the latent numbers of the spectra `X`.

        Parameters
        ----------
        estimator : fitted transformer from spectra to latent numbers
            Such as :class:`~skspec.latent.BetaVAE`.
        X : Spectra or array-like of shape (n, P)
        by, nodes, ax, **kwargs
            See :meth:`from_latents`.
        """
        return cls.from_latents(estimator.transform(X), by, nodes=nodes, ax=ax, **kwargs)

    @classmethod
    def from_latents(
        cls,
        latents: ArrayLike,
        by: ArrayLike | None = None,
        *,
        nodes: ArrayLike | None = None,
        threshold: float = 0.02,
        label: str | None = None,
        name: str | None = None,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw pairs of given latent numbers.

        Parameters
        ----------
        latents : array-like of shape (n, D)
        by : array-like of shape (n,), optional
            Label or class of each star.
        nodes : sequence of int, optional
            Default: the informative ones, the most dispersed first, 12 at most.
        threshold : float
            See :func:`~skspec.latent.informative_nodes`.
        label : str, optional
            What `by` is; default: its name.
        name : str, optional
        ax : array of Axes, optional
            One per pair.
        **kwargs
            For :meth:`plot`.

        Raises
        ------
        ValueError
            With fewer than two nodes, or when `by` has not one value per star.
        """
        latents = np.asarray(latents, dtype=float)
        shown = _most_dispersed(latents, threshold) if nodes is None else np.array(nodes).tolist()
        if len(shown) < 2:
            raise ValueError(f"Pairs need at least two nodes, not {shown}: name some in `nodes`.")
        if by is not None and np.shape(by) != (len(latents),):
            raise ValueError(
                f"`by` has shape {np.shape(by)}: give one value for each of the "
                f"{len(latents)} stars."
            )
        label = getattr(by, "name", None) if label is None else label
        return cls(latents[:, shown], shown, by=by, label=label, name=name).plot(ax=ax, **kwargs)

    def plot(self, ax: AxesLike | None = None, *, cmap: str | Colormap = "viridis") -> Self:
        """Draw.

        Parameters
        ----------
        ax : array of Axes, optional
            One per pair. Default: a new figure.
        cmap : str or Colormap
            Of a label.

        Returns
        -------
        LatentScatterDisplay
        """
        k = len(self.nodes)
        pairs = [(row, column) for row in range(1, k) for column in range(row)]
        with styled():
            corner = None
            if ax is None:
                ax, corner = _triangle(k)
            self.axes_ = panels(ax, len(pairs))
            paint = _Paint(self.by, len(self.latents), cmap)
            for axes, (row, column) in zip(self.axes_, pairs):
                self._pair(axes, row, column, paint)
            if k > _NAMED:
                self._tighten()
            self._explain(paint, corner)
            if self.name:
                self.axes_[0].set_title(self.name)
        self.figure_ = self.axes_[0].figure
        return self

    def _pair(self, axes, row, column, paint):
        paint.draw(axes, self.latents[:, column], self.latents[:, row])
        last = row == len(self.nodes) - 1
        if last or not axes.get_shared_x_axes().get_siblings(axes)[1:]:
            axes.set_xlabel(f"node {self.nodes[column]}")
        if column == 0 or not axes.get_shared_y_axes().get_siblings(axes)[1:]:
            axes.set_ylabel(f"node {self.nodes[row]}")
        if len(self.nodes) <= _NAMED:
            rho = _rank_correlation(self.latents[:, column], self.latents[:, row])
            axes.text(
                0.98,
                1.0,
                f"ρ = {rho:.2f}".replace("-", "−"),
                transform=axes.transAxes,
                ha="right",
                va="bottom",
                fontsize=8,
            )

    def _tighten(self):
        from matplotlib.ticker import MaxNLocator

        for axes in self.axes_:
            axes.xaxis.set_major_locator(MaxNLocator(2))
            axes.yaxis.set_major_locator(MaxNLocator(2))
            axes.tick_params(labelsize=6.5, length=2)
            axes.xaxis.label.set_size(8)
            axes.yaxis.label.set_size(8)

    def _explain(self, paint, corner):
        """Legend or colour bar, in the empty corner where there is one."""
        text = None if self.label is None else label_text(str(self.label), unit=True)
        if paint.handles:
            host = self.axes_[-1] if corner is None else corner
            look = {"fontsize": 9, "markerscale": 1.6, "title": text}
            if corner is None:
                look |= {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
            else:
                look |= {"loc": "upper right", "ncols": 1 + (len(paint.handles) > 5)}
            host.legend(handles=paint.handles, handletextpad=0.2, **look)
        elif paint.scale is not None:
            if corner is None:
                bar = self.axes_[-1].figure.colorbar(
                    paint.scale, ax=list(self.axes_), extend="both"
                )
                bar.set_label(text or "")
            else:
                columns = corner.get_subplotspec().colspan
                width, height = (
                    corner.figure.get_size_inches() * len(columns) / (len(self.nodes) - 1)
                )
                share = min(1.0, 2.4 / width)
                at = corner.inset_axes([1 - share, 1 - 0.45 / height, share, 0.16 / height])
                bar = corner.figure.colorbar(
                    paint.scale, cax=at, orientation="horizontal", extend="both"
                )
                bar.ax.set_title(text or "", loc="center", fontweight="normal")
            bar.outline.set_visible(False)


class _Paint:
    """Colours of the stars (n, 4), which of them are known, and what explains them."""

    def __init__(self, by, n, cmap):
        import pandas as pd
        from matplotlib.colors import to_rgba

        self.handles, self.scale = [], None
        self.colours, self.known = np.tile(to_rgba(_OTHER), (n, 1)), np.zeros(n, dtype=bool)
        shown = np.random.default_rng(0).permutation(n)[:_MAX_STARS]
        if by is None:
            self.colours[:] = to_rgba(colour(0))
        elif pd.api.types.is_numeric_dtype(by) and not pd.api.types.is_bool_dtype(by):
            self._continuous(np.asarray(by, dtype=float), cmap)
        else:
            self._classes(pd.Categorical(by))
        # unknown ones below, the others in a random order: no class lies on top of the rest
        self.shown = shown[np.argsort(self.known[shown], kind="stable")]
        self.size = float(np.clip(9.0 * (300 / max(len(shown), 1)) ** 0.4, 1.0, 12.0))

    def _continuous(self, values, cmap):
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        self.known = np.isfinite(values)
        limits = np.percentile(values[self.known], (1, 99)) if self.known.any() else (0.0, 1.0)
        self.scale = ScalarMappable(Normalize(*limits), cmap)
        self.colours[self.known] = self.scale.to_rgba(values[self.known])

    def _classes(self, classes):
        from matplotlib.colors import to_rgba

        count = classes.value_counts()
        names = [name for name in classes.categories if count[name]]
        if len(names) > _MAX_CLASSES:
            common = set(count.sort_values(ascending=False).index[: _MAX_CLASSES - 1])
            names = [name for name in names if name in common]
        for k, name in enumerate(names):
            of_class = np.asarray(classes == name)
            self.known |= of_class
            self.colours[of_class] = to_rgba(colour(k))
            self._handle(plain(str(name)), colour(k))
        if not self.known.all():
            self._handle("other", _OTHER)

    def _handle(self, text, shade):
        from matplotlib.lines import Line2D

        self.handles.append(Line2D([], [], ls="", marker="o", ms=3.5, color=shade, label=text))

    def draw(self, axes, x, y):
        """Dots of the stars."""
        rows = self.shown
        axes.scatter(
            x[rows],
            y[rows],
            s=self.size,
            c=self.colours[rows],
            lw=0,
            alpha=0.8,
            rasterized=len(rows) > 300,
        )


def _triangle(k):
    """Axes of the lower triangle of (k - 1) x (k - 1), and one for the legend in the empty corner."""
    import matplotlib.pyplot as plt

    size = float(np.clip(9.0 / (k - 1), 1.05, 2.7))
    if k == 2:
        return plt.subplots(figsize=(4.4, 3.4), layout="constrained")[1], None
    fig, grid = plt.subplots(
        k - 1,
        k - 1,
        figsize=(size * (k - 1) + 0.6, size * (k - 1) + 0.4),
        squeeze=False,
        sharex="col",
        sharey="row",
        layout="constrained",
    )
    for row in range(k - 1):
        for column in range(row + 1, k - 1):
            grid[row, column].remove()
    fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    span = max(1, (k - 1) // 2)
    corner = fig.add_subplot(grid[0, 0].get_gridspec()[:span, k - 1 - span :])
    corner.set_axis_off()
    return grid[np.tril_indices(k - 1)], corner


def _most_dispersed(latents, threshold, most=12) -> list[int]:
    """The informative nodes, the most dispersed first."""
    mad = node_dispersion(latents)["mad"].to_numpy()
    order = np.argsort(-mad, kind="stable")
    return order[mad[order] > threshold][:most].tolist()


def _rank_correlation(x, y):
    from scipy.stats import rankdata

    both = np.isfinite(x) & np.isfinite(y)
    return np.corrcoef(rankdata(x[both]), rankdata(y[both]))[0, 1]
