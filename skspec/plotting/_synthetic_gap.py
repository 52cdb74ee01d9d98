"""Synthetic and observed spectra in one picture, before and after a correction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from skspec.base import as_spectra
from skspec.diagnostics import SyntheticGap, synthetic_gap
from skspec.diagnostics._synthetic_gap import joint_components, some_stars, with_noise_of
from skspec.plotting._line_names import strong_lines
from skspec.plotting._style import INK, QUIET, colour, panels, styled

if TYPE_CHECKING:
    from skspec._typing import AxesLike, RandomState, SpectraLike

__all__ = ["SyntheticGapDisplay"]

_NEAR, _NEAR_BALMER = 4.0, 12.0  # Angstrom within which a pixel belongs to a named line
_ROOM = 0.045  # of the width, between two names


class SyntheticGapDisplay:
    """Synthetic stars among observed ones, a panel before and one after each correction.

    All sets are embedded together with t-SNE, so that observed stars lie at the same place in every
    panel. t-SNE is a picture, not a test: distances and sizes of its islands mean little. The number in
    the title is the test: the AUC of a classifier, see :func:`~skspec.diagnostics.synthetic_gap`.

    Parameters
    ----------
    gaps : dict of str to SyntheticGap
        By name of the synthetic set.
    embedding : dict of str to ndarray of shape (n, 2), or None
        Places of the stars, by name of the set; that of the observed ones is the last.
    perplexity : float or None
        Of the embedding.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        gaps: Mapping[str, SyntheticGap],
        *,
        embedding: Mapping[str, np.ndarray] | None = None,
        perplexity: float | None = None,
    ):
        self.gaps = gaps
        self.embedding = embedding
        self.perplexity = perplexity

    @classmethod
    def from_spectra(
        cls,
        synthetic: SpectraLike,
        observed: SpectraLike,
        translated: SpectraLike | Mapping[str, SpectraLike] | None = None,
        *,
        name: str = "synthetic",
        perplexity: float = 30.0,
        n_components: int = 50,
        max_stars: int = 500,
        random_state: RandomState = 0,
        ax: AxesLike | None = None,
        gap_params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Measure the gap and draw it.

        Parameters
        ----------
        synthetic, observed : Spectra or array-like of shape (n, P), (m, P)
            Of equal distribution of labels. Noise is matched as in
            :func:`~skspec.diagnostics.synthetic_gap`.
        translated : Spectra, or dict of str to Spectra, optional
            The synthetic ones after a correction, or after several.
        name : str
            Of the uncorrected ones.
        perplexity : float
            Of t-SNE, about the number of neighbours that a star keeps; at most a third of the stars.
        n_components : int
            Principal components that are embedded.
        max_stars : int
            Of each set, drawn at random.
        random_state : int
            Also of the noise, the draws and the classifier.
        ax : array of Axes, optional
        gap_params : dict, optional
            For :func:`~skspec.diagnostics.synthetic_gap`.
        **kwargs
            For :meth:`plot`.

        Raises
        ------
        ValueError
            When sets differ in their pixels, or have the same name.
        """
        from sklearn.manifold import TSNE

        sets = _named(name, synthetic, translated)
        settings = {"n_components": n_components, "random_state": random_state} | dict(
            gap_params or {}
        )
        gaps = {key: synthetic_gap(part, observed, **settings) for key, part in sets.items()}
        rng = np.random.default_rng(random_state)
        observed, shown = as_spectra(observed), []
        for key, part in sets.items():
            part = some_stars(part, max_stars, rng)
            shown.append(with_noise_of(part, observed, rng) if gaps[key].noise_matched else part)
        shown.append(some_stars(observed, max_stars, rng))
        scores = joint_components(shown, n_components)
        perplexity = min(perplexity, sum(map(len, scores)) / 3)
        places = TSNE(perplexity=perplexity, init="pca", random_state=random_state).fit_transform(
            np.concatenate(scores).astype(np.float32)
        )
        ends = np.cumsum([len(part) for part in scores])[:-1]
        embedding = dict(zip([*sets, "observed"], np.split(places, ends)))
        display = cls(gaps, embedding=embedding, perplexity=perplexity)
        return display.plot(ax=ax, **kwargs)

    @classmethod
    def from_gap(
        cls,
        gaps: SyntheticGap | Mapping[str, SyntheticGap],
        *,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the gap of each pixel.

        Parameters
        ----------
        gaps : SyntheticGap, or dict of str to SyntheticGap
        ax : array of Axes, optional
        **kwargs
            For :meth:`plot_pixels`.
        """
        gaps = {"synthetic": gaps} if isinstance(gaps, SyntheticGap) else dict(gaps)
        return cls(gaps).plot_pixels(ax=ax, **kwargs)

    def plot(self, ax: AxesLike | None = None, *, size: float = 9.0) -> Self:
        """Draw the embedding.

        Parameters
        ----------
        ax : array of Axes, optional
            One per synthetic set. Default: a new figure.
        size : float
            Of the markers.

        Returns
        -------
        SyntheticGapDisplay

        Raises
        ------
        ValueError
            When there is no embedding: the display was made by :meth:`from_gap`.
        """
        if self.embedding is None:
            raise ValueError("There is no embedding to draw; use SyntheticGapDisplay.from_spectra.")
        with styled():
            self.axes_ = panels(ax, len(self.gaps), size=(4.6, 4.4), sharex=True, sharey=True)
            for axes, (name, gap) in zip(self.axes_, self.gaps.items()):
                look = {"s": size, "lw": 0, "alpha": 0.75}
                for k, key in ((7, "observed"), (1, name)):
                    label = f"{key} ({len(self.embedding[key])})"
                    axes.scatter(*self.embedding[key].T, color=colour(k), label=label, **look)
                axes.set(xticks=[], yticks=[])
                axes.grid(False)
                axes.set_title(f"{name}: AUC {gap.auc:.3f} ± {gap.auc_error:.3f}")
                axes.legend(
                    loc="upper center",
                    bbox_to_anchor=(0.5, -0.01),
                    ncols=2,
                    markerscale=2,
                    handletextpad=0.1,
                )
            self.axes_[0].set_ylabel(f"joint t-SNE, perplexity {self.perplexity:.3g}")
        self.figure_ = self.axes_[0].figure
        return self

    def plot_pixels(
        self, ax: AxesLike | None = None, *, n_worst: int = 8, medium: str | None = None
    ) -> Self:
        """Draw the gap of each pixel, the worst ones named.

        Parameters
        ----------
        ax : array of Axes, optional
            One per synthetic set. Default: a new figure.
        n_worst : int
            Pixels to be named, fewer where they crowd.
        medium : {"vacuum", "air"}, optional
            Of the wavelengths, for the names of lines. That of the spectra by default, or vacuum.

        Returns
        -------
        SyntheticGapDisplay
        """
        with styled():
            n = len(self.gaps)
            self.axes_ = panels(ax, n, n_rows=n, size=(11, 2.3), sharex=True, sharey=True)
            gaps = [np.abs(gap.pixels["gap"]) for gap in self.gaps.values()]
            highest = 1.45 * max(np.nanmax(values) for values in gaps)
            for axes, (name, gap) in zip(self.axes_, self.gaps.items()):
                self._pixels(axes, name, gap, n_worst, medium)
                axes.set_ylim(-highest, highest)
            column = "wavelength" if "wavelength" in gap.pixels else "pixel"
            self.axes_[-1].set_xlabel("wavelength [Å]" if column == "wavelength" else column)
        self.figure_ = self.axes_[0].figure
        return self

    def _pixels(self, axes, name, gap, n_worst, medium):
        where, value = gap.pixels.iloc[:, 0].to_numpy(), gap.pixels["gap"].to_numpy()
        if gap.at_equal_labels:
            spread = gap.pixels["scatter"].to_numpy()
            axes.fill_between(where, value - spread, value + spread, color="#dfe3e8", lw=0)
        axes.axhline(0, color=QUIET, lw=0.7)
        axes.plot(where, value, color=colour(1), lw=0.9)
        axes.margins(x=0.005)
        axes.set_ylabel("obs − syn [σ]" if gap.at_equal_labels else "difference\nof means [σ]")
        rms = np.sqrt(np.nanmean(gap.pixels["difference"] ** 2))
        axes.set_title(f"{name}: AUC {gap.auc:.3f} ± {gap.auc_error:.3f}, rms difference {rms:.2g}")
        medium = medium or gap.medium or "vacuum"
        lines = strong_lines(where, medium=medium) if gap.pixels.columns[0] == "wavelength" else {}
        named = []
        for j in gap.worst_lines(3 * n_worst).index:
            crowded = any(abs(where[j] - x) < _ROOM * np.ptp(where) for x in named)
            if crowded or len(named) == n_worst or value[j] == 0:
                continue
            named.append(where[j])
            up = value[j] > 0
            axes.annotate(
                _name(where[j], lines),
                (where[j], value[j]),
                (0, 3 if up else -3),
                fontsize=7.5,
                textcoords="offset points",
                ha="center",
                va="bottom" if up else "top",
                color=INK,
            )


def _named(name, synthetic, translated):
    """Synthetic sets by name, the uncorrected one first."""
    if translated is None:
        translated = {}
    elif not isinstance(translated, Mapping):
        translated = {"corrected": translated}
    if {name, "observed"} & set(translated) or name == "observed":
        raise ValueError(
            f"Two sets have the same name: {name!r} and 'observed' are those before the correction."
        )
    return {key: as_spectra(part) for key, part in ({name: synthetic} | dict(translated)).items()}


def _name(where, lines):
    """Name of the strong line at a wavelength, or the wavelength itself."""
    if lines:
        away, name = min((abs(x - where), name) for name, at in lines.items() for x in at)
        if away < (_NEAR_BALMER if name.startswith("H") else _NEAR):
            return name
    return f"{where:.0f}"
