"""Where in the spectrum an attention network looks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from skspec.base import as_spectra
from skspec.plotting._echelle import order_slices
from skspec.plotting._information import InformationMapDisplay
from skspec.plotting._style import QUIET, colour, panels, styled

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from sklearn.base import BaseEstimator

    from skspec._typing import AxesLike, SpectraLike
    from skspec.diagnostics._information import InformationMap

__all__ = ["AttentionMapDisplay"]

_MAX_POINTS = 4000
#: the magnesium triplet [Angstrom], in vacuum and in air
_MG_B = {"vacuum": (5168.76, 5174.13, 5185.05), "air": (5167.32, 5172.68, 5183.60)}


class AttentionMapDisplay:
    """Attention of a network on the wavelength axis, below the spectrum.

    Next to it, on request, the information of each pixel on the labels: where a network could look.

    Parameters
    ----------
    wavelength : ndarray of shape (P,)
        [Angstrom], or pixel numbers.
    attention : ndarray of shape (P,)
        Mean attention of the stars; NaN where all have bad pixels.
    flux : ndarray of shape (P,)
        Mean spectrum of the stars.
    order : ndarray of int of shape (P,) or None
        Echelle order of each pixel.
    lines : dict of str to float or sequence of float
        Lines to be marked: name -> wavelengths [Angstrom].
    information : InformationMap or None
        From :func:`~skspec.diagnostics.information_map`, drawn below.
    name : str or None
        For the title.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (2,), or (2 + K,) with the information
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        wavelength: np.ndarray,
        attention: np.ndarray,
        flux: np.ndarray,
        *,
        order: np.ndarray | None = None,
        lines: Mapping[str, ArrayLike] | None = None,
        information: InformationMap | None = None,
        name: str | None = None,
        unit: str = "Angstrom",
    ):
        self.wavelength = wavelength
        self.attention = attention
        self.flux = flux
        self.order = order
        self.lines = dict(lines or {})
        self.information = information
        self.name = name
        self.unit = unit

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: SpectraLike,
        *,
        name: str | None = None,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Map the attention of a fitted network to the spectra `X`.

        Parameters
        ----------
        estimator : fitted SpectralCNN with attention
            See :func:`~skspec.diagnostics.attention_map`.
        X : Spectra of shape (n, P)
        name : str, optional
        ax : array of Axes, optional
        **kwargs
            For :meth:`from_predictions`.
        """
        from skspec.diagnostics import attention_map

        return cls.from_predictions(X, attention_map(estimator, X), name=name, ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        spectra: SpectraLike,
        attention: np.ndarray,
        *,
        scale: ArrayLike = "min_max",
        lines: Mapping[str, ArrayLike] | None = None,
        information: InformationMap | None = None,
        name: str | None = None,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the mean over stars of an attention map.

        Parameters
        ----------
        spectra : Spectra or array-like of shape (n, P)
        attention : ndarray of shape (n, P)
        scale : {"min_max", "none"}
            "min_max" brings the attention of the good pixels of every spectrum to 0-1 before the mean
            is taken.
        lines : dict of str to float or sequence of float, optional
            Lines to be marked, name -> wavelengths [Angstrom]. Default: the Mg b triplet, in vacuum
            unless ``spectra.medium`` is "air".
        information : InformationMap, optional
            To be drawn below, a panel per label.
        name : str, optional
        ax : array of Axes, optional
        **kwargs
            For :meth:`plot`.

        Raises
        ------
        ValueError
            When `attention` has another shape than the spectra.
        """
        spectra = as_spectra(spectra)
        attention = np.asarray(attention, dtype=float)
        if attention.shape != spectra.shape:
            raise ValueError(
                f"attention has shape {attention.shape}, the spectra have {spectra.shape}; give one "
                "value for each pixel of each spectrum."
            )
        if scale not in ("min_max", "none"):
            raise ValueError(f"scale must be 'min_max' or 'none', got {scale!r}.")
        if scale == "min_max":
            attention = _min_max(attention, spectra.good)
        where, unit = spectra.wavelength, "Angstrom"
        if where is None:
            where, unit = np.arange(spectra.shape[1]), "pixel"
        elif lines is None:
            medium = "air" if spectra.medium == "air" else "vacuum"
            lines = {"Mg b": _MG_B[medium]}
        display = cls(
            where,
            _mean(attention, spectra.good),
            _mean(spectra.flux, spectra.good),
            order=spectra.order,
            lines=lines,
            information=information,
            name=name,
            unit=unit,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: AxesLike | None = None, *, color: str | None = None, n_top: int = 3) -> Self:
        """Draw.

        Parameters
        ----------
        ax : array of two Axes, or 2 + K with the information, optional
            Default: a new figure.
        color : colour, optional
            Of the attention.
        n_top : int
            Windows to be named in the panels of the information.

        Returns
        -------
        AttentionMapDisplay
        """
        n_panels = 2 + (0 if self.information is None else len(self.information.label_names))
        with styled():
            self.axes_ = panels(ax, n_panels, n_rows=n_panels, size=(11, 1.7), sharex=True)
            self._draw(self.axes_[0], self.flux, QUIET, "mean flux")
            self._draw(self.axes_[1], self.attention, color or colour(1), "attention")
            for axes in self.axes_[:2]:
                self._mark(axes)
            self._name_lines(self.axes_[0])
            if self.information is not None:
                below = InformationMapDisplay(self.information)
                below.plot(self.axes_[2:], n_top=n_top)
            self.axes_[-1].set_xlabel("wavelength [Å]" if self.unit == "Angstrom" else "pixel")
            if self.name:
                self.axes_[0].set_title(self.name, pad=16 if self._visible_lines() else None)
        self.figure_ = self.axes_[0].figure
        return self

    def _draw(self, axes, values, color, text):
        every = [np.arange(len(values))] if self.order is None else order_slices(self.order)
        for part in every:
            axes.plot(
                self.wavelength[part],
                values[part],
                color=color,
                lw=0.8,
                rasterized=len(values) > _MAX_POINTS,
            )
        axes.set_ylabel(text)
        axes.margins(x=0.005)

    def _visible_lines(self):
        low, high = self.wavelength.min(), self.wavelength.max()
        found = {name: np.atleast_1d(at) for name, at in self.lines.items()}
        found = {name: at[(at >= low) & (at <= high)] for name, at in found.items()}
        return {name: at for name, at in found.items() if len(at)}

    def _mark(self, axes):
        for at in self._visible_lines().values():
            for line in at:
                axes.axvline(line, color=colour(2), lw=0.7, alpha=0.7, zorder=0)

    def _name_lines(self, axes):
        for name, at in self._visible_lines().items():
            axes.annotate(
                name,
                (at.mean(), 1),
                (0, 2),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=8.5,
                color=colour(2),
            )


def _min_max(attention, good):
    """From 0 to 1 over the good pixels of each spectrum."""
    low = np.min(attention, axis=1, keepdims=True, initial=np.inf, where=good)
    high = np.max(attention, axis=1, keepdims=True, initial=-np.inf, where=good)
    seen = good.any(axis=1, keepdims=True)
    span = np.where(seen & (high > low), high - low, 1.0)
    return (attention - np.where(seen, low, 0.0)) / span


def _mean(values, good):
    """Mean (P,) over the stars that have a good pixel there; NaN where none has."""
    count = good.sum(axis=0)
    total = np.where(good, values, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
