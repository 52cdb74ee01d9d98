"""`audit_labels`: does a model measure its labels, or infer them from others?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from skspec._label_values import label_names, label_values, refuse_unknown
from skspec._short_repr import ShortRepr
from skspec.base import as_spectra, last_step
from skspec.diagnostics._compare import known_snr
from skspec.diagnostics.audit._attenuation import attenuation
from skspec.diagnostics.audit._attribution import attribution
from skspec.diagnostics.audit._audited import Audited
from skspec.diagnostics.audit._correlation import correlation
from skspec.diagnostics.audit._leakage import leakage
from skspec.diagnostics.audit._line_windows import window_masks
from skspec.diagnostics.audit._nuisance import nuisance
from skspec.diagnostics.audit._null_line import null_line
from skspec.diagnostics.audit._region import region
from skspec.diagnostics.audit._result import AuditOptions, AuditTest, Untestable
from skspec.diagnostics.audit._swap import swap

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from sklearn.base import BaseEstimator

    from skspec._typing import CrossValidation, Labels, RandomState, SpectraLike, Windows

__all__ = ["LabelAudit", "audit_labels"]

MIN_STARS = 20
MIN_SNR_RATIO = 1.5  # ratio of the 90th to the 10th percentile from which the S/N is of interest
#: name -> (title, function, whether it takes refits), in the order of the specification
TESTS = {
    "region": ("Leave a region out", region, True),
    "leakage": ("Leakage between labels", leakage, False),
    "attribution": ("Where the gradients lie", attribution, False),
    "null_line": ("Without its own lines", null_line, True),
    "swap": ("Swapped correlation", swap, True),
    "nuisance": ("Nuisances", nuisance, False),
    "attenuation": ("Attenuation", attenuation, False),
    "correlation": ("Correlated labels", correlation, False),
}

_NO_NUISANCE = ("star_id", "group_id", "weight", "snr", "snr_est")


@dataclass(frozen=True)
class LabelAudit(ShortRepr):
    """Outcome of :func:`audit_labels`; printed, one line per test.

    Attributes
    ----------
    tests : dict of str to AuditTest
        ``region``, ``leakage``, ``attribution``, ``null_line``, ``swap``, ``nuisance``,
        ``attenuation``, ``correlation``: each with `flag` (True, False, or None where it could not be
        tested), `why` and `table`. An audit is indexed by these names.
    label_names : list of str
    n_stars : int
    settings : dict
        How it was made.
    """

    tests: dict[str, AuditTest]
    label_names: list[str]
    n_stars: int
    settings: dict = field(default_factory=dict)

    def __getitem__(self, name: str) -> AuditTest:
        return self.tests[name]

    @property
    def flags(self) -> pd.Series:
        """True, False or None of each test."""
        return pd.Series({name: test.flag for name, test in self.tests.items()}, dtype=object)

    @property
    def passed(self) -> bool:
        """Whether no test was flagged. What could not be tested is not held against the model."""
        return not any(test.flag for test in self.tests.values())

    @property
    def leakage(self) -> pd.DataFrame:
        """Slopes (K, K) of the error of each label (row) on each true label, in spreads.

        On the diagonal the slope of a label's error on itself: its attenuation. NaN without the test.
        """
        return self._leakage("slope")

    @property
    def leakage_std(self) -> pd.DataFrame:
        """Standard errors of `leakage`."""
        return self._leakage("std")

    def _leakage(self, column):
        names = self.label_names
        table = self.tests["leakage"].table if "leakage" in self.tests else ()
        if not len(table):
            return pd.DataFrame(np.nan, names, names)
        return table.pivot(index="label", columns="on", values=column).loc[names, names]

    def __str__(self) -> str:
        done = [test.flag for test in self.tests.values()]
        head = (
            f"audit of {', '.join(self.label_names)} on {self.n_stars} stars: {done.count(True)} "
            f"flagged, {done.count(False)} passed, {done.count(None)} not tested"
        )
        return "\n".join([head, *(f"  {test}" for test in self.tests.values())])


def audit_labels(
    model: BaseEstimator,
    X: SpectraLike,
    y: Labels,
    *,
    decorrelated: tuple[SpectraLike, Labels] | None = None,
    label_noise: ArrayLike | None = None,
    line_windows: Mapping[str, Windows] | None = None,
    reference: Any = None,
    nuisances: Mapping[str, ArrayLike] | pd.DataFrame | None = None,
    snr: ArrayLike | None = None,
    tests: str | Sequence[str] = "all",
    refit: bool = True,
    cv: CrossValidation = 5,
    n_jobs: int | None = None,
    random_state: RandomState = 0,
) -> LabelAudit:
    r"""Test whether a model measures its labels, or reads them from others by a correlation.

    Biases and correlations of a training set fold into all that a model says, and a test set with the
    same correlations does not show it. Eight tests look for the traces:

    ``region``
        The lowest and the highest 15 % of each label are left out of the training, then predicted.
        Flag: compared with ordinary cross-validation they move by more than the error bars, and by
        more than those of a model that stops where its training stars end (medians).
    ``leakage``
        Slopes :math:`L_{km}` of the errors of label `k` on all true labels `m` at once, on
        `decorrelated` stars or on those of the audit; in spreads of the labels. Flag:
        :math:`|L_{km}| > 0.1` for :math:`m \ne k`. Not testable where a slope has an error above 0.1.
    ``attribution``
        Share of :math:`|J_k|^2 / (\sigma^2 + s^2)` within the lines of label `k`. Flag: below two
        thirds. Of models without gradients of the flux, the share in what noise does to the label
        (finite differences), which is told but not judged. With `reference`, also the share of the
        information in :math:`J_k` that lies along the gradient of the reference; flag: below two thirds.
    ``null_line``
        The lines of label `k` are blanked before training. Flag: its RMSE is still below half of its
        spread, but with all other labels alike (as on a decorrelated set) predictions follow the truth
        with a slope that is not clearly above 0.5. Lines that the windows miss are no flag.
    ``swap``
        Of each pair of labels with :math:`|\rho| > 0.3` (the three closest), training stars are drawn
        such that :math:`\rho` changes its sign, or vanishes where it cannot. Flag: predictions of other
        stars drawn alike differ from those of fits to as many stars drawn at random by more than half an
        error bar (root mean square, less what two random draws differ by).
    ``nuisance``
        Rank correlation of errors with S/N and other `nuisances`, all labels held fixed. Flag: beyond
        0.1.
    ``attenuation``
        Slope of predicted against true label in bins of S/N. Flag: further than 0.1 from 1.
    ``correlation``
        Flag: two training labels with :math:`|\rho| > 0.9`.

    In ``region``, ``leakage``, ``nuisance`` and ``attenuation`` a flag means that the limit is exceeded
    *significantly*: the false discovery rate over all rows of a test is 1 %. Spectra of a star may err
    together.

    Parameters
    ----------
    model : estimator
        Any regressor from spectra to labels, also at the end of a Pipeline. It is cloned and fitted to
        the stars of the audit (for a search, give its ``best_estimator_``: it would search in each
        refit). Errors are those of ``predict_dist`` where there is one, else the usual error.
    X : Spectra or array-like of shape (n, P)
        The training spectra; without `refit`, spectra that the model has not seen.
    y : array-like of shape (n, K) or (n,)
        Their labels. The columns of a DataFrame name them.
    decorrelated : tuple (X, y), optional
        Stars with independent labels, such as synthetic ones, for ``leakage``.
    label_noise : array-like broadcastable to (n, K), optional
        Standard deviation of the errors of `y`; taken out of spreads and slopes. Labels of
        `decorrelated` are taken as exact.
    line_windows : dict, optional
        Label name -> list of (lower, upper) [Angstrom] of its own lines, or boolean array (P,). By
        default abundances of single elements and of alpha elements (``mg_fe``, ``alpha_m``...) have
        those of the line table of :func:`~skspec.datasets.synthesize`, 3800 to 9000 Angstrom, three
        resolution elements wide, strong lines three times that.
    reference : object with ``flux_jacobian(labels)``, optional
        Theoretical gradients, such as :class:`SyntheticGradients`, of the same labels and pixels.
    nuisances : DataFrame or dict of arrays of shape (n,), optional
        Numbers that should not matter: velocity, fibre, airmass... Besides these, ``snr`` and all
        numbers per star in ``X.meta``.
    snr : array-like of shape (n,), optional
        Default: ``snr`` in ``X.meta``, else from the flux errors. Left aside where it is about the
        same for all (90th percentile below 1.5 times the 10th).
    tests : "all" or list of str
        Which of the tests.
    refit : bool
        False: `model` is fitted and stays as it is; the tests that need refits (``region``,
        ``null_line``, ``swap``) are left out, and ``correlation`` is about the stars given.
    cv : int or splitter
        Folds of the predictions out of fold. Spectra of one star (``star_id`` or ``group_id`` in
        ``X.meta``) are never on both sides.
    n_jobs : int, optional
        Parallel refits.
    random_state : int or None
        Seed of the draws of ``swap``.

    Returns
    -------
    LabelAudit

    Raises
    ------
    ValueError
        With fewer than 20 stars, labels or nuisances that do not fit, or unknown tests.

    See Also
    --------
    skspec.plotting.LabelAuditDisplay : The audit in one picture.
    skspec.plotting.write_audit_page : The audit as an HTML page.

    Notes
    -----
    A test that passes has not found anything at its threshold, with these stars; it proves nothing. The
    limits are conventions: they were set with synthetic training sets (see the user guide for
    how often they are wrong).

    Examples
    --------
    >>> from skspec.datasets import make_spectra
    >>> from skspec.diagnostics import audit_labels
    >>> from skspec.forward import TheCannon
    >>> spectra, labels = make_spectra(300, n_pixels=200, random_state=0)
    >>> audit = audit_labels(TheCannon(), spectra, labels, tests=["leakage", "correlation"])
    >>> audit.passed
    True
    >>> audit.leakage.shape
    (3, 3)
    """
    wanted = _wanted(tests)
    audited = _audited(model, X, y, label_noise, refit, cv, n_jobs, random_state)
    _check_order("reference", reference, audited.names)
    if not refit:
        _check_order("model", last_step(model), audited.names)
    known = _varied(known_snr(audited.spectra) if snr is None else np.asarray(snr, dtype=float))
    options = AuditOptions(
        decorrelated=_decorrelated(decorrelated, audited.names),
        reference=reference,
        windows=window_masks(audited.spectra, audited.names, line_windows),
        snr=known,
        nuisances=_nuisances(audited.spectra, nuisances, known),
    )
    done = {name: _one(name, audited, options) for name in wanted}
    settings = {
        "model": str(model),
        "refit": refit,
        "cv": str(cv),
        "random_state": random_state,
        "decorrelated": 0 if options.decorrelated is None else len(options.decorrelated[1]),
        "label_noise": label_noise is not None,
    }
    return LabelAudit(done, audited.names, len(audited), settings)


def _wanted(tests):
    wanted = list(TESTS) if isinstance(tests, str) and tests == "all" else list(tests)
    if unknown := [name for name in wanted if name not in TESTS]:
        raise ValueError(f"There is no test {unknown[0]!r}; there are {', '.join(TESTS)}.")
    return wanted


def _one(name, audited, options):
    title, function, refits = TESTS[name]
    empty = pd.DataFrame()
    if refits and not audited.refit:
        return AuditTest(name, title, None, "it needs refits, and refit=False.", empty)
    try:
        flag, why, table = function(audited, options)
    except Untestable as reason:
        return AuditTest(name, title, None, str(reason), empty)
    return AuditTest(name, title, flag, why, table)


def _audited(model, X, y, label_noise, refit, cv, n_jobs, seed):
    spectra, names = as_spectra(X), label_names(y)
    y = label_values(y, names)
    vector = y.ndim == 1
    y = y.reshape(len(y), -1)
    names = names or [f"label_{k}" for k in range(y.shape[1])]
    if len(y) != len(spectra):
        raise ValueError(f"{len(spectra)} spectra, but {len(y)} rows of labels.")
    if len(y) < MIN_STARS:
        raise ValueError(f"An audit needs at least {MIN_STARS} stars, got {len(y)}.")
    refuse_unknown(y, names)
    if label_noise is None:
        noise = np.zeros(y.shape)
    else:
        noise = label_values(label_noise, names, what="label_noise", sentinels=False)
    try:
        noise = np.broadcast_to(noise, y.shape)
    except ValueError:
        raise ValueError(
            f"label_noise has shape {noise.shape}, which does not fit the labels of shape {y.shape}."
        ) from None
    if not (np.isfinite(noise) & (noise >= 0)).all():
        raise ValueError(
            "label_noise holds negative, NaN or infinite values; leave those stars out."
        )
    return Audited(
        model, spectra, y, names, noise, vector=vector, refit=refit, cv=cv, n_jobs=n_jobs, seed=seed
    )


def _check_order(what, model, names):
    """The columns of `y` are taken as those of `model`: refuse the same labels in another order."""
    others = list(getattr(model, "label_names_in_", names))
    if others != names and set(others) == set(names):
        raise ValueError(
            f"The labels of y are {', '.join(names)}, those of {what} {', '.join(others)}; give them in "
            "one order."
        )


def _decorrelated(given, names):
    """Spectra, labels (m, K) in the order of `names`, and their errors, which are 0."""
    if given is None:
        return None
    spectra, y = given
    y = label_values(y, names, what="Labels of decorrelated", among_others=True)
    y = y.reshape(len(y), -1)
    if y.shape != (len(spectra), len(names)):
        raise ValueError(
            f"decorrelated has {len(spectra)} spectra and labels of shape {y.shape}; give one column "
            f"for each of {', '.join(names)}."
        )
    refuse_unknown(y, names, "Labels of decorrelated")
    return as_spectra(spectra), y, np.zeros(y.shape)


def _varied(snr):
    """The S/N (n,), NaN where it is about the same for all: then the flux decides what is left."""
    known = snr[np.isfinite(snr)]
    low, high = np.quantile(known, [0.1, 0.9]) if known.size else (1.0, 1.0)
    return snr if high > MIN_SNR_RATIO * low else np.full(snr.shape, np.nan)


def _nuisances(spectra, given, snr):
    """What is known of each star besides its labels, as numbers: a column each."""
    n, table = len(spectra), {}
    if np.isfinite(snr).any():
        table["snr"] = snr
    if snr.shape != (n,):
        raise ValueError(f"snr of shape {snr.shape} for {n} spectra; give one each.")
    for name, values in spectra.meta.items():
        values = np.asarray(values)
        numbers = values.shape == (n,) and values.dtype.kind in "biuf"
        if numbers and name not in _NO_NUISANCE:
            table.setdefault(name, values.astype(float))
    for name, values in dict({} if given is None else given).items():
        values = np.asarray(values)
        if values.shape != (n,) or values.dtype.kind not in "biuf":
            raise ValueError(f"nuisances[{name!r}] must hold one number for each of {n} stars.")
        table[name] = values.astype(float)
    return pd.DataFrame(table, index=range(n))
