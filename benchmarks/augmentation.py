"""Augmentation: spectra per second, next to a plain loop over stars.

    python -m benchmarks augmentation [--n 1000] [--parts uniform linear short accuracy network]

- uniform: 7214 pixels uniform in ln(wavelength), as of APOGEE, with errors and 1 % of bad pixels, and
  the same spectra without either ("plain"). CPU time.
- linear: 4000 pixels uniform in wavelength. short: 300 pixels uniform in ln(wavelength).
- accuracy: largest error of lines of a full width of 2.5 pixels, moved and rotated, of both.
- network: training of a strided network with and without augmentation of every batch.

The loop does for one star after the other what one would write first: numpy.interp, numpy.convolve with
the sampled profile, a generator. It knows neither errors nor bad pixels.
"""

import argparse

import numpy as np

from benchmarks.common import interleave, load, print_machine, ratio, table
from skspec import Spectra
from skspec.augmentation import (
    BadPixels,
    ContinuumJitter,
    GaussianNoise,
    InstrumentBroadening,
    RadialVelocityShift,
    RotationalBroadening,
    TelluricMask,
)
from skspec.solvers.spectra.broadening import gray_profile
from skspec.solvers.spectra.line_of_sight import C_KMS

GRIDS = {
    "uniform": np.geomspace(15168.1, 16936.7, 7214),
    "linear": np.linspace(4000.0, 6800.0, 4000),
    "short": np.geomspace(5150.0, 5200.0, 300),
}
RESOLUTION = {"uniform": (5000.0, 15000.0), "linear": (1000.0, 2500.0), "short": (5000.0, 15000.0)}
FWHM = np.sqrt(8 * np.log(2))


def observed(n, wavelength, plain=False):
    """Spectra with lines, errors and 1 % of bad pixels; `plain`: with neither errors nor bad pixels."""
    rng = np.random.default_rng(0)
    flux = 1 - 0.3 * rng.random((n, len(wavelength))) ** 8
    if plain:
        return Spectra(flux, wavelength=wavelength)
    ivar = np.where(rng.random(flux.shape) < 0.01, 0.0, rng.uniform(0.5, 2, flux.shape) * 1e4)
    return Spectra(flux, ivar=ivar, wavelength=wavelength)


# -- the loops -------------------------------------------------------------------------------------


def in_velocity(wavelength):
    """A grid uniform in ln(wavelength), as fine as the finest pixels."""
    u = np.log(wavelength)
    step = np.diff(u).min()
    return u, np.arange(u[0], u[-1], step), step * C_KMS


def convolved(flux, kernels, wavelength):
    u, fine, _ = in_velocity(wavelength)
    for row, kernel in zip(flux, kernels):
        depth = np.convolve(1 - np.interp(fine, u, row), kernel, mode="same")
        yield 1 - np.interp(u, fine, depth)


def rotate(flux, wavelength, rng):
    step = in_velocity(wavelength)[2]
    for vsini in rng.uniform(0, 70, len(flux)):
        half = int(vsini / step) + 1
        kernel = gray_profile(np.arange(-half, half + 1) * step / max(vsini, step), 0.6)
        yield kernel / kernel.sum()


def coarsen(flux, wavelength, rng, resolution):
    step = in_velocity(wavelength)[2]
    for R in rng.uniform(*resolution, len(flux)):
        sigma = C_KMS / R / FWHM / step
        x = np.arange(-int(4 * sigma) - 1, int(4 * sigma) + 2)
        kernel = np.exp(-0.5 * (x / sigma) ** 2)
        yield kernel / kernel.sum()


def loops(flux, wavelength, resolution):
    """Name -> function without arguments, each a loop over stars."""
    rng = np.random.default_rng(0)

    def noise():
        return [
            row + rng.normal(size=len(row)) / snr
            for row, snr in zip(flux, rng.uniform(20, 100, len(flux)))
        ]

    def shift():
        return [
            np.interp(wavelength * (1 - v / C_KMS), wavelength, row)
            for row, v in zip(flux, rng.uniform(-100, 100, len(flux)))
        ]

    def spoil():
        return [np.where(rng.random(len(row)) < 0.01, 1.0, row) for row in flux]

    def bend():
        x = np.linspace(-1, 1, len(wavelength))
        return [
            row * (1 + np.polynomial.chebyshev.chebval(x, rng.normal(size=4) * 0.01))
            for row in flux
        ]

    return {
        "GaussianNoise": noise,
        "RotationalBroadening": lambda: list(
            convolved(flux, rotate(flux, wavelength, rng), wavelength)
        ),
        "InstrumentBroadening": lambda: list(
            convolved(flux, coarsen(flux, wavelength, rng, resolution), wavelength)
        ),
        "RadialVelocityShift": shift,
        "BadPixels": spoil,
        "ContinuumJitter": bend,
    }


