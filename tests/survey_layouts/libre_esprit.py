"""Libre-ESpRIT text, with a spectrum of your own."""


def write_libre_esprit(path, *columns, star="HD 1", n_pixels=None):
    """Columns: wavelength [nm], intensity, and others; sigma last. The header may count wrongly."""
    n_pixels = len(columns[0]) if n_pixels is None else n_pixels
    lines = [f"***Reduced spectrum of '{star}'", f"  {n_pixels} {len(columns) - 1}"]
    for first, *others in zip(*columns):
        lines.append(f"{first:10.4f} " + " ".join(f"{value:11.4e}" for value in others))
    path.write_text("\n".join(lines) + "\n")
    return path
