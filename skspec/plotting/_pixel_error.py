"""Where in the spectrum a forward model errs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from skspec.base import last_step
from skspec.plotting._style import colour, panels, styled

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from skspec._typing import AxesLike

__all__ = ["PixelErrorDisplay"]

_MAX_POINTS = 4000


class PixelErrorDisplay:
    """Root-mean-square flux error of a forward model per pixel: on training stars and out of fold.

    Where the cross-validated error lies well above the training error, the model learned noise.

    Parameters
    ----------
    wavelength : ndarray of shape (P,)
    training_mse, cv_mse : ndarray of shape (P,) or None
        Mean squared flux errors.
    scatter : ndarray of shape (P,) or None
        Standard deviation of the model's own error.
    name : str or None
        For the title.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (1,)
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        wavelength: np.ndarray,
        training_mse: np.ndarray | None = None,
        cv_mse: np.ndarray | None = None,
        *,
        scatter: np.ndarray | None = None,
        name: str | None = None,
        unit: str = "Å",
    ):
        self.wavelength = wavelength
        self.training_mse = training_mse
        self.cv_mse = cv_mse
        self.scatter = scatter
        self.name = name
        self.unit = unit

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        *,
        name: str | None = None,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Plot what a fitted forward model (or a Pipeline ending in one) found."""
        model = last_step(estimator)
        parts = [getattr(model, key, None) for key in ("training_mse_", "cv_mse_", "scatter_")]
        if all(part is None for part in parts):
            raise TypeError(f"{type(model).__name__} keeps no error per pixel.")
        wavelength = getattr(model, "wavelength_", None)
        return cls.from_predictions(
            wavelength,
            parts[0],
            parts[1],
            scatter=parts[2],
            name=name or type(model).__name__,
            ax=ax,
            **kwargs,
        )

    @classmethod
    def from_predictions(
        cls,
        wavelength: np.ndarray | None,
        training_mse: np.ndarray | None,
        cv_mse: np.ndarray | None = None,
        *,
        scatter: np.ndarray | None = None,
        name: str | None = None,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Plot given errors; `wavelength` None means pixel numbers."""
        unit = "Å"
        if wavelength is None:
            given = next(part for part in (training_mse, cv_mse, scatter) if part is not None)
            wavelength, unit = np.arange(len(given)), ""
        display = cls(wavelength, training_mse, cv_mse, scatter=scatter, name=name, unit=unit)
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: AxesLike | None = None) -> Self:
        """Draw on `ax`, or on a new figure.

        Returns
        -------
        PixelErrorDisplay
        """
        lines = (
            ("cross-validated RMS", _root(self.cv_mse), {"color": colour(1), "lw": 0.8}),
            ("training RMS", _root(self.training_mse), {"color": colour(0), "lw": 0.8}),
            ("model scatter", self.scatter, {"color": colour(2), "lw": 0.8}),
        )
        with styled():
            self.axes_ = panels(ax, 1, size=(9.5, 2.4))
            axes = self.axes_[0]
            for label, values, look in lines:
                if values is not None:
                    shown = np.where(np.isfinite(values) & (values > 0), values, np.nan)
                    many = len(shown) > _MAX_POINTS
                    axes.plot(self.wavelength, shown, label=label, rasterized=many, **look)
            axes.set_yscale("log")
            axes.set_xlabel("wavelength [Å]" if self.unit else "pixel")
            axes.set_ylabel("flux error")
            axes.margins(x=0.005)
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0.2)
            if self.name:
                axes.set_title(self.name)
        self.figure_ = self.axes_[0].figure
        return self


def _root(mse):
    return None if mse is None else np.sqrt(mse)
