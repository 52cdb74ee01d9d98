"""Forward models that train another one, and then are it."""

from __future__ import annotations

from skspec.forward._base import ForwardModel
from skspec.likelihood import Inversion

__all__ = ["WrappedForwardModel"]

#: what a fit knows of the spectra and labels that it was given, not of the model
OF_THE_INPUT = ("n_features_in_", "label_names_in_", "wavelength_", "uses_ivar_")


class WrappedForwardModel(ForwardModel):
    """A forward model whose `fit` trains another forward model, `model_`.

    A subclass calls :meth:`_adopt` at the end of its `fit`: from then on the spectra, the noise and the
    errors of that model are its own, and every verb of a forward model works.
    """

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
