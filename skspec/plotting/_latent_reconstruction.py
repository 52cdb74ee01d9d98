"""An observed spectrum and what a few latent numbers make of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from skspec.base import as_spectra, unwrap
from skspec.plotting._latent_panels import curve, line_table, mark_lines, name_lines, windows_of
from skspec.plotting._style import INK, QUIET, colour, panels, styled

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from sklearn.base import BaseEstimator

    from skspec._typing import AxesLike, SpectraLike, Windows
    from skspec.spectra import Spectra

__all__ = ["ReconstructionDisplay"]


class ReconstructionDisplay:
    """Observed spectrum, its reconstruction and the residual, whole and in windows.

    Residuals are in units of the photon noise where it is known. Bad pixels are gaps.

    Parameters
    ----------
    wavelength : ndarray of shape (P,)
        [Angstrom], or pixel numbers.
    flux, reconstruction : ndarray of shape (P,)
        NaN at bad pixels.
    error : ndarray of shape (P,) or None
        Standard deviation of the flux.
    windows : sequence of (float, float), optional
        Wavelength ranges to be drawn larger below.
    order : ndarray of int of shape (P,) or None
        Echelle order of each pixel.
    lines : dict of str to ndarray
        Lines to be named.
    name : str or None
        For the title.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (2 + 2 W,)
        Spectrum and residual, whole and then of each of W windows.
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        wavelength: np.ndarray,
        flux: np.ndarray,
        reconstruction: np.ndarray,
        *,
        error: np.ndarray | None = None,
        windows: Windows | None = None,
        order: np.ndarray | None = None,
        lines: Mapping[str, np.ndarray] | None = None,
        name: str | None = None,
        unit: str = "Angstrom",
    ):
        self.wavelength = wavelength
        self.flux = flux
        self.reconstruction = reconstruction
        self.error = error
        self.windows = windows
        self.order = order
        self.lines = dict(lines or {})
        self.name = name
        self.unit = unit

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Spectra | np.ndarray,
        *,
        star: int = 0,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Encode and decode star number `star` of the spectra `X`, and draw it.

        Parameters
        ----------
        estimator : fitted transformer with ``inverse_transform``
            Such as :class:`~skspec.latent.BetaVAE`, or a Pipeline that ends in one.
        X : Spectra or array-like of shape (n, P)
        star : int
        ax : array of Axes, optional
        **kwargs
            For :meth:`from_predictions`.
        """
        model, spectra = unwrap(estimator, as_spectra(X[star : star + 1]))
        if not hasattr(model, "inverse_transform"):
            raise TypeError(
                f"{type(model).__name__} has no inverse_transform: it cannot decode latent numbers."
            )
        decoded = model.inverse_transform(model.transform(spectra))
        return cls.from_predictions(spectra, np.asarray(decoded)[0], ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        spectra: SpectraLike,
        reconstruction: ArrayLike,
        *,
        windows: Windows | None = None,
        lines: Mapping[str, ArrayLike] | None = None,
        name: str | None = None,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw one star and its reconstruction.

        Parameters
        ----------
        spectra : Spectra of shape (1, P), or array-like of shape (P,)
        reconstruction : array-like of shape (P,)
        windows : sequence of (float, float), optional
            Wavelength ranges [Angstrom] (pixels, without wavelengths) to be drawn larger.
        lines : dict of str to float or sequence of float, optional
            Lines to be named, name -> wavelengths [Angstrom]; {} for none. Default: strong lines, in
            vacuum unless ``spectra.medium`` is "air".
        name : str, optional
        ax : array of Axes, optional
        **kwargs
            For :meth:`plot`.

        Raises
        ------
        ValueError
            When the two do not fit, or no pixel lies in a window.
        """
        spectra = as_spectra(spectra)
        reconstruction = np.asarray(reconstruction, dtype=float).reshape(-1)
        if spectra.shape != (1, len(reconstruction)):
            raise ValueError(
                f"One star and its reconstruction are needed, not spectra of shape {spectra.shape} "
                f"and a reconstruction of {len(reconstruction)} pixels."
            )
        where, unit = spectra.wavelength, "Angstrom"
        if where is None:
            where, unit = np.arange(spectra.shape[1]), "pixel"
        good = spectra.good[0]
        error = spectra.flux_err[0]
        known = good & (error > 0)
        display = cls(
            where,
            np.where(good, spectra.flux[0], np.nan),
            reconstruction,
            error=np.where(known, error, np.nan) if known.any() else None,
            windows=windows,
            order=spectra.order,
            name=name,
            unit=unit,
            lines=line_table(lines, spectra.wavelength, spectra.medium),
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: AxesLike | None = None, *, color: str | None = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : array of 2 + 2 W Axes, optional
            Default: a new figure.
        color : colour, optional
            Of the reconstruction.

        Returns
        -------
        ReconstructionDisplay
        """
        color = color or colour(1)
        every = windows_of(self.wavelength, None)
        every += [] if self.windows is None else windows_of(self.wavelength, self.windows)
        with styled():
            ax = _axes(len(every) - 1) if ax is None else ax
            self.axes_ = panels(ax, 2 * len(every))
            for k, pixels in enumerate(every):
                upper, lower = self.axes_[2 * k : 2 * k + 2]
                self._spectrum(upper, pixels, color)
                self._residual(lower, pixels, color)
                for axes in (upper, lower):
                    axes.margins(x=0.005)
                    mark_lines(axes, self.lines)
                height = name_lines(upper, self.lines)
                if k == 0:
                    self._words(height)
        self.figure_ = self.axes_[0].figure
        return self

    @property
    def chi2(self) -> float:
        """Mean squared residual per pixel, in units of the photon noise; NaN where it is not known."""
        if self.error is None:
            return np.nan
        return float(np.nanmean(((self.flux - self.reconstruction) / self.error) ** 2))

    def _spectrum(self, axes, pixels, color):
        shared = (pixels, self.order)
        curve(axes, self.wavelength, self.flux, *shared, color=QUIET, lw=1.6, label="observed")
        curve(
            axes,
            self.wavelength,
            self.reconstruction,
            *shared,
            color=color,
            lw=0.9,
            label="reconstruction",
        )
        axes.tick_params(labelbottom=False)

    def _residual(self, axes, pixels, color):
        residual = self.flux - self.reconstruction
        if self.error is not None:
            residual = residual / self.error
            axes.axhspan(-1, 1, color="#eef0f3", lw=0)
        axes.axhline(0, color=INK, lw=0.8)
        curve(axes, self.wavelength, residual, pixels, self.order, color=color, lw=0.7)
        axes.set_xlabel("wavelength [Å]" if self.unit == "Angstrom" else "pixel")

    def _words(self, height):
        first, residual = self.axes_[:2]
        first.set_ylabel("flux")
        residual.set_ylabel("residual" if self.error is None else "residual / σ")
        first.legend(loc="lower right", ncols=2)
        for low, high in self.windows or ():
            first.axvspan(low, high, color="#eef0f3", lw=0, zorder=0)
        if len(self.axes_) > 2:
            self.axes_[2].set_ylabel("flux")
            self.axes_[3].set_ylabel(residual.get_ylabel())
        chi2 = "" if np.isnan(self.chi2) else f"mean χ² per pixel {self.chi2:.2f}"
        title = ":  ".join(part for part in (self.name, chi2) if part)
        first.set_title(title, pad=6 + height)


def _axes(n_windows):
    """Axes of a new figure: the whole spectrum, and the windows side by side below."""
    import matplotlib.pyplot as plt

    mosaic = [["0"] * max(n_windows, 1), ["1"] * max(n_windows, 1)]
    for row in (2, 3):
        if n_windows:
            mosaic.append([str(row + 2 * k) for k in range(n_windows)])
    heights = [2.2, 1.0] * (1 + (n_windows > 0))
    fig, axes = plt.subplot_mosaic(
        mosaic,
        figsize=(11, 1.35 * sum(heights) / 1.6 + 0.4),
        height_ratios=heights,
        layout="constrained",
    )
    fig.get_layout_engine().set(hspace=0.0)
    return [axes[str(k)] for k in range(2 + 2 * n_windows)]
