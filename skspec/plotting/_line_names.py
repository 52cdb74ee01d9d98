"""Strong lines and bands that figures name, so that a change of a spectrum can be recognised."""

from __future__ import annotations

import numpy as np

from skspec._wavelengths import air_to_vacuum

__all__ = ["strong_lines"]

#: name -> air wavelengths [Angstrom] of lines, or of heads of molecular and telluric (⊕) bands
_OPTICAL = {
    "Ca K": (3933.66,),
    "Ca H": (3968.47,),
    "Hδ": (4101.74,),
    "Ca I 4227": (4226.73,),
    "G band": (4305.0,),
    "Hγ": (4340.47,),
    "Fe I 4384": (4383.54,),
    "Hβ": (4861.33,),
    "Mg b": (5167.32, 5172.68, 5183.60),
    "Fe I 5270": (5269.54,),
    "Na D": (5889.95, 5895.92),
    "TiO 6159": (6158.5,),
    "Hα": (6562.80,),
    "Li I": (6707.8,),
    "B ⊕": (6867.2,),
    "TiO 7054": (7054.2,),
    "A ⊕": (7593.7,),
    "K I": (7664.91, 7698.97),
    "O I": (7771.94, 7774.17, 7775.39),
    "Na I 8190": (8183.26, 8194.82),
    "Ca II": (8498.02, 8542.09, 8662.14),
    "Mg I 8807": (8806.76,),
}
#: name -> vacuum wavelengths of the H band, whose spectra are in vacuum
_INFRARED = {
    "K I 15170": (15167.2, 15172.5),
    "Mn I": (15222.0,),
    "Mg I 15753": (15745.0, 15753.2, 15770.1),
    "Br 14": (15884.9,),
    "Si I": (15964.4,),
    "Br 13": (16113.7,),
    "Ca I 16155": (16155.2,),
    "Br 12": (16411.7,),
    "Al I": (16723.5, 16755.1, 16767.9),
    "Br 11": (16811.1,),
}


def strong_lines(wavelength, *, medium="vacuum"):
    """Strong lines that lie within a wavelength grid.

    Parameters
    ----------
    wavelength : array-like of shape (P,)
        [Angstrom].
    medium : {"vacuum", "air"}
        Of `wavelength`.

    Returns
    -------
    dict of str to ndarray
        Name -> wavelengths [Angstrom]; empty when none lies within.

    Examples
    --------
    >>> from skspec.plotting._line_names import strong_lines
    >>> strong_lines([5000, 5300], medium="air")
    {'Mg b': array([5167.32, 5172.68, 5183.6 ]), 'Fe I 5270': array([5269.54])}
    """
    low, high = np.min(wavelength), np.max(wavelength)
    lines = {name: np.array(at) for name, at in _OPTICAL.items()}
    if medium != "air":
        lines = {name: air_to_vacuum(at) for name, at in lines.items()}
        lines |= {name: np.array(at) for name, at in _INFRARED.items()}
    within = {name: at[(at > low) & (at < high)] for name, at in lines.items()}
    return {name: at for name, at in within.items() if at.size}
