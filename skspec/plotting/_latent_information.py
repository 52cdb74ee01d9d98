"""What each latent number knows of each label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from skspec.latent import informative_nodes, latent_mutual_information
from skspec.plotting._style import INK, QUIET, label_text, panels, styled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.colors import Colormap
    from numpy.typing import ArrayLike
    from sklearn.base import BaseEstimator

    from skspec._typing import AxesLike, SpectraLike
    from skspec.latent._mutual_information import MutualInformation

__all__ = ["MutualInformationDisplay"]

_MAX_NODES = 24


class MutualInformationDisplay:
    """Mutual information of nodes and labels as a matrix.

    Numbers are nats. Framed cells exceed what 99 % of permutations of the stars reach; their shade is
    relative to the best node of each label. Numbers in grey are noise.

    Parameters
    ----------
    information : MutualInformation
        From :func:`~skspec.latent.latent_mutual_information`.
    nodes : sequence
        Rows to be drawn, of the index of its tables.
    name : str or None
        For the title.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (1,)
    figure_ : matplotlib Figure
    """

    def __init__(
        self, information: MutualInformation, *, nodes: Sequence[Any], name: str | None = None
    ):
        self.information = information
        self.nodes = nodes
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: SpectraLike,
        labels: pd.DataFrame,
        *,
        nodes: ArrayLike | None = None,
        name: str | None = None,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Measure what the latent numbers of the spectra `X` know of `labels`, and draw it.

        Parameters
        ----------
        estimator : fitted transformer from spectra to latent numbers
            Such as :class:`~skspec.latent.BetaVAE`.
        X : Spectra or array-like of shape (n, P)
        labels : DataFrame of shape (n, K)
            NaN where unknown.
        nodes : sequence of int, optional
            Default: the informative ones. Collapsed nodes know a little, too, but the decoder does not
            heed them.
        name, ax
            See :meth:`from_information`.
        **kwargs
            For :func:`~skspec.latent.latent_mutual_information`.
        """
        latents = estimator.transform(X)
        shown = None if nodes is None else np.array(nodes).tolist()
        if nodes is None:
            used = informative_nodes(latents)
            shown = np.flatnonzero(used).tolist() if used.any() else None
        found = latent_mutual_information(latents, labels, **kwargs)
        return cls.from_information(found, nodes=shown, name=name, ax=ax)

    @classmethod
    def from_information(
        cls,
        information: MutualInformation,
        *,
        nodes: Sequence[Any] | None = None,
        name: str | None = None,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw a :class:`~skspec.latent.MutualInformation`.

        Parameters
        ----------
        information : MutualInformation
        nodes : sequence, optional
            Default: those that know anything of any label; all, when there are none.
        name : str, optional
        ax : Axes, optional
        **kwargs
            For :meth:`plot`.
        """
        if nodes is None:
            known = (information.mi > information.null).to_numpy().any(axis=1)
            best = information.normalised.to_numpy().max(axis=1)
            rows = np.flatnonzero(known) if known.any() else np.arange(len(known))
            rows = np.sort(rows[np.argsort(-best[rows], kind="stable")][:_MAX_NODES])
            nodes = information.mi.index[rows]
        return cls(information, nodes=list(nodes), name=name).plot(ax=ax, **kwargs)

    def plot(self, ax: AxesLike | None = None, *, cmap: str | Colormap = "Blues") -> Self:
        """Draw.

        Parameters
        ----------
        ax : Axes, optional
            Default: a new figure.
        cmap : str or Colormap

        Returns
        -------
        MutualInformationDisplay
        """
        mi = self.information.mi.loc[self.nodes]
        share = self.information.normalised.loc[self.nodes].to_numpy()
        null = self.information.null.loc[self.nodes]
        tested = bool(null.notna().any(axis=None))
        significant = (mi > null).to_numpy() if tested else (mi > 0).to_numpy()
        n_nodes, n_labels = mi.shape
        with styled():
            size = (max(3.8, 1.9 + 0.72 * n_labels), 1.2 + 0.3 * n_nodes)
            self.axes_ = panels(ax, 1, size=size)
            axes = self.axes_[0]
            axes.grid(False)
            shade = np.where(
                significant, share, 0.0
            )  # noise of a label that no node knows is no sign
            image = axes.imshow(shade, cmap=cmap, vmin=0, vmax=1, aspect="auto")
            for row, column in np.ndindex(*mi.shape):
                self._cell(axes, row, column, mi.iat[row, column], shade[row, column], tested)
            self._ticks(axes, mi, tested)
            bar = axes.figure.colorbar(image, ax=axes, shrink=min(1.0, 4 / n_nodes), aspect=12)
            bar.set_label("of the best" + " node" * (n_nodes > 3), fontsize=8.5)
            bar.outline.set_visible(False)
            if self.name:
                axes.set_title(self.name, pad=10)
        self.figure_ = axes.figure
        return self

    def _cell(self, axes, row, column, value, shade, tested):
        from matplotlib.patches import Rectangle

        known = shade > 0
        text = "–" if np.isnan(value) else f"{max(value, 0.0):.2f}"
        axes.text(
            column,
            row,
            text,
            color="white" if shade > 0.6 else INK if known else QUIET,
            ha="center",
            va="center",
            fontsize=8,
            fontweight="bold" if known else "normal",
        )
        if known and tested:
            axes.add_patch(
                Rectangle(
                    (column - 0.46, row - 0.44), 0.92, 0.88, fill=False, ec=INK, lw=1.1, zorder=3
                )
            )

    def _ticks(self, axes, mi, tested):
        for side in ("bottom", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(length=0)
        axes.xaxis.tick_top()
        axes.set_xticks(range(mi.shape[1]), [label_text(str(name)) for name in mi.columns])
        if mi.shape[1] > 5:
            for text in axes.get_xticklabels():
                text.set(rotation=40, ha="left", rotation_mode="anchor")
        axes.set_yticks(range(len(mi)), [f"{node}" for node in mi.index])
        axes.set_ylabel("node")
        frames = "\nframed: above 99 % of permutations" if tested else ""
        axes.set_xlabel("mutual information [nat]" + frames, fontsize=8.5)
