"""Tables of the Gaia archive in its containers, with spectra of your own."""

import numpy as np
from astropy.io import fits
from astropy.table import Column, MaskedColumn, Table

CONTAINERS = ("csv", "ecsv", "fits", "vot", "plain.vot")


STAR = 5762406957886626817


def write_table(path, columns, *, units=None, container=None):
    """`columns` by name: vectors, or lists of arrays (cells of vectors); the name tells the container.

    Cells of vectors are "(a, b)" in CSV, JSON in ECSV, of variable length in FITS and VOTable.
    """
    container = container or path.name.split(".", 1)[1]
    arrays = {name for name, values in columns.items() if np.ndim(values[0]) or len_of(values[0])}
    units = units or {}
    if container == "csv":
        lines = [",".join(columns)]
        for row in zip(*columns.values()):
            cells = [
                '"(' + ", ".join(map(repr, map(float, cell))) + ')"'
                if name in arrays
                else text(cell)
                for name, cell in zip(columns, row)
            ]
            lines.append(",".join(cells))
        path.write_text("\n".join(lines) + "\n")
    elif container == "fits":
        forms = {"i": "K", "f": "D"}
        made = []
        for name, values in columns.items():
            if name in arrays:
                array = np.empty(len(values), dtype=object)
                array[:] = [np.asarray(cell, np.float32) for cell in values]
                made.append(fits.Column(name, "PE()", array=array, unit=units.get(name)))
            else:
                values = np.asarray(values)
                form = forms[values.dtype.kind]
                made.append(fits.Column(name, form, array=values, unit=units.get(name)))
        hdu = fits.BinTableHDU.from_columns(made)
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True)
    else:
        table = Table()
        for name, values in columns.items():
            if name in arrays:
                array = np.empty(len(values), dtype=object)
                array[:] = [np.ma.masked_invalid(np.asarray(cell, np.float32)) for cell in values]
                table[name] = Column(array, unit=units.get(name))
            else:
                table[name] = MaskedColumn(np.asarray(values), unit=units.get(name))
        if container == "ecsv":
            table.write(path, format="ascii.ecsv", delimiter=",", overwrite=True)
        else:
            kind = "tabledata" if container == "plain.vot" else "binary2"
            table.write(path, format="votable", tabledata_format=kind, overwrite=True)
    return path


def len_of(cell):
    return len(cell) if isinstance(cell, (list, tuple)) else 0


def text(cell):
    return "" if isinstance(cell, float) and np.isnan(cell) else repr(np.asarray(cell).item())


def raw(source_id, flux, flux_error, **more):
    """One row per star."""
    return {"source_id": source_id, **more, "flux": list(flux), "flux_error": list(flux_error)}


def long(source_id, wavelength, flux, flux_error, **more):
    """One row per wavelength [nm] of each star."""
    n = len(wavelength)
    return {
        "source_id": np.repeat(source_id, n),
        **{name: np.repeat(values, n) for name, values in more.items()},
        "wavelength": np.tile(wavelength, len(source_id)),
        "flux": np.ravel(flux),
        "flux_error": np.ravel(flux_error),
    }


def continuous(source_id, bp, rp, bp_correlations, rp_correlations):
    """XP_CONTINUOUS: (coefficients, errors) of each band for each star; empty where there are none."""
    return {
        "source_id": source_id,
        "bp_coefficients": [one[0] for one in bp],
        "bp_coefficient_errors": [one[1] for one in bp],
        "bp_coefficient_correlations": list(bp_correlations),
        "rp_coefficients": [one[0] for one in rp],
        "rp_coefficient_errors": [one[1] for one in rp],
        "rp_coefficient_correlations": list(rp_correlations),
    }


def write_rvs_csv(path):
    """The first pixels of a star, one in each row."""
    nm = 846 + 0.01 * np.arange(60)
    return write_table(
        path, long([STAR], nm, np.ones(60), np.full(60, 0.01), ra=[10.0]), container="csv"
    )


def _write_xp(path, container):
    flux = np.linspace(1e-16, 2e-16, 2 * 343).reshape(2, 343)
    return write_table(path, raw([STAR, 7], flux, flux / 50), container=container)


def write_xp_csv(path):
    return _write_xp(path, "csv")


def write_xp_ecsv(path):
    return _write_xp(path, "ecsv")


def write_xp_fits(path):
    return _write_xp(path, "fits")


def write_xp_votable(path):
    return _write_xp(path, "vot")
