"""Labelled spectra that the commands read, and the arguments that select them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from skspec.cli._errors import UserError, one_line

MIN_STARS = 20  # to fit a method to, and to judge it by
#: all that can be named, written down here so that ``--help`` imports nothing
METHODS = (
    "the_cannon",
    "cannon_coherent",
    "slam",
    "the_payne",
    "spectral_gp",
    "full_spectrum",
    "ridge",
    "pca_svr",
    "kernel_pca",
    "template_match",
    "consensus",
    "spectral_cnn",
    "beta_vae",
)
METHODS_HELP = (
    f"methods: {', '.join(METHODS)} (the_payne, spectral_cnn and beta_vae need PyTorch); or "
    "MODULE:CLASS for a skspec estimator of your own, such as mymodule:MyModel in mymodule.py of the "
    "current folder"
)


def add_selection(add):
    """Arguments that select pixels and stars."""
    add("--wavelength-range", nargs=2, type=float, metavar=("LO", "HI"), help="Angstrom")
    add(
        "--label-range",
        nargs=3,
        action="append",
        metavar=("LABEL", "LO", "HI"),
        default=[],
        help="keep stars in this range; may be repeated",
    )
    add(
        "--normalize",
        action="store_true",
        help="divide the spectra of a file by their continua (ContinuumNormalizer)",
    )


def method_named(name):
    """The method of this name; a class of the user's may lie in the current folder."""
    from skspec.diagnostics import available_methods, find_method

    if ":" not in name and name not in (known := available_methods()):
        raise UserError(f"unknown method {name!r}; known: {', '.join(known)}, or module:Class")
    if ":" in name and "" not in sys.path:
        sys.path.insert(0, "")  # as python -m does
    try:
        return find_method(name)
    except ValueError as error:
        raise UserError(one_line(error).removesuffix(".")) from error


def label_ranges(args):
    ranges = {}
    for name, low, high in args.label_range:
        try:
            ranges[name] = (float(low), float(high))
        except ValueError:
            raise UserError(f"--label-range {name} {low} {high}: two numbers are needed") from None
    return ranges


def load_labelled(args):
    """Spectra and labels of ``--data``, in the ranges asked for, and what they are in words."""
    from skspec.datasets import load_spectra

    path = Path(args.data)
    try:
        spectra, labels = load_spectra(
            path, args.labels, wavelength_range=args.wavelength_range or None
        )
    except (ValueError, OSError) as error:
        raise UserError(one_line(error)) from error
    if not len(labels.columns) or not len(labels):
        raise UserError(f"{path.name} has no labelled stars")
    check_label_names(args.ranges, list(labels))
    keep = labels.notna().all(axis=1).to_numpy()
    for name, (low, high) in args.ranges.items():
        keep = keep & labels[name].between(low, high).to_numpy()
    if keep.sum() < MIN_STARS:
        raise UserError(
            f"{path.name}: {keep.sum()} labelled stars in range; at least {MIN_STARS} are needed"
        )
    labels, spectra = labels[keep].reset_index(drop=True), spectra[keep]
    if args.normalize:
        from skspec.preprocessing import ContinuumNormalizer

        try:
            spectra = ContinuumNormalizer().fit_transform(spectra)
        except ValueError as error:
            raise UserError(f"{path.name}, --normalize: {one_line(error)}") from error
    return spectra, labels, f"{path.name}: {len(labels)} stars"


def check_label_names(ranges, names):
    for name in ranges:
        if name not in names:
            raise UserError(f"--label-range {name}: no such label; there are {', '.join(names)}")


def folds(text):
    if int(text) < 2:
        raise argparse.ArgumentTypeError("at least 2 folds")
    return int(text)


def port(text):
    if not 0 <= int(text) < 2**16:
        raise argparse.ArgumentTypeError("a number from 0 to 65535")
    return int(text)


def count(text):
    if int(text) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return int(text)


def fraction(text):
    if not 0 < float(text) < 1:
        raise argparse.ArgumentTypeError("a fraction between 0 and 1")
    return float(text)
