"""Training labels that go together."""

from __future__ import annotations

import pandas as pd

from skspec.base import CORRELATED, correlated_labels
from skspec.diagnostics.audit._result import Untestable


def correlation(a, options):
    """Pairs of labels that go together."""
    pairs = correlated_labels(a.y, a.names, above=-1.0)
    if not pairs:
        raise Untestable("there is one label only, or too few stars.")
    table = pd.DataFrame(pairs, columns=["label", "other", "rho"])
    table["flag"] = table["rho"].abs() > CORRELATED
    if table["flag"].any():
        told = [
            f"{one} and {other} (rho = {rho:+.2f})"
            for one, other, rho, flag in table.itertuples(index=False)
            if flag
        ]
        return True, f"{'; '.join(told)} can hardly be told apart by training.", table
    one, other, rho = table.iloc[0, :3]
    return False, f"the closest pair is {one} and {other}, rho = {rho:+.2f}.", table
