"""Survey files onto one grid: files per second, and memory when streamed into a store.

    OMP_NUM_THREADS=1 python -m benchmarks reading [--files 1000] [--parts speed memory]

Files in the layout of LAMOST DR10 (3909 pixels, gz, noise of S/N 50) with velocities in their headers
are brought to rest on one log-uniform grid.

- speed: `read_spectra` with one and two processes, against a loop over `astropy.io.fits` and specutils'
  `FluxConservingResampler`, and one over specutils' own reader where it knows the layout; on some of
  the files, scaled up. In turn, in one process.
- memory: growth of the resident set while more and more files go into a store.
"""

import argparse
import gzip
import io
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from benchmarks.common import load, print_machine, table
from skspec.datasets import read_spectra, synthesize

LIGHT_SPEED = 299_792.458  # km/s
N_PIXELS, START, STEP = 3909, 3.5682, 1e-4
GRID = 10 ** (3.58 + 1e-4 * np.arange(3600))
COLUMNS = ("FLUX", "IVAR", "WAVELENGTH", "ANDMASK", "ORMASK", "NORMALIZATION")


def write_files(folder, n, seed=0):
    """Files of `n` stars, 60 kB each, as those of LAMOST."""
    from astropy.io import fits

    rng = np.random.default_rng(seed)
    wavelength = 10 ** (START + STEP * np.arange(N_PIXELS))
    lines = (wavelength > 3810) & (wavelength < 8990)  # where there is a line list
    rv = rng.normal(0, 50, n)
    labels = {"teff": rng.uniform(4800, 6200, n), "logg": np.full(n, 4.0), "feh": np.zeros(n)}
    for k in range(n):
        row = {name: values[k : k + 1] for name, values in labels.items()}
        flux = rng.normal(1e3, 20, N_PIXELS)
        flux[lines] += 1e3 * synthesize({**row, "rv": rv[k : k + 1]}, wavelength[lines])[0] - 1e3
        values = (flux, np.full(N_PIXELS, 1 / 400), wavelength, 0 * flux, 0 * flux, flux / 1e3)
        hdu = fits.BinTableHDU.from_columns(
            [
                fits.Column(name, f"{N_PIXELS}E", array=value[None])
                for name, value in zip(COLUMNS, values)
            ],
            name="COADD",
        )
        primary = fits.PrimaryHDU()
        cards = {"TELESCOP": "LAMOST", "OBSID": k, "COEFF0": START, "COEFF1": STEP, "CLASS": "STAR"}
        cards |= {"Z": rv[k] / LIGHT_SPEED, "VACUUM": True, "DATA_V": "LAMOST DR10"}
        cards |= {f"CARD{i}": i for i in range(100)}  # they have so many
        for name, value in cards.items():
            primary.header[name] = value
        stream = io.BytesIO()
        fits.HDUList([primary, hdu]).writeto(stream)
        (folder / f"{k:05}.fits.gz").write_bytes(gzip.compress(stream.getvalue(), 6))


def with_astropy(files):
    """Each file opened with astropy and resampled with specutils, as its pages show."""
    from astropy import units as u
    from astropy.io import fits
    from astropy.nddata import InverseVariance
    from specutils import Spectrum
    from specutils.manipulation import FluxConservingResampler

    resampler = FluxConservingResampler()
    grid, flux, ivar = GRID * u.AA, [], []
    for file in files:
        with fits.open(file) as hdus:
            row = hdus["COADD"].data[0]
            z = hdus[0].header["Z"]
            spectrum = Spectrum(
                spectral_axis=row["WAVELENGTH"].astype(float) / (1 + z) * u.AA,
                flux=row["FLUX"].astype(float) * u.one,
                uncertainty=InverseVariance(row["IVAR"].astype(float)),
            )
        new = resampler(spectrum, grid)
        flux.append(new.flux.value)
        ivar.append(new.uncertainty.array)
    return np.array(flux), np.array(ivar)


def knows_the_layout(file):
    """Whether specutils has a reader for it that keeps what is in the file."""
    from specutils import Spectrum

    try:
        spectrum = Spectrum.read(file)
    except Exception as error:
        return f"no ({type(error).__name__})"
    n = np.size(spectrum.flux)
    return "yes" if n == N_PIXELS else f"no (it finds {n} pixels)"


def clock(function):
    start, own = time.perf_counter(), time.process_time()
    out = function()
    return time.perf_counter() - start, time.process_time() - own, out


def speed(folder, args):
    files = sorted(map(str, folder.glob("*.gz")))
    some = files[: args.theirs]
    read_spectra(files[:4], grid=GRID)  # imports
    read_spectra(files[:64], grid=GRID, n_jobs=2)  # and starts workers
    with_astropy(some[:2])
    rows = []
    for _ in range(args.repeats):
        theirs = clock(lambda: with_astropy(some))
        one = clock(lambda: read_spectra(files, grid=GRID))
        two = clock(lambda: read_spectra(files, grid=GRID, n_jobs=2))
        rate, cost = len(some) / theirs[0], theirs[1] / len(some)
        for name, (wall, own, _), n in [
            ("astropy and specutils, loop", theirs, len(some)),
            ("read_spectra", one, len(files)),
            ("read_spectra, n_jobs=2", two, len(files)),
        ]:
            cpu = [f"{1e3 * own / n:.1f}", f"{cost * n / own:.1f}"]
            if "jobs" in name:  # that of the workers is not seen
                cpu = ["", ""]
            ratio = f"{n / wall / rate:.1f}"
            rows.append([name, n, f"{n / wall:.0f}", cpu[0], ratio, cpu[1], f"{load():.1f}"])
    table(
        f"{len(files)} LAMOST files (gz, 3909 pixels) to rest on 3600 pixels",
        ["side", "files", "files per s", "ms CPU per file", "ratio, wall", "ratio, CPU", "load"],
        rows,
    )
    flux, _ = theirs[2]
    ours = two[2][: len(some)].flux
    apart = np.abs(flux - ours) / np.median(ours)
    print(f"median difference of the fluxes: {np.nanmedian(apart):.1e} of the median")
    print(f"specutils' own readers know the layout: {knows_the_layout(some[0])}")


MEMORY = """
import sys
from pathlib import Path
from skspec.datasets import read_spectra
from benchmarks.reading import GRID

def peak():  # kB
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

folder, n = Path(sys.argv[1]), int(sys.argv[2])
files = sorted(map(str, folder.glob("*.gz")))
read_spectra(files[:8], grid=GRID, store=sys.argv[3] + "_warm")
before = peak()
store = read_spectra(files[:n], grid=GRID, store=sys.argv[3])
print(len(store), peak() - before)
"""


def memory(folder, args):
    rows = []
    for n in (args.files // 4, args.files // 2, args.files):
        with tempfile.TemporaryDirectory() as out:
            command = [sys.executable, "-c", MEMORY, str(folder), str(n), f"{out}/store"]
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found, grown = map(int, told.split())
        rows.append([found, f"{2 * 4 * len(GRID) * found / 2**20:.0f}", f"{grown / 1024:.0f}"])
    table("Streamed into a store", ["files", "flux and ivar MB", "grown by MB"], rows)


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks reading",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = {"speed": speed, "memory": memory}
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--theirs", type=int, default=30, help="files of the loop")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args(argv)
    print_machine()
    warnings.simplefilter("ignore")  # specutils of units and deprecations
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), args.files)
        for name in args.parts:
            parts[name](Path(folder), args)
