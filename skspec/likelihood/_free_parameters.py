"""What is fitted to each star besides its labels, and its derivatives for spectra at rest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from skspec._short_repr import ShortRepr
from skspec.likelihood._noise import Polynomials
from skspec.solvers.spectra.line_of_sight import C_KMS, LineOfSight
from skspec.solvers.spectra.nuisance import continuum_basis, nuisance_gradients

__all__ = ["MAX_WIDTH", "RV_RANGE", "WIDTH2_UNIT", "FreeColumns", "FreeParameters"]

WIDTH2_UNIT = 1e4  # of squared widths in matrices [(km/s)^2], so that all entries are alike
MAX_WIDTH = 500.0  # of the broadening [km/s]
RV_RANGE = (-500.0, 500.0)  # of ``fit_rv=True`` [km/s]


@dataclass(frozen=True)
class FreeParameters(ShortRepr):
    """What is fitted to each star besides its labels.

    Attributes
    ----------
    rv_range : tuple of float or None
        Range of radial velocities [km/s]; None where they are not fitted.
    kernel : {"gaussian", "rotation"} or None
        Shape of the broadening.
    degree : int or None
        Of the multiplicative polynomial.
    """

    rv_range: tuple[float, float] | None = None
    kernel: str | None = None
    degree: int | None = None

    @classmethod
    def of(
        cls,
        fit_rv: bool | tuple[float, float] = False,
        fit_broadening: bool | str = False,
        continuum_degree: int | None = None,
    ) -> FreeParameters:
        """The switches of a forward model.

        Raises
        ------
        ValueError
            When `fit_rv` is neither a switch nor a range of velocities.
        """
        kernel = "gaussian" if fit_broadening is True else fit_broadening or None
        return cls(velocity_range(fit_rv), kernel, continuum_degree)

    @property
    def needs_velocity(self) -> bool:
        """Whether the wavelength of each pixel must be known."""
        return self.rv_range is not None or self.kernel is not None

    @property
    def is_empty(self) -> bool:
        """Whether the labels are all there is to fit."""
        return not self.needs_velocity and self.degree is None

    @property
    def n_nonlinear(self) -> int:
        """Parameters beside the labels that are not linear: velocity and squared width."""
        return len(self.units)

    @property
    def units(self) -> list[float]:
        """Of the nonlinear parameters in matrices: km/s, and squared widths."""
        return [1.0] * (self.rv_range is not None) + [WIDTH2_UNIT] * (self.kernel is not None)


def velocity_range(fit_rv) -> tuple[float, float] | None:
    """Range of velocities (lowest, highest) [km/s] of a switch; None where they are not fitted."""
    if isinstance(fit_rv, bool | np.bool_):
        return RV_RANGE if fit_rv else None
    span = np.asarray(fit_rv, dtype=float).ravel()
    if len(span) != 2 or not -C_KMS < span[0] < span[1] < C_KMS:
        raise ValueError(
            f"fit_rv must be True, False or a range (lowest, highest) in km/s, not {fit_rv!r}."
        )
    return float(span[0]), float(span[1])


@dataclass
class FreeColumns(ShortRepr):
    """Derivatives of spectra at rest with respect to everything but the labels.

    Parameters
    ----------
    free : FreeParameters
    n_pixels : int
    wavelength, order : ndarray of shape (P,) or None
    """

    free: FreeParameters
    n_pixels: int
    wavelength: np.ndarray | None = None
    order: np.ndarray | None = None

    def __post_init__(self):
        if self.free.needs_velocity and self.wavelength is None:
            raise ValueError(
                "fit_rv and fit_broadening need to know the wavelength of each pixel: pass "
                "Spectra(flux, wavelength=...)."
            )
        self.line_of_sight  # noqa: B018  a grid that it cannot use is told before training

    def with_free(
        self,
        free: FreeParameters,
        wavelength: np.ndarray | None = None,
        order: np.ndarray | None = None,
    ) -> FreeColumns:
        """With something else free.

        Pixels are where the model has them; `wavelength`, and the `order` of another continuum, are of
        use where it does not say.
        """
        if self.wavelength is not None:
            wavelength = self.wavelength
        if self.order is not None or free.degree == self.free.degree:
            order = self.order
        return FreeColumns(free, self.n_pixels, wavelength, order)

    @cached_property
    def line_of_sight(self) -> LineOfSight | None:
        """What shifts and broadens; None without."""
        if not self.free.needs_velocity:
            return None
        return LineOfSight(self.wavelength, self.order)

    @cached_property
    def polynomials(self) -> Polynomials | None:
        """Of the continuum; None without."""
        if self.free.degree is None:
            return None
        position = np.arange(self.n_pixels) if self.wavelength is None else self.wavelength
        return Polynomials(continuum_basis(position, self.free.degree, self.order))

    def __len__(self) -> int:
        n_linear = 0 if self.polynomials is None else len(self.polynomials)
        return len(self.free.units) + n_linear

    def __call__(self, flux: np.ndarray, pixels: slice) -> np.ndarray:
        """Columns (n, len(self), B) for the spectra (n, B) of the slice `pixels`."""
        if not len(self):
            return np.empty((len(flux), 0, flux.shape[1]))
        rows = None if self.polynomials is None else self.polynomials.rows
        wavelength, order, rows = (
            None if part is None else part[..., pixels]
            for part in (self.wavelength, self.order, rows)
        )
        free = self.free
        columns = nuisance_gradients(
            flux,
            wavelength,
            order,
            rv=free.rv_range is not None,
            broadening=free.kernel is not None,
            polynomials=rows,
        )
        columns[:, : len(free.units)] *= np.array(free.units)[:, None]
        return columns
