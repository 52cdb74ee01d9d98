"""The command line: ``skspec compare`` holds methods against each other on the same stars, ``skspec
audit`` tests whether one measures its labels or infers them, ``skspec explore`` opens a page on the
latent space of a model.

Everything heavy is imported when it is needed, so that ``skspec --help`` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from skspec.cli import audit, compare, explore
from skspec.cli._errors import UserError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
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
    compare.add_parser(commands)
    audit.add_parser(commands)
    explore.add_parser(commands)
    return parser
