"""Write the tables of user_guide/capabilities.rst: python doc/capability_table.py."""

from __future__ import annotations

from pathlib import Path

from skspec.discovery import all_estimators, capability_table

PAGE = Path(__file__).parent / "user_guide" / "capabilities.rst"
#: where the tables begin and end
BEGIN, END = ".. begin of the generated tables\n", ".. end of the generated tables\n"
#: titles of the columns, which are attributes of `skspec.discovery.Capabilities`
COLUMNS = {
    "full_covariance": "full covariance",
    "follows_noise": "errors follow noise",
    "native_bad_pixels": "leaves out bad pixels",
    "velocity": "velocity",
    "broadening": "broadening",
    "continuum": "continuum",
    "label_errors": "label errors",
    "domain_score": "domain score",
    "gpu": "GPU",
    "parallel": "n_jobs",
    "out_of_core": "out of core",
    "safe_file": "safe file",
    "speed": "fit takes",
    "extra": "extra",
}
OTHERS = {
    "transfer": "From one domain to another",
    "latent": "From spectra alone",
    "augmentation": "Augmentations",
    "transformer": "Transformers",
}


def generated():
    """The tables as reStructuredText."""
    paths = {name: _path(cls) for name, cls in all_estimators()}
    table, shown = capability_table("regressor"), set()
    parts = []
    for title, rows in _families(table):
        rows = rows[[name for name in COLUMNS if table[name].map(bool).any()]]
        parts += [title, "-" * len(title), "", *_list_table(rows, paths), ""]
        shown |= set(rows.index)
    title = "Others"
    parts += [title, "-" * len(title), ""]
    for kind, words in OTHERS.items():
        names = [name for name, _ in all_estimators(kind) if name not in shown]
        shown |= set(names)
        parts.append(f"- {words}: {', '.join(f':class:`~{paths[name]}`' for name in names)}.")
    return "\n".join(parts) + "\n\n"


def _families(table):
    wraps = table["kinds"].map(lambda kinds: "wrapper" in kinds)
    forward = table["kinds"].map(lambda kinds: "forward" in kinds)
    yield "Labels to flux, inverted", table[forward]
    yield "Flux to labels", table[~forward & ~wraps]
    yield "Around any method", table[~forward & wraps]


def _path(cls):
    """Public path of a class: that of the package which exports it."""
    return f"{'.'.join(cls.__module__.split('.')[:2])}.{cls.__name__}"


def _list_table(rows, paths):
    yield ".. list-table::"
    yield "   :header-rows: 1"
    yield ""
    yield from _row(["method", *(COLUMNS[name] for name in rows)])
    for name, values in rows.iterrows():
        words = (_word(column, values[column]) for column in rows)
        yield from _row([f":class:`~{paths[name]}`", *words])


def _row(cells):
    for k, cell in enumerate(cells):
        yield f"   {'* -' if k == 0 else '  -'} {cell}".rstrip()


def _word(column, value):
    if isinstance(value, bool):
        return "yes" if value else ""
    if value is None:
        return "" if column == "extra" else "as inner"
    return f"``[{value}]``" if column == "extra" else value


def rendered(page):
    """The page with its tables as they should be."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + "\n" + generated() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text()))
