"""HARPS, HARPS-N, CORALIE, SOPHIE, ESPRESSO: what their pipelines (DRS) write."""

from __future__ import annotations

import re

import numpy as np

from skspec.datasets.readers._cards import berv_of, position_of, star_of, velocity
from skspec.datasets.readers._file import SpectrumFile, SpectrumFileError, card, column_names, text
from skspec.datasets.readers._grids import header_grid, ivar_from_sigma, zero_runs
from skspec.datasets.readers._registry import reader
from skspec.spectra import Spectra

DRS_CARD = re.compile(r"([A-Z]+) DRS ")  # of ESO, TNG (HARPS-N), OHP (SOPHIE), ...
#: of lines in the cross-correlation function [km/s], which only files after it have
STAR_VELOCITY = ("QC CCF RV", "DRS CCF RVC", "DRS CCF RV")
MERGED_SPIKE = 100.0  # times the median: more than any line of a star
N_EXTRACTED = 6  # pixels across an order that are summed: header's S/N of HARPS to 1 %
RESOLUTION = {
    "HARPS": 115_000.0,
    "HARPN": 115_000.0,
    "CORALIE": 60_000.0,
    "SOPHIE": 75_000.0,
    "ESPRESSO": 140_000.0,
}


def _observatory(header):
    """First word of the cards of the pipeline, as "ESO" of ``ESO DRS BERV``; "" without any."""
    found = (DRS_CARD.match(name) for name in header)
    return next((match[1] for match in found if match), "")


def _is_drs(file):
    image = file.hdus[0].data
    return image is not None and bool(_observatory(file.header))


def _is_s1d(file):
    return _is_drs(file) and file.hdus[0].data.ndim == 1


def _is_e2ds(file):
    return _is_drs(file) and file.hdus[0].data.ndim == 2


@reader("drs_s1d", "HARPS, HARPS-N, CORALIE, SOPHIE: s1d of the older pipelines", _is_s1d)
def read_s1d(file: SpectrumFile) -> Spectra:
    """Merged orders, in air, barycentric, without errors. What IRAF has edited since has any frame.

    Runs of zeros are gaps; the merging leaves values in some files that are no flux.
    """
    flux = file.image(0, 1)
    return Spectra(
        flux,
        mask=zero_runs(flux) | (np.abs(flux) > MERGED_SPIKE * np.median(np.abs(flux))),
        wavelength=header_grid(file.header, len(flux)),
        medium="air",
        frame=None if "IRAF-TLM" in file.header else "barycentric",
        flux_unit=text(file.header.get("BUNIT")) or None,
        resolution=_resolution(file.header),
        meta=_meta(file.header),
    )


@reader("drs_e2ds", "HARPS, HARPS-N, CORALIE, SOPHIE: e2ds of the older pipelines", _is_e2ds)
def read_e2ds(file: SpectrumFile) -> Spectra:
    r"""Orders in electrons per pixel, in air, topocentric.

    Wavelengths are the polynomials of the header, :math:`\sum_k c_{ok} x^k` for pixel
    :math:`x = 0, 1, \dots` of order o, else those of the wavelength map that the header names and that
    lies beside the file. Where the blaze lies there, too, it is divided out. The variance is the number
    of electrons and the squared readout noise of the six pixels that are summed across an order.
    """
    header = file.header
    drs = f"{_observatory(header)} DRS"
    flux = file.image(0, 2).astype(float)
    if _is_wavelength_map(flux):
        raise SpectrumFileError("it is a map of wavelengths, which holds no flux")
    wavelength = _polynomials(header, drs, flux.shape)
    if wavelength is None:
        wavelength = _beside(file, header.get(f"{drs} CAL TH FILE"), flux.shape)
    if wavelength is None:
        name = text(header.get(f"{drs} CAL TH FILE")) or "its map of wavelengths (wave_A)"
        raise SpectrumFileError(
            f"its header has no wavelengths for {flux.shape[0]} orders of {flux.shape[1]} pixels; put "
            f"{name} beside it (cross-correlation functions are no spectra)"
        )
    noise = card(header, f"{drs} CCD SIGDET", default=0.0)
    sigma = np.sqrt(np.maximum(flux, 0) + N_EXTRACTED * noise**2)
    blaze = _beside(file, header.get(f"{drs} BLAZE FILE"), flux.shape)
    if blaze is not None:
        blaze = np.where(blaze > 0, blaze, np.nan)
        flux, sigma = flux / blaze, sigma / blaze
    mask = zero_runs(flux) | ~np.isfinite(sigma)
    return Spectra(
        np.where(mask, 0, flux).ravel(),
        ivar=np.where(mask, 0, ivar_from_sigma(sigma)).ravel(),
        wavelength=wavelength.ravel(),
        order=np.repeat(np.arange(len(flux)), flux.shape[1]),
        medium="air",
        frame="topocentric",
        flux_unit="electron" if blaze is None else None,
        resolution=_resolution(header),
        meta=_meta(header, topocentric=True),
    )