def spectra_per_second(grid, n, repeats):
    wavelength = GRIDS[grid]
    window = float(wavelength[len(wavelength) // 2])
    augmentations = [
        GaussianNoise((20, 100)),
        RotationalBroadening((0, 70)),
        InstrumentBroadening(RESOLUTION[grid]),
        RadialVelocityShift((-100, 100)),
        BadPixels(0.01),
        TelluricMask([(window, window + 50)], velocity=(-100, 100)),
        ContinuumJitter(),
    ]
    n = n if len(wavelength) > 1000 else 10 * n
    full, plain = observed(n, wavelength), observed(n, wavelength, plain=True)
    by_hand = loops(plain.flux, wavelength, RESOLUTION[grid])
    rows = []
    for augmentation in augmentations:
        name = type(augmentation).__name__
        sides = {
            "full": lambda a=augmentation: a.augment(full, random_state=0),
            "plain": lambda a=augmentation: a.augment(plain, random_state=0),
        }
        if name in by_hand:
            sides["loop"] = by_hand[name]
        times, rounds, _ = interleave(sides, repeats)
        rate = {side: f"{n / t.cpu:.0f}" for side, t in times.items()}
        gain = "-"
        if name in by_hand:
            gain = "{:.1f} ({:.1f}-{:.1f})".format(*ratio(rounds["loop"], rounds["plain"], "cpu"))
        rows.append([name, rate["full"], rate["plain"], rate.get("loop", "-"), gain])
    title = f"{len(wavelength)} pixels, {grid}: spectra per CPU second, median of {repeats}"
    table(
        f"{title}; load {load():.1f}",
        ["augmentation", "errors, 1 % bad", "plain", "loop", "plain / loop"],
        rows,
    )


def accuracy():
    """Lines of known shape, moved and rotated, by skspec and by the loop."""
    rows = []
    for grid, wavelength in GRIDS.items():
        u, _, step = in_velocity(wavelength)
        v = u * C_KMS
        sigma = 2.5 * np.diff(v).max() / FWHM
        centre = np.linspace(v[50], v[-50], len(v) // 30)[:, None]

        def lines(shift=0.0, v=v, centre=centre, sigma=sigma):
            return 1 - 0.5 * np.sum(np.exp(-0.5 * ((v - shift - centre) / sigma) ** 2), axis=0)

        star, rv, vsini = Spectra(lines(), wavelength=wavelength), 0.37 * step, 6.0 * step
        moved = [
            RadialVelocityShift(rv).augment(star).flux[0],
            np.interp(wavelength * (1 - rv / C_KMS), wavelength, star.flux[0]),
        ]
        fine = (np.arange(200) + 0.5) / 100 - 1
        weight = gray_profile(fine, 0.6)
        truth = sum(w * lines(vsini * x) for x, w in zip(fine, weight / weight.sum()))
        half = int(vsini / step) + 1
        kernel = gray_profile(np.arange(-half, half + 1) * step / vsini, 0.6)
        rotated = [
            RotationalBroadening(vsini).augment(star).flux[0],
            *convolved(star.flux, [kernel / kernel.sum()], wavelength),
        ]
        inner = slice(40, -40)
        for name, sides, right in (("moved", moved, lines(rv)), ("rotated", rotated, truth)):
            errors = [f"{np.abs(side - right)[inner].max():.1e}" for side in sides]
            rows.append([f"{grid}, {name}", *errors])
    table("Largest error of the flux", ["lines", "skspec", "loop"], rows)


def network(n, repeats):
    from skspec.augmentation import Compose
    from skspec.discriminative import SpectralCNN

    spectra = observed(n, GRIDS["uniform"])
    y = np.random.default_rng(0).normal(size=(n, 3))
    survey = Compose(
        [RotationalBroadening((0, 70)), RadialVelocityShift(), GaussianNoise((20, 100))]
    )

    def train(augmentation):
        model = SpectralCNN("strided", augmentation=augmentation, max_iter=3, random_state=0)
        return np.min(model.fit(spectra, y).history_["dur"])

    rows = []
    for name, augmentation in (("none", None), ("rotation, velocity, noise", survey)):
        seconds = min(train(augmentation) for _ in range(repeats))
        rows.append([name, f"{n * 0.9 / seconds:.0f}"])
    table(
        f"Training of a strided network, best epoch, load {load():.1f}",
        ["augmentation", "stars/s"],
        rows,
    )


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--parts", nargs="+", default=[*GRIDS, "accuracy", "network"])
    options = parser.parse_args(arguments)
    print_machine()
    for part in options.parts:
        if part == "network":
            network(options.n, options.repeats)
        elif part == "accuracy":
            accuracy()
        else:
            spectra_per_second(part, options.n, options.repeats)


if __name__ == "__main__":
    main()
