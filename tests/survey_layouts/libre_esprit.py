"""Libre-ESpRIT text, with a spectrum of your own."""

import numpy as np
from astropy.io import fits


def write_libre_esprit(path, *columns, star="HD 1", n_pixels=None):
    """Columns: wavelength [nm], intensity, and others; sigma last. The header may count wrongly."""
    if not columns:
        wavelength = 500 + 0.02 * np.concatenate([np.arange(0, 50), np.arange(45, 100)])
        columns = wavelength, np.ones(105), np.zeros(105), np.full(105, 0.01)
    n_pixels = len(columns[0]) if n_pixels is None else n_pixels
    lines = [f"***Reduced spectrum of '{star}'", f"  {n_pixels} {len(columns) - 1}"]
    for first, *others in zip(*columns):
        lines.append(f"{first:10.4f} " + " ".join(f"{value:11.4e}" for value in others))
    path.write_text("\n".join(lines) + "\n")
    return path


def write_cfht(path, wavelength=None, flux=None, sigma=None, *, polarised=True):
    """Four spectra below each other, (un)normalised and with(out) correction by telluric lines."""
    if wavelength is None:
        wavelength = 500 + 0.02 * np.concatenate([np.arange(0, 50), np.arange(45, 100)])
        flux, sigma = np.ones(105), np.full(105, 0.01)
    stokes = ["Stokes", "CheckN1", "CheckN2"] if polarised else []
    header, rows = fits.Header({"OBJECT": "HD46328"}), []
    for k in range(4):
        parts = [wavelength + 0.01 * k, flux * (1 + k), *[np.zeros_like(flux)] * len(stokes)]
        names = ["Wavelength", "Intensity", *stokes, "ErrorBar"]
        for name, row in zip(names, [*parts, sigma * (1 + k)]):
            rows.append(row)
            header[f"COL{len(rows)}"] = name
    fits.PrimaryHDU(np.array(rows, np.float32), header).writeto(path, overwrite=True)
    return path
