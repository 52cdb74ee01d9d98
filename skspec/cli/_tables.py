"""Tables of a comparison, as text or in colour."""

from __future__ import annotations

import sys
from dataclasses import replace

from skspec.cli._errors import has_package


def print_tables(comparison):
    from skspec.diagnostics import label_tables, method_table, snr_tables

    show = rich_table if sys.stdout.isatty() and has_package("rich") else plain_table
    if not comparison.succeeded:
        return
    for table in label_tables(comparison):
        show(table, table.title)
    for table in snr_tables(comparison):
        show(table, f"{table.title} by S/N: STD (MAD)")
    show(method_table(comparison), "methods")


def plain_table(table, title):
    print(f"\n{replace(table, title=title)}")


def rich_table(table, title):
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
