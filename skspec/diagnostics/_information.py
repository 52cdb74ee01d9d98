r"""Which pixels know a label.

The information of a spectrum on label `k` is a sum over pixels, twice: with all other labels known,

.. math:: \frac{1}{\sigma_{k,\rm cond}^2} = F_{kk} = \sum_j w_j J_{jk}^2,

and with all of them free,

.. math:: \frac{1}{\sigma_k^2} = \frac{1}{(F^{-1})_{kk}} = \sum_j w_j r_{jk}^2, \qquad
          r_k = \frac{J F^{-1} e_k}{(F^{-1})_{kk}},

where :math:`r_k` is what is left of the gradient of label `k` when the best combination of the other
gradients is taken off it. :math:`w_j r_{jk}^2 \sigma_k^4` is also what the noise of pixel `j`
contributes to the variance of the label found by least squares. The second says where the label is
really measured: a line that reacts to all labels alike is strong in the first and weak in the second,
and a pixel that does not react to the label at all can be strong in the second, because it tells
another one that would be confused with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skspec._short_repr import ShortRepr
from skspec.diagnostics._gradients import GradientSpectra
from skspec.likelihood import marginal_information

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.base import BaseEstimator

    from skspec._typing import Labels, SpectraLike

__all__ = ["InformationMap", "information_map"]


@dataclass(frozen=True)
class InformationMap(ShortRepr):
    r"""Information of every pixel on every label, averaged over the stars that were given.

    Attributes
    ----------
    marginal : ndarray of shape (P, K)
        :math:`w_j r_{jk}^2`, all other parameters free; sums to :math:`1/\sigma_k^2`.
    conditional : ndarray of shape (P, K)
        :math:`w_j J_{jk}^2`, all other parameters known; sums to :math:`F_{kk}`.
    label_names : list of str
    wavelength, order : ndarray of shape (P,) or None
        [Angstrom]; echelle order or chip.
    n_stars : int
        Stars in the average: those that have a bound.
    """

    marginal: np.ndarray
    conditional: np.ndarray
    label_names: list[str]
    wavelength: np.ndarray | None = None
    order: np.ndarray | None = None
    n_stars: int = 1

    def share(self, label: str, *, conditional: bool = False) -> np.ndarray:
        """Share (P,) of each pixel in the information on a label; sums to 1."""
        values = (self.conditional if conditional else self.marginal)[:, self._index(label)]
        return values / values.sum()

    def std(self, *, conditional: bool = False) -> np.ndarray:
        """Error (K,) that the average information allows."""
        return 1 / np.sqrt((self.conditional if conditional else self.marginal).sum(axis=0))

    def top(
        self, label: str, n: int = 10, *, n_pixels: int = 5, conditional: bool = False
    ) -> pd.DataFrame:
        """The windows that know most about a label.

        Parameters
        ----------
        label : str
        n : int
            So many windows at most; they do not overlap.
        n_pixels : int
            Width of a window. Windows do not reach over the edge of an order.
        conditional : bool
            As if all other labels were known.

        Returns
        -------
        pandas.DataFrame
            Columns ``lower``, ``upper`` (first and last pixel: wavelengths, or pixel numbers without
            them) and ``share`` of the information; best first.
        """
        import pandas as pd

        share = self.share(label, conditional=conditional)
        n_pixels = int(np.clip(n_pixels, 1, len(share)))
        total = np.convolve(share, np.ones(n_pixels), mode="valid")
        last = np.arange(len(total)) + n_pixels - 1
        if self.order is not None:
            total[self.order[: len(total)] != self.order[last]] = 0.0
        where = np.arange(len(share)) if self.wavelength is None else self.wavelength
        rows = []
        for _ in range(n):
            first = int(np.argmax(total))
            if not total[first] > 0:
                break
            ends = sorted((where[first], where[last[first]]))
            rows.append((*ends, total[first]))
            total[max(0, first - n_pixels + 1) : first + n_pixels] = 0.0
        return pd.DataFrame(rows, columns=["lower", "upper", "share"])

    def _index(self, label):
        if label not in self.label_names:
            raise ValueError(f"There is no label {label!r}; labels: {', '.join(self.label_names)}.")
        return self.label_names.index(label)


def information_map(
    model: BaseEstimator,
    labels: Labels,
    ivar: SpectraLike | None = None,
    *,
    noise: str = "auto",
    rv: bool | str = "auto",
    continuum_degree: int | str | None = "auto",
    broadening: bool | str = "auto",
) -> InformationMap:
    """Where in the spectrum each label is measured.

    Parameters
    ----------
    model, labels, ivar, noise, rv, continuum_degree, broadening
        As in :func:`cramer_rao_bound`; nuisance parameters are among those that are free.

    Returns
    -------
    InformationMap
        The average over the stars.

    Raises
    ------
    ValueError
        As :func:`cramer_rao_bound`, and when no star has a bound.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec.diagnostics import SyntheticGradients, information_map
    >>> wavelength = np.geomspace(5100, 5250, 700)
    >>> generator = SyntheticGradients(["teff", "logg", "feh"], wavelength)
    >>> found = information_map(generator, [[5000.0, 4.5, 0.0]], np.full(700, 100.0**2))
    >>> found.top("logg", 2).round(2)                                # the wings of Mg b
         lower    upper  share
    0  5182.51  5183.37   0.06
    1  5186.38  5187.24   0.05
    """
    gradients = GradientSpectra(model, labels, ivar, noise, rv, continuum_degree, broadening)
    n_labels = gradients.n_labels
    shape = (gradients.n_pixels, n_labels)
    marginal, conditional, n_stars = np.zeros(shape), np.zeros(shape), 0
    for batch in gradients.batches():
        star = _bounded(batch.information(), n_labels)
        pixels = batch.noise[star]
        residual = None if batch.residual is None else batch.residual[star]
        shares = pixels.pixel_shares(batch.columns[star], residual)
        for total, share in zip((marginal, conditional), shares):
            share = share[:, :n_labels]
            total += np.einsum("nkp,nk->pk", share, share.sum(axis=2) ** -2.0)
        n_stars += len(star)
    if n_stars == 0:
        raise ValueError("No star has a bound: too few good pixels, or labels that look the same.")
    names = gradients.label_names or [f"label_{k}" for k in range(n_labels)]
    return InformationMap(
        marginal / n_stars,
        conditional / n_stars,
        names,
        gradients.wavelength,
        gradients.order,
        n_stars,
    )


def _bounded(fisher, n_labels):
    """Stars in which every label has information of its own."""
    own = [marginal_information(fisher, [k])[:, 0, 0] for k in range(n_labels)]
    return np.flatnonzero(np.all(np.asarray(own) > 0, axis=0))
