"""A star's spectrum, the model's, and what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from skspec.base import unwrap
from skspec.plotting._style import INK, QUIET, colour, label_text, panels, styled

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from sklearn.base import BaseEstimator

    from skspec._typing import AxesLike
    from skspec.spectra import Spectra

__all__ = ["SpectrumFitDisplay"]


class SpectrumFitDisplay:
    """Observed spectrum, model spectrum at the fitted labels, and residual.

    Parameters
    ----------
    wavelength : ndarray of shape (P,)
        [Angstrom], or pixel numbers.
    flux, model : ndarray of shape (P,)
        Observed (NaN at bad pixels) and model flux.
    error : ndarray of shape (P,) or None
        Total standard deviation used in the fit: photons and model scatter.
    name : str or None
        For the title.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (2,)
        Spectrum, residual.
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        wavelength: np.ndarray,
        flux: np.ndarray,
        model: np.ndarray,
        *,
        error: np.ndarray | None = None,
        name: str | None = None,
        unit: str = "Angstrom",
    ):
        self.wavelength = wavelength
        self.flux = flux
        self.model = model
        self.error = error
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
        """Fit star number `star` of the `Spectra` `X` with a fitted forward model and plot it."""
        model, spectra = unwrap(estimator, X[star])
        if not hasattr(model, "predict_flux"):
            raise TypeError(f"{type(model).__name__} has no predict_flux: it is no forward model.")
        if hasattr(model, "best_fit"):  # shifted, broadened and times its continuum, where fitted
            result = model.invert(spectra)
            likelihood = getattr(result, "likelihood", result.dist)
            labels, fitted = likelihood.mean(), model.best_fit(result)
        else:
            labels = model.predict_dist(spectra).mean()
            fitted = model.predict_flux(labels)
        error = np.sqrt(model.noise(spectra).variance()[0]) if _has_noise(model) else None
        title = ", ".join(
            f"{label_text(key)} {_short(value)}"
            for key, value in zip(model.label_names_in_, labels[0])
        )
        return cls.from_predictions(
            spectra,
            fitted[0],
            error=error,
            name=title if name is None else f"{name}:  {title}",
            ax=ax,
            **kwargs,
        )

    @classmethod
    def from_predictions(
        cls,
        spectra: Spectra,
        model: ArrayLike,
        *,
        error: np.ndarray | None = None,
        name: str | None = None,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Plot a one-star `Spectra` and its model flux (P,)."""
        wavelength, unit = spectra.wavelength, "Angstrom"
        if wavelength is None:
            wavelength, unit = np.arange(spectra.shape[1]), "pixel"
        flux = np.where(spectra.good[0], spectra.flux[0], np.nan)
        display = cls(wavelength, flux, np.asarray(model), error=error, name=name, unit=unit)
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: AxesLike | None = None, *, color: str | None = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : array of two Axes, optional
            Default: a new figure.
        color : colour, optional
            Of the model.

        Returns
        -------
        SpectrumFitDisplay
        """
        color = color or colour(1)
        with styled():
            ratio = {"height_ratios": [2.4, 1]}
            self.axes_ = panels(ax, 2, n_rows=2, size=(9.5, 1.9), sharex=True, gridspec_kw=ratio)
            self._spectrum(self.axes_[0], color)
            self._residual(self.axes_[1], color)
        self.figure_ = self.axes_[0].figure
        return self

    def _spectrum(self, axes, color):
        axes.plot(self.wavelength, self.flux, color=QUIET, lw=1.6, label="observed")
        axes.plot(self.wavelength, self.model, color=color, lw=0.7, label="model")
        axes.set_ylabel("flux")
        axes.legend(loc="lower right", ncols=2)
        if self.name:
            axes.set_title(self.name)
        axes.margins(x=0.005)

    def _residual(self, axes, color):
        residual = self.flux - self.model
        label = "obs − model"
        if self.error is not None:
            residual = residual / self.error
            label = "residual / σ"
            axes.axhspan(-1, 1, color="#eef0f3", lw=0)
        axes.plot(self.wavelength, residual, color=color, lw=0.6)
        axes.axhline(0, color=INK, lw=0.8)
        axes.set_ylabel(label)
        axes.set_xlabel("wavelength [Å]" if self.unit == "Angstrom" else "pixel")
        axes.margins(x=0.005)


def _has_noise(model):
    return hasattr(model, "noise")


def _short(value):
    return (f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}").replace("-", "−")
