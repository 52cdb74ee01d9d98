"""Forward models that train another one, and then are it."""

from __future__ import annotations

from skspec.forward._base import ForwardModel

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
        self.model_, self._likelihood = model, model._likelihood
        for name, value in vars(model).items():
            if name.endswith("_") and name not in OF_THE_INPUT:
                setattr(self, name, value)

    @property
    def _options(self):
        own = getattr(self, "inversion", None)
        if own is None and hasattr(self, "model_"):
            return self.model_._options
        return super()._options

    def _fit_flux(self, x, spectra, context):
        raise NotImplementedError("A wrapped model is trained by its own fit.")

    def _features(self, x, derivative=False):
        return self.model_._features(x, derivative)

    def _curvature(self, x, weight):
        return self.model_._curvature(x, weight)

    @property
    def _coef(self):
        return self.model_._coef
