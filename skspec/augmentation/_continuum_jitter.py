"""`ContinuumJitter`: continua as uncertain as those to come."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np
from numpy.polynomial.chebyshev import chebvander

from skspec._sklearn import Interval
from skspec.augmentation._base import Augmentation, limits, uniform

if TYPE_CHECKING:
    from skspec._typing import Range

__all__ = ["ContinuumJitter"]

LOWEST = 0.1  # of the factor: a continuum is positive


class ContinuumJitter(Augmentation):
    r"""Multiply by a smooth curve near 1, as an imperfect normalisation would.

    .. math:: f' = f\,(1 + \textstyle\sum_{k=0}^{d} c_k T_k(x)), \quad c_k \sim N(0, s^2)

    with :math:`x` from -1 to 1 over an echelle order (or the spectrum), and `s` such that the root mean
    square of the sum over pixels and stars is `amplitude`.

    Parameters
    ----------
    amplitude : float or (low, high)
        Below 1; 0.01 to 0.02 is usual. Uniform in a range.
    degree : int
        Degree `d` of the Chebyshev polynomial.

    Notes
    -----
    ``ivar`` is divided by the square of the curve: the S/N of every pixel stays. Each order gets a curve
    of its own. The curve is not let fall below 0.1.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec import Spectra
    >>> from skspec.augmentation import ContinuumJitter
    >>> flat = Spectra(np.ones((500, 300)), ivar=100.0)
    >>> bent = ContinuumJitter(0.02, random_state=0).augment(flat)
    >>> round(float(np.std(bent.flux - 1)), 3), bool(np.allclose(bent.snr, 10))
    (0.02, True)
    """

    _parameter_constraints: dict = {
        "amplitude": [Interval(Real, 0, 1, closed="left"), tuple, list],
        "degree": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(self, amplitude: Range = 0.02, *, degree: int = 3, **shared):
        super().__init__(**shared)
        self.amplitude = amplitude
        self.degree = degree

    def _draw(self, spectra, rng):
        n, n_orders = len(spectra), len(_orders(spectra))
        return {
            "amplitude": uniform(rng, limits(self.amplitude, "amplitude", 0, 1), n),
            "coefficients": rng.standard_normal((n, n_orders, self.degree + 1)),
        }

    def _apply(self, spectra, draws):
        factor = np.empty(spectra.shape)
        for number, here in enumerate(_orders(spectra)):
            basis = chebvander(_position(spectra, here), self.degree)
            basis /= np.sqrt(np.mean(np.sum(basis**2, axis=1)))
            factor[:, here] = draws["coefficients"][:, number] @ basis.T
        factor = np.maximum(1 + draws["amplitude"][:, None] * factor, LOWEST)
        flux = (spectra.flux * factor).astype(spectra.dtype, copy=False)
        return spectra.replace(
            flux=flux, ivar=None if spectra.ivar is None else spectra.ivar / factor**2
        )


def _orders(spectra):
    """Pixels of each order."""
    if spectra.order is None:
        return [slice(None)]
    return [spectra.order == number for number in np.unique(spectra.order)]


def _position(spectra, here):
    """Position of pixels between the ends of their order, from -1 to 1."""
    n_pixels = spectra.shape[1]
    x = np.arange(n_pixels, dtype=float) if spectra.wavelength is None else spectra.wavelength
    x = x[here]
    low, high = x.min(), x.max()
    return (2 * x - low - high) / ((high - low) or 1.0)
