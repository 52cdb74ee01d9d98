"""What the pages are made of: HTML in one style, figures inside, no other file needed."""

from __future__ import annotations

import base64
import platform
from html import escape
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path

from skspec._version import __version__
from skspec.plotting._report_style import CSS

__all__ = ["facts", "header", "image", "made", "terms", "text_table", "write_page"]


def write_page(path, title, parts) -> Path:
    """Write the parts of a page to a file, and return its path."""
    path, body = Path(path), "\n".join(parts)
    text = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} · skspec</title><style>{CSS}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )
    path.write_text(text, encoding="utf-8")
    return path


def header(kicker, title, lede):
    """Top of a page."""
    return (
        f'<header><p class="kicker">{escape(kicker)}</p><h1>{escape(title)}</h1>'
        f'<p class="lede">{escape(lede)}</p></header>'
    )


def facts(pairs):
    """Numbers at a glance, of pairs (number, what it is)."""
    cells = "".join(f"<div><b>{n}</b><span>{escape(what)}</span></div>" for n, what in pairs)
    return f'<div class="facts">{cells}</div>'


def terms(pairs):
    """List of pairs (term, text)."""
    items = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in pairs)
    return f"<dl>{items}</dl>"


def made(settings, note):
    """Bottom of a page: how it was made."""
    rows = [(str(key).replace("_", " "), _text(value)) for key, value in settings.items()]
    rows.append(("versions", ", ".join(f"{name} {number}" for name, number in _versions().items())))
    return (
        f'<h2 id="made">How it was made</h2>{terms(rows)}'
        f"<footer>Made by skspec {__version__}. {escape(note)}</footer>"
    )


def _text(value):
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "–" if value is None else str(value)


def _versions():
    found = {"skspec": __version__, "Python": platform.python_version()}
    for name in ("numpy", "scipy", "scikit-learn", "pandas", "matplotlib"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def text_table(table, dots=None):
    """HTML of a :class:`~skspec.diagnostics.TextTable`, with a mark before some cells."""
    dots = dots or {}
    head = "".join(f"<th>{dots.get(cell, '')}{escape(cell)}</th>" for cell in table.header)
    rows = []
    for r, row in enumerate(table.rows):
        cells = "".join(
            f"<td{' class=best' if (r, c) in table.best else ''}>{dots.get(cell, '')}"
            f"{escape(cell)}</td>"
            for c, cell in enumerate(row)
        )
        limit = " class=limit" if row[0].startswith("Cramér") else ""
        rows.append(f"<tr{limit}>{cells}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def image(fig, alt, caption=""):
    """A figure inside the page, the same bytes for the same figure."""
    import matplotlib

    buffer = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "skspec"}):
        fig.savefig(buffer, format="svg", dpi=150, metadata={"Date": None, "Creator": None})
    address = "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    text = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img src="{address}" alt="{escape(alt)}">{text}</figure>'
