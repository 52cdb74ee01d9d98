"""Where in the spectrum a forward model measures each label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from skspec.base import unwrap
from skspec.diagnostics import information_map
from skspec.plotting._style import QUIET, colour, label_text, label_unit, panels, styled

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from skspec._typing import AxesLike, Labels, SpectraLike
    from skspec.diagnostics._information import InformationMap

__all__ = ["InformationMapDisplay"]

_MAX_POINTS = 4000
_MAX_BARS = 500  # more are drawn as an image, or the file becomes large


class InformationMapDisplay:
    """Share of every pixel in the information on each label, a panel per label.

    Upwards, with all other labels free: where the label is measured. Downwards and grey, as if they
    were known: where the flux reacts to it.

    Parameters
    ----------
    information : InformationMap
        From :func:`~skspec.diagnostics.information_map`.
    flux : ndarray of shape (P,) or None
        A spectrum to be drawn on top.
    name : str or None
        Method, for the title.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (K,), or (K + 1,) with a spectrum
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        information: InformationMap,
        *,
        flux: np.ndarray | None = None,
        name: str | None = None,
    ):
        self.information = information
        self.flux = flux
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        labels: Labels,
        ivar: SpectraLike | None = None,
        *,
        noise: str = "auto",
        rv: bool = False,
        continuum_degree: int | None = None,
        broadening: bool = False,
        name: str | None = None,
        ax: AxesLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Map the information of spectra with the given labels and noise.

        Parameters
        ----------
        estimator : fitted forward model
            Or a Pipeline that ends in one; then `ivar` must be a `Spectra`, as its first step takes
            them.
        labels, ivar, noise, rv, continuum_degree, broadening
            See :func:`~skspec.diagnostics.information_map`. The mean over the stars is drawn.
        name : str, optional
        ax : array of Axes, optional
        **kwargs
            For :meth:`plot`.
        """
        model, ivar = unwrap(estimator, ivar)  # type: ignore[arg-type]
        if not hasattr(model, "flux_jacobian"):
            raise TypeError(f"{type(model).__name__} has no flux_jacobian: it is no forward model.")
        found = information_map(
            model,
            labels,
            ivar,
            noise=noise,
            rv=rv,
            continuum_degree=continuum_degree,
            broadening=broadening,
        )
        flux = model.predict_flux(labels).mean(axis=0) if hasattr(model, "predict_flux") else None
        return cls(found, flux=flux, name=name).plot(ax=ax, **kwargs)

    def plot(self, ax: AxesLike | None = None, *, n_top: int = 3) -> Self:
        """Draw.

        Parameters
        ----------
        ax : array of Axes, optional
            One for each label, and one before them when there is a spectrum. Default: a new figure.
        n_top : int
            Windows of five pixels to be named: those that know most about the label.

        Returns
        -------
        InformationMapDisplay
        """
        names = self.information.label_names
        first = int(self.flux is not None)
        n_panels = first + len(names)
        with styled():
            self.axes_ = panels(ax, n_panels, n_rows=n_panels, size=(11, 1.6), sharex=True)
            if first:
                self._spectrum(self.axes_[0])
            for k, name in enumerate(names):
                self._panel(self.axes_[first + k], k, name, n_top)
            self.axes_[first].legend(loc="upper right", ncols=2, borderaxespad=0.1)
            is_angstrom = self.information.wavelength is not None
            self.axes_[-1].set_xlabel("wavelength [Å]" if is_angstrom else "pixel")
            if self.name:
                self.axes_[0].set_title(self.name)
        self.figure_ = self.axes_[0].figure
        return self

    @property
    def _where(self):
        wavelength = self.information.wavelength
        return np.arange(len(self.information.marginal)) if wavelength is None else wavelength

    def _spectrum(self, axes):
        many = len(self.flux) > _MAX_POINTS
        axes.plot(self._where, self.flux, color=QUIET, lw=0.7, rasterized=many)
        axes.set_ylabel("mean flux")
        axes.margins(x=0.005)

    def _panel(self, axes, k, name, n_top):
        free = 100 * self.information.share(name)
        known = 100 * self.information.share(name, conditional=True)
        many = len(free) > _MAX_BARS
        look = {"lw": 0.4, "step": "mid", "rasterized": many}
        for label, values, shade in (("free", free, colour(k)), ("known", -known, QUIET)):
            axes.fill_between(
                self._where, values, color=shade, ec=shade, label=f"other labels {label}", **look
            )
        axes.axhline(0, color=QUIET, lw=0.5)
        # a square root, for one strong line must not hide all the others
        axes.set_yscale("function", functions=(_root, _square))
        axes.set_ylim(-1.15 * known.max(), 1.6 * free.max())
        axes.set_yticks([*-_ticks(known.max()), 0, *_ticks(free.max())])
        axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        axes.set_ylabel(f"{label_text(name)}\n[% / pixel]")
        axes.margins(x=0.005)
        self._name_windows(axes, name, n_top)
        axes.text(
            1,
            1.01,
            self._summary(k, name),
            transform=axes.transAxes,
            ha="right",
            va="bottom",
            fontsize=8,
        )

    def _name_windows(self, axes, name, n_top):
        """Wavelengths of the best windows, those too near to a better one left out."""
        share, named = 100 * self.information.share(name), []
        room = 0.03 * np.ptp(self._where)
        for lower, upper, _ in self.information.top(name, 8 * n_top).itertuples(index=False):
            inside = np.flatnonzero((self._where >= lower) & (self._where <= upper))
            peak = inside[np.argmax(share[inside])]
            if len(named) < n_top and all(abs(self._where[peak] - x) > room for x in named):
                named.append(self._where[peak])
                axes.annotate(
                    f"{named[-1]:.0f}",
                    (named[-1], share[peak]),
                    (0, 2),
                    fontsize=7.5,
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                )

    def _summary(self, k, name):
        free, known = self.information.std()[k], self.information.std(conditional=True)[k]
        unit = label_unit(name)
        half = _half(self.information.share(name))
        return (
            f"σ ≥ {free:.2g} {unit}".rstrip()
            + f" ({known:.2g} if the others were known); half of the "
            f"information in {100 * half:.2g} % of the pixels"
        )


def _root(values):
    return np.sign(values) * np.sqrt(np.abs(values))


def _square(values):
    return np.sign(values) * values**2


def _ticks(highest):
    """One round number, and a quarter of it: half as high on the page."""
    digits = 10.0 ** np.floor(np.log10(highest))
    top = digits * max(step for step in (1, 2, 4, 8) if step * digits <= highest)
    return np.array([top, top / 4])


def _half(share):
    """Smallest fraction of pixels that holds half of the information."""
    ordered = np.cumsum(np.sort(share)[::-1])
    return (np.searchsorted(ordered, 0.5) + 1) / len(share)
