"""IRAF's "multispec" and "equispec": orders or fibres as rows of an image."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from skspec._short_repr import ShortRepr
from skspec.datasets.readers._cards import (
    LINEAR_AIR,
    berv_of,
    flux_unit_of,
    frame_of,
    medium_of,
    position_of,
    star_of,
    wavelength_unit_of,
)
from skspec.datasets.readers._file import SpectrumFile, SpectrumFileError, card, text
from skspec.datasets.readers._grids import header_grid, ivar_from_sigma, questioned, zero_runs
from skspec.datasets.readers._registry import reader
from skspec.spectra import Spectra

WIDTH = 68  # characters of a WAT card
MAX_TERMS = 1000  # of a dispersion function
LINEAR, LOG, NONLINEAR = 0, 1, 2
CHEBYSHEV, LEGENDRE, CUBIC_SPLINE, LINEAR_SPLINE, PIXELS, SAMPLES = range(1, 7)


def _is_multispec(file):
    image = file.hdus[0].data
    if image is None or image.ndim not in (1, 2, 3):
        return False
    system = text(file.header.get("WAT0_001")).lower()
    return "multispec" in system or text(file.header.get("CTYPE1")).upper().startswith("MULTISPE")


def _is_equispec(file):
    image = file.hdus[0].data
    if image is None or image.ndim not in (2, 3):
        return False
    if card(file.header, "CRVAL1") != card(file.header, "CRVAL1"):
        return False
    return "equispec" in text(file.header.get("WAT0_001")).lower() or "BANDID1" in file.header


@reader("iraf_multispec", "IRAF multispec: echelle orders or fibres, any dispersion", _is_multispec)
def read_multispec(file: SpectrumFile) -> Spectra:
    """Wavelengths from the WAT2 cards; of the bands of the image, spectrum and sigma.

    Apertures are orders, under their IRAF numbers; those on the same wavelengths are rows. In air unless
    the header speaks of vacuum. Apertures without wavelengths are left out.
    """
    flux, sigma = _bands(file)
    header = file.header
    apertures = _apertures(_attributes(file))
    pixels = _physical(header, flux.shape[1])
    parts = []
    for row, aperture in sorted(apertures.items()):
        if row < len(flux) and aperture.dtype >= 0:
            n = min(aperture.n_pixels, flux.shape[1]) if aperture.n_pixels > 1 else flux.shape[1]
            wavelength = aperture.wavelengths(pixels[:n])
            parts.append((row, aperture.number, wavelength))
    if not parts:
        raise SpectrumFileError("none of its apertures has a wavelength calibration")
    first = parts[0][2]
    unit = wavelength_unit_of(_attribute(header, "units"), header.get("CUNIT1"))
    unit = questioned(first, unit)
    if all(np.array_equal(wavelength, first) for *_, wavelength in parts):
        rows = [row for row, *_ in parts]
        return _rows(file, flux, sigma, rows, first, unit)
    numbers = [number for _, number, _ in parts]
    if len(set(numbers)) < len(numbers):
        numbers = [row + 1 for row, *_ in parts]
    values = np.concatenate([flux[row, : len(w)] for row, _, w in parts])
    return Spectra(
        values,
        ivar=None
        if sigma is None
        else ivar_from_sigma(np.concatenate([sigma[row, : len(w)] for row, _, w in parts])),
        mask=np.concatenate([zero_runs(flux[row, : len(w)]) for row, _, w in parts]),
        wavelength=np.concatenate([w for *_, w in parts]),
        wavelength_unit=unit,
        order=np.concatenate([np.full(len(w), k) for k, (*_, w) in zip(numbers, parts)]),
        **_about(header, first, unit),
    )


@reader("iraf_equispec", "IRAF equispec: spectra on one grid as rows of an image", _is_equispec)
def read_equispec(file: SpectrumFile) -> Spectra:
    """One grid of the header for all rows; of the bands of the image, spectrum and sigma."""
    flux, sigma = _bands(file)
    unit = wavelength_unit_of(_attribute(file.header, "units"), file.header.get("CUNIT1"))
    grid = header_grid(file.header, flux.shape[1])
    return _rows(file, flux, sigma, range(len(flux)), grid, questioned(grid, unit))


def _rows(file, flux, sigma, rows, wavelength, unit):
    """Spectra on one grid as rows, with the names of the apertures."""
    header, n, rows = file.header, len(wavelength), list(rows)
    about = _about(header, wavelength, unit)
    star = about["meta"]["star_id"]
    names = [text(header.get(f"APID{row + 1}")) for row in rows]
    if len(rows) > 1:
        apertures = [f"{star} aperture {row + 1}".strip() for row in rows]
        about["meta"]["star_id"] = [a or b for a, b in zip(names, apertures)]
    flux = flux[rows, :n]
    return Spectra(
        flux,
        ivar=None if sigma is None else ivar_from_sigma(sigma[rows, :n]),
        mask=zero_runs(flux),
        wavelength=wavelength,
        wavelength_unit=unit,
        **about,
    )


def _about(header, wavelength, unit):
    medium = medium_of(header)
    if medium is None and unit == "Angstrom":
        optical = LINEAR_AIR[0] <= np.min(wavelength) and np.max(wavelength) <= LINEAR_AIR[1]
        medium = "air" if optical else None
    return {
        "medium": medium,
        "frame": frame_of(header),
        "flux_unit": flux_unit_of(header.get("BUNIT")),
        "meta": {
            "star_id": star_of(header),
            "berv": berv_of(header),
            **position_of(header),
        },
    }


def _bands(file):
    """Flux (apertures, pixels) and its sigma, or None, of the bands of an image."""
    image = file.image(0, (1, 2, 3)).astype(float)
    image = image.reshape((1,) * (3 - image.ndim) + image.shape)
    names = [text(file.header.get(f"BANDID{i + 1}")).lower() for i in range(len(image))]
    sigma = next((i for i, name in enumerate(names) if name.startswith("sigma")), None)
    flux = next((i for i, name in enumerate(names) if name.startswith("spectrum")), 0)
    return image[flux], None if sigma is None else image[sigma]


def _physical(header, n_pixels):
    """Numbers of the pixels before the image was cut or binned, from 1, in which functions are."""
    start, scale = card(header, "LTV1", default=0.0), card(header, "LTM1_1", default=1.0)
    return (np.arange(1, n_pixels + 1) - start) / (scale if scale else 1.0)


def _attribute(header, name):
    found = re.search(rf"{name}\s*=\s*\"?(\w+)", text(header.get("WAT1_001")))
    return found[1] if found else ""


def _attributes(file):
    """The text of the WAT2 cards. Its pieces end in blanks that count, and that astropy strips."""
    pieces = {}
    for line in file.header.cards:
        found = re.fullmatch(r"WAT2_(\d+)", line.keyword)
        if found:
            pieces[int(found[1])] = str(line.value)
    numbers = sorted(pieces)
    return "".join(pieces[i].ljust(WIDTH) if i != numbers[-1] else pieces[i] for i in numbers)


def _apertures(words):
    """Row -> `Aperture`, of ``specN = "..."``."""
    found = {}
    for number, quoted in re.findall(r"spec(\d+)\s*=\s*\"([^\"]*)\"?", words):
        try:
            found[int(number) - 1] = Aperture.parse(quoted.split())
        except (ValueError, IndexError):
            raise SpectrumFileError(
                f"spec{number} of its WAT2 cards is cut off or damaged"
            ) from None
    if not found:
        raise SpectrumFileError("its WAT2 cards describe no apertures")
    return found


@dataclass(repr=False)
class Aperture(ShortRepr):
    """One row of an image, and how wavelengths follow from pixels.

    For the redshift z and functions f of weight w and zero point o, the wavelength is
    :math:`\\sum_i w_i (o_i + f_i(p)) / (1 + z)` (IRAF, ``help specwcs``).
    """

    number: int
    dtype: int
    start: float
    step: float
    n_pixels: int
    z: float
    functions: list[tuple[float, float, int, list[float]]]

    @classmethod
    def parse(cls, words: list[str]) -> Aperture:
        number, _, dtype = (int(float(word)) for word in words[:3])
        start, step, n_pixels, z = (float(word.replace("D", "E")) for word in words[3:7])
        functions = []
        rest = [_number(word) for word in words[9:]]
        if dtype == NONLINEAR and not rest:
            raise ValueError("no function")
        while dtype == NONLINEAR and rest:
            weight, zero, kind = rest[0], rest[1], int(rest[2])
            n = _n_parameters(kind, rest[3:])
            if len(rest) < 3 + n:
                raise ValueError("cut off")
            functions.append((weight, zero, kind, rest[3 : 3 + n]))
            rest = rest[3 + n :]
        if dtype not in (-1, LINEAR, LOG, NONLINEAR):
            raise ValueError("unknown kind")
        if z <= -1:
            raise ValueError("impossible redshift")
        return cls(number, dtype, start, step, int(n_pixels), z, functions)

    def wavelengths(self, pixel: np.ndarray) -> np.ndarray:
        if self.dtype == NONLINEAR:
            out = sum(w * (zero + _function(kind, p, pixel)) for w, zero, kind, p in self.functions)
        else:
            # linear ones count the pixels of the image as it is
            out = self.start + self.step * np.arange(len(pixel))
            if self.dtype == LOG:
                out = 10.0**out
        return np.asarray(out) / (1 + self.z)


def _number(word):
    return np.nan if word.upper() == "INDEF" else float(word.upper().replace("D", "E"))


def _n_parameters(kind, words):
    """Numbers that belong to a function, of which `words` are the first and others."""
    size = int(words[0])
    if not 0 < size <= (10**6 if kind in (PIXELS, SAMPLES) else MAX_TERMS):
        raise ValueError("impossible number of terms")
    sizes = {
        CHEBYSHEV: 3 + size,
        LEGENDRE: 3 + size,
        CUBIC_SPLINE: 3 + size + 3,
        LINEAR_SPLINE: 3 + size + 1,
        PIXELS: 1 + size,
        SAMPLES: 1 + 2 * size,
    }
    if kind not in sizes:
        raise ValueError("unknown function")
    return sizes[kind]


def _function(kind, parameters, pixel):
    size = int(parameters[0])
    if kind == PIXELS:
        return np.interp(pixel, np.arange(1, size + 1), parameters[1:])
    if kind == SAMPLES:
        samples = np.reshape(parameters[1:], (size, 2))
        return np.interp(pixel, samples[:, 0], samples[:, 1])
    first, last, *terms = parameters[1:]
    if kind in (CHEBYSHEV, LEGENDRE):
        x = (2 * pixel - (last + first)) / (last - first)
        polynomial = np.polynomial.chebyshev.chebval
        return (polynomial if kind == CHEBYSHEV else np.polynomial.legendre.legval)(x, terms)
    return _spline(np.array(terms), size, (pixel - first) / (last - first) * size, kind)


def _spline(terms, n_pieces, x, kind):
    piece = np.clip(np.floor(x).astype(int), 0, n_pieces - 1)
    b = x - piece
    a = 1 - b
    if kind == LINEAR_SPLINE:
        return terms[piece] * a + terms[piece + 1] * b
    basis = (a**3, 1 + 3 * a * (1 + a * b), 1 + 3 * b * (1 + a * b), b**3)
    return sum(terms[piece + k] * weight for k, weight in enumerate(basis))
