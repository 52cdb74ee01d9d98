"""Real survey files for tests, and the numbers that an independent reader found in them."""

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

FILES = Path(os.environ.get("SKSPEC_FILES", Path(__file__).parents[2] / "shared" / "files"))
LIGHT_SPEED = 299_792.458


def real_files(pattern):
    """Survey files that match, relative to the folder; a skipped parameter where there are none."""
    found = sorted(path.relative_to(FILES) for path in FILES.glob(pattern) if path.is_file())
    if found:
        return [pytest.param(path, id=str(path)) for path in found]
    skip = pytest.mark.skip(reason=f"no {pattern} in SKSPEC_FILES")
    return [pytest.param(Path(pattern), id=pattern, marks=skip)]


@cache
def golden():
    """File -> row -> numbers."""
    return json.loads((FILES / "golden.json").read_text())


def check_golden(spectra, row):
    """One star (or one order of it) against a row of golden.json."""
    flux, good, wavelength = spectra.flux[0], spectra.good[0], spectra.wavelength
    assert len(wavelength) == row["n"]
    ends = sorted([wavelength[0], wavelength[-1]])
    np.testing.assert_allclose(ends, sorted([row["w0"], row["w1"]]), rtol=0, atol=1e-3)
    n_bad = np.sum(~good)
    assert abs(n_bad - row["n_bad"]) <= 0.01 * max(row["n_bad"], 1), (n_bad, row["n_bad"])
    if row["flux_med"] is not None:
        np.testing.assert_allclose(np.median(flux[good]), row["flux_med"], rtol=1e-3)
    if "snr_med" in row:
        np.testing.assert_allclose(spectra.snr[0], row["snr_med"], rtol=1e-2)
    if row.get("frame") in ("rest", "barycentric", "heliocentric", "topocentric"):
        assert spectra.frame == row["frame"]
    if row.get("medium") in ("air", "vacuum"):
        assert spectra.medium == row["medium"]


def line_velocity(wavelength, flux, good, line, core):
    """Velocity [km/s] of an absorption line at `line`: vertex of a parabola within +- `core` km/s.

    NaN where the line is not there, or masked.
    """
    velocity = LIGHT_SPEED * (wavelength / line - 1)
    near = np.flatnonzero(np.abs(velocity) < 2 * core)
    if len(near) < 4 or not good[near].all():
        return np.nan
    lowest = velocity[near][np.argmin(flux[near])]
    near = np.abs(velocity - lowest) < core
    curve, slope, _ = np.polyfit(velocity[near] - lowest, flux[near], 2)
    return lowest - slope / (2 * curve) if curve > 0 else np.nan
