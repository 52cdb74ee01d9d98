"""Flux of single pixels against a label: what each forward model made of the training stars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from skspec._label_values import label_values
from skspec.base import as_spectra, unwrap
from skspec.plotting._style import INK, QUIET, colour, label_text, label_unit, panels, styled

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from sklearn.base import BaseEstimator

    from skspec._typing import AxesLike, Labels, SpectraLike

__all__ = ["FluxTrendDisplay"]

_DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))


@dataclass(frozen=True)
class _Trend:
    """One model: its flux (G, W) along the label, and its error (W,) at the stars drawn strongly."""

    curve: np.ndarray
    rms: np.ndarray


class FluxTrendDisplay:
    """Flux at chosen wavelengths against a label, of forward models and of the training stars.

    The other labels are held fixed along a curve; the stars whose other labels are near to that are
    drawn strongly, all others faintly. Where no such star is near, curves are dotted: there the model
    extrapolates. In the legend, the root-mean-square difference of the strong stars from the model at
    their own labels.

    Parameters
    ----------
    grid : ndarray of shape (G,)
        Values of the label.
    trends : dict of str to object with ``curve (G, W)`` and ``rms (W,)``
        By name of the model.
    label_values : ndarray of shape (n,)
        The label of the stars.
    flux : ndarray of shape (n, W)
        Their flux, NaN at bad pixels.
    near : ndarray of bool of shape (n,)
        Stars to be drawn strongly.
    label : str
    wavelengths : ndarray of shape (W,)
        Of the pixels [Angstrom], or pixel numbers.
    held : str
        What the other labels are, in words.
    unit : {"Å", ""}
        "" for pixel numbers.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (W,)
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        grid: np.ndarray,
        trends: Mapping[str, Any],
        *,
        label_values: np.ndarray,
        flux: np.ndarray,
        near: np.ndarray,
        label: str,
        wavelengths: np.ndarray,
        held: str = "",
        unit: str = "Å",
    ):
        self.grid = grid
        self.trends = trends
        self.label_values = label_values
        self.flux = flux
        self.near = near
        self.label = label
        self.wavelengths = wavelengths
        self.held = held
        self.unit = unit

    @classmethod
    def from_estimator(
        cls,
        models: BaseEstimator | Mapping[str, BaseEstimator],
        spectra: SpectraLike,
        labels: Labels,
        *,
        wavelengths: ArrayLike,
        label: str | None = None,
        at: Mapping[str, float] | None = None,
        within: Mapping[str, float] | None = None,
        n_points: int = 201,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the trends of one or several fitted forward models.

        Parameters
        ----------
        models : forward model, or dict of str to forward model
            Fitted on the same labels; names for the legend. Pipelines must all end in the flux that
            the first of them ends in, which is that of the stars.
        spectra : Spectra or array-like of shape (n, P)
            The training stars.
        labels : DataFrame or array-like of shape (n, K)
            Their labels.
        wavelengths : sequence of float
            The nearest pixels are drawn [Angstrom]; pixel numbers for spectra without wavelength.
        label : str, optional
            Along which; default: the first.
        at : dict, optional
            Label name -> value at which it is held, or a function of `label`; default: the median of
            the stars.
        within : dict, optional
            Label name -> largest distance from that of the stars drawn strongly; default: half the
            standard deviation of the label.
        n_points : int
            Points of a curve.
        ax : array of Axes, optional
            One per wavelength.
        **kwargs
            For :meth:`plot`.

        Raises
        ------
        TypeError
            When a model has no ``predict_flux``.
        ValueError
            When a wavelength lies outside the spectra, or a label is not known.
        """
        models = models if isinstance(models, Mapping) else {"model": models}
        inner: dict[str, Any] = {}
        transformed: Any = None
        for name, model in models.items():
            inner[name], seen = unwrap(model, as_spectra(spectra))
            transformed = seen if transformed is None else transformed
            if not hasattr(inner[name], "predict_flux"):
                raise TypeError(f"{name} has no predict_flux: it is no forward model.")
        seen, names = transformed, list(next(iter(inner.values())).label_names_in_)
        table = label_values(labels, names, among_others=True)
        table = table.reshape(seen.shape[0], -1)
        label = names[0] if label is None else label
        path = _Path(names, table, label, at or {}, within or {})
        pixels, where, unit = _pixels(seen, next(iter(inner.values())), wavelengths)
        grid = np.linspace(table[:, path.index].min(), table[:, path.index].max(), n_points)
        stars = np.where(seen.good[:, pixels], seen.flux[:, pixels], np.nan)
        trends = {}
        for name, model in inner.items():
            difference = stars[path.near] - model.predict_flux(table[path.near])[:, pixels]
            curve = model.predict_flux(path.labels(grid))[:, pixels]
            trends[name] = _Trend(curve, _rms(difference))
        display = cls(
            grid,
            trends,
            label_values=table[:, path.index],
            flux=stars,
            near=path.near,
            label=label,
            wavelengths=where,
            held=path.words(),
            unit=unit,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(
        self,
        ax: AxesLike | None = None,
        *,
        colors: Sequence[str] | None = None,
        titles: Sequence[str] | None = None,
    ) -> Self:
        """Draw.

        Parameters
        ----------
        ax : array of Axes, optional
            One per wavelength. Default: a new figure.
        colors : sequence of colours, optional
            Of the models.
        titles : sequence of str, optional
            Of the panels; default: their wavelength.

        Returns
        -------
        FluxTrendDisplay
        """
        with styled():
            self.axes_ = panels(ax, len(self.wavelengths), size=(4.6, 3.7))
            for w, axes in enumerate(self.axes_):
                self._stars(axes, w)
                self._curves(axes, w, colors)
                axes.set_title(titles[w] if titles else self._title(self.wavelengths[w]))
                axes.set_xlabel(label_text(self.label, unit=True))
                axes.legend(loc="best", fontsize=8, handlelength=2.6)
            self.axes_[0].set_ylabel("flux")
            if self.held:
                self.axes_[-1].text(
                    1,
                    1.02,
                    self.held,
                    transform=self.axes_[-1].transAxes,
                    ha="right",
                    va="bottom",
                    fontsize=8,
                )
        self.figure_ = self.axes_[0].figure
        return self

    def _stars(self, axes, w):
        look = {"ls": "none", "marker": ".", "mew": 0, "rasterized": len(self.flux) > 2000}
        far = ~self.near
        axes.plot(self.label_values[far], self.flux[far, w], color=QUIET, ms=3, alpha=0.3, **look)
        axes.plot(
            self.label_values[self.near],
            self.flux[self.near, w],
            color=INK,
            ms=6,
            alpha=0.75,
            label="training stars near these labels",
            **look,
        )

    def _curves(self, axes, w, colors):
        x = self.label_values[self.near]
        known = (self.grid >= x.min()) & (self.grid <= x.max()) if x.size else self.grid < -np.inf
        for k, (name, trend) in enumerate(self.trends.items()):
            shade = colors[k] if colors is not None else colour(k)
            rms = "" if np.isnan(trend.rms[w]) else f"  (RMS {trend.rms[w]:.3f})"
            inside, outside = (
                np.where(part, trend.curve[:, w], np.nan) for part in (known, ~known)
            )
            axes.plot(self.grid, inside, color=shade, lw=2, ls=_DASHES[k % 4], label=name + rms)
            axes.plot(self.grid, outside, color=shade, lw=1, ls=":")

    def _title(self, where):
        return f"{where:.1f} Å" if self.unit == "Å" else f"pixel {where:.0f}"


class _Path:
    """Labels along which the curves run, and the stars near to them."""

    def __init__(self, names, table, label, at, within):
        for given in ([label], at, within):
            unknown = [name for name in given if name not in names]
            if unknown:
                raise ValueError(f"No label {', '.join(unknown)}; labels: {', '.join(names)}.")
        if label in at:
            raise ValueError(f"The curves run along {label}: it cannot be held in `at`.")
        self.names, self.index = names, names.index(label)
        self.others = [name for name in names if name != label]
        self.at = {
            name: at.get(name, np.median(table[:, names.index(name)])) for name in self.others
        }
        distance = np.abs(table - self.labels(table[:, self.index]))
        limit = [within.get(name, 0.5 * table[:, k].std()) for k, name in enumerate(names)]
        limit[self.index] = np.inf
        self.near = np.all(distance <= limit, axis=1)

    def labels(self, grid):
        """Labels (G, K) at the values `grid` of the one that varies."""
        out = np.empty((len(grid), len(self.names)))
        out[:, self.index] = grid
        for name, value in self.at.items():
            out[:, self.names.index(name)] = value(grid) if callable(value) else value
        return out

    def words(self):
        """What the other labels are."""
        fixed = {name: value for name, value in self.at.items() if not callable(value)}
        return ",  ".join(
            f"{label_text(name)} = {value:.4g} {label_unit(name).replace('dex', '')}".rstrip()
            for name, value in fixed.items()
        )


def _pixels(spectra, model, wavelengths):
    """Nearest pixels, where they are, and in which unit."""
    known = spectra.wavelength
    if known is None:
        known = getattr(model, "wavelength_", None)
    where = np.arange(spectra.shape[1], dtype=float) if known is None else known
    wanted = np.atleast_1d(np.asarray(wavelengths, dtype=float))
    distance = np.abs(where[:, None] - wanted)
    pixels = np.argmin(distance, axis=0)
    step = np.median(np.abs(np.diff(where))) if len(where) > 1 else np.inf
    outside = wanted[distance[pixels, np.arange(len(wanted))] > 2 * step]
    if outside.size:
        raise ValueError(
            f"No pixel at {', '.join(f'{x:g}' for x in outside)}; the spectra cover "
            f"{where.min():.1f}-{where.max():.1f}."
        )
    return pixels, where[pixels], "" if known is None else "Å"


def _rms(difference):
    n = np.isfinite(difference).sum(axis=0)
    total = np.nansum(difference**2, axis=0)
    return np.sqrt(np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0))
