r"""Inversion with radial velocity, broadening and continuum free, written once for all forward models.

.. math:: y_j = P(\lambda_j; c)\; \big[H_s * f(x)\big](\ln\lambda_j - z) + \sigma_j \xi

Labels `x`, shift `z` and squared width `s` are found by Levenberg-Marquardt; the coefficients `c` of the
multiplicative polynomial are linear and solved inside every step (variable projection), so that the
normal matrix of the others,

.. math:: A = J^T W J - J^T W C (C^T W C)^{-1} C^T W J, \qquad C_{jq} = f_j T_q(\lambda_j),

has them marginalised. The spectra that a model can make lie in a small subspace: only its basis is
Fourier transformed, once, and shifting and broadening multiply transforms.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from skspec.forward._inversion import SWEEPS, FluxModel, LabelFit, influence, minimise
from skspec.solvers.cross_correlation import velocity_scan
from skspec.solvers.levenberg_marquardt import levenberg_marquardt
from skspec.solvers.line_of_sight import C_KMS, KERNELS, LineOfSight, ln_shift, velocity
from skspec.solvers.nuisance import Continuum, velocity_derivatives
from skspec.solvers.pixel_blocks import in_threads

__all__ = ["Nuisance", "NuisanceColumns", "NuisanceFit", "NuisanceModel"]

N_TEMPLATES = 16  # model spectra, spread over the labels, that the first guess is found with
REACH = 12  # steps of the velocity grid by which the first guess of the shift may be wrong
MAX_WIDTH = 500.0  # of the broadening [km/s]
FIRST_WIDTHS = (0.0, 20.0, 60.0, 150.0)  # of the broadening, tried as starts [km/s]
BATCH, CHUNK = 64, 8  # stars whose steps are taken together, whose spectra are made together
PRECISION = np.float32  # of the spectra made on the way; sums over pixels that cancel are double
GOOD_ENOUGH = 1e-4  # squared step in sigma that single precision can tell from zero
STILL = 1e-4  # the same, between two sweeps of a robust loss


@dataclass(frozen=True)
class Nuisance:
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
    def of(cls, model) -> Nuisance | None:
        """The switches of a forward model; None if there is nothing but labels to fit."""
        kernel = "gaussian" if model.fit_broadening is True else model.fit_broadening or None
        rv_range = tuple(map(float, model.rv_range)) if model.fit_rv else None
        if rv_range is not None and not rv_range[0] < rv_range[1]:
            raise ValueError(f"rv_range must be (lowest, highest) in km/s, not {model.rv_range}.")
        if rv_range is None and kernel is None and model.continuum_degree is None:
            return None
        return cls(rv_range, kernel, model.continuum_degree)

    @property
    def needs_velocity(self):
        return self.rv_range is not None or self.kernel is not None

    @property
    def n_nonlinear(self):
        """Parameters beside the labels that are not linear: shift and squared width."""
        return (self.rv_range is not None) + (self.kernel is not None)


@dataclass
class NuisanceColumns:
    """Derivatives of spectra at rest with respect to everything but the labels.

    Parameters
    ----------
    nuisance : Nuisance
    n_pixels : int
    wavelength, order : ndarray of shape (P,) or None
    """

    nuisance: Nuisance
    n_pixels: int
    wavelength: np.ndarray | None = None
    order: np.ndarray | None = None

    @cached_property
    def continuum(self):
        if self.nuisance.degree is None:
            return None
        position = np.arange(self.n_pixels) if self.wavelength is None else self.wavelength
        return Continuum(position, self.nuisance.degree, self.order)

    def __len__(self):
        n_linear = 0 if self.continuum is None else len(self.continuum.polynomials)
        return self.nuisance.n_nonlinear + n_linear

    def __call__(self, flux, pixels):
        """Columns (n, len(self), B) for the spectra (n, B) of the slice `pixels`."""
        parts = []
        if self.nuisance.needs_velocity:
            order = None if self.order is None else self.order[pixels]
            first, second = velocity_derivatives(flux, self.wavelength[pixels], order)
            if self.nuisance.rv_range is not None:
                parts.append(-first[:, None])
            if self.nuisance.kernel is not None:
                parts.append(0.5 * second[:, None])
        if self.continuum is not None:
            parts.append(flux[:, None] * self.continuum.polynomials[:, pixels])
        return np.concatenate(parts, axis=1)


@dataclass
class NuisanceFit(LabelFit):
    """Minima of a batch of `n` stars; `M = K + n_nonlinear` parameters.

    `fisher` (n, M, M) is that of scaled labels, radial velocity [km/s] and squared width
    [(km/s)^2], with the continuum marginalised.

    Attributes
    ----------
    continuum : ndarray of shape (n, m)
        Coefficients of its polynomials.
    rv : ndarray of shape (n,)
        [km/s]
    width2 : ndarray of shape (n,)
        [(km/s)^2]
    """

    continuum: np.ndarray
    rv: np.ndarray
    width2: np.ndarray

    @property
    def n_linear(self):
        return self.continuum.shape[1]


class NuisanceModel:
    """A forward model seen through a line of sight and a continuum.

    Parameters
    ----------
    columns : NuisanceColumns
    model : FluxModel
    candidates : ndarray of shape (m, K)
        Scaled labels of possible first guesses.
    lower, upper : ndarray of shape (K,)
        Box of the scaled labels.
    """

    def __init__(self, columns, model, candidates, lower, upper):
        self.nuisance, self.continuum = columns.nuisance, columns.continuum
        self.wavelength = columns.wavelength
        self.model, self.candidates, self.lower, self.upper = model, candidates, lower, upper
        basis, self.sight = model.basis, None
        if self.nuisance.needs_velocity:
            self.sight = LineOfSight(columns.wavelength, columns.order)
            hat = self.sight.transform(np.vstack([basis.reference, basis.flux]))
            self.hat = hat.astype(np.complex64 if PRECISION == np.float32 else complex)
        rows = np.linspace(0, len(candidates) - 1, min(N_TEMPLATES, len(candidates))).astype(int)
        self.template_labels = candidates[rows]
        psi = basis.reduce(model.features(self.template_labels))
        self.templates = basis.reference + psi @ basis.flux

    # -- the spectra of given parameters -----------------------------------------------------------

    def _rows(self, p, shift, derivative=True):
        """Spectra (n, 1 + M, P): of the parameters `p` (n, M), and their derivatives."""
        n, n_labels = len(p), len(self.lower)
        basis, nuisance = self.model.basis, self.nuisance
        if derivative:
            phi, slope = self.model.features(p[:, :n_labels], derivative=True)
            slope = basis.reduce(slope, is_derivative=True)
            psi = np.concatenate([basis.reduce(phi)[:, None], slope], axis=1)
        else:
            psi = basis.reduce(self.model.features(p[:, :n_labels]))[:, None]
        psi = psi.astype(PRECISION)
        if self.sight is None:
            rows = psi @ basis.flux.astype(PRECISION)
            rows[:, 0] += basis.reference
            return rows
        n_made = psi.shape[1]
        n_rows = n_made + nuisance.n_nonlinear * derivative
        hat = np.empty((n, n_rows, self.hat.shape[1]), dtype=self.hat.dtype)
        # a real matrix times a complex one, as a real product
        hat[:, :n_made] = (psi @ self.hat[1:].view(PRECISION)).view(hat.dtype)
        hat[:, 0] += self.hat[0]
        k = self.sight.frequency
        if nuisance.kernel is not None:
            value, slope = KERNELS[nuisance.kernel](k, p[:, -1:])
            if derivative:
                hat[:, -1] = hat[:, 0] * slope
            hat[:, :n_made] *= value[:, None].astype(PRECISION)
        if nuisance.rv_range is not None:
            shift = shift + p[:, n_labels]
            if derivative:
                hat[:, n_made] = hat[:, 0] * (-1j * k).astype(hat.dtype)
        if np.any(shift):
            hat *= self.sight.phase(shift, hat.dtype)[:, None]
        return self.sight.spectra(hat)

    def evaluate(self, p, shift, y, weight):
        """chi2 (n,), half gradient (n, M) and normal matrix (n, M, M) of a few stars."""
        rows = self._rows(p, shift)
        flux, jacobian = rows[:, 0], rows[:, 1:]
        coef, inner, curve = None, None, 1.0
        if self.continuum is not None:
            coef, inner = self.continuum.solve(flux, y, weight)
            curve = coef @ self.continuum.polynomials
        residual = y - curve * flux
        pull = weight * residual
        chi2 = np.einsum("np,np->n", pull, residual)
        gradient = -(jacobian @ (curve * pull).astype(PRECISION)[..., None])[..., 0]
        inverse = weight * curve
        across = np.swapaxes(jacobian, 1, 2)
        normal = (jacobian * (inverse * curve).astype(PRECISION)[:, None]) @ across
        if coef is not None:
            part = jacobian * (inverse * flux).astype(PRECISION)[:, None]
            cross = (part @ self.continuum.polynomials.T.astype(PRECISION)).astype(float)
            normal = normal - cross @ np.linalg.solve(inner, np.swapaxes(cross, 1, 2))
        return chi2, gradient, normal

    def best_fit(self, x, rv, width2, continuum):
        """Model spectra (n, P) of fitted parameters as they would be observed."""
        p, shift = self._to_steps(x, rv, width2)
        out = np.empty((len(x), self.templates.shape[1]))
        for start in range(0, len(x), CHUNK):
            part = slice(start, start + CHUNK)
            out[part] = self._rows(p[part], shift[part], derivative=False)[:, 0]
        if self.continuum is not None:
            out *= continuum @ self.continuum.polynomials
        return out

    def _to_steps(self, x, rv, width2):
        shift = np.zeros(len(x)) if self.sight is None else ln_shift(rv) / self.sight.step
        columns = [x]
        if self.nuisance.rv_range is not None:
            columns.append(np.zeros((len(x), 1)))
        if self.nuisance.kernel is not None:
            columns.append((width2 / self._step_kms**2)[:, None])
        return np.hstack(columns), shift

    @property
    def _step_kms(self):
        return C_KMS * self.sight.step

    # -- inversion ---------------------------------------------------------------------------------

    def minimise(self, flux, weight, *, n_starts, max_iter, tol, loss) -> NuisanceFit:
        """Labels and nuisance parameters that minimise chi2, for all stars (n, P)."""
        options = {"n_starts": n_starts, "max_iter": max_iter, "tol": tol, "loss": loss}
        batches = [slice(a, a + BATCH) for a in range(0, len(flux), BATCH)]
        parts = in_threads(lambda b: self._minimise(flux[b], weight[b], **options), batches)
        return NuisanceFit.concatenate(parts)

    def _minimise(self, flux, weight, *, n_starts, max_iter, tol, loss):
        flux, weight = np.asarray(flux, dtype=float), np.asarray(weight, dtype=float)
        shift, first = self._first_guess(flux, weight)
        if self.nuisance.rv_range is not None:  # pixels that are known wherever the fit may go
            z, reach = shift * self.sight.step, REACH * self.sight.step
            weight = np.where(self.sight.covers(z - reach, z + reach), weight, 0.0)
        x = self._first_labels(flux, weight, shift, first, n_starts)
        p = self._start(x, shift, flux, weight)
        found = self._descend(p, shift, flux, weight, max_iter, tol)
        p, chi2, fisher = found.x[:, 0], found.chi2[:, 0], found.normal[:, 0]
        converged, n_iter = found.converged[:, 0], found.n_iter[:, 0]
        for _ in range(0 if loss == "linear" else SWEEPS):
            residual = flux - self._observed(p, shift, flux, weight)[0]
            robust = weight * influence(residual**2 * weight, loss)
            found = self._descend(p, shift, flux, robust, max_iter, tol)
            fisher, n_iter = found.normal[:, 0], n_iter + found.n_iter[:, 0]
            step, p, converged = found.x[:, 0] - p, found.x[:, 0], found.converged[:, 0]
            if np.all(np.einsum("nk,nkl,nl->n", step, fisher, step) < STILL):
                break
        made, continuum = self._observed(p, shift, flux, weight)
        if loss != "linear":
            chi2 = np.einsum("np,np->n", weight, (flux - made) ** 2)
        n_good = np.sum(weight > 0, axis=1)
        return self._result(p, shift, fisher, chi2, converged, n_iter, n_good, continuum)

    def _descend(self, p, shift, flux, weight, max_iter, tol):
        lower, upper = self._box()

        def evaluate(p, rows):
            parts = []
            for start in range(0, len(rows), CHUNK):
                part = slice(start, start + CHUNK)
                at = rows[part]
                parts.append(self.evaluate(p[part, 0], shift[at], flux[at], weight[at]))
            return tuple(np.concatenate(values)[:, None] for values in zip(*parts))

        return levenberg_marquardt(
            evaluate, p[:, None], lower, upper, max_iter=max_iter, tol=max(tol, GOOD_ENOUGH)
        )

    def _box(self):
        lower, upper = [self.lower], [self.upper]
        if self.nuisance.rv_range is not None:
            lower.append([-REACH]), upper.append([REACH])
        if self.nuisance.kernel is not None:
            lower.append([0.0]), upper.append([(MAX_WIDTH / self._step_kms) ** 2])
        return np.concatenate(lower), np.concatenate(upper)

    def _observed(self, p, shift, flux, weight):
        """Best model spectra, continuum included, and its coefficients."""
        made = np.concatenate(
            [self._rows(p[a : a + CHUNK], shift[a : a + CHUNK], derivative=False)[:, 0]
             for a in range(0, len(p), CHUNK)]
        ).astype(float)  # fmt: skip
        if self.continuum is None:
            return made, np.ones((len(p), 0))
        coef, _ = self.continuum.solve(made, flux, weight)
        return made * (coef @ self.continuum.polynomials), coef

    def _first_guess(self, flux, weight):
        """Shift (n,) in steps, and the template (n,) that is most like each star."""
        if self.nuisance.rv_range is None:
            return np.zeros(len(flux)), self._closest_template(flux, weight)
        scan = velocity_scan(
            flux, weight, self.templates, self.wavelength, self.nuisance.rv_range,
            degree=self.nuisance.degree or 0,
        )  # fmt: skip
        return ln_shift(scan.rv) / self.sight.step, scan.template

    def _closest_template(self, flux, weight):
        chi2 = np.empty((len(flux), len(self.templates)))
        for t, template in enumerate(self.templates):
            made = np.broadcast_to(template, flux.shape)
            if self.continuum is not None:
                made = made * (
                    self.continuum.solve(made, flux, weight)[0] @ self.continuum.polynomials
                )
            chi2[:, t] = np.einsum("np,np->n", weight, (flux - made) ** 2)
        return np.argmin(chi2, axis=1)

    def _first_labels(self, flux, weight, shift, template, n_starts):
        """Labels from the inversion at rest of spectra shifted back by whole pixels."""
        if self.sight is not None and np.any(shift):
            pixels, inside = self.sight.nearest_pixels(shift * self.sight.step)
            flux = np.take_along_axis(flux, pixels, axis=1)
            weight = np.where(inside, np.take_along_axis(weight, pixels, axis=1), 0.0)
        if self.continuum is not None:
            coef, _ = self.continuum.solve(self.templates[template], flux, weight)
            curve = coef @ self.continuum.polynomials
            usable = np.abs(curve) > 1e-3 * np.abs(curve).max(axis=1, keepdims=True)
            curve = np.where(usable, curve, 1.0)
            flux, weight = flux / curve, np.where(usable, weight * curve**2, 0.0)
        rough = FluxModel(self.model.features, self.model.basis.leading())
        return minimise(
            rough, flux, weight, self.candidates, self.lower, self.upper,
            n_starts=n_starts, max_iter=10, tol=0.01, loss="linear",
        ).x  # fmt: skip

    def _start(self, x, shift, flux, weight):
        """Parameters to start from: the best of a few widths, no further shift."""
        if self.nuisance.kernel is None:
            return self._to_steps(x, np.zeros(len(x)), np.zeros(len(x)))[0]
        best, start = np.full(len(x), np.inf), None
        for width in FIRST_WIDTHS:
            p = self._to_steps(x, np.zeros(len(x)), np.full(len(x), width**2))[0]
            made, _ = self._observed(p, shift, flux, weight)
            chi2 = np.einsum("np,np->n", weight, (flux - made) ** 2)
            better = chi2 < best
            best = np.where(better, chi2, best)
            start = p if start is None else np.where(better[:, None], p, start)
        return start

    def _result(self, p, shift, fisher, chi2, converged, n_iter, n_good, continuum):
        n_labels = len(self.lower)
        rv, width2, unit = np.zeros(len(p)), np.zeros(len(p)), np.ones((len(p), p.shape[1]))
        if self.nuisance.rv_range is not None:
            moved = p[:, n_labels]
            rv = velocity((shift + moved) * self.sight.step)
            unit[:, n_labels] = self._step_kms * (1 - (rv / C_KMS) ** 2)
            converged = converged & (np.abs(moved) < REACH * (1 - 1e-9))
        if self.nuisance.kernel is not None:
            width2, unit[:, -1] = p[:, -1] * self._step_kms**2, self._step_kms**2
        fisher = fisher / (unit[:, :, None] * unit[:, None, :])
        return NuisanceFit(
            p[:, :n_labels], fisher, chi2, converged, n_iter, n_good, continuum, rv, width2
        )
