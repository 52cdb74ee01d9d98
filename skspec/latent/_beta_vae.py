"""BetaVAE: what varies among spectra, found without labels."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted

from skspec._label_values import label_names, label_values
from skspec._progress import CallbackSupportMixin, fit_steps
from skspec._sklearn import HasMethods, Interval, StrOptions, fit_context
from skspec.base import LabelRegressor, warn_of_correlated_labels
from skspec.distributions import MultivariateNormal
from skspec.latent._label_head import LabelHead, check_labelled, default_head
from skspec.latent._nodes import node_dispersion
from skspec.model_selection import star_groups
from skspec.networks import FluxScaler, NetworkOptions
from skspec.solvers.statistics.gaussian_divergence import gaussian_divergence
from skspec.spectra import Spectra

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from sklearn.base import BaseEstimator

    from skspec._typing import Labels, RandomState, SpectraLike

__all__ = ["BetaVAE"]

N_DRAWS = 8  # of the posterior, to take its mean
BLOCK = 2**22  # numbers of the spectra that are judged at once
MAX_STARS, MIN_STARS = 1000, 50  # that are standardised by, of those that are streamed


class BetaVAE(
    NetworkOptions,
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    LabelRegressor,
):
    r"""A few independent numbers that tell spectra apart, learned from spectra alone.

    An encoder turns a standardised spectrum x into a Gaussian :math:`q(z|x) = N(\mu_d, \varsigma_d^2)`
    of latent numbers, a decoder turns these into a spectrum :math:`\hat x(z)`. They are trained
    together to minimise

    .. math:: \mathrm{E}_{z \sim q} \sum_j \tfrac12 \left[\frac{(x_j - \hat x_j)^2}{\sigma_j^2 + s_j^2}
              + \ln(\sigma_j^2 + s_j^2)\right]
              + \beta \sum_d \tfrac12 \left[\mu_d^2 + \varsigma_d^2 - 1 - \ln \varsigma_d^2\right]

    over good pixels j with photon noise :math:`\sigma_j` (from `ivar`) and a scatter :math:`s_j` per
    pixel, which is learned. :math:`\beta = 1` bounds the evidence. A larger :math:`\beta` makes every
    latent number dearer: those that do not pay for themselves collapse to :math:`\mu_d = 0`, and what
    is left is less entangled. :func:`beta_sweep` chooses it, :func:`informative_nodes` counts what is
    left, and :func:`latent_mutual_information` tells what it means.

    Parameters
    ----------
    n_latent : int
        Latent numbers ("nodes"), more than are needed.
    beta : float
        Weight of the second term; 0 is a deterministic autoencoder: nothing is drawn.
    reduction : {"sum", "mean"}
        Of the first term over pixels. With "mean" the same `beta` weighs P times as much.
    architecture : {"convolutional", "dense", "harps"}
        Convolutions of stride 2, as many as leave at least 20 pixels; dense layers, faster on a CPU
        for up to a few thousand pixels; the published network of 14 strides for up to 327 680 pixels
        (7 046 997 parameters with 128 latent numbers).
    architecture_params : dict, optional
        ``{"width": 16, "depth": 6}`` of the convolutions; ``{"hidden": (512, 256)}`` of dense layers,
        ``"straight": True`` for linear paths beside them, which help with a few hundred stars.
    head : regressor, optional
        From informative latent numbers to labels, where `fit` gets labels; default: ridge regression on
        the numbers, their squares and products.
    threshold : float
        Nodes of a larger median absolute deviation are informative.

    Attributes
    ----------
    net_ : skorch.NeuralNetRegressor
        The trained network.
    scaler_ : FluxScaler
        From spectra to the input of the network, and back.
    scatter_ : ndarray of shape (P,)
        Scatter of each pixel that the latent numbers do not explain, in the unit of the flux; NaN at
        pixels that were bad in all training stars.
    node_dispersion_ : ndarray of shape (n_latent,)
        Median absolute deviation of each node over the training spectra.
    informative_ : ndarray of bool of shape (n_latent,)
        Where that is above `threshold`.
    head_ : LabelHead
        After a fit with labels.
    label_names_in_ : list of str
        Names of the labels.
    history_ : dict of ndarray
        ``train_loss``, ``valid_loss`` and ``dur`` [s] of every epoch.
    n_iter_ : int
        Epochs.
    device_ : str
    wavelength_ : ndarray of shape (P,) or None
        Wavelength grid of the training spectra [Angstrom].

    Raises
    ------
    ImportError
        From ``fit``, without PyTorch and skorch (``pip install skspec[nn]``).
    ValueError
        With fewer than 3 stars, when every pixel is bad, or when training diverges.

    See Also
    --------
    beta_sweep : Choose beta.
    informative_nodes, latent_mutual_information : Which nodes mean something, and what.
    latent_traversal : Spectra along a node.

    Notes
    -----
    Weights of stars are taken from ``X.meta["weight"]``; see :func:`balancing_weights`.

    Nodes have no order and no sign, and others come out of another seed. Bad pixels are replaced for the
    encoder by what linear principal components expect from the good ones.

    A star without a good pixel has NaN for latent numbers.

    References
    ----------
    Sedaghat, Romaniello, Carrick & Pineau 2021, MNRAS 501, 6026 (arXiv:2009.12872). Higgins et al. 2017,
    ICLR.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec.datasets import make_spectra
    >>> from skspec.latent import BetaVAE
    >>> spectra, labels = make_spectra(n_samples=400, n_pixels=100, labels=["teff"], random_state=0)
    >>> model = BetaVAE(4, architecture="dense", architecture_params={"hidden": (64,)},
    ...                 learning_rate_init=0.003, max_iter=60, random_state=0).fit(spectra[:300])
    >>> node = np.argmax(model.node_dispersion_)
    >>> z = model.transform(spectra[300:])[:, node]
    >>> bool(abs(np.corrcoef(z, labels["teff"][300:])[0, 1]) > 0.95)
    True
    """

    _capabilities = {"out_of_core": True, "speed": "minutes"}
    _parameter_constraints: dict = {
        "n_latent": [Interval(Integral, 1, None, closed="left")],
        "beta": [Interval(Real, 0, None, closed="left")],
        "reduction": [StrOptions({"sum", "mean"})],
        "architecture": [StrOptions({"convolutional", "dense", "harps"})],
        "architecture_params": [dict, None],
        "head": [HasMethods(["fit", "predict"]), None],
        "threshold": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        n_latent: int = 128,
        *,
        beta: float = 1.0,
        reduction: str = "sum",
        architecture: str = "convolutional",
        architecture_params: dict[str, Any] | None = None,
        head: BaseEstimator | None = None,
        threshold: float = 0.02,
        **shared,
    ):
        super().__init__(**shared)
        self.n_latent = n_latent
        self.beta = beta
        self.reduction = reduction
        self.architecture = architecture
        self.architecture_params = architecture_params
        self.head = head
        self.threshold = threshold

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        tags.regressor_tags.poor_score = True  # score is no R2
        return tags

    @property
    def _n_features_out(self):
        return self.n_latent

    # -- training ----------------------------------------------------------------------------------

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: SpectraLike, y: Labels | None = None) -> Self:
        """Train the network, and with labels also the head.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
            Spectra, labelled or not.
        y : array-like of shape (n, K) or (n,), optional
            Labels, NaN where they are not known. The network does not see them.

        Returns
        -------
        self
        """
        from skspec.networks import check_resumable, resolve_device, split_stars

        check_resumable(self.checkpoint, self.random_state)
        spectra = self._validate_training(X)
        y = self._validate_labels(y, len(spectra))
        if not is_streamed(spectra):  # whatever the order in which the stars came
            order = _order(spectra)
            spectra, y = spectra[order], y if y is None else y[order]
        self.device_ = resolve_device(self.device)
        rng = check_random_state(self.random_state)
        train, valid = split_stars(spectra, self.validation_fraction, rng)
        if y is not None:
            check_labelled(y)
        self._weight_unit = _mean_weight(spectra, train)
        self.scaler_ = FluxScaler(_some(spectra, train, rng), rng)
        seed = int(rng.randint(2**31 - 1))
        parts = self._rows(spectra, train), self._rows(spectra, valid)
        with fit_steps(self, X, y, "epochs", self.max_iter) as on_epoch:
            self._train(*parts, seed, on_epoch)
        self._interpret(spectra, y)
        unit = np.nanquantile(self._by_block(self._reduced_chi2, _some(spectra, valid, rng)), 0.99)
        self._domain_unit = float(unit) or 1.0
        return self

    def _validate_training(self, X):
        """Checked spectra; what is streamed is checked by its first spectrum."""
        spectra, _ = self._validate_spectra(X[:1] if is_streamed(X) else X, reset=True)
        self.uses_ivar_ = spectra.has_errors
        if is_streamed(X):
            return X
        if not spectra.good.any():
            raise ValueError("Every pixel of every training spectrum is bad (ivar is 0).")
        return spectra

    def _validate_predict(self, X):
        if not is_streamed(X):
            return super()._validate_predict(X)
        super()._validate_predict(X[:1])
        return X

    def _validate_labels(self, y, n):
        """Labels (n, K), NaN where unknown; None without any."""
        for name in ("head_", "label_names_in_"):
            self.__dict__.pop(name, None)
        if y is None:
            return None
        names = label_names(y)
        y = check_array(
            label_values(y),
            ensure_2d=False,
            dtype=float,
            ensure_all_finite="allow-nan",
            input_name="y",
        )
        self._y_is_vector = y.ndim == 1
        y = y.reshape(len(y), -1)
        if len(y) != n:
            raise ValueError(f"X and y have inconsistent numbers of samples: [{n}, {len(y)}].")
        self.label_names_in_ = names or [f"label_{k}" for k in range(y.shape[1])]
        warn_of_correlated_labels(y, self.label_names_in_)
        return y

    def _arrays(self, spectra):
        """Input of the network; flux wanted, its variance (infinite where bad), weights of stars."""
        scaler = self.scaler_
        x = scaler.tensor(spectra)
        weight = np.asarray(spectra.meta.get("weight", np.ones(len(spectra))), dtype=float)
        weight = weight / self._weight_unit
        if scaler.shape[0] == 1 and spectra.ivar is None:  # all pixels are good, and alike
            return {"x": x}, x, np.zeros((len(x), 1, 1), dtype=np.float32), weight
        variance = np.empty((len(x), *scaler.shape[1:]), dtype=np.float32)
        step = max(1, BLOCK // spectra.shape[1])
        for start in range(0, len(x), step):
            rows = slice(start, start + step)
            variance[rows] = self._variance(spectra[rows, scaler.pixels])
        return {"x": x}, x[:, : scaler.shape[1]], variance, weight

    def _variance(self, spectra):
        """Photon variance as images of standardised flux; infinite where there is no good pixel."""
        good = self.scaler_.image(spectra.good)
        variance = np.where(spectra.good, spectra.variance, 0.0) / self.scaler_.scale**2
        return np.where(good > 0, self.scaler_.image(variance), np.float32(np.inf))

    def _rows(self, spectra, rows):
        """What the network is trained or validated on: arrays, or a stream of them."""
        from skspec.networks import StarStream

        if is_streamed(spectra):
            return StarStream(spectra, rows, self._arrays, self.device_)
        return self._arrays(spectra[rows])

    def _train(self, train, valid, seed, on_epoch):
        from skspec.networks import EvidenceLoss, VariationalAutoencoder

        shape = self.scaler_.shape
        self._fit_network(
            VariationalAutoencoder,
            EvidenceLoss,
            train,
            valid,
            seed=seed,
            n_threads=self._n_threads(np.prod(shape)),
            on_epoch=on_epoch,
            module__shape=shape,
            module__n_latent=self.n_latent,
            module__architecture=self.architecture,
            module__parameters=self.architecture_params,
            module__sampled=self.beta > 0,
            criterion__shape=shape[1:],
            criterion__beta=self.beta,
            criterion__reduction=self.reduction,
        )

    def _interpret(self, spectra, y):
        """Which nodes are informative, and what they say of the labels."""
        scatter = self.net_.criterion_.scatter.detach().double().cpu().numpy()
        self.scatter_ = np.full(len(self.scaler_.pixels), np.nan)
        self.scatter_[self.scaler_.pixels] = self.scaler_.flux(scatter[None])[0] - self.scaler_.mean
        latents = self._posterior(spectra)[0]
        self.node_dispersion_ = node_dispersion(latents)["mad"].to_numpy()
        self.informative_ = self.node_dispersion_ > self.threshold
        if y is None:
            return
        head = default_head() if self.head is None else self.head
        self.head_ = LabelHead(head, latents[:, self._used_nodes()], y, star_groups(spectra))

    def _used_nodes(self):
        """Informative nodes; all where there is none."""
        return self.informative_ if self.informative_.any() else ~self.informative_

    # -- what it says of spectra -------------------------------------------------------------------

    def transform(
        self, X: SpectraLike, return_std: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Latent numbers of each spectrum.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
        return_std : bool
            Also return the standard deviations of the posterior.

        Returns
        -------
        mean : ndarray of shape (n, n_latent)
            NaN for a star without a good pixel.
        std : ndarray of shape (n, n_latent)
            Only with ``return_std=True``; 0 for ``beta=0``.
        """
        mean, std = self._posterior(self._validate_predict(X))
        return (mean, std) if return_std else mean

    def inverse_transform(self, X: ArrayLike) -> np.ndarray:
        """Flux of given latent numbers.

        Parameters
        ----------
        X : array-like of shape (n, n_latent)
            Latent numbers.

        Returns
        -------
        ndarray of shape (n, P)
            NaN at pixels that were bad in all training stars.
        """
        check_is_fitted(self)
        z = check_array(X, dtype=float)
        if z.shape[1] != self.n_latent:
            raise ValueError(
                f"X has {z.shape[1]} columns; this model has {self.n_latent} latent numbers."
            )
        return self._decoded(z)

    def sample(self, n_samples: int = 1, random_state: RandomState | None = None) -> np.ndarray:
        """Spectra of latent numbers drawn from the prior.

        Parameters
        ----------
        n_samples : int
        random_state : int, RandomState instance or None

        Returns
        -------
        ndarray of shape (n_samples, P)
            Without noise.
        """
        rng = check_random_state(random_state)
        return self.inverse_transform(rng.normal(size=(n_samples, self.n_latent)))

    def score_samples(self, X: SpectraLike) -> np.ndarray:
        """Evidence lower bound of each spectrum [nat], with beta = 1.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)

        Returns
        -------
        ndarray of shape (n,)
            Of the flux in its own unit, over good pixels; NaN for a star without any. The expectation
            is taken over 8 latent draws, the same for all spectra.
        """
        return self._by_block(self._evidence, self._validate_predict(X))

    def _evidence(self, spectra):
        mean, std = self._posterior(spectra)
        draws = np.random.default_rng(0).standard_normal((N_DRAWS, self.n_latent))
        misfit = sum(self._log_likelihood(spectra, mean + std * draw) for draw in draws) / N_DRAWS
        if self.beta == 0:
            return misfit
        return misfit - gaussian_divergence(mean, std**2, 2.0 * np.log(std)).sum(axis=1)

    def score(self, X: SpectraLike, y: Any = None) -> float:  # type: ignore[override]
        """Mean evidence lower bound of the spectra [nat]; larger is better.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
        y : ignored

        Returns
        -------
        float
        """
        return float(np.nanmean(self.score_samples(X)))

    def predict_dist(self, X: SpectraLike) -> MultivariateNormal:
        """Distribution of the labels, after a fit with labels.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)

        Returns
        -------
        MultivariateNormal
            With the covariance of the head's held-out errors, the same for all stars; NaN, with
            infinite errors, for a star without a good pixel.

        Raises
        ------
        NotFittedError
            When `fit` got no labels.
        """
        check_is_fitted(self)
        if not hasattr(self, "head_"):
            raise NotFittedError("This BetaVAE was fitted without labels; call fit(X, y).")
        latents = self._posterior(self._validate_predict(X))[0][:, self._used_nodes()]
        lost = np.isnan(latents).any(axis=1)
        mean = self.head_(np.where(lost[:, None], 0.0, latents))
        cov = np.repeat(self.head_.covariance[None], len(mean), axis=0)
        return self._distribution(mean, cov, lost)

    def domain_score(self, X: SpectraLike) -> np.ndarray:
        """How far each spectrum is from those that the network reconstructs.

        Its reduced chi2 against its reconstruction, in units of the 99th percentile of stars that were
        not trained on.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)

        Returns
        -------
        ndarray of shape (n,)
            NaN for a star without a good pixel.
        """
        return self._by_block(self._reduced_chi2, self._validate_predict(X)) / self._domain_unit

    # -- the network -------------------------------------------------------------------------------

    def _posterior(self, spectra):
        """Means and standard deviations (n, D) of the latent numbers."""
        mean = np.full((len(spectra), self.n_latent), np.nan)
        std = mean.copy()
        blind = []

        def inputs(part):
            blind.append(~part.good.any(axis=1))
            return {"x": self.scaler_.tensor(part)}

        for rows, module, batch in self._batches(spectra, inputs):
            centre, log_variance = module.encode(**batch)
            mean[rows] = centre.cpu().numpy()
            std[rows] = 0.0 if log_variance is None else (0.5 * log_variance).exp().cpu().numpy()
        blind = np.concatenate(blind)
        mean[blind], std[blind] = np.nan, np.nan
        return mean, std

    def _decoded(self, latents):
        """Flux (n, P) of latent numbers; NaN at pixels that are not used."""
        out = np.full((len(latents), len(self.scaler_.pixels)), np.nan)
        for rows, module, inputs in self._batches(latents, lambda z: {"z": z}):
            image = module.decode(**inputs).cpu().numpy()
            out[rows, self.scaler_.pixels] = self.scaler_.flux(image)
        return out

    def _batches(self, rows, inputs):
        import torch

        from skspec.networks import in_batches

        with torch.inference_mode():
            yield from in_batches(self.net_.module_, rows, inputs)

    def _by_block(self, function, spectra):
        """Values (n,) of a function of spectra, of a bounded number at a time."""
        step = max(1, BLOCK // spectra.shape[1])
        starts = range(0, len(spectra), step)
        return np.concatenate([function(spectra[start : start + step]) for start in starts])

    def _log_likelihood(self, spectra, latents):
        """Of each spectrum (n,), given latent numbers."""
        chi2, variance, good = self._misfit(spectra, latents)
        terms = -0.5 * (chi2 + np.log(2 * np.pi * variance))
        blind = ~good.any(axis=1)
        return np.where(blind, np.nan, np.sum(terms, axis=1, where=good))

    def _reduced_chi2(self, spectra):
        """Mean squared residual of each reconstruction (n,), in units of its variance."""
        chi2, _, good = self._misfit(spectra, self._posterior(spectra)[0])
        number = good.sum(axis=1)
        total = np.sum(chi2, axis=1, where=good)
        return np.divide(total, number, out=np.full(len(total), np.nan), where=number > 0)

    def _misfit(self, spectra, latents):
        """Squared residuals over their variance, the variance, and pixels that count: all (n, P)."""
        good = spectra.good & self.scaler_.pixels
        variance = np.where(good, spectra.variance + self.scatter_**2, 1.0)
        residual = np.where(good, spectra.flux - self._decoded(latents), 0.0)
        return residual**2 / variance, variance, good


def is_streamed(X):
    """Whether spectra stay on disk: a store, or flux on a memory map."""
    if isinstance(X, Spectra):
        return isinstance(X.flux, np.memmap)
    return hasattr(X, "__spectra__")


def _order(spectra):
    """An order of the stars that only depends on their good pixels."""
    used = spectra.good.any(axis=0)
    flux = np.where(spectra.good, spectra.flux, 0)[:, used]
    direction = np.random.default_rng(0).standard_normal(used.sum())
    return np.argsort(flux @ direction, kind="stable")


def _some(spectra, rows, rng):
    """These rows, but of spectra that are streamed not more than fit well into memory."""
    if is_streamed(spectra):
        n = min(MAX_STARS, max(MIN_STARS, 4 * BLOCK // spectra.shape[1]))
        rows = np.sort(rng.permutation(rows)[:n])
    return spectra[rows]


def _mean_weight(spectra, rows):
    """Mean weight of the stars that are trained on."""
    if "weight" not in spectra.meta:
        return 1.0
    weight = np.asarray(spectra.meta["weight"], dtype=float)
    if weight.shape != (len(spectra),) or not (np.isfinite(weight) & (weight >= 0)).all():
        raise ValueError(
            "meta['weight'] must hold one finite weight of at least 0 for each spectrum; see "
            "skspec.latent.balancing_weights."
        )
    mean = weight[rows].mean()
    if mean == 0:
        raise ValueError("meta['weight'] is 0 for every spectrum to train on.")
    return mean
