"""Full-spectrum fitting (ULySS, LASP): labels, velocity and continuum of raw spectra together."""

from __future__ import annotations

from math import comb
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.utils import Tags

from skspec._sklearn import Interval, StrOptions, fit_context
from skspec.base import inner_fits
from skspec.forward._base import ForwardModel
from skspec.forward._the_cannon import TheCannon
from skspec.forward._wrapped import WrappedForwardModel
from skspec.likelihood import PixelNoise, Polynomials
from skspec.solvers.spectra.nuisance import continuum_basis

if TYPE_CHECKING:
    from skspec._typing import Labels, SpectraLike

__all__ = ["FullSpectrumFit"]

STARS_PER_TERM = 4  # of the default polynomial, at least
COHERENCE = 0.2  # without it gravities of real stars are a tenth worse
PIXELS_PER_DEGREE = 20  # a polynomial of higher degree would follow the lines


class FullSpectrumFit(WrappedForwardModel):
    r"""Full-spectrum fitting: any forward model times a polynomial, shifted and broadened.

    .. math:: f(\lambda) = P_n(\lambda)\,\big[\mathrm{TGM}(\ell, \lambda) \otimes G(v, \sigma)\big]

    The spectra need no continuum normalisation: the polynomial :math:`P_n` of each star is found
    together with its labels, and those of the training spectra by turns with the model (TGM). Parameters
    that are None are those of `model`.

    Parameters
    ----------
    model : ForwardModel, optional
        Labels -> flux. By default a cubic polynomial of log Teff and the other labels in each pixel,
        ``TheCannon(3, log_labels=["teff"], coherence=0.2)``, or of lower degree for less than 4 stars
        per term.
    continuum_degree : int, default=10
        Degree n of the polynomial of each order; at most one per 20 pixels.
    fit_rv : "auto", bool or (float, float), default="auto"
        Fit the radial velocity; "auto": from -500 to 500 km/s where the training spectra have a
        wavelength.
    n_rounds : int, default=3
        Turns of model and training continua.
    init : array-like of shape (g, K), optional
        Labels to start from, in label units; each leads to a minimum and the lowest one counts. By
        default the best of the training labels.

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
        "fit_rv": ["boolean", StrOptions({"auto"}), "array-like"],
        "n_rounds": [Interval(Integral, 1, None, closed="left")],
        "init": ["array-like", None],
    }

    def __init__(
        self,
        model: ForwardModel | None = None,
        *,
        continuum_degree: int = 10,
        fit_rv: str | bool | tuple[float, float] = "auto",
        n_rounds: int = 3,
        init: Labels | None = None,
        **shared: Any,
    ):
        own: dict[str, Any] = {"continuum_degree": continuum_degree, "fit_rv": fit_rv}
        super().__init__(**own, **shared)
        self.model = model
        self.n_rounds = n_rounds
        self.init = init

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        # the level of a spectrum is not trusted: tables of numbers whose level tells fare badly
        tags.regressor_tags.poor_score = True
        return tags

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: SpectraLike, y: Labels) -> Self:
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
        degree = min(self.continuum_degree or 0, n_pixels // PIXELS_PER_DEGREE)
        is_auto = isinstance(self.fit_rv, str)
        fit_rv = self.wavelength_ is not None if is_auto else self.fit_rv
        final = self._configured(self._new_model(len(y)))
        final.set_params(continuum_degree=degree, fit_rv=fit_rv)
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
        self._polynomials = Polynomials(continuum_basis(position, degree, spectra.order))
        labels = pd.DataFrame(y, columns=self.label_names_in_)
        flux = np.ones(spectra.shape)
        with inner_fits():
            for _ in range(self.n_rounds - 1):
                flux = turn.fit(self._divided(spectra, flux), labels).predict_flux(y)
            final.fit(self._divided(spectra, flux), labels)
        self._adopt(final)
        if self.init is not None:
            self.start_from(self.init)
        return self

    def _new_model(self, n_stars):
        if self.model is not None:
            return clone(self.model)
        log_labels = ["teff"] if "teff" in self.label_names_in_ else None
        n_labels = len(self.label_names_in_)
        affordable = [d for d in (3, 2) if STARS_PER_TERM * comb(n_labels + d, d) <= n_stars]
        return TheCannon([*affordable, 1][0], log_labels=log_labels, coherence=COHERENCE)

    def _divided(self, spectra, model_flux):
        """Training spectra divided by the polynomials that bring `model_flux` (n, P) to them."""
        weight = spectra.good.astype(float)
        if spectra.has_errors:
            known = np.isfinite(spectra.ivar)
            weight = np.where(known, spectra.ivar, weight)
        flux = np.asarray(spectra.flux, dtype=float)
        fit = PixelNoise(weight).fit_linear(self._polynomials.times(model_flux), flux)
        self.training_continuum_, curve = fit.coef, fit.curve
        # next to a zero of the polynomial a pixel could get any flux
        usable = np.abs(curve) > 1e-2 * np.median(np.abs(curve), axis=1, keepdims=True)
        curve = np.where(usable, curve, 1.0)
        ivar = spectra.ivar
        if ivar is None:
            return spectra.replace(flux=flux / curve, mask=None if usable.all() else ~usable)
        return spectra.replace(flux=flux / curve, ivar=np.where(usable, ivar * curve**2, 0.0))
