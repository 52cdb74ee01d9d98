"""DenoisingAutoencoder: what a network expects a noisy spectrum to be."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skspec._progress import CallbackSupportMixin, fit_steps
from skspec._sklearn import HasMethods, Interval, StrOptions, fit_context
from skspec.base import SpectraTransformer
from skspec.networks import FluxScaler, NetworkOptions

if TYPE_CHECKING:
    from skspec._typing import Range, SpectraLike
    from skspec.augmentation._base import Augmentation

__all__ = ["DenoisingAutoencoder"]


class DenoisingAutoencoder(NetworkOptions, CallbackSupportMixin, SpectraTransformer):
    r"""Takes the noise out of spectra like those it was trained on.

    A convolutional autoencoder :math:`g` is fitted to give back spectra :math:`x` to which fresh noise
    :math:`\epsilon` is added in every step,

    .. math:: \min \sum_i |g(x_i + \epsilon_i) - x_i|^2,

    over good pixels, through a layer of `n_latent` numbers. Train it on synthetic spectra, or on those
    of high S/N: noise that the training spectra have themselves is learned along with them.

    Parameters
    ----------
    n_latent : int
        Numbers that a spectrum is squeezed into.
    snr : float, (low, high) or "ivar"
        S/N per pixel of the noisy spectra, drawn log-uniformly for each star and step (stars that are
        noisier stay as they are), or the errors of the spectra, which then are taken to be noise-free.
    augmentation : augmentation, optional
        Of :mod:`skspec.augmentation`: the spectra that are wanted back are augmented anew in every step,
        before the noise; those held out are augmented once.
    width : int
        Filters of the first convolution.

    Attributes
    ----------
    net_ : skorch.NeuralNetRegressor
        The trained network.
    scaler_ : FluxScaler
        From spectra to the input of the network, and back.
    history_ : dict of ndarray
        ``train_loss``, ``valid_loss`` and ``dur`` [s] of every epoch.
    n_iter_ : int
        Epochs.
    device_ : str

    Raises
    ------
    ImportError
        From ``fit``, without PyTorch and skorch (``pip install skspec[nn]``).
    ValueError
        With fewer than 3 stars, or when every pixel is bad.

    See Also
    --------
    skspec.discriminative.SpectralCNN : Takes one as its ``denoiser``.

    Notes
    -----
    ``transform`` leaves `ivar` as it is. The denoised flux is less noisy than that says, but its errors
    are those of the network, common to all pixels: they must not be averaged. Bad pixels get a flux,
    and stay bad.

    References
    ----------
    Vincent et al. 2008, ICML, 1096.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec.datasets import make_spectra
    >>> from skspec.latent import DenoisingAutoencoder
    >>> clean, _ = make_spectra(n_samples=300, n_pixels=64, snr=None, random_state=0)
    >>> model = DenoisingAutoencoder(8, snr=10, width=8, learning_rate_init=0.003, max_iter=60,
    ...                              random_state=0).fit(clean[:250])
    >>> noise = np.random.default_rng(0).normal(scale=0.1, size=(50, 64))
    >>> left = model.transform(clean[250:].flux + noise) - clean[250:].flux
    >>> bool(left.std() < 0.6 * noise.std())
    True
    """

    _capabilities = {"speed": "minutes"}
    _parameter_constraints: dict = {
        "n_latent": [Interval(Integral, 1, None, closed="left")],
        "snr": [Interval(Real, 0, None, closed="neither"), tuple, list, StrOptions({"ivar"})],
        "augmentation": [HasMethods(["augment"]), None],
        "width": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        n_latent: int = 100,
        *,
        snr: Range | str = (20.0, 100.0),
        augmentation: Augmentation | None = None,
        width: int = 32,
        **shared,
    ):
        super().__init__(**shared)
        self.n_latent = n_latent
        self.snr = snr
        self.augmentation = augmentation
        self.width = width

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: SpectraLike, y: Any = None) -> Self:
        """Train the network.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
            Spectra with as little noise as there are.
        y : ignored

        Returns
        -------
        self
        """
        from skspec.networks import FreshNoise, check_resumable, resolve_device, split_stars

        check_resumable(self.checkpoint, self.random_state)
        spectra, _ = self._validate_spectra(X, reset=True)
        if not spectra.good.any():
            raise ValueError("Every pixel of every training spectrum is bad (ivar is 0).")
        self.device_ = resolve_device(self.device)
        rng = check_random_state(self.random_state)
        fresh = FreshNoise(self.snr)
        train, valid = split_stars(spectra, self.validation_fraction, rng)
        seen = spectra
        if self.augmentation is not None:
            seen = self.augmentation.augment(spectra, random_state=rng)
        self.scaler_ = FluxScaler(seen[train], rng)
        seed = int(rng.randint(2**31 - 1))
        parts = [self._rows(spectra[train], fresh), self._arrays(seen[valid], fresh)]
        parts[1] = (fresh.once(parts[1][0], seed), *parts[1][1:])  # one draw for all epochs
        with fit_steps(self, X, y, "epochs", self.max_iter) as on_epoch:
            self._train(parts[0], parts[1], fresh, seed, on_epoch)
        return self

    def _arrays(self, spectra, fresh):
        """Inputs, and the flux wanted with the weight of each pixel."""
        x = self.scaler_.tensor(spectra)
        good = self.scaler_.image(spectra[:, self.scaler_.pixels].good)
        inputs = {"x": x} | fresh.inputs(self.scaler_, spectra)
        return inputs, x[:, : good.shape[1]], good

    def _rows(self, spectra, fresh):
        """What the network is trained on: arrays, or stars that are augmented anew for every batch."""
        if self.augmentation is None:
            return self._arrays(spectra, fresh)
        from skspec.networks import AugmentedStars

        def arrays(spectra, y):
            return self._arrays(spectra, fresh)

        return AugmentedStars(spectra, None, self.augmentation, arrays, self.device_)

    def _train(self, train, valid, fresh, seed, on_epoch):
        from skspec.networks import ConvolutionalAutoencoder, WeightedLoss

        self._fit_network(
            ConvolutionalAutoencoder,
            WeightedLoss,
            train,
            valid,
            seed=seed,
            augment=fresh,
            on_epoch=on_epoch,
            module__shape=self.scaler_.shape,
            module__n_latent=self.n_latent,
            module__width=self.width,
        )

    def _transform(self, spectra):
        used = self.scaler_.pixels
        flux = np.array(spectra.flux)
        for rows, image in self._evaluated(spectra, lambda module, x: module(x)):
            flux[rows, used] = self.scaler_.flux(image)
        blind = ~spectra.good.any(axis=1)
        flux[blind] = spectra.flux[blind]
        ivar = spectra.ivar
        if not used.all():
            ivar = np.where(used, np.inf if ivar is None else ivar, 0.0)
        return spectra.replace(flux=flux, ivar=ivar)

    def encode(self, X: SpectraLike) -> np.ndarray:
        """The numbers that each spectrum is squeezed into.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)

        Returns
        -------
        ndarray of shape (n, n_latent)
        """
        check_is_fitted(self)
        spectra, _ = self._validate_spectra(X, reset=False)
        parts = self._evaluated(spectra, lambda module, x: module.encode(x))
        return np.concatenate([z for _, z in parts])

    def _evaluated(self, spectra, function):
        """Rows, and ``function(network, input)`` of these."""
        import torch

        from skspec.networks import in_batches

        batches = in_batches(self.net_.module_, spectra, lambda s: {"x": self.scaler_.tensor(s)})
        for rows, module, inputs in batches:
            with torch.inference_mode():
                yield rows, function(module, inputs["x"]).cpu().numpy()
