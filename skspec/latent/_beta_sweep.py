"""beta_sweep: the beta from which on small and large latent spaces use as many nodes."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import joblib
import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.base import clone
from sklearn.utils.parallel import Parallel, delayed

from skspec._short_repr import ShortRepr
from skspec.base import as_spectra
from skspec.latent._nodes import node_dispersion

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from skspec._typing import PathLike, SpectraLike

__all__ = ["BetaSweep", "beta_sweep"]

BLOCK = 2**24  # pixels decoded at once


@dataclass(frozen=True)
class BetaSweep(ShortRepr):
    """What fits of one model with different `beta` and numbers of latent numbers found.

    Attributes
    ----------
    betas : ndarray of shape (B,)
        Ascending.
    n_latents : ndarray of int of shape (S,)
        Ascending.
    mad : dict of (float, int) to ndarray of shape (n_latent,)
        By beta and number of latent numbers: median absolute deviation of each node, the largest first.
    reconstruction : DataFrame
        Betas x latent sizes: how far the decoded spectra are from the observed, see `measure`.
    measure : {"chi2", "mse"}
        Mean chi2 per pixel, or mean squared error where the errors are not known.
    leakage : DataFrame
        Betas x latent sizes: mean absolute rank correlation of the pairs of informative nodes; NaN
        with fewer than two.
    threshold : float
        Median absolute deviation above which a node is informative.
    tolerance : int
        Difference in the number of informative nodes up to which latent sizes agree.
    """

    betas: np.ndarray
    n_latents: np.ndarray
    mad: dict
    reconstruction: pd.DataFrame
    measure: str
    leakage: pd.DataFrame
    threshold: float = 0.02
    tolerance: int = 1

    @property
    def n_informative(self) -> pd.DataFrame:
        """Number of informative nodes, betas x latent sizes."""
        return _table(
            self.betas, self.n_latents, lambda *key: int(np.sum(self.mad[key] > self.threshold))
        )

    @property
    def agreement(self) -> pd.Series:
        """Whether the latent sizes agree at each beta.

        They do when their numbers of informative nodes differ by no more than `tolerance`, each has such
        a node, and the smallest latent space has nodes to spare: one that is full has not said how many
        it would use.
        """
        count = self.n_informative
        close = count.max(axis=1) - count.min(axis=1) <= self.tolerance
        spare = count.iloc[:, 0] < self.n_latents[0]
        return (close & spare & (count.min(axis=1) > 0)).rename("agreement")

    @property
    def best_beta(self) -> float | None:
        """The smallest beta at which the latent sizes agree, and at the next one, too.

        If they never agree at two in a row, it is the first at which they agree at all; None when there
        is none, or only one size.
        """
        agreed = self.agreement.to_numpy()
        if len(self.n_latents) < 2 or not agreed.any():
            return None
        lasting = agreed[:-1] & agreed[1:]
        return float(self.betas[np.argmax(lasting if lasting.any() else agreed)])


def beta_sweep(
    model: BaseEstimator,
    X: SpectraLike,
    betas: Sequence[float],
    n_latents: Sequence[int] = (8, 32),
    *,
    threshold: float = 0.02,
    tolerance: int = 1,
    n_jobs: int | None = None,
    out: PathLike | None = None,
) -> BetaSweep:
    r"""Fit a model with every `beta` and latent size, and count the informative nodes of each.

    With a small :math:`\beta` a larger latent space spreads what it knows over more nodes, which then
    depend on each other. The chosen :math:`\beta` is the smallest at which the number of nodes with
    :math:`\mathrm{median}_i |\mu_{id} - \mathrm{median}_i\, \mu_{id}| >` `threshold` no longer depends
    on the size.

    Parameters
    ----------
    model : BetaVAE
        Or any transformer with `beta`, `n_latent` and ``inverse_transform``. Give its `random_state` a
        number, so that all fits start alike.
    X : Spectra, SpectraStore or array-like of shape (n, P)
        Everything is measured on the spectra of the fit.
    betas : sequence of float
    n_latents : sequence of int
        A small and a large number of latent numbers, or more sizes; the smallest should be larger than
        the number of factors that you expect.
    threshold : float
        See :func:`informative_nodes`.
    tolerance : int
        See :attr:`BetaSweep.agreement`.
    n_jobs : int or None
        Fits side by side; joblib gives each process its share of the cores. None means 1.
    out : str or path, optional
        Folder where the result of every fit is kept as it comes. A sweep that was interrupted goes on
        with what is missing there.

    Returns
    -------
    BetaSweep

    Warns
    -----
    UserWarning
        When the latent sizes agree at no beta (then ``best_beta`` is None), or not at two in a row.

    Raises
    ------
    TypeError
        When the model has no `beta` or `n_latent`.
    ValueError
        When there is no beta or size, or `out` holds results of another model or other spectra.

    Notes
    -----
    Rank correlations see only dependence that rises or falls throughout: look at the pairs of nodes as
    well (:class:`~skspec.plotting.LatentScatterDisplay`).

    References
    ----------
    Sedaghat et al. 2021, MNRAS 501, 6026.

    Examples
    --------
    >>> from skspec.datasets import make_spectra
    >>> from skspec.latent import BetaVAE, beta_sweep
    >>> spectra, _ = make_spectra(n_samples=100, n_pixels=64, random_state=0)
    >>> model = BetaVAE(architecture="dense", max_iter=2, random_state=0)
    >>> sweep = beta_sweep(model, spectra, [1.0], [2])
    >>> sweep.mad[1.0, 2].shape
    (2,)
    """
    betas = np.unique(np.asarray(betas, dtype=float))
    n_latents = np.unique(np.asarray(n_latents))
    _check_grid(model, betas, n_latents)
    X = X if hasattr(X, "shape") else as_spectra(X)
    stamp, folder = _stamp(model, X, threshold), None if out is None else Path(out)
    keys = [(float(beta), int(n)) for beta in betas for n in n_latents]
    runs = Parallel(n_jobs=n_jobs)(
        delayed(_run)(model, X, *key, threshold, stamp, folder) for key in keys
    )
    found = dict(zip(keys, runs))
    measured = all(np.isfinite(run.chi2) for run in found.values())
    sweep = BetaSweep(
        betas,
        n_latents,
        {key: np.array(run.mad) for key, run in found.items()},
        _table(betas, n_latents, lambda *key: found[key].chi2 if measured else found[key].mse),
        "chi2" if measured else "mse",
        _table(betas, n_latents, lambda *key: found[key].leakage),
        threshold,
        tolerance,
    )
    _warn_of_weak_choice(sweep)
    return sweep


@dataclass(frozen=True)
class _Run:
    """What is kept of one fit."""

    mad: list  # of each node, the largest first
    chi2: float  # mean per pixel of known error; NaN without any
    mse: float  # mean over good pixels
    leakage: float


def _run(model, X, beta, n_latent, threshold, stamp, folder):
    """Fit and measure, unless the result lies in `folder`."""
    name = f"beta_{beta!r}_latent_{n_latent}"
    path = None if folder is None else folder / f"{name}.json"
    if path is not None and path.exists():
        kept = json.loads(path.read_text())
        if kept["stamp"] != stamp:
            raise ValueError(
                f"{path} was made with another model, other spectra or another threshold: give "
                "another folder in `out`."
            )
        return _Run(**kept["run"])
    changes = {"beta": beta, "n_latent": n_latent}
    if getattr(model, "checkpoint", None) is not None:  # of each fit its own
        kept = Path(model.checkpoint)
        changes["checkpoint"] = kept.with_name(f"{kept.stem}_{name}{kept.suffix}")
    run = _measured(clone(model).set_params(**changes).fit(X), X, threshold)
    if path is not None:
        folder.mkdir(parents=True, exist_ok=True)
        whole = path.with_suffix(".part")  # a killed run leaves no half of a result
        whole.write_text(json.dumps({"stamp": stamp, "run": asdict(run)}))
        os.replace(whole, path)
    return run


def _measured(model, X, threshold):
    """Dispersion, misfit and leakage of a fitted model."""
    parts, totals = [], np.zeros((2, 2))  # sum and number, of chi2 and of squares
    size = max(1, BLOCK // X.shape[1])
    for start in range(0, X.shape[0], size):
        block = X[start : start + size]
        latents = np.asarray(model.transform(block), dtype=float)
        known = np.isfinite(latents).all(axis=1)  # a star without good pixels has none
        parts.append(latents[known])
        if known.any():
            totals += _misfit(as_spectra(block)[known], model.inverse_transform(parts[-1]))
    latents = np.concatenate(parts)
    chi2, mse = (total / number if number else np.nan for total, number in totals)
    mad = node_dispersion(latents)["mad"].to_numpy()
    leakage = _leakage(latents[:, mad > threshold])
    return _Run(np.sort(mad)[::-1].tolist(), float(chi2), float(mse), leakage)


def _misfit(spectra, decoded):
    """Sum and number of terms: of chi2 over pixels of known error, of squares over good pixels."""
    good = spectra.good & np.isfinite(decoded)
    square = np.where(good, spectra.flux - decoded, 0.0) ** 2
    ivar = np.zeros(1) if spectra.ivar is None else spectra.ivar
    known = good & (ivar > 0) & np.isfinite(ivar)
    chi2 = np.sum(square * np.where(known, ivar, 0.0))
    return np.array([[chi2, known.sum()], [square.sum(), good.sum()]])


def _leakage(latents):
    """Mean absolute rank correlation of the pairs of columns."""
    n = latents.shape[1]
    if n < 2:
        return np.nan
    correlation = np.corrcoef(rankdata(latents, axis=0), rowvar=False)
    return float(np.abs(correlation[np.triu_indices(n, 1)]).mean())


def _check_grid(model, betas, n_latents):
    missing = {"beta", "n_latent"} - set(model.get_params())
    if missing:
        raise TypeError(
            f"{type(model).__name__} has no parameter {' and '.join(sorted(missing))}; give a BetaVAE, "
            "and the spectra as it should see them."
        )
    if not betas.size or not np.all(np.isfinite(betas) & (betas >= 0)):
        raise ValueError(f"betas must be numbers from 0, at least one; got {betas.tolist()}.")
    if not n_latents.size or n_latents.dtype.kind not in "iu" or n_latents.min() < 1:
        raise ValueError(
            f"n_latents must be whole numbers from 1, at least one; got {n_latents.tolist()}."
        )


def _stamp(model, X, threshold):
    """What results must have in common to belong to one sweep."""
    parameters = {
        name: repr(value)
        for name, value in sorted(model.get_params().items())
        if name not in ("beta", "n_latent", "checkpoint", "device")
    }
    weight = getattr(X, "meta", {}).get("weight")
    return {
        "model": type(model).__name__,
        "parameters": parameters,
        "shape": list(X.shape),
        "first_star": joblib.hash(np.asarray(X[:1])),
        "threshold": threshold,
        "weight": None if weight is None else joblib.hash(np.asarray(weight)),
    }


def _table(betas, n_latents, value):
    """DataFrame of ``value(beta, n_latent)``."""
    return pd.DataFrame(
        [[value(float(beta), int(n)) for n in n_latents] for beta in betas],
        index=pd.Index(betas, name="beta"),
        columns=pd.Index(n_latents, name="n_latent"),
    )


def _warn_of_weak_choice(sweep):
    """Tell when there is no best beta, or when it rests on one that may just be the collapse."""
    if len(sweep.n_latents) < 2:
        return
    count, chosen = sweep.n_informative, sweep.best_beta
    alive = sweep.betas[(count.min(axis=1) > 0).to_numpy()]
    sizes = ", ".join(map(str, sweep.n_latents))
    if chosen is None and len(alive) and (count.iloc[:, 0] >= sweep.n_latents[0]).all():
        text = (
            f"All {sweep.n_latents[0]} nodes of the smallest latent space are informative at every "
            "beta, so best_beta is None: give more latent numbers, or larger betas."
        )
    elif chosen is None:
        text = (
            f"Latent spaces of {sizes} nodes do not agree, so best_beta is None: give more betas."
        )
    elif len(sweep.betas) > 1 and not sweep.agreement.loc[chosen:].iloc[1:2].any():
        text = (
            f"Latent spaces of {sizes} nodes agree at beta={chosen:g}, and not at the next: this may be "
            "chance, or the beginning of their collapse. Give more betas near it."
        )
    else:
        return
    warnings.warn(text, UserWarning, stacklevel=3)
