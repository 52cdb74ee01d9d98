"""Files in the layouts of LAMOST, with any star in them."""

import gzip
import io

import numpy as np
from astropy.io import fits

LIGHT_SPEED = 299_792.458
LRS_START, LRS_STEP, LRS_PIXELS = 3.5682, 1e-4, 3909
MRS_GRIDS = {"B": (3.6945, 1e-5, 4127), "R": (3.7964, 1e-5, 3824)}


def star(wavelength, rv=0.0, *, lines=(4862.69, 5175.0, 5330.0, 6564.61), width=2.5, level=1000.0):
    """Flux of a smooth star with Gaussian lines, moving at `rv` [km/s], in single precision."""
    factor = np.sqrt((1 + rv / LIGHT_SPEED) / (1 - rv / LIGHT_SPEED))
    rest = np.asarray(wavelength) / factor
    flux = 1 + 0.1 * np.cos(rest / 500)
    for line in lines:
        flux -= 0.6 * np.exp(-0.5 * ((rest - line) / width) ** 2)
    return (level * flux).astype(np.float32)


def write(path, hdus):
    """HDUs into a file, compressed where its name says so; the bytes depend on nothing else."""
    stream = io.BytesIO()
    fits.HDUList(hdus).writeto(stream)
    data = stream.getvalue()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def header(rv=0.0, obsid=1, start=LRS_START, step=LRS_STEP, **cards):
    """Cards of the primary header; None leaves one out."""
    known = {
        "OBSID": obsid,
        "DATA_V": "LAMOST DR10",
        "TELESCOP": "LAMOST",
        "RA": 10.0 + 1e-3 * obsid,
        "DEC": 20.0,
        "DESIG": f"LAMOST J{obsid:06d}.00+200000.0",
        "HELIO": True,
        "VACUUM": True,
        "WFITTYPE": "LOG-LINEAR",
        "COEFF0": start,
        "COEFF1": step,
        "CRVAL1": start,
        "CD1_1": step,
        "CRPIX1": 1,
        "CTYPE1": "LINEAR",
        "DC-FLAG": 1,
        "CLASS": "STAR",
        "SUBCLASS": "F2",
        "Z": rv / LIGHT_SPEED,
        "SNRG": 50.0,
    } | cards
    return {key: value for key, value in known.items() if value is not None}


def lrs_grid(n_pixels=LRS_PIXELS, start=LRS_START, step=LRS_STEP):
    return 10 ** (start + step * np.arange(n_pixels))


def write_lrs_table(path, rv=0.0, *, n_pixels=LRS_PIXELS, flux=None, snr=50, mask=(), **cards):
    """From DR8 on: one row of vectors; masks in floats. `mask` are bad pixels."""
    about = header(rv, **cards)
    wavelength = lrs_grid(n_pixels, about.get("COEFF0", LRS_START), LRS_STEP)
    flux = star(wavelength, rv) if flux is None else np.asarray(flux, dtype=np.float32)
    bad = np.zeros(n_pixels, np.float32)
    bad[list(mask)] = 1
    vectors = {
        "FLUX": flux,
        "IVAR": np.full(n_pixels, (snr / 1000.0) ** 2, np.float32),
        "WAVELENGTH": wavelength.astype(np.float32),
        "ANDMASK": bad,
        "ORMASK": bad,
        "NORMALIZATION": flux / 1000,
    }
    columns = [fits.Column(k, f"{n_pixels}E", array=v[None]) for k, v in vectors.items()]
    table = fits.BinTableHDU.from_columns(columns, name="COADD")
    return write(path, [_primary(about), table])


def write_lrs_image(path, rv=0.0, *, n_pixels=LRS_PIXELS, dr1=False, snr=50, mask=(), **cards):
    """Up to DR7: an image of five rows, the third wavelengths, or, in DR1, normalised flux."""
    about = header(rv, **cards)
    wavelength = lrs_grid(n_pixels, about.get("COEFF0", LRS_START), LRS_STEP)
    rows = np.zeros((5, n_pixels), np.float32)
    rows[0] = star(wavelength, rv)
    rows[1] = (snr / 1000.0) ** 2
    rows[2] = rows[0] / 1000 if dr1 else wavelength
    rows[3, list(mask)] = 1
    return write(path, [_primary(about, rows)])


def write_mrs(
    path,
    rv=0.0,
    *,
    exposures=(84454650, 84454696),
    coadd=True,
    vectors=False,
    n_pixels=None,
    **cards,
):
    """Both arms, combined (without, with `coadd` False) and single, red ones from red to blue.

    A row per pixel and LOGLAM, or (DR9 v1 on) one row of `vectors` and WAVELENGTH.
    """
    about = {
        key: value for key, value in header(rv, **cards).items() if key[:2] not in ("CO", "CR")
    }
    hdus = [_primary(about | {"EXTNAME": "Information"})]
    names = [f"COADD_{arm}" for arm in "BR"] * coadd
    names += [f"{arm}-{number}" for arm in "BR" for number in exposures]
    for name in names:
        arm, combined = name.replace("COADD_", "")[0], name.startswith("COADD")
        start, step, full = MRS_GRIDS[arm]
        loglam = start + step * np.arange(n_pixels or full)
        if arm == "R" and not combined:
            loglam = loglam[::-1]
        flux = star(10**loglam, rv, width=0.5)
        columns = {
            "FLUX": flux,
            "IVAR": np.full(len(flux), 2.5e-3, np.float32),
            **({"WAVELENGTH": 10**loglam} if vectors else {"LOGLAM": loglam}),
            "ANDMASK" if combined else "PIXMASK": np.zeros(len(flux), np.int16),
        }
        kinds = {"FLUX": "E", "IVAR": "E", "LOGLAM": "E", "WAVELENGTH": "E"}
        count = len(flux) if vectors else ""
        hdu = fits.BinTableHDU.from_columns(
            [
                fits.Column(key, f"{count}{kinds.get(key, 'I')}", array=v[None] if vectors else v)
                for key, v in columns.items()
            ],
            name=name,
        )
        hdus.append(hdu)
    return write(path, hdus)


def _primary(cards, data=None):
    hdu = fits.PrimaryHDU(data)
    for key, value in cards.items():
        hdu.header[key] = value
    return hdu
