"""`PixelCorrection`: a straight line per pixel from synthetic to observed flux."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np
from sklearn.utils import gen_batches

from skspec._sklearn import StrOptions, fit_context
from skspec.solvers.spectra.pixel_correction import pixel_moments, shrink, straight_lines
from skspec.transfer._base import DomainCorrection

if TYPE_CHECKING:
    from skspec._typing import SpectraLike
    from skspec.spectra import Spectra

__all__ = ["PixelCorrection"]

_PIXELS_AT_ONCE = 1024  # bounds the memory of float64 copies
_STEEPEST = 10.0  # factors lie between this and its inverse, so that there is a way back


class PixelCorrection(DomainCorrection):
    r"""Make synthetic spectra look observed, each pixel by a straight line of its own:

    .. math:: f_j^\mathrm{obs} = a_j + b_j\, f_j^\mathrm{syn}.

    The cheap answer to the synthetic gap, and the one that dearer ones, such as
    :class:`CycleStarNet`, have to beat. It mends what is wrong in the same way in all stars: lines that
    are missing in the line list, or too strong, in a range of labels where they do not change much.

    Parameters
    ----------
    kind : {"both", "additive", "multiplicative"}, default="both"
        What is learned: `a` and `b`, only `a` (with b = 1), or only `b` (with a = 0).
    paired : bool, default=False
        False: `fit` gets two unpaired sets of stars **whose labels are distributed alike**, and
        matches, in every pixel, their means, and with "both" also their intrinsic standard deviations
        (photon noise taken off, so :math:`b_j > 0`). What differs in the distribution of labels is
        taken for a gap; ``meta["weight"]`` of either set can correct it.
        True: row `i` of both is the same star (a standard, of known labels), and the line is that of
        weighted least squares.
    shrink : bool, default=True
        Draw what was found in each pixel towards "no correction", as far as its error demands, given
        how much all pixels scatter (empirical Bayes: see Notes).

    Attributes
    ----------
    offset_ : ndarray of shape (P,)
        :math:`a_j`.
    factor_ : ndarray of shape (P,)
        :math:`b_j`, between 0.1 and 10, so that there is a way back.
    scatter_ : ndarray of shape (P,)
        Standard deviation of what the correction leaves in the observed flux of a star, beyond photon
        noise. Known from pairs only: NaN without them, and in pixels that fewer than 3 stars know.
    tau_ : dict
        Standard deviation over pixels of the true corrections: that of the mean flux
        (``"offset"``, 0 with "multiplicative") and that of the factors (``"factor"``).
    wavelength_ : ndarray of shape (P,) or None
    n_features_in_ : int

    Raises
    ------
    ValueError
        When the sets differ in their pixels, or pairs in their number, or there are fewer than 3 stars.

    Notes
    -----
    The offset is measured at the mean synthetic flux :math:`m_j`, where its error is independent of that
    of the factor: :math:`f^\mathrm{obs} = m_j + d_j + b_j (f^\mathrm{syn} - m_j)`. Of :math:`d_j`, whose
    error has the variance :math:`v_j`, from the scatter of the stars and their ``ivar``, shrinkage keeps
    the fraction :math:`\tau^2 / (\tau^2 + v_j)`, averaged over a mixture of :math:`\tau` that the pixels
    themselves determine (:func:`~skspec.solvers.spectra.pixel_correction.shrink`): a few wrong lines
    among thousands of right ones stand. Likewise :math:`b_j - 1` of pairs and of means, and of intrinsic
    variances :math:`\tanh \ln b_j = (V^\mathrm{obs}_j - V^\mathrm{syn}_j) / (V^\mathrm{obs}_j +
    V^\mathrm{syn}_j)`. A pixel of which nothing is known is left as it is.

    Two samples of finite size never have quite the same distribution of labels, and that moves all
    pixels that react to a label together. Shrinkage does not see this: of 200 stars with a scatter of
    500 K the mean temperature is uncertain by 35 K, and so is everything learned from it.

    The ``ivar`` of a corrected spectrum is that of the scaled flux, :math:`\mathrm{ivar} / b_j^2`.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec.datasets import make_spectra
    >>> from skspec.transfer import PixelCorrection
    >>> synthetic, _ = make_spectra(200, n_pixels=100, random_state=0)
    >>> others, _ = make_spectra(200, n_pixels=100, random_state=1)
    >>> line = np.where(np.arange(100) == 40, 0.2, 0.0)  # one that is missing in the line list
    >>> correction = PixelCorrection("additive").fit(synthetic, others.replace(flux=others.flux - line))
    >>> int(np.argmin(correction.offset_)), round(float(correction.offset_[40]), 1)
    (40, -0.2)
    >>> correction.transform(synthetic)
    <Spectra: 200 stars x 100 pixels, ... Angstrom (vacuum), median S/N ..., 0.0 % bad>
    """

    _parameter_constraints: dict = {
        "kind": [StrOptions({"both", "additive", "multiplicative"})],
        "paired": ["boolean"],
        "shrink": ["boolean"],
    }

    def __init__(self, kind: str = "both", *, paired: bool = False, shrink: bool = True):
        self.kind = kind
        self.paired = paired
        self.shrink = shrink

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, synthetic: SpectraLike, observed: SpectraLike) -> Self:
        """Learn the correction.

        Parameters
        ----------
        synthetic : Spectra or array-like of shape (n, P)
            Weights of stars are taken from ``meta["weight"]``, if there are any.
        observed : Spectra or array-like of shape (m, P)
            On the same pixels and normalised in the same way. With ``paired=True`` the same stars in
            the same order.

        Returns
        -------
        PixelCorrection
        """
        pair = self._validate_pair(synthetic, observed)
        weights = [_weights(spectra) for spectra in pair]
        learn = self._from_pairs if self.paired else self._from_distributions
        blocks = gen_batches(pair[0].shape[1], _PIXELS_AT_ONCE)
        parts = [learn(*(spectra[:, block] for spectra in pair), *weights) for block in blocks]
        centre, *found, scatter = map(np.concatenate, zip(*parts))
        d, b, self.tau_ = self._shrunk(*found)
        self.factor_ = np.clip(b, 1 / _STEEPEST, _STEEPEST)
        self.offset_ = centre + d - self.factor_ * centre
        self.scatter_ = scatter
        return self

    def transform(self, X: SpectraLike) -> Spectra | np.ndarray:
        """Observed-like spectra from synthetic ones, everything but flux and ivar as it was.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)

        Returns
        -------
        Spectra or ndarray
            An array for an array.
        """
        return super().transform(X)

    def _inverse(self, spectra):
        return self._line(spectra, -self.offset_ / self.factor_, 1 / self.factor_)

    def _transform(self, spectra):
        return self._line(spectra, self.offset_, self.factor_)

    @staticmethod
    def _line(spectra, offset, factor):
        kind = spectra.dtype
        flux = spectra.flux * factor.astype(kind) + offset.astype(kind)
        if spectra.ivar is None:
            return spectra.replace(flux=flux)
        return spectra.replace(flux=flux, ivar=spectra.ivar / np.square(factor).astype(kind))

    def _validate_pair(self, synthetic, observed):
        synthetic, observed = super()._validate_pair(synthetic, observed)
        if self.paired and len(synthetic) != len(observed):
            raise ValueError(
                f"paired=True takes the same stars twice; got {len(synthetic)} synthetic and "
                f"{len(observed)} observed spectra."
            )
        return synthetic, observed

    def _from_pairs(self, synthetic, observed, u, v):
        lines = straight_lines(
            synthetic.flux,
            observed.flux,
            synthetic.good & observed.good,
            synthetic.variance,
            observed.variance,
            u * v,
            slope=self.kind != "additive",
            offset=self.kind != "multiplicative",
        )
        return *lines[:3], lines.slope - 1, lines.slope_error2, np.sqrt(lines.scatter2)

    def _from_distributions(self, synthetic, observed, u, v):
        syn, obs = (
            pixel_moments(part.flux, part.good, part.variance, weight)
            for part, weight in ((synthetic, u), (observed, v))
        )
        nothing = np.zeros(len(syn.mean))
        centre, d, d_error2, excess, excess_error2 = (nothing,) * 5
        if self.kind == "multiplicative":
            excess, excess_error2 = _ratio_of_means(obs, syn)
        else:
            centre, d = syn.mean, obs.mean - syn.mean
            d_error2 = syn.mean_error2 + obs.mean_error2
        if self.kind == "both":
            excess, excess_error2 = _contrast_of_variances(obs, syn)
        return centre, d, d_error2, excess, excess_error2, np.full(len(nothing), np.nan)

    def _shrunk(self, d, d_error2, excess, excess_error2):
        """Corrections of the mean, factors, and how much the true ones scatter over pixels."""
        (d_best, d_tau2), (best, tau2) = shrink(d, d_error2), shrink(excess, excess_error2)
        if not self.shrink:
            d_best = np.where(np.isfinite(d_error2), d, 0.0)
            best = np.where(np.isfinite(excess_error2), excess, 0.0)
        of_contrast = self.kind == "both" and not self.paired
        b = np.exp(np.arctanh(np.clip(best, -0.99, 0.99))) if of_contrast else 1 + best
        return d_best, b, {"offset": float(np.sqrt(d_tau2)), "factor": float(np.sqrt(tau2))}


def _ratio_of_means(obs, syn):
    """``b - 1`` and its variance; 0 and infinite where it is not known."""
    some = (obs.mean > 0) & (syn.mean > 0)
    below = np.where(some, syn.mean, 1.0)
    ratio = np.where(some, obs.mean, 1.0) / below
    error2 = (obs.mean_error2 + ratio**2 * syn.mean_error2) / below**2
    return ratio - 1, np.where(some, error2, np.inf)


def _contrast_of_variances(obs, syn):
    """``tanh(ln b)`` and its variance; 0 and infinite where it is not known.

    The contrast (V_obs - V_syn) / (V_obs + V_syn) is that, for b^2 = V_obs / V_syn, and unlike the
    logarithm it stays harmless where a variance is lost in the noise. Its error is that of no gap.
    """
    total = obs.variance + syn.variance
    some = total > 0
    total = np.where(some, total, 1.0)
    contrast = np.where(some, (obs.variance - syn.variance) / total, 0.0)
    error2 = (obs.variance_error2 + syn.variance_error2) / total**2
    return np.clip(contrast, -1.0, 1.0), np.where(some, error2, np.inf)


def _weights(spectra):
    """Weights (n,) of the stars."""
    weight = np.asarray(spectra.meta.get("weight", np.ones(len(spectra))), dtype=float)
    usable = weight.shape == (len(spectra),) and np.isfinite(weight).all() and (weight >= 0).all()
    if not usable or not weight.any():
        raise ValueError(
            'meta["weight"] must hold one finite weight >= 0 for each spectrum, not all 0; got '
            f"shape {weight.shape}."
        )
    return weight / weight.mean()
