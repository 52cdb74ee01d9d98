"""Full-spectrum fitting (ULySS, LASP): labels, velocity and continuum of raw spectra together."""

from __future__ import annotations

from math import comb
from numbers import Integral, Real

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.utils import Tags

from skspec._sklearn import Interval, StrOptions, fit_context
from skspec.base import LabelRegressor, inner_fits
from skspec.distributions import MultivariateNormal
from skspec.forward._base import ForwardModel
from skspec.forward._inversion_result import InversionResult
from skspec.forward._the_cannon import TheCannon
from skspec.solvers.spectra.nuisance import Continuum

__all__ = ["FullSpectrumFit"]

STARS_PER_TERM = 4  # of the default polynomial, at least
COHERENCE = 0.2  # without it gravities of real stars are a tenth worse
PIXELS_PER_DEGREE = 20  # a polynomial of higher degree would follow the lines


class FullSpectrumFit(LabelRegressor):
    r"""Full-spectrum fitting: any forward model times a polynomial, shifted and broadened.

    .. math:: f(\lambda) = P_n(\lambda)\,\big[\mathrm{TGM}(\ell, \lambda) \otimes G(v, \sigma)\big]

    The spectra need no continuum normalisation: the polynomial :math:`P_n` of each star is found
    together with its labels, and those of the training spectra by turns with the model (TGM).

    Parameters
    ----------
    model : ForwardModel, optional
        Labels -> flux. By default a cubic polynomial of log Teff and the other labels in each pixel,
        ``TheCannon(3, log_labels=["teff"], coherence=0.2)``, or of lower degree for less than 4 stars
        per term.
    continuum_degree : int, default=10
        Degree n of the polynomial of each order; at most one per 20 pixels.
    fit_rv : {"auto"} or bool, default="auto"
        Fit the radial velocity; "auto": where the training spectra have a wavelength.
    rv_range : tuple of float, default=(-500, 500)
        [km/s]
    fit_broadening : bool or {"gaussian", "rotation"}, default=False
        Fit a broadening beyond that of the training spectra; True is "gaussian".
    rounds : int, default=3
        Turns of model and training continua.
    clean_training : float or None, default=None
        Of the model, where it is not None: remove training stars whose labels do not suit their
        spectra; see :class:`~skspec.forward.ForwardModel`.
    coherence : float or None, default=None
        Of the model, where it is not None: fraction of its error that pixels have in common; see
        :class:`~skspec.forward.ForwardModel`.
    guesses : array-like of shape (g, K), optional
        Labels to start from, in label units; each leads to a minimum and the lowest one counts. By
        default the best of the training labels.
    ivar : {"auto", "require", "ignore"}, default="auto"
        See :class:`~skspec.forward.ForwardModel`.

    Attributes
    ----------
    model_ : ForwardModel
        Fitted to spectra divided by their polynomial.
    training_continuum_ : ndarray of shape (n, m)
        Coefficients of the training polynomials.

    Notes
    -----
    `predict_flux` and `flux_jacobian` are those of `model_`: spectra without their polynomial.

    References
    ----------
    Koleva et al. 2009, A&A 501, 1269. Wu et al. 2011, RAA 11, 924.

    Examples
    --------
    >>> from skspec.datasets import make_spectra
    >>> from skspec.forward import FullSpectrumFit
    >>> spectra, labels = make_spectra(150, n_pixels=300, random_state=0)
    >>> model = FullSpectrumFit(continuum_degree=3).fit(spectra[:120], labels[:120])
    >>> result = model.invert(spectra[120:])
    >>> result.rv.shape
    (30,)
    """

    _parameter_constraints: dict = {
        "model": [ForwardModel, None],
        "continuum_degree": [Interval(Integral, 0, None, closed="left")],
        "fit_rv": ["boolean", StrOptions({"auto"})],
        "rv_range": ["array-like"],
        "fit_broadening": ["boolean", StrOptions({"gaussian", "rotation"})],
        "rounds": [Interval(Integral, 1, None, closed="left")],
        "clean_training": [Interval(Real, 0, None, closed="neither"), None],
        "coherence": [Interval(Real, 0, 1, closed="left"), None],
        "guesses": ["array-like", None],
        "ivar": [StrOptions({"auto", "require", "ignore"})],
    }

    def __init__(
        self,
        model=None,
        *,
        continuum_degree=10,
        fit_rv="auto",
        rv_range=(-500.0, 500.0),
        fit_broadening=False,
        rounds=3,
        clean_training=None,
        coherence=None,
        guesses=None,
        ivar="auto",
    ):
        self.model = model
        self.continuum_degree = continuum_degree
        self.fit_rv = fit_rv
        self.rv_range = rv_range
        self.fit_broadening = fit_broadening
        self.rounds = rounds
        self.clean_training = clean_training
        self.coherence = coherence
        self.guesses = guesses
        self.ivar = ivar

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        # the level of a spectrum is not trusted: tables of numbers whose level tells fare badly
        tags.regressor_tags.poor_score = True
        return tags

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y):
        """Learn the model and the polynomials of the training spectra.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
            Training spectra at rest, in any flux unit.
        y : array-like of shape (n, K) or (n,)
            Their labels; the columns of a DataFrame name them.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For `fit_rv` or `fit_broadening` without a wavelength, and for what the model refuses.
        """
        spectra, y = self._validate_fit(X, y)
        n_pixels = spectra.shape[1]
        degree = min(self.continuum_degree, n_pixels // PIXELS_PER_DEGREE)
        fit_rv = self.wavelength_ is not None if self.fit_rv == "auto" else self.fit_rv
        final = self._new_model(len(y)).set_params(
            continuum_degree=degree,
            fit_rv=fit_rv,
            rv_range=self.rv_range,
            fit_broadening=self.fit_broadening,
            ivar=self.ivar,
        )
        for name in ("clean_training", "coherence"):
            if getattr(self, name) is not None:
                final.set_params(**{name: getattr(self, name)})
        turn = clone(final).set_params(
            continuum_degree=None,
            fit_rv=False,
            fit_broadening=False,
            label_covariance=False,
            clean_training=None,
            coherence=0.0,
            label_prior="flat",
        )
        position = np.arange(n_pixels) if spectra.wavelength is None else spectra.wavelength
        self._continuum = Continuum(position, degree, spectra.order)
        labels = pd.DataFrame(y, columns=self.label_names_in_)
        made = np.ones(n_pixels)
        with inner_fits():
            for _ in range(self.rounds - 1):
                made = turn.fit(self._divided(spectra, made), labels).predict_flux(y)
            self.model_ = final.fit(self._divided(spectra, made), labels)
        if self.guesses is not None:
            self.model_.start_from(self.guesses)
        return self

    def _new_model(self, n_stars):
        if self.model is not None:
            return clone(self.model)
        log_labels = ["teff"] if "teff" in self.label_names_in_ else None
        n_labels = len(self.label_names_in_)
        affordable = [d for d in (3, 2) if STARS_PER_TERM * comb(n_labels + d, d) <= n_stars]
        return TheCannon([*affordable, 1][0], log_labels=log_labels, coherence=COHERENCE)

    def _divided(self, spectra, made):
        """Training spectra divided by the polynomials that bring `made` (n, P) to them."""
        weight = spectra.good.astype(float)
        if spectra.has_errors:
            known = np.isfinite(spectra.ivar)
            weight = np.where(known, spectra.ivar, weight)
        flux = np.asarray(spectra.flux, dtype=float)
        self.training_continuum_, _ = self._continuum.solve(made, flux, weight)
        curve = self.training_continuum_ @ self._continuum.polynomials
        # next to a zero of the polynomial a pixel could get any flux
        usable = np.abs(curve) > 1e-2 * np.median(np.abs(curve), axis=1, keepdims=True)
        curve = np.where(usable, curve, 1.0)
        ivar = spectra.ivar
        if ivar is None:
            return spectra.replace(flux=flux / curve, mask=None if usable.all() else ~usable)
        return spectra.replace(flux=flux / curve, ivar=np.where(usable, ivar * curve**2, 0.0))

    def invert(self, X) -> InversionResult:
        """Labels, radial velocity, broadening and continuum of each star; see `ForwardModel.invert`.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)

        Returns
        -------
        InversionResult
        """
        spectra = self._validate_predict(X)
        return self.model_.invert(spectra)

    def predict_dist(self, X) -> MultivariateNormal:
        """Labels of each star with their total covariance: ``invert(X).dist``."""
        return self.invert(X).dist

    def domain_score(self, X) -> np.ndarray:
        """How badly the best model spectrum fits (n,); see :meth:`ForwardModel.domain_score`."""
        return self.model_.domain_score(self._validate_predict(X))

    def predict_flux(self, labels) -> np.ndarray:
        """Model spectra (m, P) of labels (m, K), without polynomial, at rest."""
        return self.model_.predict_flux(labels)

    def flux_jacobian(self, labels) -> np.ndarray:
        """Gradient spectra (m, P, K) of the same."""
        return self.model_.flux_jacobian(labels)

    def best_fit(self, result) -> np.ndarray:
        """Fitted spectra (n, P) as observed, of an :meth:`invert` result."""
        return self.model_.best_fit(result)
