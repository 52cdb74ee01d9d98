"""SpectralCNN: networks from spectra to a Gaussian over labels (StarNet and its kin)."""

from __future__ import annotations

from copy import copy
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skspec._label_values import label_values
from skspec._progress import CallbackSupportMixin, fit_steps
from skspec._sklearn import HasMethods, Interval, StrOptions, fit_context
from skspec._spectrum_domain import SpectrumDomainMixin
from skspec.base import LabelRegressor
from skspec.distributions import MultivariateNormal
from skspec.networks import FluxScaler, NetworkOptions
from skspec.solvers.statistics.mahalanobis import fit_distance, held_out_quantile

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from skspec._typing import Labels, Range, SpectraLike
    from skspec.augmentation._base import Augmentation

__all__ = ["SpectralCNN"]

BATCH = 256  # stars predicted at once
LEVEL = 0.6827  # of the intervals that are scaled to hold what they should
PRIOR_STARS = 10  # stars, of which the scale counts half


class SpectralCNN(NetworkOptions, CallbackSupportMixin, SpectrumDomainMixin, LabelRegressor):
    r"""A network from spectra to labels with a Gaussian output, trained by its likelihood.

    .. math:: \ell \sim N(\mu(x), \Sigma(x, \nu)), \quad
              \Sigma = L(x)\,\mathrm{diag}\left(a(x)^2 + \nu^2 b(x)^2\right) L(x)^T

    for a standardised spectrum :math:`x` and its noise :math:`\nu` in units of that typical in training.
    L is the identity for ``covariance="diagonal"``. Since L, a and b do not know :math:`\nu`, more noise
    never narrows an interval.

    Parameters
    ----------
    architecture : {"starnet", "residual", "attention", "strided"}, module class or module
        StarNet (Fabbro et al. 2018); residual convolutions with the orders as channels; convolutions
        with attention gates, which show what they look at (:func:`skspec.diagnostics.attention_map`);
        strided convolutions, the fastest. A torch module of your own turns spectra (n, channels,
        pixels) into features (n, any number); a class is called with the numbers of channels and
        pixels.
    covariance : {"diagonal", "full"}
        Whether the labels of a star are independent.
    architecture_params : dict, optional
        Arguments of the architecture: ``{"width": 32}``; see :mod:`skspec.networks`.
    gate : {"sigmoid", "softmax"}
        Of the attention network.
    denoiser : DenoisingAutoencoder, optional
        In front of the network. It is cloned and fitted on the training spectra;
        ``FrozenEstimator(denoiser)`` is taken as it is.
    fine_tune : bool
        Train the denoiser along with the network.
    beta_nll : float in [0, 1]
        Exponent of the variance that multiplies the likelihood of each star: 0 is the likelihood, 1
        fits the mean by least squares.
    augment_snr : float, (low, high), "ivar" or None
        Redraw noise for every batch: so that the S/N is log-uniform in this range (stars that are
        noisier stay as they are), or, on noise-free spectra, with the noise of their errors.
    augmentation : augmentation, optional
        Of :mod:`skspec.augmentation`: spectra and labels of every training batch are augmented anew. The
        stars that are held out are augmented once, and so are those that the standardisation is learned
        from. `augment_snr` acts afterwards.
    flux_errors : {"head", "jacobian", "ignore"}
        How errors of the flux become errors of the labels: :math:`\nu` above; photon variance beyond the
        mean of the training set through the Jacobian of the network; not at all.
    n_dropout_passes : int
        0 predicts without dropout; more average so many predictions with it, whose spread is added to
        the covariance (Gal & Ghahramani 2016). The architecture must have dropout.
    learning_rate_init : float
        Of AdamW; see `schedule`.
    schedule : {"one_cycle", "cosine", "plateau", None}
        Of the learning rate; see :func:`skspec.networks.fit_network`.
    validation_fraction : float
        Of the stars, at least 20 of them or a quarter: held out to stop in time, to choose the best
        state, to scale the errors and for the unit of :meth:`domain_score`.
    warm_start : bool
        Go on from the weights and the standardisation of the last ``fit``.
    random_state : int, RandomState instance or None
        Of the held-out stars, initial weights, batches, noise and dropout.
    ivar : {"auto", "require", "ignore"}
        Take flux errors where they are given, insist on them, or leave them aside.

    Attributes
    ----------
    net_ : skorch.NeuralNetRegressor
        The trained network; ``net_.module_`` is the torch module.
    history_ : dict of ndarray
        ``train_loss``, ``valid_loss`` and ``dur`` [s] of every epoch.
    n_iter_ : int
        Epochs.
    device_ : str
    scaler_ : FluxScaler
        From spectra to the input of the network.
    label_mean_, label_scale_ : ndarray of shape (K,)
        Standardisation of the labels.
    error_scale_ : ndarray of shape (K,)
        Factor of the standard deviations, with which 68 % of the held-out stars are within one.
    denoiser_ : DenoisingAutoencoder
        The denoiser as it was fitted, before any fine-tuning.

    Raises
    ------
    ImportError
        From ``fit``, without PyTorch and skorch (``pip install skspec[nn]``).
    ValueError
        With fewer than 3 stars, and when the training diverges.

    References
    ----------
    Fabbro et al. 2018, MNRAS 475, 2978. Oktay et al. 2018, arXiv:1804.03999. Seitzer et al. 2022,
    arXiv:2203.09168. Gal & Ghahramani 2016, arXiv:1506.02142.

    Examples
    --------
    >>> from skspec.datasets import make_spectra
    >>> from skspec.discriminative import SpectralCNN
    >>> spectra, labels = make_spectra(n_samples=200, n_pixels=100, random_state=0)
    >>> model = SpectralCNN(max_iter=20, random_state=0).fit(spectra[:150], labels[:150])
    >>> model.predict_dist(spectra[150:])
    <MultivariateNormal of teff, logg, feh: 50 stars>
    """

    _capabilities = {"follows_noise": True, "speed": "minutes"}
    _parameter_constraints: dict = {
        "architecture": [StrOptions({"starnet", "residual", "attention", "strided"}), callable],
        "covariance": [StrOptions({"diagonal", "full"})],
        "architecture_params": [dict, None],
        "gate": [StrOptions({"sigmoid", "softmax"})],
        "denoiser": [HasMethods(["fit", "transform"]), None],
        "fine_tune": ["boolean"],
        "beta_nll": [Interval(Real, 0, 1, closed="both")],
        "augment_snr": [
            StrOptions({"ivar"}),
            Interval(Real, 0, None, closed="neither"),
            tuple,
            list,
            None,
        ],
        "augmentation": [HasMethods(["augment"]), None],
        "flux_errors": [StrOptions({"head", "jacobian", "ignore"})],
        "n_dropout_passes": [Interval(Integral, 0, None, closed="left")],
        "schedule": [StrOptions({"one_cycle", "cosine", "plateau"}), None],
        "warm_start": ["boolean"],
        "ivar": [StrOptions({"auto", "require", "ignore"})],
    }

    def __init__(
        self,
        architecture: str | Any = "starnet",
        covariance: str = "diagonal",
        *,
        architecture_params: dict[str, Any] | None = None,
        gate: str = "sigmoid",
        denoiser: BaseEstimator | None = None,
        fine_tune: bool = False,
        beta_nll: float = 0.5,
        augment_snr: Range | str | None = None,
        augmentation: Augmentation | None = None,
        flux_errors: str = "head",
        n_dropout_passes: int = 0,
        schedule: str | None = "one_cycle",
        n_iter_no_change: int = 50,
        warm_start: bool = False,
        ivar: str = "auto",
        **shared,
    ):
        super().__init__(n_iter_no_change=n_iter_no_change, **shared)
        self.architecture = architecture
        self.covariance = covariance
        self.architecture_params = architecture_params
        self.gate = gate
        self.denoiser = denoiser
        self.fine_tune = fine_tune
        self.beta_nll = beta_nll
        self.augment_snr = augment_snr
        self.augmentation = augmentation
        self.flux_errors = flux_errors
        self.n_dropout_passes = n_dropout_passes
        self.schedule = schedule
        self.warm_start = warm_start
        self.ivar = ivar

    # -- training ----------------------------------------------------------------------------------

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: SpectraLike, y: Labels) -> Self:
        """Train the network.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
            Training spectra. Several spectra of one star (``star_id`` or ``group_id`` in ``meta``) are
            held out together.
        y : array-like of shape (n, K) or (n,)
            Training labels.

        Returns
        -------
        self
        """
        goes_on = self.warm_start and hasattr(self, "net_")
        spectra, y = self._validate_more(X, y) if goes_on else self._validate_fit(X, y)
        with fit_steps(self, X, y, "epochs", self.max_iter) as on_epoch:
            self._learn(
                spectra,
                y,
                goes_on,
                schedule=self.schedule,
                checkpoint=self.checkpoint,
                on_epoch=on_epoch,
            )
        return self

    @fit_context(prefer_skip_nested_validation=False)
    def partial_fit(self, X: SpectraLike, y: Labels) -> Self:
        """One epoch over more stars, at a constant learning rate.

        The first call sets the standardisation: give it a fair sample of all stars. Every call holds out
        `validation_fraction` of its own stars, and scales errors and domain scores by these.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
        y : array-like of shape (n, K) or (n,)

        Returns
        -------
        self
        """
        goes_on = hasattr(self, "net_")
        spectra, y = self._validate_more(X, y) if goes_on else self._validate_fit(X, y)
        self._learn(spectra, y, goes_on, n_epochs=1, schedule=None, checkpoint=None)
        return self

    def _validate_more(self, X, y):
        """Spectra and labels (n, K), checked against those of the first fit."""
        spectra, y = self._validate_spectra(X, y, reset=False)
        y = np.asarray(y, dtype=float).reshape(len(spectra), -1)
        if y.shape[1] != len(self.label_names_in_):
            raise ValueError(
                f"This network has been fitted to {len(self.label_names_in_)} labels "
                f"({', '.join(self.label_names_in_)}), and now gets {y.shape[1]}; use a new one."
            )
        return self._apply_ivar_policy(spectra), y

    def _learn(self, spectra, y, goes_on, **options):
        from skspec.networks import check_resumable, resolve_device, split_stars

        check_resumable(options.get("checkpoint"), self.random_state)
        self.device_ = resolve_device(self.device)
        rng = check_random_state(self.random_state)
        order = np.lexsort(y.T)  # whatever the order in which the stars came
        spectra, y = spectra[order], y[order]
        train, valid = split_stars(spectra, self.validation_fraction, rng)
        observed, seen = self._observed(spectra, y, rng)
        if not goes_on:
            self.uses_ivar_ = observed.has_errors
            self._prepare(spectra[train], observed[train], seen, rng)
        held_out = self._known(observed[valid]), self._target(seen[valid])
        state = self.net_.module_.state_dict() if goes_on else None
        self._seed = int(rng.randint(2**31 - 1))
        self._train(self._rows(spectra[train], y[train]), held_out, state=state, **options)
        self._measure(observed, seen, train, valid)

    def _observed(self, spectra, y, rng):
        """Spectra and labels as the network gets them: augmented once, with noise."""
        if self.augmentation is not None:
            augmented = self.augmentation.augment(spectra, self._named_labels(y), random_state=rng)
            spectra, y = self._apply_ivar_policy(augmented[0]), _matrix(augmented[1])
        if self.augment_snr == "ivar":
            error = np.where(spectra.good, spectra.flux_err, 0.0)
            spectra = spectra.replace(flux=spectra.flux + error * rng.normal(size=spectra.shape))
        return spectra, y

    def _prepare(self, spectra, observed, y, rng):
        """Standardisation of labels and of the flux as it is observed; the denoiser."""
        self._varies = np.ptp(y, axis=0) > 0
        self._varies[0] |= not self._varies.any()
        spread = y.std(axis=0)
        self.label_mean_ = np.where(self._varies, y.mean(axis=0), y[0])
        self.label_scale_ = np.where(self._varies & (spread > 0), spread, 1.0)
        if self.denoiser is None:
            self.scaler_ = FluxScaler(observed, rng)
        else:
            self.denoiser_ = clone(self.denoiser).fit(spectra, None)
            self.scaler_ = copy(self._denoiser_scaler(spectra))
            self.scaler_.learn_noise(observed)
        self._knows_noise = self.uses_ivar_ and self.flux_errors == "head"
        self._noise_unit = self._typical_noise(observed)

    def _typical_noise(self, spectra):
        """Noise level of most batches: of the stars, with the noise that is added to them."""
        level = self.scaler_.noise_level(spectra)
        if self.augment_snr not in (None, "ivar") and spectra.has_errors:
            snr = spectra.snr / np.exp(np.mean(np.log(self.augment_snr)))
            level = level * np.fmax(snr, 1.0)
        return float(np.median(level))

    def _denoiser_scaler(self, spectra):
        scaler = getattr(self.denoiser_, "scaler_", None)
        if scaler is None:
            raise ValueError(
                "denoiser must be a DenoisingAutoencoder, which is trained along; put other "
                f"transformers, such as {type(self.denoiser_).__name__}, in front in a Pipeline."
            )
        if len(scaler.pixels) != spectra.shape[1]:
            raise ValueError(
                f"The denoiser was fitted to {len(scaler.pixels)} pixels, these spectra have "
                f"{spectra.shape[1]}."
            )
        return scaler

    def _target(self, y):
        """Standardised labels (n, those that vary)."""
        return ((_matrix(y) - self.label_mean_) / self.label_scale_)[:, self._varies]

    def _rows(self, spectra, y):
        """What the network is trained on: arrays, or stars that are augmented anew for every batch."""
        if self.augmentation is None:
            return self._training_arrays(spectra, y)
        from skspec.networks import AugmentedStars

        return AugmentedStars(
            spectra, self._named_labels(y), self.augmentation, self._training_arrays, self.device_
        )

    def _training_arrays(self, spectra, y):
        """Named inputs of the network, what redraws their noise, and the target."""
        from skspec.networks import FreshNoise

        spectra = self._apply_ivar_policy(spectra)
        inputs = self._known(spectra)
        if self.augment_snr is not None:
            inputs |= FreshNoise(self.augment_snr).inputs(self.scaler_, spectra)
        return inputs, self._target(y)

    def _train(self, train, valid, **options):
        from skspec.networks import FreshNoise, GaussianLoss, SpectralNetwork

        self._fit_network(
            SpectralNetwork,
            GaussianLoss,
            train,
            valid,
            **options,
            seed=self._seed,
            n_threads=self._n_threads(valid[0]["x"][0].size),
            augment=None if self.augment_snr is None else FreshNoise(self.augment_snr),
            criterion__beta=self.beta_nll,
            criterion__rescale=True,
            **{f"module__{key}": value for key, value in self._module(self._varies.sum()).items()},
        )

    def _module(self, n_labels):
        """Arguments of the SpectralNetwork."""
        parameters = dict(self.architecture_params or {})
        if self.architecture == "attention":
            parameters = {"gate": self.gate} | parameters
        return {
            "architecture": self.architecture,
            "shape": self.scaler_.shape,
            "n_labels": n_labels,
            "parameters": parameters,
            "denoiser": None if self.denoiser is None else self.denoiser_.net_.module_,
            "fine_tune": self.fine_tune,
            "covariance": self.covariance,
            "knows_noise": self._knows_noise,
        }

    def _measure(self, spectra, y, train, valid):
        """Scale of the errors, and the unit of the domain score."""
        self.error_scale_ = np.ones(y.shape[1])
        seen = spectra.good.any(axis=1)  # augmentation may have made stars blind
        train, valid = (rows[seen[rows]] if seen[rows].any() else rows for rows in (train, valid))
        dist = self._dist(spectra[valid])
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.abs((y[valid] - dist.mean()) / dist.std())
        scale = np.quantile(z, LEVEL, axis=0)
        trust = len(valid) / (len(valid) + PRIOR_STARS)
        usable = self._varies & np.isfinite(scale) & (scale > 0)
        self.error_scale_[usable] = scale[usable] ** trust
        self._fit_domain(spectra[train])
        features = self._features(spectra[train]), self._features(spectra[valid])
        self._distance = fit_distance(features[0])
        self._far = held_out_quantile(self._distance, *features)
        self._domain_unit = 1.0  # two scores, of which the larger counts: more than 1 in 100
        self._domain_unit = max(1.0, np.nanquantile(self._domain(spectra[valid]), 0.99))

    # -- prediction --------------------------------------------------------------------------------

    def predict_dist(self, X: SpectraLike) -> MultivariateNormal:
        """Distribution of the labels.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
            Spectra.

        Returns
        -------
        MultivariateNormal
            NaN, with infinite errors, for a star without a good pixel.
        """
        return self._dist(self._validate_predict(X))

    def _dist(self, spectra):
        mean, cov = self._moments(spectra)
        mean = mean * self.label_scale_ + self.label_mean_
        unit = self.label_scale_ * self.error_scale_
        cov *= unit[:, None] * unit
        if self.flux_errors == "jacobian" and self.uses_ivar_ and spectra.has_errors:
            cov += self._excess_noise(spectra)
        blind = ~spectra.good.any(axis=1)
        mean[blind] = np.nan
        cov[blind] = np.diag(np.full(mean.shape[1], np.inf))
        names = self.label_names_in_
        if np.count_nonzero(cov) == np.count_nonzero(np.diagonal(cov, axis1=1, axis2=2)):
            scale = np.sqrt(np.diagonal(cov, axis1=1, axis2=2))
            return MultivariateNormal(mean, scale=scale, label_names=names)
        return MultivariateNormal(mean, cov=cov, label_names=names)

    def _moments(self, spectra):
        """Means (n, K) and covariances (n, K, K) of standardised labels."""
        import torch

        n_labels = len(self._varies)
        mean, cov = np.zeros((len(spectra), n_labels)), np.zeros((len(spectra), n_labels, n_labels))
        free = np.flatnonzero(self._varies)
        for rows, module, inputs in self._batches(spectra):
            with torch.inference_mode():
                if self.n_dropout_passes:
                    part, spread = self._dropout_moments(module, inputs)
                else:
                    part, spread = _gaussian(*module(**inputs))
            mean[rows, free] = part
            cov[rows][:, free[:, None], free] = spread
        return mean, cov

    def _batches(self, spectra):
        """Rows, network and its inputs, batch by batch."""
        from skspec.networks import in_batches

        return in_batches(self.net_.module_, spectra, self._known)

    def _known(self, spectra):
        """Named inputs of the network."""
        inputs = {"x": self.scaler_.tensor(spectra)}
        if self._knows_noise:
            inputs["noise"] = self.scaler_.noise_level(spectra) / self._noise_unit
        return inputs

    def _dropout_moments(self, module, inputs):
        """Moments of the mixture of several predictions, each with other features left out."""
        import torch

        device = inputs["x"].device
        module.sample_dropout(True)
        means, covs = [], []
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            for number in range(self.n_dropout_passes):
                torch.manual_seed(self._seed + number)  # of each batch the same
                part, spread = _gaussian(*module(**inputs))
                means.append(part)
                covs.append(spread)
        module.sample_dropout(False)
        mixture = MultivariateNormal.mixture(
            [MultivariateNormal(m, cov=c) for m, c in zip(means, covs)]
        )
        return mixture.mean(), mixture.cov()

    def _excess_noise(self, spectra):
        """Covariance (n, K, K) by photon noise beyond that of the training stars."""
        variance = np.where(spectra.good, spectra.variance, 0.0)
        excess = np.zeros(spectra.shape)
        used = self.scaler_.pixels
        excess[:, used] = np.maximum(variance[:, used] - self.scaler_.mean_variance, 0.0)
        out = np.zeros((len(spectra), len(self._varies), len(self._varies)))
        for start in range(0, len(spectra), BATCH):
            rows = slice(start, start + BATCH)
            J = self._gradient(spectra[rows])
            out[rows] = (J * excess[rows, None, :]) @ np.swapaxes(J, 1, 2)
        return out

    def label_gradient(self, X: SpectraLike) -> np.ndarray:
        """Derivative of the labels with respect to the flux of each pixel.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)

        Returns
        -------
        ndarray of shape (n, K, P)
            0 at bad pixels; what the good ones tell of these is held fixed.
        """
        return self._gradient(self._validate_predict(X))

    def _gradient(self, spectra):
        import torch

        out = np.zeros((len(spectra), len(self._varies), spectra.shape[1]))
        n_orders = self.scaler_.shape[1]
        for rows, module, inputs in self._batches(spectra):
            x = inputs["x"].requires_grad_()
            mean = module(**inputs)[0]
            for column, label in enumerate(np.flatnonzero(self._varies)):
                (slope,) = torch.autograd.grad(mean[:, column].sum(), x, retain_graph=True)
                slope = slope[:, :n_orders].cpu().numpy()
                out[rows, label] = self.scaler_.spectrum(slope)
        out[:, :, self.scaler_.pixels] /= self.scaler_.scale
        return out * self.label_scale_[:, None] * spectra.good[:, None]

    # -- what the network sees ---------------------------------------------------------------------

    def domain_score(self, X: SpectraLike) -> np.ndarray:
        """How far spectra are from the training set, as pixels and as the network sees them.

        The larger of two Mahalanobis distances from the training stars: of the features in the last
        hidden layer, in the metric of their shrunk covariance, and of the spectrum itself from its
        principal components (what the network ignores may still be unusual). The unit is the 99th
        percentile of stars that were not trained on: of stars like these, 1 in 100 scores above 1.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)

        Returns
        -------
        ndarray of shape (n,)
            NaN for a star without a good pixel.
        """
        return self._domain(self._validate_predict(X))

    def _domain(self, spectra):
        outside = self.domain_.score(spectra.flux, spectra.good, spectra.variance)
        inside = self._distance(self._features(spectra)) / self._far
        return np.where(np.isnan(outside), np.nan, np.maximum(inside, outside)) / self._domain_unit

    def _features(self, spectra):
        """Last hidden layer (n, features), in double precision."""
        import torch

        with torch.inference_mode():
            parts = [
                module.features(inputs["x"]).double().cpu().numpy()
                for _, module, inputs in self._batches(spectra)
            ]
        return np.concatenate(parts)

    def attention(self, X: SpectraLike) -> np.ndarray:
        """Attention of each pixel, relative to the mean over pixels, of an attention network.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)

        Returns
        -------
        ndarray of shape (n, P)
            0 at pixels that were bad in all training stars.

        Raises
        ------
        ValueError
            When the architecture has no attention.
        """
        import torch

        check_is_fitted(self)
        if not hasattr(self.net_.module_.body, "attention"):
            raise ValueError(
                f"architecture={self.architecture!r} has no attention; use "
                "SpectralCNN(architecture='attention')."
            )
        spectra = self._validate_predict(X)
        out = np.empty(spectra.shape)
        with torch.inference_mode():
            for rows, module, inputs in self._batches(spectra):
                image = module.attention(inputs["x"]).cpu().numpy()
                out[rows] = self.scaler_.spectrum(image)
        return out


def _matrix(y):
    """Labels (n, K)."""
    y = label_values(y)
    return y.reshape(len(y), -1)


def _gaussian(mean, variance, factor):
    """Means (n, K) and covariances (n, K, K) in double precision, from the output of the network."""
    mean, variance = mean.double().cpu().numpy(), variance.double().cpu().numpy()
    if factor is None:
        factor = np.broadcast_to(np.eye(mean.shape[1]), (*mean.shape, mean.shape[1]))
    else:
        factor = factor.double().cpu().numpy()
    return mean, (factor * variance[:, None, :]) @ np.swapaxes(factor, 1, 2)
