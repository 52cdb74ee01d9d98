"""What corrections from one domain to another share."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from sklearn.base import OneToOneFeatureMixin

from skspec.base import SpectraTransformer, as_spectra

if TYPE_CHECKING:
    import numpy as np

    from skspec._typing import SpectraLike
    from skspec.spectra import Spectra

__all__ = ["DomainCorrection"]

MIN_STARS = 3  # stars


class DomainCorrection(OneToOneFeatureMixin, SpectraTransformer):
    """Synthetic spectra to observed-like ones, and back.

    A subclass implements ``fit(synthetic, observed)`` (calling :meth:`_validate_pair`),
    ``_transform(spectra)`` and ``_inverse(spectra)``.

    Attributes
    ----------
    uses_ivar_ : bool
        Whether the observed spectra had errors.
    """

    def fit_transform(self, synthetic: SpectraLike, observed: SpectraLike) -> Spectra | np.ndarray:
        """Learn the correction, and return the corrected `synthetic`."""
        return self.fit(synthetic, observed).transform(synthetic)

    def inverse_transform(self, X: SpectraLike) -> Spectra | np.ndarray:
        """Synthetic-like spectra from observed ones.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)

        Returns
        -------
        Spectra or ndarray
            An array for an array.
        """
        return self._apply_function(X, self._inverse)

    @abstractmethod
    def _inverse(self, spectra): ...

    def _validate_pair(self, synthetic, observed):
        """Both sets as checked :class:`Spectra` on the same pixels."""
        synthetic, _ = self._validate_spectra(synthetic, reset=True)
        observed = as_spectra(observed)
        if observed.shape[1] != synthetic.shape[1]:
            raise ValueError(
                f"The synthetic spectra have {synthetic.shape[1]} pixels, the observed ones "
                f"{observed.shape[1]}. Put both on one grid with skspec.preprocessing.Resampler."
            )
        self._check_medium(observed)
        self._check_wavelength(observed)
        self.uses_ivar_ = observed.has_errors
        for name, spectra in (("synthetic", synthetic), ("observed", observed)):
            if len(spectra) < MIN_STARS:
                raise ValueError(
                    f"{len(spectra)} {name} spectra: at least {MIN_STARS} are needed to tell a "
                    "correction from scatter."
                )
            if not spectra.good.any():
                raise ValueError(f"Every pixel of every {name} spectrum is bad (ivar is 0).")
        return synthetic, observed
