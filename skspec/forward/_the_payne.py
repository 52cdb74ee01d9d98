"""The Payne: flux of all pixels by one network of the labels."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import numpy as np
from sklearn.utils import check_random_state

from skspec._progress import track
from skspec._sklearn import Interval, StrOptions
from skspec.forward._base import ForwardModel
from skspec.forward._refits import has_repeats
from skspec.likelihood import HeldOut, OutOfSample
from skspec.model_selection import star_groups
from skspec.networks import ACTIVATIONS, Perceptron, TrainingOptions
from skspec.solvers.linear.output_layer import refit_output_layer
from skspec.solvers.linear.pixel_blocks import pixel_slices

__all__ = ["ThePayne"]

CLEANING_FOLDS = 5  # where stars are to be cleaned and `cv` is None
BLOCK = 512  # pixels at a time
#: the network is not asked to be right within this fraction of the standard deviation of a pixel:
#: pixels and stars of smaller noise count no more
GOOD_ENOUGH = 0.05
#: multiplications of a batch with the output layer, below which one thread is faster than several
THREADS_FROM = 2e7


class ThePayne(TrainingOptions, ForwardModel):
    r"""The Payne: one network emulates the flux of all pixels, inverted by likelihood.

    .. math:: f_j(x) = b_j + \sum_h W_{hj}\, a_h(x)

    with standardised labels :math:`x` and the activations :math:`a` of the last of a few dense hidden
    layers. PyTorch trains it; spectra, derivatives and labels come from numpy alone.

    Parameters
    ----------
    hidden_layer_sizes : tuple of int or int, default=(100, 100)
        Widths of the hidden layers.
    activation : {"silu", "tanh", "sigmoid", "leaky_relu"}, default="silu"
        The published network has leaky_relu, whose flux has kinks.
    criterion : {"l2", "l1"}, default="l2"
        Squared residuals over the variance of the pixel, or absolute ones over its standard deviation
        (as published, without errors).
    learning_rate_init : float, default=0.005
        Of Adam; falls to zero along a cosine.
    n_iter_no_change : int, default=50
        Stop after so many epochs without a better validation loss.
    validation_fraction : float, default=0.2
        Of the stars: held out to stop in time, to choose the best state, and to measure the errors of
        the pixels and of the labels.
    cv : int or None, default=None
        Train so many networks, each without another fold of the stars, and take their mean: every
        star then has a network that has not seen it. None trains one network without
        `validation_fraction` of the stars, unless `clean_training` needs an error of every star:
        then there are 5 folds.
    refit_output : bool, default=True
        Refit the output layer in closed form when the network is trained.
    random_state : int, RandomState instance or None, default=None
        Of the held-out stars, the initial weights and the batches.

    Attributes
    ----------
    networks_ : list of Perceptron
        Hidden layers of each network.
    coef_ : ndarray of shape (q, P)
        Output layer: of the constant, then of the last hidden layer of each network.
    scatter_ : ndarray of shape (P,)
        Model error: square root of what the mean squared error of held-out stars exceeds their mean
        photon variance by; ``inf`` where it could not be measured.
    history_ : list of dict
        ``train_loss``, ``valid_loss`` and ``dur`` [s] of every epoch, of each network.
    penalty_ : list of float
        Penalty of each refit, see :func:`~skspec.solvers.linear.output_layer.refit_output_layer`.
    n_iter_ : int
        Epochs of the network that took the most.
    device_ : str
        Where it was trained.
    flux_mean_, flux_std_ : ndarray of shape (P,)
        Standardisation of the flux.

    Raises
    ------
    ImportError
        From ``fit``, without PyTorch and skorch (``pip install skspec[nn]``).

    References
    ----------
    Ting, Conroy, Rix & Cargile 2019, ApJ 879, 69 (arXiv:1804.01530).

    Examples
    --------
    >>> from skspec.datasets import make_spectra
    >>> from skspec.forward import ThePayne
    >>> spectra, labels = make_spectra(150, n_pixels=200, random_state=0)
    >>> model = ThePayne((30,), max_iter=50, random_state=0).fit(spectra[:100], labels[:100])
    >>> model.predict_dist(spectra[100:])
    <MultivariateNormal of teff, logg, feh: 50 stars>
    """

    _capabilities = {"speed": "minutes"}
    _parameter_constraints: dict = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "criterion": [StrOptions({"l1", "l2"})],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "cv": [Interval(Integral, 2, None, closed="left"), None],
        "refit_output": ["boolean"],
    }

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100, 100),
        activation: str = "silu",
        *,
        criterion: str = "l2",
        learning_rate_init: float = 0.005,
        max_iter: int = 150,
        batch_size: int = 128,
        n_iter_no_change: int = 50,
        validation_fraction: float = 0.2,
        cv: int | None = None,
        refit_output: bool = True,
        **shared,
    ):
        super().__init__(
            learning_rate_init=learning_rate_init,
            max_iter=max_iter,
            batch_size=batch_size,
            validation_fraction=validation_fraction,
            **shared,
        )
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.criterion = criterion
        self.n_iter_no_change = n_iter_no_change
        self.cv = cv
        self.refit_output = refit_output

    # -- training ----------------------------------------------------------------------------------

    def _fit_flux(self, x, spectra, context):
        from skspec.networks import resolve_device

        self.device_ = resolve_device(self.device)
        order = np.lexsort(x.T)  # whatever the order in which the stars came
        x, spectra = x[order], spectra[order]
        trained = spectra.good.sum(axis=0) > 1
        photon = self._photon_variance(spectra)
        Y, weight = self._standardised(spectra, photon, trained)
        rng = check_random_state(self.random_state)
        self.networks_, self.history_, self.penalty_, coefs = [], [], [], []
        folds = self._held_out_rows(spectra, rng)
        n_epochs = len(folds) * self.max_iter
        epochs = track(context, self, "epochs", range(n_epochs), n_epochs)
        for rows in folds:
            seed = int(rng.randint(2**31 - 1))
            coefs.append(np.zeros((1 + self._widths()[-1], spectra.shape[1])))
            coefs[-1][:, trained] = self._train(x, Y, weight, rows, seed, epochs)
            coefs[-1] *= self.flux_std_
            coefs[-1][0] += self.flux_mean_
        for _ in epochs:
            """Those that early stopping saved."""
        constant = np.mean([coef[:1] for coef in coefs], axis=0)
        self.coef_ = np.concatenate([constant, *(coef[1:] / len(coefs) for coef in coefs)])
        self.n_iter_ = max(len(history["valid_loss"]) for history in self.history_)
        self._measure(x, spectra, photon, folds, coefs)
        self._held_out = []
        if self._needs_held_out:
            self._held_out = [(order[rows], coef) for rows, coef in zip(folds, coefs)]

    def _widths(self):
        widths = np.atleast_1d(self.hidden_layer_sizes)
        if widths.ndim != 1 or widths.dtype.kind not in "iu" or not np.all(widths > 0):
            raise ValueError(
                "hidden_layer_sizes must be positive integers, such as (100, 100); got "
                f"{self.hidden_layer_sizes!r}."
            )
        return tuple(widths.tolist())

    def _standardised(self, spectra, photon, trained):
        """Flux and weights of the pixels that can be trained, in float32."""
        good = spectra.good
        flux = np.where(good, spectra.flux, 0.0).astype(np.float32)
        n_good = np.maximum(good.sum(axis=0), 1)
        mean = np.sum(flux, axis=0, where=good, dtype=float) / n_good
        squares = np.sum((flux - mean) ** 2, axis=0, where=good) / n_good
        self.flux_mean_ = np.where(trained, mean, 0.0)
        # a constant pixel has nothing to learn: any unit will do
        learnable = trained & (squares > self._flux_floor)
        self.flux_std_ = np.where(learnable, np.sqrt(squares), 1.0)
        Y = np.where(good, (flux - self.flux_mean_) / self.flux_std_, 0.0)[:, trained]
        weight = 1.0 / (photon / self.flux_std_**2 + GOOD_ENOUGH**2)[:, trained]
        if self.criterion == "l1":
            weight = np.sqrt(weight)
        weight /= weight.mean()
        return Y.astype(np.float32), weight.astype(np.float32)

    def _held_out_rows(self, spectra, rng):
        """Rows that each network is validated on; spectra of one star stay together."""
        groups = star_groups(spectra) if has_repeats(spectra) else np.arange(len(spectra))
        parts = self._held_out_stars(groups.max() + 1, rng)
        return [np.flatnonzero(np.isin(groups, part)) for part in parts]

    def _held_out_stars(self, n, rng):
        rows, cv = rng.permutation(n), self.cv
        if cv is None and self.clean_training is not None:
            cv = CLEANING_FOLDS
        if cv is None:
            return [rows[: min(max(1, round(self.validation_fraction * n)), n - 1)]]
        return np.array_split(rows, min(cv, n))

    def _train(self, x, Y, weight, rows, seed, epochs):
        """Train one network; returns its output layer (q, pixels) in standardised flux."""
        from skspec.networks import DenseNetwork, WeightedLoss, fit_network

        seen = np.ones(len(x), dtype=bool)
        seen[rows] = False
        train, valid = ((x[part], Y[part], weight[part]) for part in (seen, rows))
        work = min(self.batch_size, len(x)) * self._widths()[-1] * Y.shape[1]
        net = fit_network(
            DenseNetwork,
            WeightedLoss,
            train,
            valid,
            n_epochs=self.max_iter,
            batch_size=self.batch_size,
            seed=seed,
            device=self.device_,
            learning_rate=self.learning_rate_init,
            patience=self.n_iter_no_change,
            n_threads=1 if work < THREADS_FROM else None,
            on_epoch=lambda: next(epochs, None),
            module__n_in=x.shape[1],
            module__n_out=Y.shape[1],
            module__hidden=self._widths(),
            module__activation=self.activation,
            criterion__power=int(self.criterion[1]),
        )
        self.history_.append(
            {key: np.array(net.history[:, key]) for key in ("train_loss", "valid_loss", "dur")}
        )
        hidden, (matrix, bias) = net.module_.arrays()
        if not np.isfinite(matrix).all():
            raise ValueError(
                "The training of the network diverged: lower learning_rate_init="
                f"{self.learning_rate_init}."
            )
        network, coef = Perceptron(hidden, self.activation), np.vstack([bias, matrix])
        penalty = np.inf
        if self.refit_output:
            train, valid = ((network(a), b, c) for a, b, c in (train, valid))
            coef, penalty = refit_output_layer(*train, coef, *valid)
        self.networks_.append(network)
        self.penalty_.append(penalty)
        # where all stars of this part are bad, the mean must do
        return np.where((weight[seen] > 0).any(axis=0), coef, 0.0)

    def _measure(self, x, spectra, photon, folds, coefs):
        """Set `cv_mse_` and `scatter_` from the stars that each network has not seen."""
        n_good, total, noise = np.zeros((3, spectra.shape[1]))
        for rows, network, coef in zip(folds, self.networks_, coefs):
            good = spectra.good[rows]
            residual = np.where(good, spectra.flux[rows] - network(x[rows]) @ coef, 0.0)
            n_good += good.sum(axis=0)
            total += np.sum(residual**2, axis=0)
            noise += np.sum(photon[rows], axis=0, where=good)
        measured = (n_good > 0) & (spectra.good.sum(axis=0) > 1)
        n_good = np.where(measured, n_good, np.nan)
        self.cv_mse_ = total / n_good
        excess = np.sqrt(np.maximum((total - noise) / n_good, 0.0))
        self.scatter_ = np.where(measured, excess, np.inf)

    def _out_of_sample(self, x, spectra):
        parts, self._held_out = self._held_out, []
        made = [
            (*network(x[rows], derivative=True), coef)
            for network, (rows, coef) in zip(self.networks_, parts)
        ]
        rows = np.concatenate([rows for rows, _ in parts])
        number = np.repeat(np.arange(len(parts)), [len(rows) for rows, _ in parts])
        some = spectra[rows]

        def held_out(pixels):
            flux = np.concatenate([phi @ coef[:, pixels] for phi, _, coef in made])
            jacobian = np.concatenate([slope @ coef[:, pixels] for _, slope, coef in made])

            def project(weighted, stars):
                out, mine = np.zeros((len(weighted), 1 + self._widths()[-1])), number[stars]
                for k, (_, _, coef) in enumerate(made):
                    out[mine == k] = weighted[mine == k] @ coef[:, pixels].T
                return out

            part = some[:, pixels]
            return HeldOut(np.where(part.good, part.flux - flux, 0.0), jacobian, project)

        def curvature(stars, weight):
            mine, found = number[stars], np.zeros((len(weight), *2 * x.shape[1:]))
            for k, network in enumerate(self.networks_):
                found[mine == k] = network.curvature(x[rows][stars][mine == k], weight[mine == k])
            return found

        return OutOfSample(held_out, pixel_slices(spectra.shape[1], BLOCK), rows, curvature)

    # -- the model of the flux ---------------------------------------------------------------------

    def _features(self, x, derivative=False):
        if not derivative:
            parts = [network(x)[:, 1:] for network in self.networks_]
            return np.concatenate([np.ones((len(x), 1)), *parts], axis=1)
        both = [network(x, derivative=True) for network in self.networks_]
        phi = np.concatenate([np.ones((len(x), 1)), *(p[:, 1:] for p, _ in both)], axis=1)
        zero = np.zeros((*x.shape, 1))
        return phi, np.concatenate([zero, *(slope[..., 1:] for _, slope in both)], axis=2)

    def _curvature(self, x, weight):
        out, column = 0.0, 1
        for network in self.networks_:
            part = weight[:, column : column + len(network) - 1]
            out = out + network.curvature(x, np.concatenate([weight[:, :1], part], axis=1))
            column += len(network) - 1
        return out

    @property
    def _coef(self):
        return self.coef_
