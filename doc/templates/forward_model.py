"""A model from labels to flux, to copy: python forward_model.py checks it.

Here the flux of a pixel is a straight line in each label: f = theta_0 + theta . x with scaled labels x.
Inversion, errors, quality flags and cleaning are those of every ForwardModel.
"""

import numpy as np

from skspec.forward import ForwardModel
from skspec.forward._coherence import HeldOut
from skspec.solvers.linear.least_squares import fit_least_squares_with_scatter
from skspec.solvers.linear.leave_one_out import leave_one_out_plan


class LinearModel(ForwardModel):
    """Flux linear in the labels, with intrinsic scatter.

    Parameters
    ----------
    label_covariance, clean_training, clean_rounds, fit_rv, rv_range, fit_broadening, \
continuum_degree, loss, n_starts, max_steps, tol, correlation_length, coherence, label_prior, ivar
        See :class:`~skspec.forward.ForwardModel`.

    Attributes
    ----------
    theta_ : ndarray of shape (1 + K, P)
        Constant and slopes of each pixel.
    """

    _capabilities = {"speed": "seconds"}

    def __init__(
        self,
        *,
        label_covariance=True,
        clean_training=None,
        clean_rounds=3,
        fit_rv=False,
        rv_range=(-500.0, 500.0),
        fit_broadening=False,
        continuum_degree=None,
        loss="linear",
        n_starts=4,
        max_steps=50,
        tol=1e-8,
        correlation_length=0,
        coherence=0.0,
        label_prior="flat",
        ivar="auto",
    ):
        self.label_covariance = label_covariance
        self.clean_training = clean_training
        self.clean_rounds = clean_rounds
        self.fit_rv = fit_rv
        self.rv_range = rv_range
        self.fit_broadening = fit_broadening
        self.continuum_degree = continuum_degree
        self.loss = loss
        self.n_starts = n_starts
        self.max_steps = max_steps
        self.tol = tol
        self.correlation_length = correlation_length
        self.coherence = coherence
        self.label_prior = label_prior
        self.ivar = ivar

    def _fit_flux(self, x, spectra, context):
        self._solution = fit_least_squares_with_scatter(
            self._features(x), spectra.flux, spectra.variance
        )
        self.theta_, self.scatter_ = self._solution.theta, self._solution.scatter
        if not self._solution.trained.any():
            raise ValueError(f"No pixel has more good stars than the model has terms, of {len(x)}.")

    def _features(self, x, derivative=False):
        phi = np.column_stack([np.ones(len(x)), x])
        if not derivative:
            return phi
        slope = np.eye(1 + x.shape[1])[1:]  # of each feature by each label
        return phi, np.broadcast_to(slope, (len(x), *slope.shape))

    def _curvature(self, x, weight):
        return np.zeros((len(x), x.shape[1], x.shape[1]))

    @property
    def _coef(self):
        return self.theta_

    def _out_of_sample(self, x, spectra):
        phi, slope = self._features(x, derivative=True)
        compute, blocks = leave_one_out_plan(
            phi, spectra.flux, spectra.variance, self._solution, slope
        )

        def held_out(pixels):
            block = compute(pixels)
            return HeldOut(
                block.residuals,
                block.jacobian,
                lambda weighted, rows: weighted @ self.theta_[:, pixels].T,
            )

        return held_out, blocks


if __name__ == "__main__":
    from skspec.testing import check_forward_model

    for result in check_forward_model(LinearModel(), param_grid={"coherence": [0.0, 0.2]}):
        print(result["status"], result["law"])
