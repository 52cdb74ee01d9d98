"""The command line: ``skspec compare`` holds methods against each other on the same stars, ``skspec
audit`` tests whether one measures its labels or infers them, ``skspec explore`` opens a page on the
latent space of a model.

Everything heavy is imported when it is needed, so that ``skspec --help`` answers at once.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

__all__ = ["main"]

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
EVERY = 10.0  # seconds between lines about a long fit
INSTALL = 'pip install "skspec[all]"'


class UserError(Exception):
    """Something the user can mend, said in one line."""


def main(argv=None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        0: done. 1: every method failed. 2: the arguments or the data need mending. 130: interrupted.
    """
    args = _parser().parse_args(argv)
    if args.command is None:
        _parser().print_help()
        return 0
    try:
        return args.run(args)
    except UserError as error:
        print(f"skspec: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        done = f"; finished methods are in {args.out}" if args.command == "compare" else ""
        print(f"\nskspec: interrupted{done}.", file=sys.stderr)
        return 130


def _parser():
    from skspec._version import __version__

    parser = argparse.ArgumentParser(
        prog="skspec", description="Stellar labels from stellar spectra, with honest uncertainties."
    )
    parser.add_argument("--version", action="version", version=f"skspec {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    _add_compare(commands)
    _add_audit(commands)
    _add_explore(commands)
    return parser


def _add_compare(commands):
    text = "fit several methods on the same stars, predict the same other stars, write a report"
    add = commands.add_parser("compare", help=text, description=text.capitalize() + ".")
    add.set_defaults(run=_compare)
    add = add.add_argument
    add("--data", metavar="FILE.npz", help="spectra and labels; default: synthetic spectra")
    add(
        "--methods",
        nargs="+",
        metavar="NAME",
        default=list(DEFAULT_METHODS),
        help=f"default: {' '.join(DEFAULT_METHODS)}",
    )
    add("--labels", nargs="+", metavar="NAME", help="default: all of the file, or teff logg feh")
    add("--snr", metavar="N|LO,HI", help="S/N of the synthetic spectra (default 20,300)")
    add("--n-samples", type=int, metavar="N", help=f"synthetic stars (default {DEFAULT_STARS})")
    add("--cv", type=_folds, metavar="K", help="predict every star once, in K folds")
    add(
        "--test-size", type=_fraction, metavar="F", help="fraction of stars predicted (default 0.2)"
    )
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


def _add_audit(commands):
    text = "test whether a method measures the labels of these stars, or infers them from others"
    add = commands.add_parser("audit", help=text, description=text.capitalize() + ".")
    add.set_defaults(run=_audit)
    add = add.add_argument
    add("--data", required=True, metavar="FILE.npz", help="spectra and labels to train with")
    add(
        "--decorrelated",
        metavar="FILE.npz",
        help="spectra on the same pixels with independent labels, such as synthetic ones",
    )
    add("--method", default="the_cannon", metavar="NAME", help="default: %(default)s")
    add("--labels", nargs="+", metavar="NAME", help="default: all of the file")
    add("--wavelength-range", nargs=2, type=float, metavar=("LO", "HI"), help="Angstrom")
    add(
        "--label-range",
        nargs=3,
        action="append",
        metavar=("LABEL", "LO", "HI"),
        default=[],
        help="keep stars in this range; may be repeated",
    )
    add("--n-jobs", type=int, metavar="N", help="parallel refits")
    add("--seed", type=int, default=0, metavar="S", help="default 0")
    add("--out", type=Path, metavar="FILE.html", help="also write a page (needs matplotlib)")


def _add_explore(commands):
    text = "open a page on the latent space of a model: move its nodes, see the spectrum change"
    add = commands.add_parser(
        "explore",
        help=text,
        description=text.capitalize() + ".",
        epilog="MODEL is a pickle: opening one runs whatever code is in it. Open only models from "
        "people you trust. The page is served to this machine only, unless --host says otherwise.",
    )
    add.set_defaults(run=_explore)
    add = add.add_argument
    add(
        "model",
        type=Path,
        metavar="MODEL",
        help="joblib file of a fitted BetaVAE, PCA, or the like",
    )
    add("--data", type=Path, metavar="FILE", help="spectra: an .npz file or a SpectraStore folder")
    add(
        "--latents",
        type=Path,
        metavar="FILE.npy",
        help="keep the latent numbers of the spectra here; read when it exists",
    )
    add(
        "--static",
        type=Path,
        metavar="OUT.html",
        help="write one file instead, which needs no server",
    )
    add("--port", type=_port, metavar="N", help="default: the first free one from 5006; 0: any")
    add(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="listen on this address; with any but the default, others on the network can use the "
        "page (default %(default)s)",
    )
    add(
        "--max-points",
        type=_count,
        default=20_000,
        metavar="N",
        help="stars drawn in the scatter (default %(default)s)",
    )
    add("--no-browser", action="store_true", help="do not open a browser")


def _folds(text):
    if int(text) < 2:
        raise argparse.ArgumentTypeError("at least 2 folds")
    return int(text)


def _port(text):
    if not 0 <= int(text) < 2**16:
        raise argparse.ArgumentTypeError("a number from 0 to 65535")
    return int(text)


def _count(text):
    if int(text) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return int(text)


def _fraction(text):
    if not 0 < float(text) < 1:
        raise argparse.ArgumentTypeError("a fraction between 0 and 1")
    return float(text)


# -- audit -----------------------------------------------------------------------------------------


def _audit(args):
    from skspec.diagnostics import audit_labels, available_methods, make_method

    if args.method not in (known := available_methods()):
        raise UserError(f"unknown method {args.method!r}; known: {', '.join(known)}")
    if args.out and importlib.util.find_spec("matplotlib") is None:
        raise UserError(f"the page needs matplotlib: {INSTALL} (or leave out --out)")
    if args.out and not args.out.absolute().parent.is_dir():
        raise UserError(f"there is no folder {args.out.parent}")
    args.ranges, other = _ranges(args), None
    with _progress() as progress:
        progress.say("reading spectra")
        spectra, labels, _, _ = _load(args)
        if args.decorrelated:
            args.data, args.labels, args.ranges = args.decorrelated, list(labels), {}
            other = _load(args)[:2]
        progress.say("auditing")
        model = make_method(args.method, len(labels) // 2, random_state=args.seed)
        try:
            audit = audit_labels(
                model,
                spectra,
                labels,
                decorrelated=other,
                n_jobs=args.n_jobs,
                random_state=args.seed,
            )
        except ValueError as error:
            raise UserError(_one_line(error)) from error
    print(audit)
    if args.out:
        from skspec.plotting import write_audit_page

        print(f"\nWrote {write_audit_page(audit, args.out)}")
    return 0


# -- compare ---------------------------------------------------------------------------------------


def _compare(args):
    _check(args)
    from skspec.base import star_groups
    from skspec.diagnostics import available_methods, compare, make_method

    known = available_methods()
    unknown = [name for name in args.methods if name not in known]
    if unknown:
        raise UserError(f"unknown method {unknown[0]!r}; known: {', '.join(known)}")
    names = list(dict.fromkeys(args.methods))
    with _progress() as progress:
        progress.say("reading spectra" if args.data else "making spectra")
        spectra, labels, reference, data = _load(args) if args.data else _make(args)
        n_train = _n_train(len(labels), args)
        given = {"n_jobs": args.n_jobs, "random_state": args.seed}
        methods = {name: make_method(name, n_train, **given) for name in names}
        titles = {name: known[name].title for name in names}
        if args.clean_training:
            given["clean_training"] = args.clean_training
            for name in names:
                if known[name].family == "forward":
                    methods[f"{name}_cleaned"] = make_method(name, n_train, **given)
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
            raise UserError(_one_line(error)) from error
        written = ["results.json", "predictions.csv"]
        if not args.no_report:
            progress.say("drawing the report")
            written.append(_report(comparison, args, data))
    _print_tables(comparison)
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
    if args.data and not Path(args.data).is_file():
        raise UserError(f"there is no file {args.data}")
    if args.out.exists() and not args.out.is_dir():
        raise UserError(f"--out {args.out} is a file; name a folder")
    if not args.no_report and importlib.util.find_spec("matplotlib") is None:
        raise UserError(f"the report needs matplotlib: {INSTALL} (or add --no-report)")
    args.ranges = _ranges(args)
    args.snr_value = _snr(args.snr) if args.snr else DEFAULT_SNR


def _ranges(args):
    ranges = {}
    for name, low, high in args.label_range:
        try:
            ranges[name] = (float(low), float(high))
        except ValueError:
            raise UserError(f"--label-range {name} {low} {high}: two numbers are needed") from None
    return ranges


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
    if n_samples < 20:
        raise UserError(
            f"--n-samples {n_samples} is too few stars to compare methods; take 20 or more"
        )
    _known_labels(args.ranges, names)
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
        raise UserError(_one_line(error)) from error
    snr = args.snr_value
    text = f"{snr[0]:g}–{snr[1]:g}" if isinstance(snr, tuple) else f"{snr:g}"
    data = f"{n_samples} synthetic stars, S/N {text} per pixel, {N_PIXELS} pixels, R = 5000"
    return spectra, labels, SyntheticGradients(names, spectra.wavelength), data


def _load(args):
    """Spectra of a file; the first forward model is then the reference."""
    from skspec.datasets import load_spectra

    path = Path(args.data)
    try:
        spectra, labels = load_spectra(
            path, args.labels, wavelength_range=args.wavelength_range or None
        )
    except (ValueError, OSError) as error:
        raise UserError(_one_line(error)) from error
    if not len(labels.columns) or not len(labels):
        raise UserError(f"{path.name} has no labelled stars")
    _known_labels(args.ranges, list(labels))
    keep = labels.notna().all(axis=1).to_numpy()
    for name, (low, high) in args.ranges.items():
        keep = keep & labels[name].between(low, high).to_numpy()
    if keep.sum() < 20:
        raise UserError(
            f"{path.name}: {keep.sum()} labelled stars in range; at least 20 are needed"
        )
    return (
        spectra[keep],
        labels[keep].reset_index(drop=True),
        None,
        f"{path.name}: {keep.sum()} stars",
    )


def _known_labels(ranges, names):
    for name in ranges:
        if name not in names:
            raise UserError(f"--label-range {name}: no such label; there are {', '.join(names)}")


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
        "clean_training": args.clean_training,
        "seed": args.seed,
    }


def _report(comparison, args, data):
    from skspec.plotting import write_report

    path = write_report(comparison, args.out / "report.html")
    return path.name


def _one_line(error):
    return " ".join(str(error).split())


# -- explore ---------------------------------------------------------------------------------------


def _explore(args):
    if not _has("bokeh"):
        raise UserError('the page needs bokeh: pip install "skspec[explore]"')
    with _progress() as progress:
        progress.say(f"reading {args.model.name}")
        model = _load_model(args.model)
        space = _latent_space(model, args, progress)
    inner = getattr(model, "steps", [(None, model)])[-1][1]
    title = " · ".join([type(inner).__name__, *([args.data.name] if args.data else [])])
    if args.static:
        return _write_page(space, args.static, title, args.max_points)
    return _serve(space, args, title)


def _load_model(path):
    import joblib

    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        return joblib.load(path)
    except ModuleNotFoundError as error:
        raise UserError(f"{path.name} needs {error.name}, which is not installed") from error
    except Exception as error:  # noqa: BLE001  (unpickling raises whatever it meets)
        raise UserError(
            f"{path.name} is no model written with joblib.dump ({_one_line(error)})"
        ) from error


def _latent_space(model, args, progress):
    """The model and the stars of --data in it."""
    from skspec.explore import LatentSpace

    spectra, labels = _read_stars(args.data) if args.data else (None, None)
    n = 0 if spectra is None else len(spectra)
    known = args.latents is not None and args.latents.exists()
    if args.latents is not None and spectra is None:
        raise UserError("--latents are those of spectra: give --data too")
    step = f"latent numbers of {n} stars"

    def tell(done):
        share = done / n if 0 < done < n else done // n  # whole numbers at either end
        progress(step, share, 1, "done" if done == n else "encoding")

    if n and not known:
        tell(0)
    try:
        latents = _read_latents(args.latents) if known else None
        space = LatentSpace(model, spectra, labels, latents=latents, progress=tell)
        if known:
            space.check_latents()
    except (TypeError, ValueError, OSError) as error:
        raise UserError(_one_line(error)) from error
    if args.latents is not None and not known:
        _write_latents(args.latents, space.latents)
    return space


def _read_stars(path):
    from skspec.datasets import load_spectra

    try:
        if path.is_dir():
            from skspec.datasets import SpectraStore

            store = SpectraStore(path)
            return store, store.labels
        return load_spectra(path, labelled_only=False)
    except (ValueError, OSError, ImportError) as error:
        raise UserError(_one_line(error)) from error


def _read_latents(path):
    import numpy as np

    return np.load(path, allow_pickle=False)


def _write_latents(path, latents):
    import numpy as np

    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        np.save(file, latents)
    part.replace(path)


def _write_page(space, path, title, n_points):
    from skspec.explore import write_static

    try:
        write_static(space, path, title=title, n_points=n_points)
    except OSError as error:
        raise UserError(_one_line(error)) from error
    print(f"Wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


def _serve(space, args, title):
    from skspec.explore import serve

    if args.host not in ("127.0.0.1", "localhost", "::1"):
        print(
            f"skspec: warning: on {args.host}, everybody on the network can use this page.",
            file=sys.stderr,
        )

    def announce(address):
        print(f"The page is at {address} (Ctrl-C ends it)", flush=True)

    try:
        serve(
            space,
            port=args.port,
            host=args.host,
            title=title,
            n_points=args.max_points,
            show=not args.no_browser and _has_screen(),
            announce=announce,
        )
    except OSError as error:
        where = args.host if args.port is None else f"{args.host}, port {args.port}"
        raise UserError(
            f"cannot listen on {where}: {error.strerror}; choose another (--port 0: any free port)"
        ) from error
    return 0


def _has_screen():
    """Whether a browser could open a window."""
    return sys.platform in ("win32", "darwin") or any(
        name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )


# -- what is printed -------------------------------------------------------------------------------


def _print_tables(comparison):
    from skspec.diagnostics import label_tables, method_table, snr_tables

    show = _rich_table if sys.stdout.isatty() and _has("rich") else _plain_table
    if not comparison.succeeded:
        return
    for table in label_tables(comparison):
        show(table, table.title)
    for table in snr_tables(comparison):
        show(table, f"{table.title} by S/N: STD (MAD)")
    show(method_table(comparison), "methods")


def _plain_table(table, title):
    print(f"\n{replace(table, title=title)}")


def _rich_table(table, title):
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    out = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=None,
        pad_edge=False,
    )
    for k, heading in enumerate(table.header):
        out.add_column(Text(heading), justify="right" if k else "left", no_wrap=True)
    for r, row in enumerate(table.rows):
        style = "dim italic" if row[0].startswith("Cramér") else ""
        cells = [Text(c, "bold cyan" if (r, k) in table.best else "") for k, c in enumerate(row)]
        out.add_row(*cells, style=style)
    console.print()
    # a table wider than the terminal is still better read unbroken
    console.print(out, width=max(console.width, console.measure(out).maximum), crop=False)


def _print_failures(comparison):
    for name, message in comparison.failures.items():
        print(f"skspec: {name} failed while {message}", file=sys.stderr)


# -- progress --------------------------------------------------------------------------------------


def _progress():
    return _RichProgress() if sys.stderr.isatty() and _has("rich") else _PlainProgress()


def _has(package):
    return importlib.util.find_spec(package) is not None


class _PlainProgress:
    """A line on stderr for every step, and for long ones every ten seconds."""

    latest = 0.0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False

    def say(self, text):
        print(f"{text} ...", file=sys.stderr, flush=True)

    def __call__(self, name, done, total, doing):
        if done == 0:
            self.start = time.perf_counter()
        if done == total:
            doing = f"{doing} in {time.perf_counter() - self.start:.1f} s"
        if done != int(done):
            if time.perf_counter() - self.latest < EVERY:
                return
            done, doing = int(done), f"{doing}, {100 * (done % 1):.0f} %"
        self.latest = time.perf_counter()
        print(f"[{done}/{total}] {name}: {doing}", file=sys.stderr, flush=True)


class _RichProgress:
    """A bar for every method, with the time it has taken."""

    def __enter__(self):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self.bars = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<20}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[doing]}"),
            console=Console(stderr=True),
        )
        self.bars.start()
        self.tasks, self.step = {}, None
        return self

    def __exit__(self, *_):
        self._end_step()
        self.bars.stop()
        return False

    def say(self, text):
        self._end_step()
        self.step = self.bars.add_task(text, total=None, doing="")

    def _end_step(self):
        if self.step is not None:
            self.bars.update(self.step, total=1, completed=1)
        self.step = None

    def __call__(self, name, done, total, doing):
        self._end_step()
        if name not in self.tasks:
            self.tasks[name] = self.bars.add_task(name, total=total, doing=doing)
        self.bars.update(self.tasks[name], completed=done, doing=doing)
