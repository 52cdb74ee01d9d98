r"""Inversion with radial velocity, broadening and continuum free, written once for all forward models.

.. math:: y_j = P(\lambda_j; c)\; \big[H_s * f(x)\big](\ln\lambda_j - z) + \sigma_j \xi

Labels `x`, shift `z` and squared width `s` are found by Levenberg-Marquardt; the coefficients `c` of the
multiplicative polynomial are linear and solved inside every step (variable projection), so that the
normal matrix of the others,

.. math:: A = J^T W J - J^T W C (C^T W C)^{-1} C^T W J, \qquad C_{jq} = f_j T_q(\lambda_j),

has them marginalised. The spectra that a model can make lie in a small subspace: only its basis is
Fourier transformed, once, and shifting and broadening multiply transforms.

Errors that pixels have in common (:mod:`skspec.solvers.linear.coherent_errors`) move with the star, and
its continuum multiplies them. They are put where the first guess says and stay there: a covariance
need not be known better than that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from skspec.forward._inversion import (
    MAX_LOSSLESS,
    SWEEPS,
    FluxBasis,
    FluxModel,
    LabelFit,
    influence,
    minimise,
    one_product,
    spread_rows,
)
from skspec.forward._polynomial import Monomials
from skspec.solvers.linear.coherent_errors import CoherentErrors
from skspec.solvers.linear.levenberg_marquardt import levenberg_marquardt, solve_normal
from skspec.solvers.linear.pixel_blocks import parallel_map, thread_count
from skspec.solvers.spectra.correlated_noise import correlated_information
from skspec.solvers.spectra.cross_correlation import velocity_scan
from skspec.solvers.spectra.line_of_sight import C_KMS, KERNELS, LineOfSight, ln_shift, velocity
from skspec.solvers.spectra.nuisance import Continuum, nuisance_gradients

__all__ = ["WIDTH2_UNIT", "Nuisance", "NuisanceColumns", "NuisanceFit", "NuisanceModel"]

N_TEMPLATES = 16  # model spectra, spread over the labels, that the first guess is found with
REACH = 6  # steps of the velocity grid by which the first guess of the shift may be wrong
EDGE = 4  # steps next to an end of the model where its spectra are not shown
MAX_WIDTH = 500.0  # of the broadening [km/s]
WIDTH2_UNIT = 1e4  # of squared widths in matrices [(km/s)^2], so that all entries are alike
FIRST_WIDTHS = (0.0, 20.0, 60.0, 150.0)  # of the broadening, tried as starts [km/s]
BATCH, CHUNK = 256, 32  # stars whose steps are taken together, whose spectra are made together
SHARED_BYTES = 2**27  # of the errors that the pixels of a batch share
GOOD_ENOUGH = 1e-3  # squared distance to the minimum in sigma; one more step follows, in float64
LEAST_CURVE = 0.02  # of the level: where a continuum is lower, first guesses leave the pixel aside
ROUGH_PIXELS = 2000  # so many are enough for first labels
POINTS_PER_TERM = 3  # of the polynomial that gives first labels of models with many features
STILL = 1e-6  # squared step in sigma between two sweeps of a robust loss


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
        if rv_range is not None and not (
            len(rv_range) == 2 and -C_KMS < rv_range[0] < rv_range[1] < C_KMS
        ):
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
        return len(self.units)

    @property
    def units(self):
        """Of those parameters in matrices: km/s, and squared widths."""
        return [1.0] * (self.rv_range is not None) + [WIDTH2_UNIT] * (self.kernel is not None)


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

    def __post_init__(self):
        self.sight  # noqa: B018  a grid that it cannot use is told before training

    @cached_property
    def sight(self):
        if not self.nuisance.needs_velocity:
            return None
        return LineOfSight(self.wavelength, self.order)

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
        wavelength, order, polynomials = (
            None if part is None else part[..., pixels]
            for part in (self.wavelength, self.order, self.continuum and self.continuum.polynomials)
        )
        nuisance = self.nuisance
        columns = nuisance_gradients(
            flux,
            wavelength,
            order,
            rv=nuisance.rv_range is not None,
            broadening=nuisance.kernel is not None,
            polynomials=polynomials,
        )
        columns[:, : nuisance.n_nonlinear] *= np.array(nuisance.units)[:, None]
        return columns


@dataclass
class NuisanceFit(LabelFit):
    """Minima of a batch of `n` stars; `M = K + n_nonlinear` parameters.

    `fisher` (n, M, M) is that of scaled labels, radial velocity [km/s] and squared width
    [`WIDTH2_UNIT`], with the continuum marginalised.

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
        self.wavelength, self.order, self.sight = columns.wavelength, columns.order, columns.sight
        components = model.components
        if components is None:
            components = np.zeros((0, len(model.basis.reference)))
        basis, self.components = _bridged(model.basis, components)
        model = replace(model, basis=basis)
        self.model, self.candidates, self.lower, self.upper = model, candidates, lower, upper
        self.shared_variance = np.einsum("qp,qp->p", self.components, self.components)
        if self.sight is not None:
            hat = self.sight.transform(np.vstack([basis.reference, basis.flux, self.components]))
            hat = hat.astype(np.complex64)
            self.hat, self.shared_hat = np.split(hat, [1 + len(basis.flux)])
        self.flux = basis.flux.astype(np.float32)
        chosen = candidates[spread_rows(candidates, min(N_TEMPLATES, len(candidates)))]
        psi = basis.reduce(model.features(chosen))
        self.templates = basis.reference + psi @ basis.flux
        self.thin = slice(None, None, max(1, len(basis.reference) // ROUGH_PIXELS))
        self.rough = _rough_model(model, candidates, self.thin)

    # -- the spectra of given parameters -----------------------------------------------------------

    def _rows(self, p, shift, derivative=True, leading=False):
        """Spectra (n, 1 + M, P): of the parameters `p` (n, M), and their derivatives.

        In single precision, a thousandth of the noise of any spectrum. The leading components are
        enough for derivatives, and for the spectra while the minimum is far.
        """
        n, n_labels, nuisance = len(p), len(self.lower), self.nuisance
        basis = self.model.basis.leading() if leading else self.model.basis
        n_lead = basis.n_leading
        if derivative:
            phi, slope = self.model.features(p[:, :n_labels], derivative=True)
            slope = basis.leading().reduce(slope, is_derivative=True)
            whole = basis.reduce(phi).astype(np.float32)
            psi = np.concatenate([whole[:, None, :n_lead], slope], axis=1).astype(np.float32)
        else:
            whole = basis.reduce(self.model.features(p[:, :n_labels])).astype(np.float32)
            psi = whole[:, None, :n_lead]
        rest = whole[:, n_lead:]
        if self.sight is None:
            rows = one_product(psi, self.flux[:n_lead])
            rows[:, 0] += rest @ self.flux[n_lead : whole.shape[1]] + basis.reference
            return rows
        n_made = psi.shape[1]
        n_rows = n_made + nuisance.n_nonlinear * derivative
        hat = np.empty((n, n_rows, self.hat.shape[1]), dtype=np.complex64)
        # a real matrix times a complex one, as a real product
        parts = self.hat[1 : 1 + whole.shape[1]].view(np.float32)
        hat[:, :n_made] = one_product(psi, parts[:n_lead]).view(np.complex64)
        hat[:, 0] += (rest @ parts[n_lead:]).view(np.complex64) + self.hat[0]
        k = self.sight.frequency
        if nuisance.kernel is not None:
            value, slope = KERNELS[nuisance.kernel](k, p[:, -1:])
            if derivative:
                hat[:, -1] = hat[:, 0] * slope
            hat[:, :n_made] *= value[:, None].astype(np.float32)
        if nuisance.rv_range is not None:
            shift = shift + p[:, n_labels]
            if derivative:
                hat[:, n_made] = hat[:, 0] * (-1j * k).astype(np.complex64)
        if np.any(shift):
            hat *= self.sight.phase(shift, np.complex64)[:, None]
        return self.sight.spectra(hat)

    def evaluate(self, p, shift, y, weight, real=np.float32, leading=False, root=None, shared=None):
        """chi2 (n,), half gradient (n, M) and normal matrix (n, M, M) of a few stars.

        And their continuum (n, Q) with its derivatives (n, Q, M). Products of derivatives are summed
        in the precision `real`; with the `leading` components of the model alone, where asked for.
        `root` is the square root of `weight`, where it is known; `shared` are their `_SharedErrors`.
        """
        rows = self._rows(p, shift, leading=leading)
        flux, jacobian = rows[:, 0].astype(float), rows[:, 1:].astype(real, copy=False)
        coef, tilt, curve = np.ones((len(p), 0)), np.ones((len(p), 0, p.shape[1])), 1.0
        if self.continuum is not None:
            coef, inner, on_curve = self._solve(flux, y, weight, shared, real)
            curve = self._curve(coef)
        root = np.sqrt(weight) if root is None else root
        residual = root * (y - curve * flux)
        chi2 = np.einsum("np,np->n", residual, residual)
        # in units of the noise: neither flux nor weights need fit into single precision
        white = jacobian * (root * curve).astype(real)[:, None]
        gradient = -(white @ residual.astype(real)[..., None])[..., 0].astype(float)
        normal = (white @ np.swapaxes(white, 1, 2)).astype(float)
        if shared is not None:
            on_residual = shared.on((root * residual)[:, None], real)[:, 0]
            on_jacobian = shared.on(white * root.astype(real)[:, None], real)
            chi2, score, normal = shared.errors.take_off(
                chi2, -gradient, normal, on_residual, on_jacobian
            )
            gradient = -score
        if self.continuum is not None:
            white *= (root * flux).astype(real)[:, None]
            cross = (white @ self.continuum.polynomials.T.astype(real)).astype(float)
            if shared is not None:
                cross -= shared.errors.between(on_jacobian, on_curve)
            tilt = -np.linalg.solve(inner, np.swapaxes(cross, 1, 2))
            normal += cross @ tilt
        return chi2, gradient, normal, coef, tilt

    def _solve(self, flux, y, weight, shared=None, real=float):
        """Coefficients (n, Q) of the continuum, and their normal matrix (n, Q, Q).

        And what the polynomials have in common with the `shared` errors, (n, Q, q).
        """
        coef, normal = self.continuum.solve(flux, y, weight)
        if shared is None:
            return coef, normal, None
        on_curve = shared.on_polynomials(self.continuum.polynomials, weight * flux)
        amplitude = shared.errors.amplitudes(shared.on((weight * y)[:, None], real)[:, 0])
        right = (normal @ coef[..., None]) - on_curve @ amplitude[..., None]
        normal = shared.errors.take_off_information(normal, on_curve)
        return np.linalg.solve(normal, right)[..., 0], normal, on_curve

    def _shared(self, p, shift, curve, weight):
        """The errors that pixels of these stars share; None without."""
        if not len(self.components):
            return None
        spectra = np.empty((len(p), *self.components.shape), dtype=np.float32)
        for start in range(0, len(p), CHUNK):
            at = slice(start, start + CHUNK)
            spectra[at] = self._shared_spectra(p[at], shift[at])
        if self.continuum is not None:
            spectra *= curve[:, None]
        return _SharedErrors.of(spectra, weight)

    def _shared_spectra(self, p, shift):
        if self.sight is None:
            return self.components
        hat = np.broadcast_to(self.shared_hat, (len(p), *self.shared_hat.shape)).copy()
        if self.nuisance.kernel is not None:
            value, _ = KERNELS[self.nuisance.kernel](self.sight.frequency, p[:, -1:])
            hat *= value[:, None].astype(np.float32)
        if np.any(shift):
            hat *= self.sight.phase(shift, np.complex64)[:, None]
        return self.sight.spectra(hat)

    def best_fit(self, x, rv, width2, continuum):
        """Model spectra (n, P) of fitted parameters as observed; NaN where the model ends."""
        p, shift = self._to_steps(x, rv, width2)
        out = self._made(p, shift) * self._curve(continuum)
        if self.sight is not None:  # a spline needs neighbours
            z, edge = shift * self.sight.step, EDGE * self.sight.step
            out[~self.sight.covers(z - edge, z + edge)] = np.nan
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

    def minimise(self, flux, photon, relative, **options) -> NuisanceFit:
        """Labels and nuisance parameters that minimise chi2, for all stars.

        Parameters
        ----------
        flux, photon : ndarray of shape (n, P)
            Flux and its variance, ``inf`` at bad pixels.
        relative : ndarray of shape (n, P)
            Variance of the model, in the unit of its own flux: the continuum multiplies it too.
        **options
            ``n_starts, max_iter, tol, loss`` of :func:`skspec.forward._inversion.minimise`.
        """
        size = int(np.clip(-(-len(flux) // thread_count()), CHUNK, BATCH))
        if self.components.size:
            size = min(size, max(1, SHARED_BYTES // (4 * self.components.size)))
        batches = [slice(a, a + size) for a in range(0, len(flux), size)]
        parts = parallel_map(
            lambda b: self._minimise(flux[b], photon[b], relative[b], **options), batches
        )
        return NuisanceFit.concatenate(parts)

    def _minimise(
        self, flux, photon, relative, *, n_starts, max_iter, tol, loss, correlation_length
    ):
        level, curve = self._level(flux, photon), np.ones((1, 1))
        flux = np.where(np.isfinite(photon), flux, 0.0) / level
        photon = photon / level**2
        # first guesses take what pixels share for errors of each pixel alone
        as_if_alone = relative + self.shared_variance
        shift, template = self._first_guess(flux, _weight(photon, as_if_alone))
        made = self.templates[template]
        if self.nuisance.rv_range is not None:
            made, relative, as_if_alone = self._moved(shift, made, relative, as_if_alone)
        if self.continuum is not None:
            weight = _weight(photon, as_if_alone)
            curve = self._curve(self.continuum.solve(made, flux, weight)[0])
        weight = _weight(photon, curve**2 * as_if_alone)
        x = self._first_labels(flux, weight, shift, curve, n_starts)
        p = self._start(x, shift, flux, weight)
        weight = _weight(photon, curve**2 * relative)
        shared = self._shared(p, shift, curve, weight)
        found = self._descend(p, shift, flux, weight, max_iter, tol, shared)
        p, converged, n_iter = found.x[:, 0], found.converged[:, 0], found.n_iter[:, 0]
        robust = weight
        for _ in range(0 if loss == "linear" else SWEEPS):
            residual = flux - self._observed(p, shift, flux, robust, shared)
            robust = weight * influence(residual**2 * weight, loss)
            shared = None if shared is None else shared.weighted(robust)
            found = self._descend(p, shift, flux, robust, max_iter, tol, shared)
            step, p, converged = found.x[:, 0] - p, found.x[:, 0], found.converged[:, 0]
            n_iter = n_iter + found.n_iter[:, 0]
            if np.all(np.einsum("nk,nkl,nl->n", step, found.normal[:, 0], step) < STILL):
                break
        p, chi2, fisher, continuum, done = self._finish(p, shift, flux, robust, shared)
        again = np.flatnonzero(~done)
        if again.size:  # far from the training stars the leading components may not be enough
            data = shift[again], flux[again], robust[again]
            some = None if shared is None else shared[again]
            found = self._descend(p[again], *data, max_iter, tol, some, leading=False)
            last = self._finish(found.x[:, 0], *data, some)
            p[again], chi2[again], fisher[again], continuum[again], done = last
            converged[again] = found.converged[:, 0] & done
            n_iter[again] += found.n_iter[:, 0]
        if loss != "linear":
            residual = flux - self._made(p, shift) * self._curve(continuum)
            chi2 = np.einsum("np,np->n", weight, residual**2)
            if shared is not None:
                on_residual = shared.on((weight * residual)[:, None])[:, 0]
                chi2 = shared.weighted(weight).errors.take_off_chi2(chi2, on_residual)
        if correlation_length:
            fisher = self._correlated(p, shift, flux, robust, correlation_length)
        continuum = level * continuum
        n_good = np.sum(weight > 0, axis=1)
        return self._result(p, shift, fisher, chi2, converged, n_iter, n_good, continuum)

    def _descend(self, p, shift, flux, weight, max_iter, tol, shared, leading=True):
        """Levenberg-Marquardt, with sums in single precision."""
        lower, upper = self._box()
        root = np.sqrt(weight)

        def evaluate(p, rows):
            parts = []
            for start in range(0, len(rows), CHUNK):
                part = slice(start, start + CHUNK)
                at = rows[part]
                data = shift[at], flux[at], weight[at]
                some = None if shared is None else shared[at]
                parts.append(
                    self.evaluate(p[part, 0], *data, leading=leading, root=root[at], shared=some)[
                        :3
                    ]
                )
            return tuple(np.concatenate(values)[:, None] for values in zip(*parts))

        return levenberg_marquardt(
            evaluate,
            p[:, None],
            lower,
            upper,
            max_iter=max_iter,
            tol=max(tol, GOOD_ENOUGH),
            confirm=False,
        )

    def _finish(self, p, shift, flux, weight, shared):
        """The last step, with all components and sums in double precision.

        Returns parameters, chi2, the normal matrix just before, the continuum, and whether the step
        was short.
        """
        lower, upper = self._box()
        p, chi2, fisher = p.copy(), np.empty(len(p)), np.empty((*p.shape, p.shape[1]))
        parts, done = [], np.empty(len(p), dtype=bool)
        for start in range(0, len(p), CHUNK):
            at = slice(start, start + CHUNK)
            some = None if shared is None else shared[at]
            chi2[at], slope, fisher[at], coef, tilt = self.evaluate(
                p[at], shift[at], flux[at], weight[at], real=np.float64, shared=some
            )
            here = p[at]
            free = ~(((here <= lower) & (slope > 0)) | ((here >= upper) & (slope < 0)))
            step = solve_normal(fisher[at], np.where(free, slope, 0.0), np.zeros(len(here)), free)
            length2 = np.einsum("nk,nkl,nl->n", step, fisher[at], step)
            done[at] = length2 < 1
            step[~done[at]] = 0.0
            chi2[at] -= np.where(done[at], length2, 0.0)
            p[at] = np.clip(here - step, lower, upper)
            parts.append(coef + (tilt @ (p[at] - here)[..., None])[..., 0])
        return p, chi2, fisher, np.concatenate(parts), done

    def _correlated(self, p, shift, flux, weight, length):
        """Information (n, M, M) left where the residuals of each star are correlated."""
        fisher = np.empty((*p.shape, p.shape[1]))
        for start in range(0, len(p), CHUNK):
            at = slice(start, start + CHUNK)
            rows, root = self._rows(p[at], shift[at]).astype(float), np.sqrt(weight[at])
            made, jacobian, curve = rows[:, 0], rows[:, 1:] * root[:, None], 1.0
            if self.continuum is not None:
                curve = self._curve(self.continuum.solve(made, flux[at], weight[at])[0])
                jacobian = self.continuum.project_out(jacobian * curve[:, None], made * root)
            residual = (flux[at] - curve * made) * root
            fisher[at] = correlated_information(jacobian, residual, length, self.order)
        return fisher

    def _box(self):
        lower, upper = [self.lower], [self.upper]
        if self.nuisance.rv_range is not None:
            lower.append([-REACH]), upper.append([REACH])
        if self.nuisance.kernel is not None:
            lower.append([0.0]), upper.append([(MAX_WIDTH / self._step_kms) ** 2])
        return np.concatenate(lower), np.concatenate(upper)

    def _observed(self, p, shift, flux, weight, shared=None):
        """Model spectra (n, P) of these parameters with the continuum that suits them best.

        And with the most likely of the `shared` errors.
        """
        made = self._made(p, shift)
        if self.continuum is not None:
            made = made * self._curve(self._solve(made, flux, weight, shared)[0])
        if shared is None:
            return made
        amplitude = shared.errors.amplitudes(shared.on((weight * (flux - made))[:, None])[:, 0])
        return made + (amplitude[:, None] @ shared.spectra)[:, 0]

    def _made(self, p, shift):
        """Model spectra (n, P) of these parameters without continuum."""
        parts = [
            self._rows(p[a : a + CHUNK], shift[a : a + CHUNK], derivative=False)[:, 0]
            for a in range(0, len(p), CHUNK)
        ]
        return np.concatenate(parts).astype(float)

    def _curve(self, coef):
        return 1.0 if self.continuum is None else coef @ self.continuum.polynomials

    def _level(self, flux, photon):
        """Rough level of the continuum (n, 1); 1 without one."""
        if self.continuum is None:
            return np.ones((len(flux), 1))
        good = np.isfinite(photon)
        total = np.sum(np.abs(flux), axis=1, where=good)
        level = total / np.maximum(np.sum(good * np.abs(self.templates[0]), axis=1), 1e-300)
        return np.where(level > 0, level, 1.0)[:, None]

    def _first_guess(self, flux, weight):
        """Shift (n,) in steps, and the template (n,) that is most like each star."""
        if self.nuisance.rv_range is None:
            return np.zeros(len(flux)), self._closest_template(flux, weight)
        if self.continuum is not None and self.order is not None:  # the scan has one for all orders
            curve = self.continuum.solve(self.templates[0], flux, weight)[0]
            curve = curve @ self.continuum.polynomials
            usable = curve > LEAST_CURVE
            flux, weight = flux / np.where(usable, curve, 1.0), usable * weight * curve**2
        scan = velocity_scan(
            flux,
            weight,
            self.templates,
            self.wavelength,
            self.nuisance.rv_range,
            degree=self.nuisance.degree or 0,
            order=self.order,
        )
        rv = np.nan_to_num(scan.rv)  # NaN without good pixels
        return ln_shift(rv) / self.sight.step, scan.template

    def _moved(self, shift, made, *variances):
        """Spectra and variances (n, P) of pixels at rest where they are observed.

        Variances are `inf` where the model may not know the rest wavelength.
        """
        z, reach = shift * self.sight.step, REACH * self.sight.step
        pixels, _ = self.sight.nearest_pixels(-z)
        known = self.sight.covers(z - reach, z + reach)  # wherever the fit may go
        made, *variances = (np.take_along_axis(rows, pixels, axis=1) for rows in (made, *variances))
        return made, *(np.where(known, variance, np.inf) for variance in variances)

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

    def _first_labels(self, flux, weight, shift, curve, n_starts):
        """Labels from the inversion at rest of spectra without continuum, shifted by whole pixels."""
        rows = flux, weight, np.broadcast_to(curve, flux.shape)
        if self.sight is not None and np.any(shift):
            pixels, inside = self.sight.nearest_pixels(shift * self.sight.step)
            pixels, inside = pixels[:, self.thin], inside[:, self.thin]
            flux, weight, curve = (np.take_along_axis(row, pixels, axis=1) for row in rows)
            weight = np.where(inside, weight, 0.0)
        else:
            flux, weight, curve = (row[:, self.thin] for row in rows)
        usable = curve > LEAST_CURVE
        curve = np.where(usable, curve, 1.0)
        return minimise(
            self.rough,
            flux / curve,
            usable * weight * curve**2,
            self.candidates,
            self.lower,
            self.upper,
            n_starts=n_starts,
            max_iter=10,
            tol=0.01,
            loss="linear",
        ).x

    def _start(self, x, shift, flux, weight):
        """Parameters to start from: the best of a few widths, no further shift."""
        if self.nuisance.kernel is None:
            return self._to_steps(x, np.zeros(len(x)), np.zeros(len(x)))[0]
        best, start = np.full(len(x), np.inf), None
        for width in FIRST_WIDTHS:
            p = self._to_steps(x, np.zeros(len(x)), np.full(len(x), width**2))[0]
            made = self._observed(p, shift, flux, weight)
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
            width2 = p[:, -1] * self._step_kms**2
            unit[:, -1] = self._step_kms**2 / WIDTH2_UNIT
        fisher = fisher / (unit[:, :, None] * unit[:, None, :])
        return NuisanceFit(
            p[:, :n_labels], fisher, chi2, converged, n_iter, n_good, continuum, rv, width2
        )


@dataclass(frozen=True)
class _SharedErrors:
    """Components (n, q, P) of the errors of some stars as observed, and their weights."""

    spectra: np.ndarray
    errors: CoherentErrors

    @classmethod
    def of(cls, spectra, weight):
        gram = np.empty((*spectra.shape[:2], spectra.shape[1]))
        step = max(1, CHUNK // 4)
        for start in range(0, len(spectra), step):
            at = slice(start, start + step)
            white = spectra[at] * np.sqrt(weight[at])[:, None]
            gram[at] = white @ np.swapaxes(white, 1, 2)
        return cls(spectra, CoherentErrors.of_gram(None, gram))

    def weighted(self, weight):
        """The same with other weights."""
        return self.of(self.spectra, weight)

    def __getitem__(self, stars):
        return _SharedErrors(self.spectra[stars], self.errors[stars])

    def on(self, rows, real=float):
        """Products (n, M, q) of rows (n, M, P), already times the weights, with the components."""
        spectra = self.spectra.astype(real, copy=False)
        return (rows.astype(real, copy=False) @ np.swapaxes(spectra, 1, 2)).astype(float)

    def on_polynomials(self, polynomials, factor):
        """Products (n, Q, q) of polynomials (Q, P) times a factor (n, P) with the components."""
        pulled = self.spectra * factor.astype(np.float32)[:, None]
        return np.swapaxes(one_product(pulled, polynomials.T), 1, 2)


def _weight(photon, relative):
    """Inverse variance; 0 at bad pixels, and where a continuum of zero leaves no variance at all."""
    weight = 1.0 / (photon + relative)
    return np.where(np.isfinite(weight), weight, 0.0)


def _bridged(basis, components):
    """Both with straight lines across the pixels that could not be trained.

    These do not count, but a gap would ring when the spectra are shifted.
    """
    trained = np.flatnonzero((basis.reference != 0) | (basis.flux != 0).any(axis=0))
    n_pixels = len(basis.reference)
    if len(trained) in (0, n_pixels):
        return basis, components
    above = np.searchsorted(trained, np.arange(n_pixels)).clip(1, len(trained) - 1)
    left, right = trained[above - 1], trained[above]
    part = np.clip((np.arange(n_pixels) - left) / (right - left), 0, 1)
    reference, flux, components = (
        (1 - part) * rows[..., left] + part * rows[..., right]
        for rows in (basis.reference, basis.flux, components)
    )
    return replace(basis, reference=reference, flux=flux), components


def _rough_model(model, points, pixels):
    """What first labels are found with: the model, or a quadratic through its many components."""
    basis = model.basis
    basis = replace(basis, reference=basis.reference[pixels], flux=basis.flux[:, pixels])
    terms = Monomials.of_degree(points.shape[1], 2)
    if len(basis.flux) <= MAX_LOSSLESS or len(points) < POINTS_PER_TERM * len(terms):
        return FluxModel(model.features, basis.leading())
    mix = np.linalg.lstsq(terms(points), basis.reduce(model.features(points)), rcond=None)[0]
    coef, origin = mix @ basis.flux, terms(np.zeros((1, points.shape[1])))[0]
    reference = basis.reference + origin @ coef
    return FluxModel(terms, FluxBasis(origin, reference, None, coef, len(coef)))
