"""What the benchmarks share: data, clocks, facts about the machine, tables."""

import os
import platform
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_info, threadpool_limits

from skspec import Spectra

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("SKSPEC_DATA", ROOT.parent / "shared" / "data"))
EMULATOR = "apogee_emulated/emulator_datadriven_normalized.npz"

# -- data ------------------------------------------------------------------------------------------

#: Box of the emulator's labels in which all codes are compared, and what the free ones leave fixed.
BOX = {
    "teff": (4200.5, 6995.7),
    "logg": (4.0, 4.985),
    "feh": (-0.786, 0.378),
    "mgfe": (-0.298, 0.5),
    "vmacro": (-2.79, 44.99),
}
FIXED = {"mgfe": 0.05, "vmacro": 8.0}


def data_file(name):
    """Path of a data file, or None with a note when it is not there."""
    path = DATA / name
    if path.is_file():
        return path
    print(f"no {path}: set SKSPEC_DATA to the folder that holds {name}; skipped")
    return None


def apogee_network(labels, file=EMULATOR):
    """Noise-free spectra (n, P) of an APOGEE network of El-Badry et al. 2018."""
    with np.load(DATA / file) as net:
        w0, b0, w1, b1 = (net[f"{k}_array_{i}"].astype(float) for i in (0, 1) for k in "wb")
        low, high = net["x_min"], net["x_max"]
    z = (labels - low) / (high - low) - 0.5
    flux = np.empty((len(labels), len(w0)))
    step = 256
    for start in range(0, len(w0), step):
        j = slice(start, start + step)
        hidden = 1 / (1 + np.exp(-(np.einsum("jkl,nl->njk", w0[j], z) + b0[j])))
        flux[:, j] = np.einsum("njk,jk->nj", hidden, w1[j]) + b1[j]
    return flux


def _smooth_functions(labels, n_pixels=7214):
    """Stand-in for the network where the data are not at hand."""
    rng = np.random.default_rng(12)
    z = (labels - np.mean(labels, axis=0)) / (np.std(labels, axis=0) + 1e-12)
    pull = rng.normal(size=(labels.shape[1], n_pixels))
    return 1 - rng.lognormal(-3.5, 1.0, n_pixels) * (1 + np.tanh(z @ pull / 2))


def apogee_like(n_train, n_test=200, n_labels=3, snr=100.0, seed=0, n_pixels=None, inner=0.9):
    """The common data of all codes: emulator spectra with white noise.

    Training labels are uniform in the box (nested for growing `n_train`), test labels in its
    `inner` part. Labels beyond `n_labels` are fixed.

    Returns
    -------
    train, y_train, test, y_test : Spectra and DataFrame
    """
    names = list(BOX)[:n_labels]
    low, high = np.array([BOX[name] for name in BOX]).T
    if n_labels > 4:
        low[4] = 0.0  # no negative broadening

    def draw(rng, n, part):
        middle, half = (low + high) / 2, part * (high - low) / 2
        full = middle + half * rng.uniform(-1, 1, (n, len(BOX)))
        for k, name in enumerate(BOX):
            if name not in names:
                full[:, k] = FIXED[name]
        return full

    known = (DATA / EMULATOR).is_file()
    if not known:
        print("no APOGEE emulator found (SKSPEC_DATA): smooth random functions instead")
    out = []
    for which, n, part in ((0, n_train, 1.0), (1, n_test, inner)):
        labels = draw(np.random.default_rng([seed, which]), n, part)
        flux = apogee_network(labels) if known else _smooth_functions(labels)
        flux += np.random.default_rng([seed, which, 1]).normal(size=flux.shape) / snr
        if n_pixels:
            flux = flux[:, np.linspace(0, flux.shape[1] - 1, n_pixels).astype(int)]
        wavelength = np.geomspace(15168.1, 16936.7, flux.shape[1])
        spectra = Spectra(flux, ivar=np.full(flux.shape, snr**2), wavelength=wavelength)
        out += [spectra, pd.DataFrame(labels[:, : len(names)], columns=names)]
    return tuple(out)


# -- clocks ----------------------------------------------------------------------------------------


class Seconds(NamedTuple):
    """Wall time, and CPU time of this process and its children."""

    wall: float
    cpu: float


