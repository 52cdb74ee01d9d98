"""Forward models that train another one, and then are it."""

from __future__ import annotations

from typing import Any

from sklearn.base import clone

from skspec.forward._base import ForwardModel
from skspec.likelihood import Inversion

__all__ = ["WrappedForwardModel"]

#: what a fit knows of the spectra and labels that it was given, not of the model
OF_THE_INPUT = ("n_features_in_", "label_names_in_", "wavelength_", "uses_ivar_")


class WrappedForwardModel(ForwardModel):
    """A forward model whose `fit` trains another forward model, `model_`.

    A subclass has a parameter `model`, trains what :meth:`_configured` makes of it, and calls
    :meth:`_adopt` at the end of its `fit`: from then on the spectra, the noise and the errors of that
    model are its own, and every verb of a forward model works.

    Parameters
    ----------
    label_covariance : bool, optional
        Add the model's own label-space error to the formal one; None: as `model` says, here and below.
    clean_training : float, optional
        Remove training stars whose labels do not suit their spectra, beyond this many robust sigma.
    fit_rv : bool or (float, float), optional
        Fit the radial velocity of each star, within a range [km/s].
    fit_broadening : bool or {"gaussian", "rotation"}, optional
        Fit a broadening beyond that of the training spectra.
    continuum_degree : int, optional
        Fit a multiplicative polynomial of this degree to each star.
    coherence : float, optional
        Low-rank covariance of the model's error between pixels: fraction of it that pixels share.
    label_prior : {"flat", "training"}, optional
        What is known of the labels before the spectrum is seen.
    inversion : Inversion, optional
        Loss, starts, steps and correlated noise of the inversion.
    ivar : {"auto", "require", "ignore"}, optional
        Take flux errors where they are given, insist on them, or leave them aside.
    """

    _parameter_constraints: dict = {
        name: kinds if None in kinds else [*kinds, None]
        for name, kinds in ForwardModel._parameter_constraints.items()
    }

    def __init__(
        self,
        *,
        label_covariance: bool | None = None,
        clean_training: float | None = None,
        fit_rv: bool | tuple[float, float] | None = None,
        fit_broadening: bool | str | None = None,
        continuum_degree: int | None = None,
        coherence: float | None = None,
        label_prior: str | None = None,
        inversion: Inversion | None = None,
        ivar: str | None = None,
    ):
        own: dict[str, Any] = {
            "label_covariance": label_covariance,
            "clean_training": clean_training,
            "fit_rv": fit_rv,
            "fit_broadening": fit_broadening,
            "continuum_degree": continuum_degree,
            "coherence": coherence,
            "label_prior": label_prior,
            "inversion": inversion,
            "ivar": ivar,
        }
        super().__init__(**own)

    def _configured(self, model: ForwardModel) -> ForwardModel:
        """A copy of `model` with the parameters of this one that are not None."""
        own = {name: getattr(self, name) for name in ForwardModel._parameter_constraints}
        own = {name: value for name, value in own.items() if value is not None}
        return clone(model).set_params(**own)

    @property
    def _ivar_policy(self) -> str:
        return self.ivar or getattr(self.model, "ivar", None) or "auto"

    def _adopt(self, model):
        """Take over what the fit of `model` has found."""
        for name in getattr(self, "_adopted", ()):  # of an earlier fit
            vars(self).pop(name, None)
        self.model_, self._likelihood = model, model._likelihood
        found = {n: v for n, v in vars(model).items() if n.endswith("_") and n not in OF_THE_INPUT}
        vars(self).update(found)
        self._adopted = tuple(found)

    @property
    def _options(self):
        own, inner = getattr(self, "inversion", None), getattr(self, "model_", self.model)
        return inner._options if own is None and inner is not None else own or Inversion()

    def _fit_flux(self, x, spectra, context):
        raise NotImplementedError("A wrapped model is trained by its own fit.")

    def _features(self, x, derivative=False):
        return self.model_._features(x, derivative)

    def _curvature(self, x, weight):
        return self.model_._curvature(x, weight)

    @property
    def _coef(self):
        return self.model_._coef
