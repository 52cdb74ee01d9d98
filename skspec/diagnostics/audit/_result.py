"""Outcome of each test of an audit, and what they are given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from skspec._short_repr import ShortRepr
from skspec.spectra import Spectra

MAX_SLOPE = 0.1  # slope or rank correlation up to which a dependence is of no concern
MIN_SAMPLE = 5  # stars that make a statement


@dataclass(frozen=True)
class AuditTest(ShortRepr):
    """Outcome of one test.

    Attributes
    ----------
    name, title : str
    flag : bool or None
        True: something is wrong. False: not found to be. None: it could not be tested here.
    why : str
        One sentence.
    table : pandas.DataFrame
        What was measured; ``flag`` tells which rows are wrong, where there are such.
    """

    name: str
    title: str
    flag: bool | None
    why: str
    table: pd.DataFrame

    def __str__(self) -> str:
        mark = {True: "FLAG", False: "pass", None: "-"}[self.flag]
        return f"{mark:4}  {self.title}: {self.why}"


class Untestable(Exception):
    """A test that cannot be made with this model and these stars, and why."""


@dataclass(frozen=True)
class AuditOptions(ShortRepr):
    """What the tests know besides the audited model and its stars.

    Attributes
    ----------
    decorrelated : tuple (Spectra, ndarray (m, K), ndarray (m, K)) or None
        Stars with independent labels, these labels, and their errors.
    reference : object with ``flux_jacobian(labels)`` or None
    windows : dict of str to ndarray of bool (P,)
        Pixels of each label's own lines.
    snr : ndarray of shape (n,)
        NaN where it is about the same for all.
    nuisances : DataFrame of n rows
        Numbers that should not matter.
    """

    decorrelated: tuple[Spectra, np.ndarray, np.ndarray] | None
    reference: object | None
    windows: dict[str, np.ndarray]
    snr: np.ndarray
    nuisances: pd.DataFrame
