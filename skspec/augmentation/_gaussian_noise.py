"""`GaussianNoise`: spectra as noisy as those to come."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from skspec._sklearn import Interval, StrOptions
from skspec.augmentation._base import Augmentation, drawn_stars, like, limits, uniform

if TYPE_CHECKING:
    from skspec._typing import Range
    from skspec.spectra import Spectra

__all__ = ["GaussianNoise"]


class GaussianNoise(Augmentation):
    r"""Add Gaussian noise until a S/N is reached, that of the star counted.

    A star whose pixels have the variance :math:`v_j` (0 where unknown) is to have :math:`w_j`; what is
    missing is added, and nothing is taken away:

    .. math:: f_j' = f_j + \sqrt{(w_j - v_j)_+}\,\xi_j, \qquad 1 / \mathrm{ivar}'_j = \max(v_j, w_j)

    Parameters
    ----------
    snr : float, (low, high), "ivar" or None
        S/N per pixel (the median over pixels), log-uniform in a range. The error spectrum keeps its
        shape where the star has one; otherwise it is flat, the median of \|flux\| over the S/N.
        ``"ivar"``: spectra that are free of noise get that of their errors. None: S/N of the observed
        set.
    observed : Spectra, optional
        Observed stars, on the same pixels. Each star gets the error spectrum of one of them drawn at
        random (among those with a good pixel of known error), in units of the median \|flux\| of either,
        at the S/N drawn from `snr` if there is one; and the bad pixels that belong to it.

    Raises
    ------
    ValueError
        With neither `snr` nor `observed`; for ``"ivar"`` when no error is known; when the observed set
        has no errors or other pixels.

    Notes
    -----
    Spectra without errors are taken to be free of noise, and have errors afterwards. Bad pixels stay bad
    and as they are.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec import Spectra
    >>> from skspec.augmentation import GaussianNoise
    >>> clean = Spectra(np.ones((2, 1000)))
    >>> noisy = GaussianNoise(50, random_state=0).augment(clean)
    >>> noisy
    <Spectra: 2 stars x 1000 pixels, median S/N 50, 0.0 % bad>
    """

    _parameter_constraints: dict = {
        "snr": [
            StrOptions({"ivar"}),
            Interval(Real, 0, None, closed="neither"),
            tuple,
            list,
            None,
        ],
        "observed": "no_validation",
    }

    def __init__(
        self, snr: Range | str | None = (20.0, 200.0), *, observed: Spectra | None = None, **shared
    ):
        super().__init__(**shared)
        self.snr = snr
        self.observed = observed

    def _augmented(self, spectra, y, among, rng):
        if self.snr == "ivar" and spectra.good.any() and not spectra.has_errors:
            raise ValueError(
                "GaussianNoise('ivar') draws noise from the errors of the spectra: pass "
                "Spectra(flux, ivar=...), or give a S/N."
            )
        return super()._augmented(spectra, y, among, rng)

    def _draw(self, spectra, rng):
        draws = {"noise": rng.standard_normal(spectra.shape, dtype=spectra.dtype)}
        if self.observed is not None:
            observed = like(self.observed, spectra, "GaussianNoise")
            draws["source"] = drawn_stars(
                observed,
                len(spectra),
                rng,
                _has_errors,
                "GaussianNoise(observed=...) takes the errors of the observed set, and it has none.",
            )
        elif self.snr is None:
            raise ValueError("GaussianNoise needs snr=..., observed=... or both.")
        if self.snr not in (None, "ivar"):
            pair = limits(self.snr, "snr", np.finfo(float).tiny)
            draws["snr"] = uniform(rng, pair, len(spectra), log=True)
        return draws

    def _apply(self, spectra, draws):
        # (n, P), or where all pixels are alike (1, 1) and (n, 1)
        good, present = np.ones((1, 1), dtype=bool), np.zeros((1, 1))
        if spectra.ivar is not None:
            good = spectra.good
            present = np.where(good, spectra.variance, 0.0)
        if self.snr == "ivar":
            wanted = added = present
        else:
            wanted = self._wanted(spectra, present, draws)
            # where the observed star is bad, the pixel becomes so, and its flux stays
            added = np.where(good & np.isfinite(wanted), np.maximum(wanted - present, 0.0), 0.0)
        flux = spectra.flux + (np.sqrt(added) * draws["noise"]).astype(spectra.dtype, copy=False)
        with np.errstate(divide="ignore"):
            ivar = np.where(good, 1.0 / np.maximum(present, wanted), 0.0)
        return spectra.replace(flux=flux, ivar=ivar)

    def _wanted(self, spectra, present, draws):
        """Variance (n, P) or (n, 1) that the spectra shall have; infinite where they shall be bad."""
        if self.observed is None:
            own, unit = np.nan_to_num(spectra.snr, nan=1.0)[:, None], present
            if np.any(unit > 0):
                unit = unit * own**2
            if not np.all(unit > 0):
                unit = np.where(unit > 0, unit, _level(spectra)[:, None] ** 2)
            return unit / draws["snr"][:, None] ** 2
        level = _level(spectra)[:, None]
        source = self.observed[draws["source"]]
        scale = level / _level(source)[:, None]
        if "snr" in draws:
            scale *= (np.nan_to_num(source.snr, nan=1.0) / draws["snr"])[:, None]
        return source.variance * scale**2


def _has_errors(spectra):
    """Which stars have a good pixel of known error."""
    if spectra.ivar is None:
        return np.zeros(len(spectra), dtype=bool)
    return np.any((spectra.ivar > 0) & np.isfinite(spectra.ivar), axis=1)


def _level(spectra):
    """Median of the flux (n,), regardless of sign, over good pixels; 1 where there is none."""
    good, flux = spectra.good, np.abs(spectra.flux)
    if good.all() and flux.size:
        level = np.median(flux, axis=1).astype(float)
    else:
        level, seen = np.ones(len(flux)), good.any(axis=1)
        level[seen] = np.nanmedian(np.where(good[seen], flux[seen], np.nan), axis=1)
    return np.where(level > 0, level, 1.0)
