"""A model from labels to flux, to copy: python forward_model.py checks it.

Here the flux of a pixel is a quadratic in each label, by ridge regression. Inversion, errors, quality
flags, velocities and cleaning are those of every ForwardModel.
"""

import numpy as np

from skspec.forward import ForwardModel


class RidgeFlux(ForwardModel):
    """Flux of every pixel: ridge regression on the labels and their squares.

    Parameters
    ----------
    alpha : float
        Penalty of the squared coefficients.
    """

    def __init__(self, alpha=1e-3, **shared):
        super().__init__(**shared)
        self.alpha = alpha

    def _features(self, x, derivative=False):
        phi = np.hstack([np.ones((len(x), 1)), x, x**2])
        if not derivative:
            return phi
        each = np.broadcast_to(np.eye(x.shape[1]), (len(x), x.shape[1], x.shape[1]))
        return phi, np.concatenate([0 * x[..., None], each, 2 * x[..., None] * each], axis=2)

    def _fit_flux(self, x, spectra, context):
        phi, good = self._features(x), spectra.good.astype(float)
        flux = np.where(spectra.good, spectra.flux, 0.0)
        gram = np.tensordot(good, phi[:, :, None] * phi[:, None], (0, 0))
        right = (flux.T @ phi)[..., None]
        self._coef = np.linalg.solve(gram + self.alpha * np.eye(len(phi.T)), right)[..., 0].T
        photon = np.where(spectra.good, self._photon_variance(spectra), 0.0)
        excess = np.sum(good * ((flux - phi @ self._coef) ** 2 - photon), axis=0)
        n_good = good.sum(axis=0)
        scatter = np.sqrt(np.maximum(excess, 0.0) / np.maximum(n_good, 1.0))
        self.scatter_ = np.where(n_good > 1, scatter, np.inf)


if __name__ == "__main__":
    from skspec.testing import check_forward_model

    for result in check_forward_model(RidgeFlux(), param_grid={"alpha": [1e-3, 1.0]}):
        print(result["status"], result["law"])
