r"""Least squares with errors that some spectra share: components integrated over.

With a covariance :math:`\Sigma = W^{-1} + U^T U` of the pixels of a star, any sum over pixels that
plain least squares needs, :math:`a^T W b`, becomes

.. math:: a^T \Sigma^{-1} b = a^T W b - (U W a)^T (1 + U W U^T)^{-1} (U W b)

(Woodbury): what is left when the amplitudes of `U`, known to be 0 +- 1, have been fitted as well.
"""

from __future__ import annotations

import numpy as np

from skspec.solvers.linear.weighted_gram import weighted_gram

__all__ = ["CoherentErrors"]


class CoherentErrors:
    """The components `U` seen by stars of given weights.

    Parameters
    ----------
    components : ndarray of shape (q, P)
    weight : ndarray of shape (n, P)
        Inverse variance of each pixel beyond the components.
    """

    def __init__(self, components, weight):
        self.components = components
        alike = np.array_equal(weight[:1], weight[-1:]) and np.all(weight == weight[:1])
        self._set_gram(weighted_gram(components, weight[:1] if alike else weight))

    @classmethod
    def of_gram(cls, components, gram):
        """Of stars whose ``U W U^T`` is known: (n, q, q), or (1, q, q) where it is the same.

        `components` may be None where each star has its own.
        """
        new = object.__new__(cls)
        new.components = components
        new._set_gram(gram)
        return new

    def _set_gram(self, gram):
        self._inverse = np.linalg.inv(gram + np.eye(gram.shape[-1]))

    def __getitem__(self, rows):
        """Those of some stars."""
        part = object.__new__(CoherentErrors)
        part.components = self.components
        part._inverse = self._inverse if len(self._inverse) == 1 else self._inverse[rows]
        return part

    def amplitudes(self, on_residual):
        """Most likely amplitudes (n, q) of the components; `on_residual` is ``U W r`` (n, q)."""
        return (self._inverse @ on_residual[..., None])[..., 0]

    def take_off(self, chi2, score, information, on_residual, on_jacobian):
        """Sums over pixels with the components integrated over.

        Parameters
        ----------
        chi2, score, information : ndarrays of shape (n,), (n, K), (n, K, K)
            ``r W r``, ``J W r`` and ``J W J^T``.
        on_residual, on_jacobian : ndarrays of shape (n, q), (n, K, q)
            ``U W r`` and ``J W U^T``.

        Returns
        -------
        chi2, score, information
        """
        amplitude = self.amplitudes(on_residual)
        chi2 = chi2 - np.einsum("nq,nq->n", on_residual, amplitude)
        score = score - (on_jacobian @ amplitude[..., None])[..., 0]
        return chi2, score, self.take_off_information(information, on_jacobian)

    def take_off_chi2(self, chi2, on_residual):
        """The first of these alone."""
        return chi2 - np.einsum("nq,nq->n", on_residual, self.amplitudes(on_residual))

    def take_off_information(self, information, on_jacobian):
        """The last of these alone: it does not depend on the residuals."""
        return information - self.between(on_jacobian, on_jacobian)

    def between(self, on_first, on_second):
        """What is taken off the sums ``A W B^T`` (n, K, M) of ``A W U^T`` and ``B W U^T``."""
        return on_first @ self._inverse @ np.swapaxes(on_second, 1, 2)
