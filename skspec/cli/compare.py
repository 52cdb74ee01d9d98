"""``skspec compare``: several methods on the same stars."""

from __future__ import annotations

import sys
from pathlib import Path

from skspec.cli._errors import INSTALL, UserError, has_package, one_line
from skspec.cli._input import (
    METHODS_HELP,
    MIN_STARS,
    add_selection,
    check_label_names,
    folds,
    fraction,
    label_ranges,
    load_labelled,
    method_named,
)
from skspec.cli._progress import progress_bars
from skspec.cli._tables import print_tables

DEFAULT_METHODS = (
    "the_cannon",
    "cannon_coherent",
    "slam",
    "spectral_gp",
    "template_match",
    "ridge",
    "pca_svr",
)
DEFAULT_LABELS = ("teff", "logg", "feh")
DEFAULT_STARS, DEFAULT_SNR, DEFAULT_RANGE, N_PIXELS = 1000, (20.0, 300.0), (4800.0, 5400.0), 2000


def add_parser(commands):
    text = "fit several methods on the same stars, predict the same other stars, write a report"
    add = commands.add_parser("compare", help=text, description=text.capitalize() + ".")
    add.set_defaults(run=run)
    add.epilog = METHODS_HELP
    add = add.add_argument
    add("--data", metavar="FILE.npz", help="spectra and labels; default: synthetic spectra")
    add(
        "--methods",
        nargs="+",
        metavar="NAME",
        default=list(DEFAULT_METHODS),
        help=f"see below; default: {' '.join(DEFAULT_METHODS)}",
    )
    add("--labels", nargs="+", metavar="NAME", help="default: all of the file, or teff logg feh")
    add("--snr", metavar="N|LO,HI", help="S/N of the synthetic spectra (default 20,300)")
    add("--n-samples", type=int, metavar="N", help=f"synthetic stars (default {DEFAULT_STARS})")
    add("--cv", type=folds, metavar="K", help="predict every star once, in K folds")
    add("--test-size", type=fraction, metavar="F", help="fraction of stars predicted (default 0.2)")
    add_selection(add)
    add(
        "--clean-training",
        type=float,
        metavar="N",
        help="forward models once more without training stars off by more than N sigma",
    )
    add("--n-jobs", type=int, metavar="N", help="parallel jobs of methods that have them")
    add("--seed", type=int, default=0, metavar="S", help="of data and split (default 0)")
    add(
        "--out",
        type=Path,
        default=Path("skspec_compare"),
        metavar="DIR",
        help="default: %(default)s",
    )
    add("--no-report", action="store_true", help="leave out report.html (and matplotlib)")


def run(args):
    _check(args)
    from skspec.diagnostics import compare
    from skspec.model_selection import star_groups

    known = {name: method_named(name) for name in args.methods}
    names = list(known)
    with progress_bars() as progress:
        progress.say("reading spectra" if args.data else "making spectra")
        reference = None  # the first forward model
        if args.data:
            spectra, labels, data = load_labelled(args)
        else:
            spectra, labels, reference, data = _make(args)
        n_train = _n_train(len(labels), args)
        given = {"random_state": args.seed}
        if args.n_jobs is not None:
            given["n_jobs"] = args.n_jobs
        methods = {name: known[name].build(n_train, **given) for name in names}
        titles = {name: known[name].title for name in names}
        if args.clean_training:
            given["clean_training"] = args.clean_training
            for name in names:
                if known[name].family == "forward":
                    methods[f"{name}_cleaned"] = known[name].build(n_train, **given)
                    titles[f"{name}_cleaned"] = f"{known[name].title}, cleaned"
        try:
            comparison = compare(
                methods,
                spectra,
                labels,
                cv=args.cv,
                test_size=args.test_size or 0.2,
                groups=star_groups(spectra),
                reference=reference,
                titles=titles,
                settings=_settings(args, names, data),
                random_state=args.seed,
                out=args.out,
                progress=progress,
            )
        except ValueError as error:
            raise UserError(one_line(error)) from error
        written = ["results.json", "predictions.csv"]
        if not args.no_report:
            progress.say("drawing the report")
            written.append(_report(comparison, args, data))
    print_tables(comparison)
    _print_failures(comparison)
    print(f"\nWrote {', '.join(written)} in {args.out}")
    return 0 if comparison.succeeded else 1


