"""Order statistics that bound what comes next (split-conformal prediction).

Of `n` scores and one more, all exchangeable, the last one is the r-th smallest with the same
probability for every r. It is therefore at most the r-th of the other `n` with a probability of at
least r / (n + 1), whatever their distribution (Vovk, Gammerman & Shafer 2005; Lei et al. 2018, JASA
113, 1094).
"""

from __future__ import annotations

import numpy as np

__all__ = ["conformal_quantile"]


def conformal_quantile(scores: np.ndarray, level: float) -> np.ndarray:
    """Smallest score that a new one exceeds with probability ``1 - level`` at most.

    Parameters
    ----------
    scores : ndarray (n, ...)
        Sorted along the first axis.
    level : float
        Between 0 and 1.

    Returns
    -------
    ndarray (...)
        The ``ceil((n + 1) level)``-th score; infinite where there are too few for that level.

    Examples
    --------
    >>> import numpy as np
    >>> from skspec.solvers.statistics.conformal import conformal_quantile
    >>> scores = np.arange(1.0, 20.0)                    # 19 of them
    >>> [float(conformal_quantile(scores, level)) for level in (0.9, 0.95, 0.96)]
    [18.0, 19.0, inf]
    """
    scores = np.asarray(scores, dtype=float)
    rank = int(np.ceil((len(scores) + 1) * level * (1 - 1e-12)))  # 20 * 0.95 rounds to above 19
    if rank > len(scores):
        return np.full(scores.shape[1:], np.inf)[()]
    return scores[max(rank, 1) - 1]
