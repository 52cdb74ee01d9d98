"""How often does the audit of labels flag models trained on correlated labels, and others?

    python -m benchmarks audit [--seeds 10] [--n 400] [--methods linear quadratic ridge kernel_pca]

Two training sets, each with its labels correlated and independent of each other, audited with and
without a decorrelated set; the limits of the tests were set with other draws.

It takes the arguments --parts rates (that) and miles: the audit of real stars, which needs SKSPEC_DATA.

- sequence: giants along one relation of log g with Teff (rho = 0.99);
- locked: [alpha/M] a linear function of [Fe/H] but for 0.03 dex (rho = -0.98);
- loose: the same with 0.1 dex (rho = -0.83), for --worlds loose --n 1500.
"""

import argparse
import warnings

import numpy as np
import pandas as pd

from benchmarks.common import data_file, print_machine, table
from skspec import Spectra
from skspec.base import CorrelatedLabelsWarning
from skspec.calibration import ResidualCovarianceRegressor
from skspec.datasets import load_spectra, synthesize
from skspec.diagnostics import audit_labels
from skspec.discriminative import KernelPCARegressor
from skspec.forward import TheCannon

WAVELENGTH = np.geomspace(5100, 5300, 300)
METHODS = {
    "linear": ("The Cannon, linear", TheCannon(1)),
    "quadratic": ("The Cannon, quadratic", TheCannon(2)),
    "ridge": ("ridge", ResidualCovarianceRegressor()),
    "kernel_pca": ("kernel PCA", KernelPCARegressor(gamma=0.5, scale_pixels=False, cv=3)),
}


def observe(labels, rng, snr=(20, 100)):
    """Spectra of given labels, S/N log-uniform."""
    flux = synthesize(labels, WAVELENGTH)
    snr = np.exp(rng.uniform(*np.log(snr), len(labels)))
    sigma = np.sqrt(flux) / snr[:, None]
    flux = flux + sigma * rng.normal(size=flux.shape)
    meta = {"snr": snr, "resolution": 5000.0}
    return Spectra(flux, ivar=1 / sigma**2, wavelength=WAVELENGTH, meta=meta)


def sequence(n, rng, planted):
    labels = pd.DataFrame(
        {
            "teff": rng.uniform(4300, 5300, n),
            "logg": rng.uniform(1.5, 3.7, n),
            "feh": rng.uniform(-1, 0.3, n),
        }
    )
    if planted:
        labels["logg"] = 2.6 + (labels["teff"] - 4800) / 480 + 0.1 * rng.normal(size=n)
    return observe(labels, rng), labels


def locked(n, rng, planted, scatter=0.03):
    labels = pd.DataFrame(
        {
            "teff": rng.uniform(4500, 6000, n),
            "feh": rng.uniform(-1.2, 0.3, n),
            "alpha_m": rng.uniform(-0.1, 0.4, n),
        }
    )
    if planted:
        labels["alpha_m"] = 0.15 - (labels["feh"] + 0.45) / 3 + scatter * rng.normal(size=n)
    return observe(labels, rng), labels


def loose(n, rng, planted):
    return locked(n, rng, planted, scatter=0.1)


WORLDS = {"sequence": sequence, "locked": locked, "loose": loose}


def cell(flags):
    """Flagged of tested; what could not be tested is left out."""
    tested = [flag for flag in flags if flag is not None]
    return f"{sum(tested)} / {len(tested)}" if tested else "-"


def miles(args):
    """532 MILES stars, no errors of the flux, labels of the literature."""
    path = data_file("optical_common/optical_common.npz")
    if path is None:
        return
    spectra, labels = load_spectra(path, ["teff", "logg", "feh"])
    keep = labels.notna().all(axis=1) & labels["teff"].between(4000, 7000)
    keep = keep.to_numpy() & (spectra.meta["survey"] == "MILES") & spectra.good.any(axis=1)
    spectra, labels = spectra[keep][:, ::2], labels[keep].reset_index(drop=True)
    audit = audit_labels(TheCannon(), spectra, labels, n_jobs=args.n_jobs)
    print(f"\nMILES, {audit}\n\n{audit['region'].table.round(3)}\n\n{audit.leakage.round(3)}")


def rates(args):
    """Flags over several seeds."""
    rows, header = [], None
    for world in (WORLDS[name] for name in args.worlds):
        for planted in (True, False):
            for key in args.methods:
                title, model = METHODS[key]
                found = []
                for seed in range(1, args.seeds + 1):
                    rng = np.random.default_rng([seed, world is not sequence, planted])
                    X, y = world(args.n, rng, planted)
                    other = world(args.n, rng, False)
                    audit = audit_labels(model, X, y, decorrelated=other, n_jobs=args.n_jobs)
                    alone = audit_labels(
                        model, X, y, tests=["leakage"], n_jobs=args.n_jobs, random_state=seed
                    )
                    found.append({**audit.flags, "leakage alone": alone["leakage"].flag})
                names = list(found[0])
                header = header or ["labels", "model", *(n.replace("_", " ") for n in names)]
                labels = f"{world.__name__}, {'correlated' if planted else 'independent'}"
                rows.append([labels, title, *(cell([f[name] for f in found]) for name in names)])
                print(rows[-1], flush=True)
    table("Flagged / tested sets", header, rows)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--seeds", type=int, default=10)
    add("--n", type=int, default=400)
    add("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    add("--worlds", nargs="+", choices=list(WORLDS), default=["sequence", "locked"])
    add("--n-jobs", type=int)
    add("--parts", nargs="+", choices=["rates", "miles"], default=["rates", "miles"])
    args = parser.parse_args(argv)
    print_machine()
    warnings.simplefilter("ignore", CorrelatedLabelsWarning)
    if "rates" in args.parts:
        rates(args)
    if "miles" in args.parts:
        miles(args)


if __name__ == "__main__":
    main()