def _check(args):
    """What can be known to be wrong before anything is computed."""
    if args.cv and args.test_size:
        raise UserError("give either --cv or --test-size, not both")
    if args.data and (args.snr or args.n_samples):
        raise UserError(
            "--snr and --n-samples are for synthetic spectra; leave them out with --data"
        )
    if args.normalize and not args.data:
        raise UserError(
            "--normalize is for the spectra of a file (--data); synthetic ones need none"
        )
    if args.data and not Path(args.data).is_file():
        raise UserError(f"there is no file {args.data}")
    if args.out.exists() and not args.out.is_dir():
        raise UserError(f"--out {args.out} is a file; name a folder")
    if not args.no_report and not has_package("matplotlib"):
        raise UserError(f"the report needs matplotlib: {INSTALL} (or add --no-report)")
    args.ranges = label_ranges(args)
    args.snr_value = _snr(args.snr) if args.snr else DEFAULT_SNR


def _snr(text):
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 2) or min(values) <= 0:
        raise UserError(f"--snr {text}: give one positive number, or two as LO,HI")
    return values if len(values) == 2 else values[0]


def _make(args):
    """Synthetic spectra, and the generator's own gradients as the physical limit."""
    from skspec.datasets import make_spectra
    from skspec.diagnostics import SyntheticGradients

    names = args.labels or list(DEFAULT_LABELS)
    n_samples = DEFAULT_STARS if args.n_samples is None else args.n_samples
    if n_samples < MIN_STARS:
        raise UserError(
            f"--n-samples {n_samples} is too few stars to compare methods; take {MIN_STARS} or more"
        )
    check_label_names(args.ranges, names)
    try:
        spectra, labels = make_spectra(
            n_samples,
            wavelength=tuple(args.wavelength_range or DEFAULT_RANGE),
            n_pixels=N_PIXELS,
            snr=args.snr_value,
            labels=names,
            label_ranges=args.ranges or None,
            random_state=args.seed,
        )
    except ValueError as error:
        raise UserError(one_line(error)) from error
    snr = args.snr_value
    text = f"{snr[0]:g}–{snr[1]:g}" if isinstance(snr, tuple) else f"{snr:g}"
    data = f"{n_samples} synthetic stars, S/N {text} per pixel, {N_PIXELS} pixels, R = 5000"
    return spectra, labels, SyntheticGradients(names, spectra.wavelength), data


def _n_train(n_stars, args):
    share = 1 - 1 / args.cv if args.cv else 1 - (args.test_size or 0.2)
    return int(share * n_stars)


def _settings(args, names, data):
    """How it was made, without a path of this machine."""
    split = (
        f"{args.cv} folds, every star predicted once"
        if args.cv
        else (f"{100 * (args.test_size or 0.2):g} % of stars predicted")
    )
    ranges = [f"{name} {low:g} to {high:g}" for name, (low, high) in args.ranges.items()]
    window = args.wavelength_range
    return {
        "data": data,
        "methods": names,
        "split": f"{split}, by star",
        "label_range": ranges or None,
        "wavelength_range": f"{window[0]:g} to {window[1]:g} Angstrom" if window else None,
        "normalized": args.normalize or None,
        "clean_training": args.clean_training,
        "seed": args.seed,
    }


def _report(comparison, args, data):
    from skspec.plotting import write_report

    path = write_report(comparison, args.out / "report.html")
    return path.name


def _print_failures(comparison):
    for name, message in comparison.failures.items():
        print(f"skspec: {name} failed while {message}", file=sys.stderr)
