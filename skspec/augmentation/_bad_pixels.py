"""`BadPixels` and `TelluricMask`: what cannot be used in the spectra to come."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from skspec._sklearn import Interval
from skspec.augmentation._base import Augmentation, drawn_stars, like, limits, uniform
from skspec.solvers.spectra.line_of_sight import C_KMS, ln_shift

if TYPE_CHECKING:
    from skspec._typing import Range, Windows
    from skspec.spectra import Spectra

__all__ = ["BadPixels", "TelluricMask"]


class BadPixels(Augmentation):
    """Spoil pixels: single ones, runs of neighbours, and those of observed stars.

    Parameters
    ----------
    points : float or (low, high)
        Fraction of the pixels that are hit one by one; uniform in a range.
    runs : float or (low, high)
        Fraction of the pixels that runs hit, as far as these do not overlap; uniform in a range.
    run_length : int or (low, high)
        Pixels of a run; uniform in a range. A run ends with its echelle order.
    observed : Spectra, optional
        Observed stars on the same pixels; each star gets the bad pixels of one of them drawn at random
        (among those with a good pixel).
    flux : float or None
        Flux that bad pixels get, those that were bad before not included; None leaves it.

    Raises
    ------
    ValueError
        When a range makes no sense, or the observed set has other pixels, or no good ones.

    Notes
    -----
    A `Spectra` has ``ivar`` 0 there. In a Pipeline of plain arrays only `flux` tells.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec import Spectra
    >>> from skspec.augmentation import BadPixels
    >>> star = Spectra(np.ones((1, 8)), ivar=100.0)
    >>> BadPixels(0.3, random_state=0).augment(star).ivar.tolist()
    [[100.0, 100.0, 100.0, 100.0, 0.0, 0.0, 0.0, 0.0]]
    """

    _parameter_constraints: dict = {
        "points": [Interval(Real, 0, 1, closed="both"), tuple, list],
        "runs": [Interval(Real, 0, 1, closed="both"), tuple, list],
        "run_length": [Interval(Real, 1, None, closed="left"), tuple, list],
        "observed": "no_validation",
        "flux": [Real, None],
    }

    def __init__(
        self,
        points: Range = 0.01,
        runs: Range = 0.0,
        *,
        run_length: Range = (5, 20),
        observed: Spectra | None = None,
        flux: float | None = 1.0,
        **shared,
    ):
        super().__init__(**shared)
        self.points = points
        self.runs = runs
        self.run_length = run_length
        self.observed = observed
        self.flux = flux

    def _draw(self, spectra, rng):
        n = len(spectra)
        points = uniform(rng, limits(self.points, "points", 0, 1), n)
        runs = uniform(rng, limits(self.runs, "runs", 0, 1), n)
        bad = rng.random(spectra.shape, dtype=np.float32) < points[:, None]
        if runs.any():
            bad |= self._runs(spectra, runs, rng)
        if self.observed is not None:
            observed = like(self.observed, spectra, "BadPixels")
            rows = drawn_stars(
                observed,
                n,
                rng,
                lambda stars: stars.good.any(axis=1),
                "BadPixels(observed=...): no star of the observed set has a good pixel.",
            )
            bad |= ~observed[rows].good
        return {"bad": bad}

    def _runs(self, spectra, fraction, rng):
        """Boolean array (n, P) of runs that begin anywhere."""
        shortest, longest = (round(x) for x in limits(self.run_length, "run_length", 1))
        n, n_pixels = spectra.shape
        begins = rng.random((n, n_pixels)) < fraction[:, None] / (0.5 * (shortest + longest))
        star, first = np.nonzero(begins)
        length = rng.integers(shortest, longest + 1, size=len(first))
        edges = np.zeros((n, n_pixels + 1), dtype=np.int32)
        np.add.at(edges, (star, first), 1)
        np.add.at(edges, (star, np.minimum(first + length, _order_end(spectra)[first])), -1)
        return np.cumsum(edges[:, :-1], axis=1) > 0

    def _apply(self, spectra, draws):
        return spoilt(spectra, draws["bad"], self.flux)


class TelluricMask(Augmentation):
    r"""Hide wavelength windows, such as bands of absorption by the air.

    Parameters
    ----------
    windows : list of (lower, upper)
        Windows [Angstrom] as seen from the ground.
    velocity : float or (low, high)
        Radial velocity [km/s] of the stars, where the spectra have been brought to rest: the windows
        then lie at :math:`\lambda \exp(-\operatorname{artanh}(v / c))`. Uniform in a range.
    flux : float or None
        Flux that masked pixels get; None leaves it.

    Raises
    ------
    ValueError
        Without wavelengths, or when a window is not (lower, upper).

    Notes
    -----
    At prediction nothing is masked: where the air absorbs, do that with
    :class:`skspec.preprocessing.BadPixelMasker` in front.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec import Spectra
    >>> from skspec.augmentation import TelluricMask
    >>> star = Spectra(np.ones((1, 5)), ivar=100.0, wavelength=np.arange(6860.0, 6885.0, 5))
    >>> TelluricMask([(6867, 6884)]).augment(star).ivar.tolist()
    [[100.0, 100.0, 0.0, 0.0, 0.0]]
    """

    _parameter_constraints: dict = {
        "windows": ["array-like"],
        "velocity": [Interval(Real, -C_KMS, C_KMS, closed="neither"), tuple, list],
        "flux": [Real, None],
    }

    def __init__(
        self, windows: Windows = (), *, velocity: Range = 0.0, flux: float | None = None, **shared
    ):
        super().__init__(**shared)
        self.windows = windows
        self.velocity = velocity
        self.flux = flux

    def _draw(self, spectra, rng):
        pair = limits(self.velocity, "velocity", *np.nextafter((-C_KMS, C_KMS), 0))
        return {"velocity": uniform(rng, pair, len(spectra))}

    def _apply(self, spectra, draws):
        windows = np.asarray(self.windows, dtype=float)
        if not windows.size:
            return spectra
        if windows.ndim != 2 or windows.shape[1] != 2 or not np.all(windows[:, 0] < windows[:, 1]):
            raise ValueError(
                "TelluricMask takes windows as [(lower, upper), ...] in Angstrom, lower < upper, not "
                f"{self.windows!r}."
            )
        if spectra.wavelength is None:
            raise ValueError(
                "TelluricMask needs the wavelengths: pass Spectra(flux, wavelength=...)."
            )
        seen = spectra.wavelength * np.exp(ln_shift(draws["velocity"]))[:, None]
        bad = np.zeros(spectra.shape, dtype=bool)
        for lower, upper in windows:
            bad |= (seen >= lower) & (seen <= upper)
        return spoilt(spectra, bad, self.flux)


def spoilt(spectra, bad, flux):
    """Spectra with more bad pixels, and a flux of these that is given or left."""
    if flux is not None:
        new = bad & spectra.good
        spectra = spectra.replace(flux=np.where(new, spectra.dtype.type(flux), spectra.flux))
    return spectra.replace(mask=bad)


def _order_end(spectra):
    """One past the last pixel (P,) of the run of equal orders in which each pixel lies."""
    n_pixels = spectra.shape[1]
    if spectra.order is None:
        return np.full(n_pixels, n_pixels)
    ends = np.append(np.flatnonzero(np.diff(spectra.order)) + 1, n_pixels)
    return ends[np.searchsorted(ends, np.arange(n_pixels), side="right")]
