"""``skspec audit``: does a method measure its labels, or infer them from others?"""

from __future__ import annotations

from pathlib import Path

from skspec.cli._errors import INSTALL, UserError, has_package, one_line
from skspec.cli._input import METHODS_HELP, add_selection, label_ranges, load_labelled, method_named
from skspec.cli._progress import progress_bars


def add_parser(commands):
    text = "test whether a method measures the labels of these stars, or infers them from others"
    add = commands.add_parser("audit", help=text, description=text.capitalize() + ".")
    add.set_defaults(run=run)
    add.epilog = METHODS_HELP
    add = add.add_argument
    add("--data", required=True, metavar="FILE.npz", help="spectra and labels to train with")
    add(
        "--decorrelated",
        metavar="FILE.npz",
        help="spectra on the same pixels with independent labels, such as synthetic ones",
    )
    add("--method", default="the_cannon", metavar="NAME", help="see below; default: %(default)s")
    add("--labels", nargs="+", metavar="NAME", help="default: all of the file")
    add_selection(add)
    add("--n-jobs", type=int, metavar="N", help="parallel refits")
    add("--seed", type=int, default=0, metavar="S", help="default 0")
    add("--out", type=Path, metavar="FILE.html", help="also write a page (needs matplotlib)")


def run(args):
    from skspec.diagnostics import audit_labels

    method = method_named(args.method)
    if args.out and not has_package("matplotlib"):
        raise UserError(f"the page needs matplotlib: {INSTALL} (or leave out --out)")
    if args.out and not args.out.absolute().parent.is_dir():
        raise UserError(f"there is no folder {args.out.parent}")
    args.ranges, other = label_ranges(args), None
    with progress_bars() as progress:
        progress.say("reading spectra")
        spectra, labels, _ = load_labelled(args)
        if args.decorrelated:
            args.data, args.labels, args.ranges = args.decorrelated, list(labels), {}
            other = load_labelled(args)[:2]
        progress.say("auditing")
        model = method.build(len(labels) // 2, random_state=args.seed)
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
            raise UserError(one_line(error)) from error
    print(audit)
    if args.out:
        from skspec.plotting import write_audit_page

        print(f"\nWrote {write_audit_page(audit, args.out)}")
    return 0