def _children_cpu():
    """CPU seconds of living descendants; workers of a pool are never waited for."""
    tick, parent, used = os.sysconf("SC_CLK_TCK"), {}, {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            parent[int(name)] = int(stat[1])
            used[int(name)] = (int(stat[11]) + int(stat[12])) / tick
    family, grew = {os.getpid()}, True
    while grew:
        more = {p for p, up in parent.items() if up in family} - family
        family |= more
        grew = bool(more)
    return sum(used[p] for p in family - {os.getpid()})


def _cpu():
    times = os.times()
    living = _children_cpu() if os.path.isdir("/proc") else 0.0
    return time.process_time() + times.children_user + times.children_system + living


def clocked(function):
    """(Seconds, result) of one call."""
    cpu, wall = _cpu(), time.perf_counter()
    result = function()
    return Seconds(time.perf_counter() - wall, _cpu() - cpu), result


def interleave(sides, repeats):
    """Run every side `repeats` times in turn, the order reversed every other time.

    Returns
    -------
    times : dict of name -> Seconds
        Medians.
    rounds : dict of name -> list of Seconds
    results : dict of name -> last result
    """
    rounds, results = {name: [] for name in sides}, {}
    for number in range(repeats):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            seconds, results[name] = clocked(sides[name])
            rounds[name].append(seconds)
    times = {name: Seconds(*np.median(all_, axis=0)) for name, all_ in rounds.items()}
    return times, rounds, results


def ratio(theirs, ours, key="wall", scale=1.0):
    """Median and range over the rounds of ``scale * theirs / ours``."""
    each = [scale * getattr(a, key) / getattr(b, key) for a, b in zip(theirs, ours)]
    return float(np.median(each)), min(each), max(each)


# -- machine ---------------------------------------------------------------------------------------


def product_peak(dtype, n_threads, size=2000, repeats=5):
    """Best rate of a square matrix product [GF/s]."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((size, size)).astype(dtype)
    b = a.T.copy()
    best = np.inf
    with threadpool_limits(n_threads, user_api="blas"):
        for _ in range(repeats):
            start = time.perf_counter()
            a @ b
            best = min(best, time.perf_counter() - start)
    return 2e-9 * size**3 / best


def load():
    """Load average of the last minute."""
    return os.getloadavg()[0]


def print_machine():
    """Cores, libraries and matrix-product peaks; returns {(dtype name, threads): GF/s}."""
    cores = os.cpu_count()
    flags = Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    wide = ", AVX-512" if "avx512f" in flags else ", AVX2" if "avx2" in flags else ""
    blas = {lib["internal_api"] for lib in threadpool_info() if lib["user_api"] == "blas"}
    print(
        f"machine: {cores} cores, {platform.machine()}{wide}; Python {platform.python_version()}, "
        f"numpy {np.__version__}, BLAS {', '.join(sorted(blas))}; load average {load():.1f}"
    )
    peaks = {}
    for dtype in (np.float64, np.float32):
        for threads in sorted({1, min(2, cores)}):
            peaks[np.dtype(dtype).name, threads] = product_peak(dtype, threads)
    text = ", ".join(f"{d} {t} thread{'s'[: t > 1]} {v:.0f}" for (d, t), v in peaks.items())
    print(f"matrix product, best of 5 [GF/s]: {text}")
    return peaks


# -- tables ----------------------------------------------------------------------------------------


def table(title, header, rows):
    """Print a simple table, itself valid reStructuredText."""
    cells = [[str(c) for c in row] for row in (header, *rows)]
    width = [max(len(row[k]) for row in cells) for k in range(len(header))]
    rule = "  ".join("=" * w for w in width)
    print(f"\n{title}\n")
    for number, row in enumerate(cells):
        if number < 2:
            print(rule)
        first, *rest = [
            c.ljust(w) if k == 0 else c.rjust(w) for k, (c, w) in enumerate(zip(row, width))
        ]
        print("  ".join([first, *rest]).rstrip())
    print(rule, flush=True)


def verdict(value, required):
    """ "met" or "MISSED", with the requirement."""
    return f"{'met' if value >= required else 'MISSED'} (>= {required:g}x)"
