"""Normal matrices of many stars that share a basis and differ in the weights of their pixels."""

from __future__ import annotations

import numpy as np

__all__ = ["weighted_gram"]

BLOCK_BYTES = 2**26  # of the pair products of a block of pixels


def weighted_gram(basis: np.ndarray, weight: np.ndarray, real: type = float) -> np.ndarray:
    """``V diag(w) V^T`` of every star.

    Parameters
    ----------
    basis : ndarray of shape (r, P)
    weight : ndarray of shape (n, P)
    real : dtype
        Precision of the products.

    Returns
    -------
    ndarray of shape (n, r, r)
        In double precision.
    """
    n, n_pixels = weight.shape
    rank = len(basis)
    # powers of two: single precision does not overflow, and no digit changes
    unit, most = (2.0 ** np.frexp(values.max(initial=0.0))[1] for values in (np.abs(basis), weight))
    basis, weight = (basis / unit).astype(real), (weight / most).astype(real, copy=False)
    first, second = np.tril_indices(rank)
    packed = np.zeros((n, len(first)))
    step = max(64, BLOCK_BYTES // (8 * max(len(first), 1)))
    for start in range(0, n_pixels, step):  # products of pairs of basis spectra, block by block
        block = basis[:, start : start + step]
        packed += weight[:, start : start + step] @ (block[first] * block[second]).T
    gram = np.empty((n, rank, rank))
    packed *= unit**2 * most
    gram[:, first, second] = packed
    gram[:, second, first] = packed
    return gram
