"""``skspec explore``: a page on the latent space of a model."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from skspec.cli._errors import UserError, has_package, one_line
from skspec.cli._input import count, port
from skspec.cli._progress import progress_bars


def add_parser(commands):
    text = "open a page on the latent space of a model: move its nodes, see the spectrum change"
    add = commands.add_parser(
        "explore",
        help=text,
        description=text.capitalize() + ".",
        epilog="MODEL is a pickle: opening one runs whatever code is in it. Open only models from "
        "people you trust. The page is served to this machine only, unless --host says otherwise.",
    )
    add.set_defaults(run=run)
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
    add("--port", type=port, metavar="N", help="default: the first free one from 5006; 0: any")
    add(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="listen on this address; with any but the default, others on the network can use the "
        "page (default %(default)s)",
    )
    add(
        "--max-points",
        type=count,
        default=20_000,
        metavar="N",
        help="stars drawn in the scatter (default %(default)s)",
    )
    add("--no-browser", action="store_true", help="do not open a browser")


def run(args):
    from skspec.base import last_step

    if not has_package("bokeh"):
        raise UserError('the page needs bokeh: pip install "skspec[explore]"')
    with progress_bars() as progress:
        progress.say(f"reading {args.model.name}")
        model = _load_model(args.model)
        space = _latent_space(model, args, progress)
    title = " · ".join([type(last_step(model)).__name__, *([args.data.name] if args.data else [])])
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
            f"{path.name} is no model written with joblib.dump ({one_line(error)})"
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
        raise UserError(one_line(error)) from error
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
        raise UserError(one_line(error)) from error


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
        raise UserError(one_line(error)) from error
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