def _is_wavelength_map(image):
    step = np.diff(image, axis=1)
    return bool(np.all(image > 1000) and np.all(image < 50_000) and np.all(step > 0))


def _polynomials(header, drs, shape):
    """Wavelengths (orders, pixels); None where the header has not one polynomial for each order."""
    degree = card(header, f"{drs} CAL TH DEG LL")
    if not 0 < degree < 20:
        return None
    n_terms = int(degree) + 1
    name = f"{drs} CAL TH COEFF LL"
    if f"{name}{shape[0] * n_terms}" in header:
        return None  # of more orders
    terms = [card(header, f"{name}{i}") for i in range(shape[0] * n_terms)]
    terms = np.reshape(terms, (shape[0], n_terms))
    if not np.all(np.isfinite(terms)):
        return None
    return np.polynomial.polynomial.polyval(np.arange(shape[1]), terms.T)


def _beside(file, name, shape):
    """Image of this shape of a file in the same folder; None where it is not there."""
    path = file.path.with_name(text(name).replace("/", "_") or "-")
    for candidate in (path, path.with_name(path.name + ".gz")):
        if candidate.is_file():
            image = SpectrumFile(candidate).image(0, 2)
            return image.astype(float) if image.shape == shape else None
    return None


def _is_s1d_table(file):
    return any({"WAVELENGTH_AIR", "FLUX"} <= column_names(hdu) for hdu in file.hdus[1:])


@reader(
    "espresso_s1d", "ESPRESSO, HARPS, HARPS-N: S1D of the new pipeline", _is_s1d_table, priority=1
)
def read_s1d_table(file: SpectrumFile) -> Spectra:
    """Merged orders, in vacuum, barycentric; pixels of any quality other than 0 are bad."""
    [position, *_] = [
        i for i, hdu in enumerate(file.hdus) if i and "WAVELENGTH_AIR" in column_names(hdu)
    ]
    table = file.columns(position)
    vacuum = "WAVELENGTH" in table
    flux = table["FLUX"]
    bad = zero_runs(flux)
    if "QUALITY" in table:
        bad |= table["QUALITY"] != 0
    error = table.get("ERROR", table.get("ERR"))
    return Spectra(
        flux,
        ivar=None if error is None else ivar_from_sigma(error),
        mask=bad,
        wavelength=table["WAVELENGTH" if vacuum else "WAVELENGTH_AIR"],
        medium="vacuum" if vacuum else "air",
        frame="barycentric",
        resolution=_resolution(file.header),
        meta=_meta(file.header),
    )


def _is_s2d(file):
    return "SCIDATA" in file.extensions and any(name in file.extensions for name in S2D_WAVELENGTHS)


#: of an S2D, the best first: medium
S2D_WAVELENGTHS = {"WAVEDATA_VAC_BARY": "vacuum", "WAVEDATA_AIR_BARY": "air"}


@reader("espresso_s2d", "ESPRESSO, HARPS, HARPS-N: S2D of the new pipeline", _is_s2d, priority=1)
def read_s2d(file: SpectrumFile) -> Spectra:
    """Orders (slices of ESPRESSO each for itself), blazed, in vacuum, barycentric."""
    name = next(name for name in S2D_WAVELENGTHS if name in file.extensions)
    flux, wavelength = file.image("SCIDATA", 2), file.image(name, 2).astype(float)
    bad = zero_runs(flux)
    if "QUALDATA" in file.extensions:
        bad |= file.image("QUALDATA", 2) != 0
    ivar = None
    if "ERRDATA" in file.extensions:
        ivar = ivar_from_sigma(file.image("ERRDATA", 2)).ravel()
    order = np.repeat(np.arange(len(flux)), flux.shape[1])
    # orders that the detector does not hold have no wavelengths
    used = np.isin(order, np.flatnonzero(np.all(wavelength > 0, axis=1)))
    return Spectra(
        flux.ravel()[used],
        ivar=None if ivar is None else ivar[used],
        mask=bad.ravel()[used],
        wavelength=wavelength.ravel()[used],
        order=order[used],
        medium=S2D_WAVELENGTHS[name],
        frame="barycentric",
        resolution=_resolution(file.header),
        meta=_meta(file.header),
    )


def _resolution(header):
    return RESOLUTION.get(text(header.get("INSTRUME")).upper())


def _meta(header, topocentric=False):
    berv = berv_of(header)
    names = [f"{origin} {name}" for name in STAR_VELOCITY for origin in ("ESO", "TNG", "OHP")]
    rv = velocity(header, *names)
    if topocentric:  # the pipeline's is barycentric
        rv = rv - berv
    return {
        "star_id": star_of(header),
        "rv": rv,
        "berv": berv,
        **position_of(header),
        "mjd": card(header, "MJD-OBS"),
    }
