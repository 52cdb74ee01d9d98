"""Stars in the latent space of a fitted model: what the page shows, as plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.pipeline import Pipeline

from skspec._label_values import label_frame
from skspec._short_repr import ShortRepr
from skspec.base import as_spectra, last_step
from skspec.explore._columns import columns_of, star_names
from skspec.latent import informative_nodes
from skspec.metrics import robust_sigma
from skspec.plotting._line_names import strong_lines
from skspec.solvers.linear.slopes import pixel_slopes

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike
    from sklearn.base import BaseEstimator

    from skspec._typing import SpectraLike

__all__ = ["LatentSpace", "Star"]

BATCH_VALUES = 2**23  # pixels of spectra held at a time
GRADIENT_VALUES = 5 * 10**7  # pixels read for the gradient of the flux with the labels
N_NEAREST = 200  # stars of a local gradient
NO_RESPONSE = 0.02  # of the largest: a node that moves the spectrum less is left out


@dataclass(frozen=True)
class Star(ShortRepr):
    """One star as the model sees it.

    Attributes
    ----------
    row : int
    name : str
    latents : ndarray of shape (D,)
    observed, decoded : ndarray of shape (P,)
        Flux, NaN at bad pixels, and what the model makes of the latent numbers.
    reduced_chi2 : float
        Sum of squared differences over their errors, per good pixel and free node; NaN without
        errors.
    rms : float
        Root mean square difference over good pixels.
    """

    row: int
    name: str
    latents: np.ndarray
    observed: np.ndarray
    decoded: np.ndarray
    reduced_chi2: float
    rms: float


class LatentSpace(ShortRepr):
    """A fitted latent model and, if there are any, the stars in its latent space.

    Parameters
    ----------
    model : fitted estimator
        With ``transform`` and ``inverse_transform``, such as :class:`~skspec.latent.BetaVAE` or
        scikit-learn's PCA; or a Pipeline whose last step has both. Spectra are then shown as that
        step sees them, unless the whole Pipeline can be inverted.
    spectra : Spectra or SpectraStore of shape (n, P), optional
        Read one by one, or in small batches.
    labels : pandas.DataFrame of shape (n, K), optional
        NaN where not known.
    latents : array-like of shape (n, D), optional
        Latent numbers of the spectra, where they are known already.
    threshold : float
        Nodes with a larger median absolute deviation are informative.
    progress : callable, optional
        Called with the number of stars encoded so far.

    Attributes
    ----------
    latents : ndarray of shape (n, D)
        NaN for stars without a good pixel; without rows when there are no spectra.
    nodes : ndarray of int
        Informative nodes, the most spread first.
    centre, spread, low, high : ndarray of shape (D,)
        Median, 1.4826 times the median absolute deviation, 1st and 99th percentile of each node.
    wavelength : ndarray of shape (P,)
        [Angstrom], or pixel numbers.
    has_wavelength : bool
    columns : list of Column
        Labels, and whatever else is known per star.
    names : ndarray of str of shape (n,)

    Raises
    ------
    TypeError
        When the model cannot turn latent numbers into spectra.
    ValueError
        When spectra, labels or latent numbers do not fit the model or each other.

    Examples
    --------
    >>> from sklearn.decomposition import PCA
    >>> from skspec.datasets import make_spectra
    >>> from skspec.explore import LatentSpace
    >>> spectra, labels = make_spectra(n_samples=100, n_pixels=80, random_state=0)
    >>> space = LatentSpace(PCA(3).fit(spectra), spectra, labels)
    >>> space.nodes.tolist()
    [0, 1, 2]
    >>> rows, distance = space.neighbours(7, k=2)
    >>> bool(distance[0] < distance[1])
    True
    """

    def __init__(
        self,
        model: BaseEstimator,
        spectra: SpectraLike | None = None,
        labels: pd.DataFrame | None = None,
        *,
        latents: ArrayLike | None = None,
        threshold: float = 0.02,
        progress: Callable[[int], object] | None = None,
    ):
        self._before, self.model = _split(model)
        self.spectra: Any = spectra
        n = 0 if spectra is None else len(self.spectra)  # type: ignore[arg-type]
        if labels is not None and len(labels) != n:
            raise ValueError(f"{len(labels)} rows of labels for {n} spectra: give one per star.")
        if n:
            self._set_stars(labels, latents, progress)
            self._set_nodes(threshold)
        else:
            self.labels, self.names = None, np.empty(0, dtype=str)
            self.columns: list[Any] = []
            self._set_nodes_by_response()
        self._set_wavelength()
        self._gradients: dict[Any, Any] = {}

    def __len__(self) -> int:
        return len(self.latents)

    def _repr_values(self):
        columns = [column.name for column in self.columns]
        values = {"model": self.model, "n_stars": len(self), "columns": columns}
        return values | {"nodes": self.nodes, "wavelength": self.wavelength}

    # -- what is fixed -----------------------------------------------------------------------------

    def _set_stars(self, labels, latents, progress):
        n = len(self.spectra)
        self.labels = None if labels is None else label_frame(labels)
        meta = _per_star(self.spectra)
        self.columns, self.names = columns_of(self.labels, meta, n), star_names(meta, n)
        if latents is None:
            latents = self.encode(progress)
        self.latents = np.asarray(latents, dtype=float)
        if self.latents.ndim != 2 or len(self.latents) != n:
            raise ValueError(
                f"latents of shape {self.latents.shape} for {n} spectra: give one row per star."
            )
        self.seen = np.isfinite(self.latents).all(axis=1)
        if not self.seen.any():
            raise ValueError("The model gives no finite latent numbers for any of the spectra.")

    def _set_nodes(self, threshold):
        seen = self.latents[self.seen]
        self.centre = np.median(seen, axis=0)
        spread = robust_sigma(seen, self.centre)
        self.spread = np.where(spread > 0, spread, 1.0)
        self.low, self.high = np.percentile(seen, (1, 99), axis=0)
        informative = informative_nodes(seen, threshold)
        order = np.argsort(-spread, kind="stable")
        self.nodes = order[informative[order]] if informative.any() else order[:1]

    def _set_nodes_by_response(self):
        """Without stars: the nodes that move the spectrum, in the unit of the prior."""
        last = last_step(self.model)
        n_nodes = _n_latent(last)
        self.latents = np.empty((0, n_nodes))
        self.centre = np.zeros(n_nodes)
        self.spread = np.sqrt(getattr(last, "explained_variance_", np.ones(n_nodes)))
        self.low, self.high = -3 * self.spread, 3 * self.spread
        flux = self.decode(np.vstack([self.centre, np.diag(self.spread)]))
        response = np.sqrt(np.nanmean((flux[1:] - flux[0]) ** 2, axis=1))
        order = np.argsort(-response, kind="stable")
        self.nodes = order[response[order] > NO_RESPONSE * response.max()]

    def _set_wavelength(self):
        n_pixels = self.decode(self.centre).size
        first = self._prepared(self.spectra[[0]]) if len(self) else None
        found = [getattr(first, "wavelength", None)]
        found += [getattr(step, "wavelength_", None) for step in _steps(self.model)]
        found = [w for w in found if w is not None and len(w) == n_pixels]
        self.has_wavelength = bool(found)
        self.wavelength = np.asarray(found[0] if found else np.arange(n_pixels), dtype=float)
        self._ascending = np.argsort(self.wavelength, kind="stable")
        medium = getattr(first, "medium", None) or next(
            (m for m in (getattr(step, "medium_", None) for step in _steps(self.model)) if m),
            "vacuum",
        )
        self.lines = strong_lines(self.wavelength, medium=medium) if found else {}

    # -- spectra -----------------------------------------------------------------------------------

    def _prepared(self, spectra):
        """Spectra as the latent model sees them."""
        spectra = as_spectra(spectra)
        if self._before is None:
            return spectra
        out = as_spectra(self._before.transform(spectra))
        if out.wavelength is None and out.shape == spectra.shape:
            out.wavelength = spectra.wavelength
        return out

    def _batches(self, rows):
        """`rows` in parts of a bounded number of pixels, and their spectra."""
        size = min(max(BATCH_VALUES // self.spectra.shape[1], 1), 1024)
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            yield part, self._prepared(self.spectra[part])

    def encode(self, progress: Callable[[int], object] | None = None) -> np.ndarray:
        """Latent numbers (n, D) of all stars."""
        found, done = [], 0
        for rows, spectra in self._batches(np.arange(len(self.spectra))):
            found.append(np.asarray(self.model.transform(spectra), dtype=float))
            done += len(rows)
            if progress is not None:
                progress(done)
        return np.concatenate(found)

    def check_latents(self) -> None:
        """Hold latent numbers that were given against those of three stars, found again.

        Raises
        ------
        ValueError
            When they differ.
        """
        rows = np.flatnonzero(self.seen)[[0, self.seen.sum() // 2, -1]]
        again = np.concatenate([self.model.transform(s) for _, s in self._batches(np.unique(rows))])
        if again.shape[1] != self.latents.shape[1] or not np.allclose(
            again, self.latents[np.unique(rows)], rtol=1e-2, atol=1e-2 * self.spread.max()
        ):
            raise ValueError(
                "The latent numbers are not those of this model and these spectra; delete their file."
            )

    def decode(self, latents: ArrayLike) -> np.ndarray:
        """Flux (n, P) of latent numbers (n, D), or (P,) of one set of them."""
        latents = np.asarray(latents, dtype=float)
        flux = np.asarray(self.model.inverse_transform(np.atleast_2d(latents)), dtype=float)
        return flux[0] if latents.ndim == 1 else flux

    def ascending(self, *curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Wavelength (P,) and curves (k, P), in the order in which they are drawn."""
        return self.wavelength[self._ascending], np.array(curves)[:, self._ascending]

    def star(self, row: int) -> Star:
        """One star, its reconstruction and how well that fits."""
        spectra = self._prepared(self.spectra[[row]])
        good = spectra.good[0]
        observed = np.where(good, spectra.flux[0], np.nan).astype(float)
        decoded = self.decode(self.latents[row])
        used = good & np.isfinite(decoded)
        residual = np.where(used, observed - decoded, 0.0)
        ivar = np.zeros(len(good)) if spectra.ivar is None else spectra.ivar[0]
        known = used & (ivar > 0) & np.isfinite(ivar)
        chi2 = float(np.sum(residual[known] ** 2 * ivar[known]))
        n_free = int(known.sum()) - len(self.nodes)
        return Star(
            int(row),
            str(self.names[row]),
            self.latents[row],
            observed,
            decoded,
            chi2 / n_free if n_free > 0 else np.nan,
            float(np.sqrt(np.sum(residual**2) / max(used.sum(), 1))),
        )

    # -- stars -------------------------------------------------------------------------------------

    def neighbours(self, row: int, k: int = 8) -> tuple[np.ndarray, np.ndarray]:
        """The `k` stars nearest to one, in informative nodes divided by their spread.

        Returns
        -------
        rows : ndarray of int of shape (k,)
            The nearest first, without the star itself.
        distance : ndarray of shape (k,)
        """
        nodes = self.nodes
        scaled = (self.latents[:, nodes] - self.latents[row, nodes]) / self.spread[nodes]
        square = np.einsum("nd,nd->n", scaled, scaled)
        square[row] = np.inf
        square[~self.seen] = np.inf
        k = min(k, int(self.seen.sum()) - 1)
        rows = np.argpartition(square, min(k, len(square) - 1))[:k]
        rows = rows[np.argsort(square[rows], kind="stable")]
        return rows, np.sqrt(square[rows])

    def sample(self, n: int, seed: int = 0) -> np.ndarray:
        """At most `n` rows with latent numbers, drawn at random, ascending."""
        rows = np.flatnonzero(self.seen)
        if len(rows) <= n:
            return rows
        return np.sort(np.random.default_rng(seed).choice(rows, n, replace=False))

    # -- changes of the spectrum -------------------------------------------------------------------

    def response(self, latents: np.ndarray, node: int) -> np.ndarray:
        """Change of the decoded flux (P,) along a node, per spread of the node."""
        step = np.zeros(len(self.centre))
        step[node] = 0.25 * self.spread[node]
        up, down = self.decode([latents + step, latents - step])
        return 2 * (up - down)

    def gradient(self, label: str, near: int | None = None) -> tuple[np.ndarray, int]:
        """Change of the observed flux with a label, the other labels held fixed.

        The least-squares slope of the flux of each pixel with the standardised labels.

        Parameters
        ----------
        label : str
        near : int, optional
            Use the 200 labelled stars nearest to this one instead of all (or of as many random ones
            as are read in a moment).

        Returns
        -------
        slope : ndarray of shape (P,)
            Per standard deviation of the label; NaN where too few stars have a good pixel.
        n_stars : int

        Raises
        ------
        ValueError
            When too few stars have labels.
        """
        key = (near, self._companions(label))
        if key not in self._gradients:
            self._gradients = {key: self._slopes(*key)}  # only the latest: it is long
        slopes, n_stars = self._gradients[key]
        return slopes[key[1].index(label)], n_stars

    def _companions(self, label):
        """Labels that enter the regression: all, or one alone when few stars have all."""
        complete = self.labels.notna().all(axis=1).to_numpy() & self.seen
        names = tuple(self.labels)
        return names if complete.sum() >= 10 * (len(names) + 1) else (label,)

    def _slopes(self, near, names):
        rows = np.flatnonzero(self.labels[list(names)].notna().all(axis=1).to_numpy() & self.seen)
        if near is not None:
            nearest, _ = self.neighbours(near, len(self))
            rows = np.sort(nearest[np.isin(nearest, rows)][:N_NEAREST])
        n_read = int(np.clip(GRADIENT_VALUES // len(self.wavelength), N_NEAREST, 2000))
        if len(rows) > n_read:
            rows = np.sort(np.random.default_rng(0).choice(rows, n_read, replace=False))
        if len(rows) < 5 * (len(names) + 1):
            raise ValueError(f"only {len(rows)} stars with {', '.join(names)}: too few for a slope")
        values = self.labels[list(names)].to_numpy()
        values = (values - values[rows].mean(axis=0)) / np.maximum(values[rows].std(axis=0), 1e-300)
        parts = ((values[part], s.flux, s.good) for part, s in self._batches(rows))
        return pixel_slopes(parts), len(rows)


def comparable(first, second):
    """Two curves (P,) at the same scale, the first turned to rise with the second, and how alike.

    Returns
    -------
    first, second : ndarray of shape (P,)
        Divided by their root mean square; NaN where either is.
    correlation : float
        Pearson's, before the first was turned.
    """
    both = np.isfinite(first) & np.isfinite(second)
    first, second = np.where(both, first, np.nan), np.where(both, second, np.nan)
    if both.sum() < 3 or np.ptp(first[both]) == 0 or np.ptp(second[both]) == 0:
        return first, second, np.nan
    correlation = float(np.corrcoef(first[both], second[both])[0, 1])
    first = np.copysign(1.0, correlation) * first
    return *(c / np.sqrt(np.mean(c[both] ** 2)) for c in (first, second)), correlation


def _split(model):
    """What prepares the spectra (or None), and the model of them."""
    model = getattr(model, "best_estimator_", model)
    if _is_latent(model):
        return None, model
    if isinstance(model, Pipeline) and _is_latent(model.steps[-1][1]):
        return (model[:-1] if len(model.steps) > 1 else None), model.steps[-1][1]
    raise TypeError(
        f"{type(model).__name__} has not both transform and inverse_transform, so it cannot turn "
        "latent numbers into spectra. Take a fitted BetaVAE, PCA or the like, or a Pipeline that "
        "ends in one."
    )


def _is_latent(model):
    return hasattr(model, "transform") and hasattr(model, "inverse_transform")


def _steps(model):
    return [step for _, step in reversed(model.steps)] if isinstance(model, Pipeline) else [model]


def _n_latent(model):
    for name in ("n_latent", "n_components_", "_n_features_out"):
        if isinstance(getattr(model, name, None), (int, np.integer)):
            return int(getattr(model, name))
    raise ValueError(
        f"{type(model).__name__} does not say how many latent numbers it has; give spectra too."
    )


def _per_star(spectra):
    """What `meta` holds for each star."""
    return dict(getattr(spectra, "meta", None) or {})
