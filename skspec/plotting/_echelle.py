"""An echelle spectrum: the 1-D spectrum, its orders, and their image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from skspec.plotting._style import QUIET, colour, panels, styled

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from sklearn.base import BaseEstimator

    from skspec._typing import AxesLike
    from skspec.spectra import Spectra

__all__ = ["EchelleDisplay", "order_slices"]

_MAX_POINTS = 4000
_MAX_COLUMNS = 512  # of the image


class EchelleDisplay:
    """Orders of an echelle spectrum against wavelength, and their image beside it.

    Parameters
    ----------
    wavelength : ndarray of shape (P,)
        Of all orders, one after the other [Angstrom], or pixel numbers.
    flux : ndarray of shape (P,)
        NaN at bad pixels.
    order : ndarray of int of shape (P,)
    spectrum : (ndarray, ndarray) or None
        Wavelength and flux of the 1-D spectrum, drawn before the orders.
    name : str or None
        For the title.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (2,), or (3,) with a 1-D spectrum
        1-D spectrum, orders, image.
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        wavelength: np.ndarray,
        flux: np.ndarray,
        order: np.ndarray,
        *,
        spectrum: tuple[np.ndarray, np.ndarray] | None = None,
        name: str | None = None,
        unit: str = "Angstrom",
    ):
        self.wavelength = wavelength
        self.flux = flux
        self.order = order
        self.spectrum = spectrum
        self.name = name
        self.unit = unit

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Spectra,
        *,
        star: int = 0,
        name: str | None = None,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Lay out star number `star` of the 1-D `Spectra` `X` and draw it.

        Parameters
        ----------
        estimator : fitted EchelleLayout
            Or a Pipeline of transformers that ends in one.
        X : Spectra of shape (n, P)
        star : int
        name : str, optional
        ax : array of three Axes, optional
        **kwargs
            For :meth:`plot`.
        """
        one = X[star]
        orders = estimator.transform(one)
        return cls.from_spectra(orders, spectrum=one, name=name, ax=ax, **kwargs)

    @classmethod
    def from_spectra(
        cls,
        spectra: Spectra,
        *,
        star: int = 0,
        spectrum: Spectra | None = None,
        name: str | None = None,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw star number `star` of `Spectra` with orders.

        Parameters
        ----------
        spectra : Spectra of shape (n, P)
            With ``order``.
        star : int
        spectrum : Spectra of one star, optional
            The 1-D spectrum, drawn first.
        name : str, optional
        ax : array of Axes, optional
        **kwargs
            For :meth:`plot`.

        Raises
        ------
        ValueError
            When the spectra have no ``order``.
        """
        if spectra.order is None:
            raise ValueError(
                "These spectra have no orders: pass Spectra(..., order=...), or lay them out with "
                "skspec.preprocessing.EchelleLayout."
            )
        where, flux = _visible(spectra, star)
        unit = "pixel" if spectra.wavelength is None else "Angstrom"
        one = None if spectrum is None else _visible(spectrum, 0)
        display = cls(where, flux, spectra.order, spectrum=one, name=name, unit=unit)
        return display.plot(ax=ax, **kwargs)

    def plot(
        self,
        ax: AxesLike | None = None,
        *,
        cmap: str | Colormap = "viridis",
        color_bar: bool = True,
    ) -> Self:
        """Draw.

        Parameters
        ----------
        ax : array of two Axes, or three with a 1-D spectrum, optional
            Default: a new figure.
        cmap : str or Colormap
            Of the image.
        color_bar : bool

        Returns
        -------
        EchelleDisplay
        """
        with styled():
            n_panels = 2 + (self.spectrum is not None)
            self.axes_ = panels(ax, n_panels, size=(4.6, 3.2))
            if self.spectrum is not None:
                self._draw(self.axes_[0], *self.spectrum, color=QUIET)
                self.axes_[0].set_ylabel("flux")
            for number, part in enumerate(order_slices(self.order)):
                where, flux = self.wavelength[part], self.flux[part]
                self._draw(self.axes_[-2], where, flux, color=colour(number % 2))
            self.axes_[-2].set_ylabel("flux of the orders")
            self._image(self.axes_[-1], cmap, color_bar)
            if self.name:
                self.axes_[0].set_title(self.name)
        self.figure_ = self.axes_[0].figure
        return self

    @property
    def image(self) -> np.ndarray:
        """Flux (orders, pixels); NaN at bad pixels and beyond the end of shorter orders."""
        parts = [self.flux[part] for part in order_slices(self.order)]
        out = np.full((len(parts), max(len(part) for part in parts)), np.nan)
        for row, part in zip(out, parts):
            row[: len(part)] = part
        return out

    def _draw(self, axes, where, flux, color):
        axes.plot(where, flux, color=color, lw=0.6, rasterized=len(self.flux) > _MAX_POINTS)
        axes.set_xlabel("wavelength [Å]" if self.unit == "Angstrom" else "pixel")
        axes.margins(x=0.01)

    def _image(self, axes, cmap, color_bar):
        from matplotlib.ticker import MaxNLocator

        image = self.image
        extent = (-0.5, image.shape[1] - 0.5, -0.5, len(image) - 0.5)
        picture = axes.imshow(
            _coarser(image, _MAX_COLUMNS),
            aspect="auto",
            origin="lower",
            cmap=cmap,
            extent=extent,
            interpolation="nearest",
        )
        axes.set_facecolor("#e8eaed")
        axes.grid(False)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("pixel of the order")
        axes.set_ylabel("order")
        if color_bar:
            axes.figure.colorbar(picture, ax=axes, label="flux", pad=0.02)


def order_slices(order):
    """Pixels (indices) of each order, in the order of their numbers."""
    return [np.flatnonzero(order == number) for number in np.unique(order)]


def _coarser(image, n_columns):
    """Means of neighbouring columns, so that no line falls between the dots of the screen."""
    size = -(-image.shape[1] // n_columns)
    missing = -image.shape[1] % size
    blocks = np.pad(image, ((0, 0), (0, missing)), constant_values=np.nan)
    blocks = blocks.reshape(len(image), -1, size)
    seen = np.isfinite(blocks)
    total = np.where(seen, blocks, 0.0).sum(axis=2)
    return np.where(seen.any(axis=2), total / np.maximum(seen.sum(axis=2), 1), np.nan)


def _visible(spectra, star):
    """Wavelengths, or pixel numbers, and flux with NaN at bad pixels."""
    where = spectra.wavelength
    where = np.arange(spectra.shape[1]) if where is None else where
    return where, np.where(spectra.good[star], spectra.flux[star], np.nan)
