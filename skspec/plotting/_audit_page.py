"""The audit of a model as one HTML file that needs no other."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skspec.diagnostics import TextTable
from skspec.plotting._html import facts, header, image, made, terms, text_table, write_page
from skspec.plotting._label_audit import LabelAuditDisplay
from skspec.plotting._style import figure, styled

if TYPE_CHECKING:
    from skspec._typing import PathLike
    from skspec.diagnostics._audit import LabelAudit

__all__ = ["write_audit_page"]

_WHAT = {
    "region": "The lowest and highest 15 % of each label are left out of the training and predicted.",
    "leakage": "Slopes of the error of a label on all true labels at once, in spreads of the labels. "
    "On the diagonal: attenuation, which is not judged here.",
    "attribution": "Share of the Fisher information on a label within its own lines, and the share of "
    "the pixels there; share of the gradient's information along that of the reference.",
    "null_line": "The lines of a label are blanked before training; RMSE before and after.",
    "swap": "Training stars chosen such that two labels go together the other way round: change of "
    "predictions in error bars, and what random draws of as many stars differ by.",
    "nuisance": "Rank correlation of errors with what should not matter, all labels held fixed.",
    "attenuation": "Slope of predicted against true labels in bins of S/N.",
    "correlation": "Correlation of each two labels of the training stars.",
}
_REMEDIES = (
    (
        "More stars off the sequence",
        "Synthetic stars, or stars chosen so that the label distribution is flat: nothing else adds "
        "information. Where there are some, give them more weight (repeat them, or leave out others).",
    ),
    (
        "The correlated label as a label",
        "A line strength that goes with both is given to the wrong one when only one is a label.",
    ),
    ("Censoring", "TheCannon(censoring={...}): a label acts in its own lines only."),
    ("L1", "TheCannon(regularization=...): few pixels for each label."),
    (
        "A model with physics",
        "ThePayne or SpectralGP trained on synthetic spectra, corrected for the "
        "gap to observed ones.",
    ),
)


def write_audit_page(audit: LabelAudit, path: PathLike, *, title: str | None = None) -> Path:
    """Write an audit as one self-contained HTML file.

    Parameters
    ----------
    audit : LabelAudit
        From :func:`skspec.diagnostics.audit_labels`.
    path : path-like
        File to write.
    title : str, optional
        Headline.

    Returns
    -------
    Path
        The file.
    """
    title = title or "Measured, or inferred?"
    note = "A test that passes has found nothing at its limit, with these stars; it proves nothing."
    parts = [_header(audit, title), _picture(audit), *map(_section, audit.tests.values())]
    parts += ['<h2 id="remedies">What helps</h2>', terms(_REMEDIES), made(audit.settings, note)]
    return write_page(path, title, parts)


def _header(audit, title):
    flags = list(audit.flags)
    known = [
        (audit.n_stars, "stars"),
        (len(audit.label_names), ", ".join(audit.label_names)),
        (flags.count(True), "flagged"),
        (flags.count(False), "passed"),
        (flags.count(None), "not tested"),
    ]
    lines = "".join(
        f"<li><b>{_mark(test.flag)}</b> <a href='#{test.name}'>{escape(test.title)}</a>: "
        f"{escape(test.why)}</li>"
        for test in audit.tests.values()
    )
    lede = "Does the model measure its labels, or read them from others that go with them?"
    top = header("skspec audit", title, lede) + facts(known)
    return f'{top}<ul class="findings">{lines}</ul>'


def _mark(flag):
    return {True: "Flag:", False: "Pass:", None: "Not tested:"}[flag]


def _picture(audit):
    with styled():
        fig, ((old, right), (below, last)) = figure(2, 2, (11, 6.4))
        old.remove()
        below.remove()  # the list of flags is on the page already
        wide = fig.add_subplot(old.get_gridspec()[:, 0])
        LabelAuditDisplay.from_audit(audit, ax=[wide, right, last])
    return image(fig, "The audit in one picture")


def _section(test):
    why = f"<b>{_mark(test.flag)}</b> {escape(test.why)}"
    box = f'<div class="failed">{why}</div>' if test.flag else f"<p>{why}</p>"
    rows = text_table(_as_text(test.table)) if len(test.table) else ""
    return (
        f'<h2 id="{test.name}">{escape(test.title)}</h2>'
        f'<p class="note">{escape(_WHAT[test.name])}</p>{box}{rows}'
    )


def _as_text(frame):
    names = ["S/N" if name == "snr" else name.replace("_", " ") for name in frame]
    rows = [[_cell(value) for value in row] for row in frame.itertuples(index=False)]
    return TextTable("", names, rows)


def _cell(value):
    if isinstance(value, (bool, np.bool_)):
        return "flag" if value else ""
    if isinstance(value, (float, np.floating)):
        return _number(value) if np.isfinite(value) else "–"
    return str(value)


def _number(value):
    """Three figures, and never more than three decimals."""
    decimals = 2 - int(np.floor(np.log10(abs(value)))) if value else 3
    return f"{value:.{np.clip(decimals, 0, 3)}f}".replace("-", "−")
