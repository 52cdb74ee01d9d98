"""Which pixels are continuum in every star."""

from __future__ import annotations

import numpy as np

from skspec.preprocessing._smoothing import running_quantile

_MAX_STARS = 1000
_QUANTILE = 0.9  # TheCannon, find_continuum_pixels.py
_STEP = 1e-4


def find_continuum_pixels(spectra, coordinate, segments, half_width, fraction, at_least):
    """The flattest pixels near 1 of each segment; see the Notes of `ContinuumNormalizer`.

    Parameters
    ----------
    spectra : Spectra of shape (n, P)
        Not normalised.
    coordinate : ndarray of shape (P,)
    segments : list of ndarray of int
    half_width : float
        Of the running quantile, in units of `coordinate`.
    fraction : float
        Of the pixels of each segment.
    at_least : int
        Pixels wanted per segment, if there are so many.

    Returns
    -------
    ndarray of bool of shape (P,)
    """
    if len(spectra) > _MAX_STARS:
        spectra = spectra[np.linspace(0, len(spectra) - 1, _MAX_STARS).astype(int)]
    flux, good = np.asarray(spectra.flux, dtype=float), spectra.good
    chosen = np.zeros(spectra.shape[1], dtype=bool)
    for segment in segments:
        f, g = flux[:, segment], good[:, segment]
        level = running_quantile(f, g, coordinate[segment], half_width, _QUANTILE)
        usable = g & (level > 0)
        ratio = np.divide(f, level, out=np.full(f.shape, np.nan), where=usable)
        seen = usable.any(axis=0)
        cut = np.full(len(segment), np.inf)
        r = ratio[:, seen]
        cut[seen] = np.maximum(np.abs(np.nanmedian(r, axis=0) - 1), np.nanvar(r, axis=0))
        wanted = max(int(np.ceil(fraction * len(segment))), at_least)
        wanted = min(wanted, int(seen.sum()))
        if wanted == 0:  # no positive flux at all: nothing to choose from
            chosen[segment] = True
            continue
        # both cuts rise together in steps: the step that lets the last wanted pixel in
        steps = np.maximum(np.ceil(cut / _STEP), 1)
        chosen[segment] = steps <= np.partition(steps, wanted - 1)[wanted - 1]
    return chosen
