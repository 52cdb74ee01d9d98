"""CycleStarNet: synthetic spectra to observed ones and back, learned without pairs or labels."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skspec._label_values import label_values
from skspec._progress import CallbackSupportMixin, fit_steps
from skspec._sklearn import Interval, StrOptions, fit_context
from skspec.base import as_spectra
from skspec.networks import ResumableOptions
from skspec.transfer._base import DomainCorrection
from skspec.transfer._guard_rails import GuardRails, split_r2
from skspec.transfer._spaces import ComponentSpace, PixelSpace

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from skspec._typing import Labels, RandomState, SpectraLike
    from skspec.spectra import Spectra

__all__ = ["CycleStarNet"]

N_COMPONENTS = 24
#: of synthetic and observed distances
WEIGHTS = {"dense": (0.03, 0.09), "convolutional": (3.0, 9.0)}
KNOWN = {"dense": {"hidden", "n_components"}, "convolutional": set()}  # architecture_params
MIN_TRAINED = 10  # spectra of a set
BLOCK = 100  # steps, of the progress that is shown


class CycleStarNet(ResumableOptions, CallbackSupportMixin, DomainCorrection):
    r"""Translate spectra between two domains that share most of what makes a spectrum.

    Encoders turn synthetic spectra S and observed spectra O into the same shared latent numbers `z`;
    what only observed spectra have (broadening, telluric residuals, ...) goes into split ones `s`.
    Decoders lead back, and two critics C judge what comes out, all trained by turns:

    .. math:: \min\; w_S [d(S \to S) + d(S \to O \to S)] + w_O [d(O \to O) + d(O \to S \to O)]
              - w_A [\ln C_O(S \to O) + \ln C_S(O \to S)]

    with :math:`d(a, b) = \mathrm{mean}_j\, (a_j - b_j)^2 / \sigma_j^2` over good pixels; with "dense"
    it is the part of it within the principal components, exactly, per component. The critics learn to
    tell translations from reconstructions :math:`S \to S`, :math:`O \to O`. No spectrum has a
    counterpart in the other set and no label is used, so **the labels of both sets must be distributed
    alike**: what differs in that is taken for a gap.

    Parameters
    ----------
    n_shared : int
        Shared latent numbers, more than there are labels; their channels with "convolutional".
    n_split : int
        Latent numbers that only observed spectra have; as few as possible, since labels hide in
        them, too.
    architecture : {"dense", "convolutional"}
        "dense": small residual networks between principal components of both sets, fast on a CPU.
        "convolutional": the published networks on pixels, for a GPU, with ``n_shared=25, n_split=4``.
    architecture_params : dict, optional
        Of "dense": ``{"hidden": 128, "n_components": 24}``.
    synthetic_weight : float, optional
        :math:`w_S`; default: 0.03 with "dense", whose distances are 1 where components are right within
        the noise; 3, as published, with "convolutional".
    observed_weight : float, optional
        :math:`w_O`; default: 0.09 with "dense"; 9, as published, with "convolutional".
    adversarial_weight : float
        :math:`w_A`.
    error_floor : float
        Smallest error :math:`\sigma_j` of a pixel, in the unit of the flux, and that of spectra without
        errors.
    learning_rate_init : float
        Of Adam; falls to zero along a cosine.
    max_iter : int
        Steps.
    batch_size : int
        Stars of each set per step.
    validation_fraction : float
        Of the stars of each set, held out for the guard rails.

    Attributes
    ----------
    translator_ : torch.nn.Module
    split_ : ndarray of shape (m, n_split)
        Split latent numbers of the observed spectra.
    history_ : dict of ndarray
        Means over blocks of 100 steps of ``synthetic``, ``synthetic_cycle``, ``observed``,
        ``observed_cycle`` (the distances above), ``adversarial`` and ``critic`` (cross-entropies; 1.39
        and 2.77 where critics can tell nothing).
    n_iter_ : int
        Steps that were taken.
    diverged_ : bool
        Whether training was stopped because losses grew tenfold; the best state was kept.
    guard_rails_ : GuardRails
        Whether the result can be trusted; what is not as it should be is warned of.
    device_ : str
    wavelength_ : ndarray of shape (P,) or None

    Raises
    ------
    ImportError
        From ``fit``, without PyTorch and skorch (``pip install skspec[nn]``).
    ValueError
        When the sets differ in their pixels, or are smaller than 20 stars.

    See Also
    --------
    PixelCorrection : The cheap rung before this one.
    skspec.forward.CorrectedModel : A forward model behind it.

    Notes
    -----
    Synthetic spectra without errors get noise and bad pixels of observed ones in training, drawn anew in
    every step; those with errors are taken to be as noisy as observed ones.

    A translation has only what the networks know of a spectrum: with "dense" that is what its principal
    components hold. ``ivar`` stays as it is.

    References
    ----------
    O'Briain, Ting, Fabbro, Yi, Venn & Bialek 2021, ApJ 906, 130 (arXiv:2007.03109). As published but
    for: "dense" (whose critics see spectra without latent numbers), the cosine of the learning rate, and
    noise that is matched.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec.datasets import make_spectra
    >>> from skspec.transfer import CycleStarNet
    >>> synthetic, _ = make_spectra(400, n_pixels=150, snr=None, random_state=0)
    >>> others, _ = make_spectra(400, n_pixels=150, snr=100, random_state=1)
    >>> observed = others.replace(flux=1 - 0.9 * (1 - others.flux))  # weaker lines
    >>> net = CycleStarNet(max_iter=300, random_state=0).fit(synthetic, observed)
    >>> before, after = (abs(each.flux.mean() - observed.flux.mean())
    ...                  for each in (synthetic, net.transform(synthetic)))
    >>> bool(after < before / 2)
    True
    """

    _capabilities = {"speed": "minutes"}
    _parameter_constraints: dict = {
        "n_shared": [Interval(Integral, 1, None, closed="left")],
        "n_split": [Interval(Integral, 1, None, closed="left")],
        "architecture": [StrOptions({"dense", "convolutional"})],
        "architecture_params": [dict, None],
        "synthetic_weight": [Interval(Real, 0, None, closed="left"), None],
        "observed_weight": [Interval(Real, 0, None, closed="left"), None],
        "adversarial_weight": [Interval(Real, 0, None, closed="left")],
        "error_floor": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
    }

    def __init__(
        self,
        n_shared: int = 8,
        n_split: int = 1,
        *,
        architecture: str = "dense",
        architecture_params: dict[str, Any] | None = None,
        synthetic_weight: float | None = None,
        observed_weight: float | None = None,
        adversarial_weight: float = 1.0,
        error_floor: float = 0.005,
        max_iter: int = 5000,
        batch_size: int = 128,
        **shared,
    ):
        super().__init__(max_iter=max_iter, batch_size=batch_size, **shared)
        self.n_shared = n_shared
        self.n_split = n_split
        self.architecture = architecture
        self.architecture_params = architecture_params
        self.synthetic_weight = synthetic_weight
        self.observed_weight = observed_weight
        self.adversarial_weight = adversarial_weight
        self.error_floor = error_floor

    # -- training ----------------------------------------------------------------------------------

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        synthetic: SpectraLike,
        observed: SpectraLike,
        *,
        synthetic_labels: Labels | None = None,
        observed_labels: Labels | None = None,
    ) -> Self:
        """Learn the translation.

        Parameters
        ----------
        synthetic : Spectra or array-like of shape (n, P)
        observed : Spectra or array-like of shape (m, P)
            Of other stars, on the same pixels and normalised in the same way.
        synthetic_labels, observed_labels : array-like of shape (n, K) and (m, K), optional
            However rough: only to test that they are distributed alike. Nothing is learned from
            them.

        Returns
        -------
        CycleStarNet
        """
        from skspec.networks import check_resumable, resolve_device

        check_resumable(self.checkpoint, self.random_state)
        synthetic, observed = self._validate_pair(synthetic, observed)
        self.device_ = resolve_device(self.device)
        self._parameters()
        rng = check_random_state(self.random_state)
        rails = GuardRails.before(synthetic, observed, synthetic_labels, observed_labels)
        train, held_out = zip(*(self._split_off(part, rng) for part in (synthetic, observed)))
        self._space = self._make_space(train[0], train[1], rng)
        n_blocks = -(-self.max_iter // BLOCK)
        with fit_steps(self, synthetic, None, "blocks", n_blocks) as on_block:
            self._train(train[0], train[1], int(rng.randint(2**31 - 1)), on_block)
        self.split_ = self.encode_split(observed)
        self.guard_rails_ = rails.after(self, train, held_out, rng)
        self.guard_rails_.warn()
        return self

    def _split_off(self, spectra, rng):
        """Stars to train on, and those held out."""
        rows = rng.permutation(len(spectra))
        n_held_out = max(1, round(self.validation_fraction * len(rows)))
        if len(rows) - n_held_out < MIN_TRAINED:
            raise ValueError(
                f"validation_fraction={self.validation_fraction} leaves {len(rows) - n_held_out} of "
                f"{len(rows)} spectra to train on: at least {MIN_TRAINED} are needed."
            )
        return spectra[np.sort(rows[n_held_out:])], spectra[np.sort(rows[:n_held_out])]

    def _parameters(self):
        """Parameters of the networks, and the number of components."""
        parameters = dict(self.architecture_params or {})
        known = sorted(KNOWN[self.architecture])
        unknown = sorted(set(parameters) - set(known))
        if unknown:
            raise ValueError(
                f"architecture={self.architecture!r} has no parameter {', '.join(unknown)}; "
                f"architecture_params may hold {', '.join(known) or 'nothing'}."
            )
        return parameters, parameters.pop("n_components", N_COMPONENTS)

    def _weights(self):
        given = (self.synthetic_weight, self.observed_weight)
        usual = WEIGHTS[self.architecture]
        return (*(b if a is None else a for a, b in zip(given, usual)), self.adversarial_weight)

    def _make_space(self, synthetic, observed, rng):
        if self.architecture == "dense":
            n_components = self._parameters()[1]
            return ComponentSpace(synthetic, observed, rng, n_components, self.error_floor)
        return PixelSpace(synthetic, observed, rng, self.error_floor)

    def _train(self, synthetic, observed, seed, on_block):
        from skspec.networks import Domain, fit_translator

        domains = []
        for spectra in (synthetic, observed):
            x, metric, noise = self._space.arrays(spectra)
            if spectra is synthetic and not spectra.has_errors:
                metric = None  # that of observed stars, with their noise
            domains.append(Domain.on(self.device_, x, metric, noise))
        self.translator_, self.history_, self.diverged_ = fit_translator(
            *domains,
            n_shared=self.n_shared,
            n_split=self.n_split,
            architecture=self.architecture,
            parameters=self._parameters()[0],
            weights=self._weights(),
            n_steps=self.max_iter,
            batch_size=self.batch_size,
            device=self.device_,
            seed=seed,
            learning_rate=self.learning_rate_init,
            checkpoint=self.checkpoint,
            n_threads=1 if self.architecture == "dense" else None,
            on_block=on_block,
        )
        self.n_iter_ = min(BLOCK * len(self.history_["critic"]), self.max_iter)
        if self.diverged_:
            warnings.warn(
                f"The training of CycleStarNet diverged after {self.n_iter_} steps; the best state is "
                f"kept. Lower learning_rate_init={self.learning_rate_init} or adversarial_weight="
                f"{self.adversarial_weight}.",
                ConvergenceWarning,
                stacklevel=4,
            )

    # -- translation -------------------------------------------------------------------------------

    def transform(self, X: SpectraLike, split: ArrayLike | None = None) -> Spectra | np.ndarray:
        """Observed-like spectra from synthetic ones.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
        split : array-like of shape (n, n_split) or (n_split,), optional
            Split latent numbers to translate with, as :meth:`encode_split` and :meth:`sample_split`
            give them; default: their medians over the observed spectra.

        Returns
        -------
        Spectra or ndarray
            An array for an array.
        """
        return self._apply_function(X, lambda spectra: self._transform(spectra, split))

    def _transform(self, spectra, split=None):
        if split is None:
            split = np.median(self.split_, axis=0)
        shape = (len(spectra), self.split_.shape[1])
        try:
            split = np.broadcast_to(np.asarray(split, dtype=float), shape)
        except ValueError:
            raise ValueError(
                f"split has shape {np.shape(split)}; for {shape[0]} spectra it must be {shape}, or "
                f"({shape[1]},) for all alike."
            ) from None

        def translate(net, x, s):
            return net.to_observed(net.synthetic_to_shared(x), s)

        return self._replaced(spectra, self._evaluated(spectra, translate, split))

    def _inverse(self, spectra):
        def translate(net, x):
            return net.to_synthetic(net.observed_to_shared(x))

        return self._replaced(spectra, self._evaluated(spectra, translate))

    def _replaced(self, spectra, x):
        return spectra.replace(flux=self._space.flux(x).astype(spectra.dtype))

    def reconstruct(self, X: SpectraLike, domain: str = "observed") -> Spectra:
        """Spectra as the networks see them: encoded and decoded in their own domain.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
        domain : {"observed", "synthetic"}

        Returns
        -------
        Spectra
        """

        def synthetic(net, x):
            return net.to_synthetic(net.synthetic_to_shared(x))

        def observed(net, x):
            return net.to_observed(net.observed_to_shared(x), net.split(x))

        spectra = self._checked(X)
        function = {"observed": observed, "synthetic": synthetic}[_known(domain)]
        return self._replaced(spectra, self._evaluated(spectra, function))

    def encode_shared(self, X: SpectraLike, domain: str = "observed") -> np.ndarray:
        """Shared latent numbers of spectra.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
        domain : {"observed", "synthetic"}

        Returns
        -------
        ndarray of shape (n, n_shared)
            With "convolutional": (n, n_shared * positions).
        """
        encoder = f"{_known(domain)}_to_shared"
        return self._evaluated(self._checked(X), lambda net, x: getattr(net, encoder)(x))

    def encode_split(self, X: SpectraLike) -> np.ndarray:
        """Split latent numbers (n, n_split) of observed spectra (n, P)."""
        return self._evaluated(self._checked(X), lambda net, x: net.split(x))

    def leakage(self, observed: SpectraLike, labels: Labels) -> np.ndarray:
        """Cross-validated R2 (K,) of labels (m, K) predicted from split latent numbers.

        Should be near 0 for every label that synthetic spectra have, too.

        Parameters
        ----------
        observed : Spectra or array-like of shape (m, P)
        labels : array-like of shape (m, K)
        """
        labels = label_values(labels)
        labels = labels.reshape(len(labels), -1)
        return split_r2(self.encode_split(observed), labels)

    def sample_split(self, n: int, random_state: RandomState | None = None) -> np.ndarray:
        """Split latent numbers (n, n_split) drawn from those of the observed training spectra."""
        check_is_fitted(self)
        return self.split_[check_random_state(random_state).randint(len(self.split_), size=n)]

    def _checked(self, X):
        check_is_fitted(self)
        return self._validate_transform(as_spectra(X))

    def _evaluated(self, spectra, function, split=None):
        """``function(translator, x)``, or ``(translator, x, s)``, of all stars, as rows of numbers."""
        import torch

        from skspec.networks import in_batches

        def inputs(part):
            more = {"s": part.meta["s"]} if "s" in part.meta else {}
            return {"x": self._space.arrays(part)[0]} | more

        spectra = spectra.replace(meta={} if split is None else {"s": split})
        with torch.inference_mode():
            parts = [
                function(net, **arrays).flatten(1).cpu().numpy()
                for _, net, arrays in in_batches(self.translator_, spectra, inputs)
            ]
        return np.concatenate(parts).astype(float)


def _known(domain):
    if domain not in ("observed", "synthetic"):
        raise ValueError(f"domain must be 'observed' or 'synthetic', not {domain!r}.")
    return domain
