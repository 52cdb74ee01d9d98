"""Which latent numbers are used: their dispersion, and how many are informative at each beta."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from skspec.latent import node_dispersion
from skspec.plotting._style import INK, QUIET, colour, log_ticks, panels, styled

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from numpy.typing import ArrayLike
    from sklearn.base import BaseEstimator

    from skspec._typing import AxesLike, SpectraLike
    from skspec.latent._beta_sweep import BetaSweep

__all__ = ["NodeDispersionDisplay"]

_FLOOR = 0.01  # of the threshold: collapsed nodes are drawn there
_MARKED = 40  # nodes up to which each gets a marker


class NodeDispersionDisplay:
    """Median absolute deviation of each latent number, the largest first, a panel per latent size.

    With several `beta`, a last panel holds the number of informative nodes against it.

    Parameters
    ----------
    mad : dict of (float or None, int) to array-like of shape (n_latent,)
        By beta and number of latent numbers; beta is None for a model that has none.
    threshold : float
        Above which a node is informative.
    best_beta : float or None
        To be marked.
    name : str or None
        For the title.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (S,), or (S + 1,) with several beta
        S latent sizes, then the number of informative nodes.
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        mad: Mapping[tuple[float | None, int], ArrayLike],
        *,
        threshold: float = 0.02,
        best_beta: float | None = None,
        name: str | None = None,
    ):
        self.mad = {key: np.sort(np.asarray(values))[::-1] for key, values in mad.items()}
        self.threshold = threshold
        self.best_beta = best_beta
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: SpectraLike,
        *,
        threshold: float = 0.02,
        name: str | None = None,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the dispersion of the nodes of one fitted model over the spectra `X`.

        Parameters
        ----------
        estimator : fitted transformer from spectra to latent numbers
            Such as :class:`~skspec.latent.BetaVAE`.
        X : Spectra or array-like of shape (n, P)
        threshold : float
        name : str, optional
        ax : Axes, optional
        **kwargs
            For :meth:`plot`.
        """
        latents = estimator.transform(X)
        return cls.from_latents(latents, threshold=threshold, name=name, ax=ax, **kwargs)

    @classmethod
    def from_latents(
        cls,
        latents: ArrayLike,
        *,
        threshold: float = 0.02,
        name: str | None = None,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the dispersion of given latent numbers (n, D)."""
        mad = node_dispersion(latents)["mad"].to_numpy()
        display = cls({(None, len(mad)): mad}, threshold=threshold, name=name)
        return display.plot(ax=ax, **kwargs)

    @classmethod
    def from_sweep(
        cls, sweep: BetaSweep, *, name: str | None = None, ax: AxesLike | None = None, **kwargs: Any
    ) -> Self:
        """Draw a :class:`~skspec.latent.BetaSweep`.

        Parameters
        ----------
        sweep : BetaSweep
        name : str, optional
        ax : array of Axes, optional
            One per latent size, and one more for the numbers of informative nodes.
        **kwargs
            For :meth:`plot`.
        """
        display = cls(sweep.mad, threshold=sweep.threshold, best_beta=sweep.best_beta, name=name)
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: AxesLike | None = None, *, cmap: str | Colormap = "viridis") -> Self:
        """Draw.

        Parameters
        ----------
        ax : array of Axes, optional
            Default: a new figure.
        cmap : str or Colormap
            Of the betas.

        Returns
        -------
        NodeDispersionDisplay
        """
        betas = sorted({beta for beta, _ in self.mad if beta is not None})
        sizes = sorted({size for _, size in self.mad})
        with styled():
            several = len(betas) > 1
            self.axes_ = panels(ax, len(sizes) + several, size=(4.0, 3.4))
            shades = _shades(betas, cmap)
            for axes, size in zip(self.axes_, sizes):
                self._nodes(axes, size, betas or [None], shades)
                axes.set_title(f"{size} latent numbers")
            self.axes_[0].set_ylabel("median absolute deviation")
            if several:
                self._legend(self.axes_[len(sizes) - 1], len(betas))
                self._counts(self.axes_[-1], betas, sizes)
            if self.name:
                self.axes_[0].set_title(f"{self.name}: {sizes[0]} latent numbers")
        self.figure_ = self.axes_[0].figure
        return self

    def _nodes(self, axes, size, betas, shades):
        floor = _FLOOR * self.threshold or 1e-4
        highest = max(values[0] for values in self.mad.values())
        axes.axhspan(0.7 * floor, self.threshold, color="#f3f4f6", lw=0, zorder=0)
        axes.axhline(self.threshold, color=INK, lw=0.9, ls=(0, (4, 3)))
        for beta in betas:
            if (beta, size) not in self.mad:
                continue
            chosen = beta is not None and bool(beta == self.best_beta)
            axes.plot(
                np.arange(1, size + 1),
                np.maximum(self.mad[beta, size], floor),
                color=shades[beta],
                lw=2.6 if chosen else 1.3,
                zorder=3 if chosen else 2,
                marker="o" if size <= _MARKED else None,
                ms=4.5 if chosen else 3.2,
                label="" if beta is None else f"{beta:g}" + " (best)" * chosen,
            )
        axes.set_yscale("log")
        axes.set_ylim(0.7 * floor, 2.0 * max(highest, self.threshold))
        if axes is self.axes_[0]:
            axes.annotate(
                f"threshold {self.threshold:g}",
                (0, self.threshold),
                (4, -3),
                fontsize=8,
                va="top",
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
            )
        axes.set_xlabel("node, the most dispersed first")
        axes.xaxis.get_major_locator().set_params(integer=True)

    def _legend(self, axes, n_betas):
        axes.legend(
            title="β",
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
            fontsize=8,
            ncols=1 + n_betas // 14,
            handlelength=1.6,
            borderaxespad=0.2,
        )

    def _counts(self, axes, betas, sizes):
        smallest = min(beta for beta in betas if beta > 0)
        if self.best_beta is not None:
            axes.axvline(self.best_beta, color=QUIET, lw=1.0, ls=(0, (4, 3)))
        for k, size in enumerate(sizes):
            x = [beta for beta in betas if (beta, size) in self.mad]
            count = [np.sum(self.mad[beta, size] > self.threshold) for beta in x]
            axes.plot(
                x,
                count,
                color=colour(k),
                marker="os^D"[k % 4],
                ms=5,
                ls="-" if k else "--",
                label=f"{size} latent numbers",
            )
        if betas[0] == 0:
            axes.set_xscale("symlog", linthresh=smallest)
        else:
            axes.set_xscale("log")
            log_ticks(axes.xaxis)
        axes.set_ylim(bottom=0)
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("β")
        axes.set_title("informative nodes")
        axes.legend(loc="best")


def _shades(betas, cmap):
    """Colour of each beta; dark to light, as far as light can be seen on white."""
    if len(betas) < 2:
        return dict.fromkeys([None, *betas], colour(0))
    from matplotlib import colormaps

    cmap = colormaps[cmap] if isinstance(cmap, str) else cmap
    return {beta: cmap(0.9 * k / (len(betas) - 1)) for k, beta in enumerate(betas)}
