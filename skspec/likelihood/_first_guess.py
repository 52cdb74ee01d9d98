"""First guesses of velocity, broadening and labels of stars that move and have a continuum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from skspec.likelihood._free_parameters import FreeColumns
from skspec.likelihood._inversion import Inversion
from skspec.likelihood._noise import PixelNoise
from skspec.likelihood._rest_frame import RestBatch, RestFrame
from skspec.likelihood._spectrum_model import FluxBasis, spread_rows
from skspec.solvers.linear.monomials import Monomials
from skspec.solvers.spectra.cross_correlation import velocity_scan
from skspec.solvers.spectra.line_of_sight import ln_shift

__all__ = ["FirstGuess"]

N_TEMPLATES = 16  # model spectra, spread over the labels, that the first guess is found with
WIDTHS = (0.0, 20.0, 60.0, 150.0)  # of the broadening, tried as starts [km/s]
MIN_CURVE = 0.02  # of the level: where a continuum is lower, first guesses leave the pixel aside
ROUGH_PIXELS = 2000  # so many are enough for first labels
POINTS_PER_TERM = 3  # of the polynomial that gives first labels of models with many features


class FirstGuess:
    """Where to start.

    Parameters
    ----------
    rest : RestFrame
    columns : FreeColumns
    """

    def __init__(self, rest: RestFrame, columns: FreeColumns):
        self.columns = columns
        chosen = spread_rows(rest.candidates, min(N_TEMPLATES, len(rest.candidates)))
        self.templates = rest.spectra(rest.candidates[chosen])
        self._thin = slice(None, None, max(1, self.templates.shape[1] // ROUGH_PIXELS))
        self._rough = replace(rest, basis=_rough_basis(rest, self._thin))

    @property
    def widths(self):
        """Broadenings to try [km/s]."""
        return (0.0,) if self.columns.free.kernel is None else WIDTHS

    def shift(self, flux, weight):
        """Shift (n,) in steps, and the template (n,) that is most like each star."""
        columns, free = self.columns, self.columns.free
        if free.rv_range is None:
            return np.zeros(len(flux)), self._closest_template(flux, weight)
        # the scan has one continuum for all orders
        if columns.polynomials is not None and columns.order is not None:
            of_stars = np.broadcast_to(self.templates[0], flux.shape)
            fit = PixelNoise(weight).fit_linear(columns.polynomials.times(of_stars), flux)
            usable = fit.curve > MIN_CURVE
            flux = flux / np.where(usable, fit.curve, 1.0)
            weight = usable * weight * fit.curve**2
        scan = velocity_scan(
            flux,
            weight,
            self.templates,
            columns.wavelength,
            free.rv_range,
            degree=free.degree or 0,
            order=columns.order,
        )
        rv = np.nan_to_num(scan.rv)  # NaN without good pixels
        return ln_shift(rv) / columns.line_of_sight.step, scan.template

    def _closest_template(self, flux, weight):
        chi2, noise = np.empty((len(flux), len(self.templates))), PixelNoise(weight)
        for t, template in enumerate(self.templates):
            model_flux = np.broadcast_to(template, flux.shape)
            if self.columns.polynomials is not None:
                model_flux = noise.fit_linear(self.columns.polynomials.times(model_flux), flux).flux
            chi2[:, t] = np.einsum("np,np->n", weight, (flux - model_flux) ** 2)
        return np.argmin(chi2, axis=1)

    def labels(self, flux, weight, shift, curve, n_init):
        """Labels from the inversion at rest of spectra without continuum, shifted by whole pixels."""
        rows = flux, weight, np.broadcast_to(curve, flux.shape)
        sight, thin = self.columns.line_of_sight, self._thin
        if sight is not None and np.any(shift):
            pixels, inside = sight.nearest_pixels(shift * sight.step)
            pixels, inside = pixels[:, thin], inside[:, thin]
            flux, weight, curve = (np.take_along_axis(row, pixels, axis=1) for row in rows)
            weight = np.where(inside, weight, 0.0)
        else:
            flux, weight, curve = (row[:, thin] for row in rows)
        usable = curve > MIN_CURVE
        curve = np.where(usable, curve, 1.0)
        noise = PixelNoise(usable * weight * curve**2)
        batch = RestBatch(self._rough, flux / curve, noise)
        options = Inversion(n_init=n_init, max_iter=10, tol=0.01)
        return batch.descend(batch.start(options)[0], options).p


def _rough_basis(rest, pixels):
    """What first labels are found with: the model, or a quadratic through its many components."""
    basis, points = rest.basis, rest.candidates
    basis = replace(basis, reference=basis.reference[pixels], flux=basis.flux[:, pixels])
    terms = Monomials.of_degree(points.shape[1], 2)
    if basis.is_lossless or len(points) < POINTS_PER_TERM * len(terms):
        return basis.leading()
    mix = np.linalg.lstsq(terms(points), basis(points), rcond=None)[0]
    coef, origin = mix @ basis.flux, terms(np.zeros((1, points.shape[1])))[0]
    return FluxBasis(terms, origin, basis.reference + origin @ coef, None, coef, len(coef))
