"""`PixelCorrection`: a straight line per pixel from synthetic to observed flux."""

from __future__ import annotations

import numpy as np
from sklearn.utils import gen_batches

from skspec._validation import StrOptions, fit_context
from skspec.solvers.pixel_correction import pixel_moments, shrink, straight_lines
from skspec.transfer._base import DomainCorrection

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
        (``"offset"``, 0 with "multiplicative") and of :math:`\ln b` or `b` (``"factor"``).
    wavelength_ : ndarray of shape (P,) or None
    n_features_in_ : int

    Raises
    ------
    ValueError
        When the sets differ in their pixels, or pairs in their number, or there are fewer than 3 stars.

    Notes
    -----
    The offset is measured at the mean synthetic flux :math:`m_j`, where its error is independent of that
    of the factor: :math:`f^\mathrm{obs} = m_j + d_j + b_j (f^\mathrm{syn} - m_j)`. With
    :math:`v_j` the variance of the estimate :math:`d_j`, from the scatter of the stars and their
    ``ivar``, and :math:`\tau^2` the variance of the true ones over pixels (maximum marginal likelihood),
    shrinkage replaces it by :math:`d_j\,\tau^2 / (\tau^2 + v_j)`; likewise :math:`b_j - 1` of pairs and
    of means, and :math:`\ln b_j` of standard deviations. A pixel of which nothing is known is left as it
    is.

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
    <Spectra: 200 stars x 100 pixels, ... Angstrom, median S/N ..., 0.0 % bad>
    """

    _parameter_constraints: dict = {
        "kind": [StrOptions({"both", "additive", "multiplicative"})],
        "paired": ["boolean"],
        "shrink": ["boolean"],
    }

    def __init__(self, kind="both", *, paired=False, shrink=True):
        self.kind = kind
        self.paired = paired
        self.shrink = shrink

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, synthetic, observed):
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
        synthetic, observed = self._validate_pair(synthetic, observed)
        weights = _weights(synthetic), _weights(observed)
        learn = self._from_pairs if self.paired else self._from_distributions
        blocks = gen_batches(synthetic.shape[1], _PIXELS_AT_ONCE)
        parts = [learn(synthetic[:, block], observed[:, block], *weights) for block in blocks]
        centre, d, d_error2, b, b_error2, scatter = map(np.concatenate, zip(*parts))
        d, b, self.tau_ = self._shrunk(d, d_error2, b, b_error2)
        self.factor_ = np.clip(b, 1 / _STEEPEST, _STEEPEST)
        self.offset_ = centre + d - self.factor_ * centre
        self.scatter_ = scatter
        return self

    def transform(self, X):
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
            synthetic.flux, observed.flux, synthetic.good & observed.good, synthetic.variance,
            observed.variance, u * v, slope=self.kind != "additive",
            offset=self.kind != "multiplicative",
        )  # fmt: skip
        return *lines[:-1], np.sqrt(lines.scatter2)

    def _from_distributions(self, synthetic, observed, u, v):
        syn, obs = (
            pixel_moments(part.flux, part.good, part.variance, weight)
            for part, weight in ((synthetic, u), (observed, v))
        )
        nothing, one = np.zeros(len(syn.mean)), np.ones(len(syn.mean))
        centre, d, d_error2 = nothing, nothing, nothing
        b, b_error2 = one, nothing
        if self.kind != "multiplicative":
            centre, d = syn.mean, obs.mean - syn.mean
            d_error2 = syn.mean_error2 + obs.mean_error2
        if self.kind == "multiplicative":
            b, b_error2 = _ratio(obs.mean, obs.mean_error2, syn.mean, syn.mean_error2)
        elif self.kind == "both":
            square, error2 = _ratio(
                obs.variance, obs.variance_error2, syn.variance, syn.variance_error2
            )
            b, b_error2 = np.sqrt(square), error2 / (4 * square**2)  # variance of ln b
        return centre, d, d_error2, b, b_error2, np.full(len(b), np.nan)

    def _shrunk(self, d, d_error2, b, b_error2):
        """Corrections of the mean and factors, and the scatter of the true ones over pixels."""
        in_logarithm = self.kind == "both" and not self.paired
        excess = np.log(b) if in_logarithm else b - 1
        (d_best, d_tau2), (excess_best, b_tau2) = shrink(d, d_error2), shrink(excess, b_error2)
        if not self.shrink:
            d_best = np.where(np.isfinite(d_error2), d, 0.0)
            excess_best = np.where(np.isfinite(b_error2), excess, 0.0)
        b = np.exp(excess_best) if in_logarithm else 1 + excess_best
        return d_best, b, {"offset": np.sqrt(d_tau2), "factor": np.sqrt(b_tau2)}


def _ratio(above, above_error2, below, below_error2):
    """Quotient of two positive estimates and its variance; 1 and infinite where it is not known."""
    some = (above > 0) & (below > 0) & np.isfinite(above_error2 + below_error2)
    ratio = np.where(some, above, 1.0) / np.where(some, below, 1.0)
    above, below = np.where(some, above, 1.0), np.where(some, below, 1.0)
    relative2 = above_error2 / above**2 + below_error2 / below**2
    return ratio, np.where(some, ratio**2 * relative2, np.inf)


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
