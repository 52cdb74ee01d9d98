"""The report of a comparison: one HTML file that needs no other."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skspec.diagnostics import attenuation_tables, label_tables, method_table, snr_tables
from skspec.plotting import _report_figures as figures
from skspec.plotting._html import facts, header, image, made, terms, text_table, write_page
from skspec.plotting._report_style import GLOSSARY
from skspec.plotting._style import colour

if TYPE_CHECKING:
    from skspec._typing import PathLike
    from skspec.diagnostics._comparison import Comparison

__all__ = ["write_report"]

_NAMES = {
    "teff": "T<sub>eff</sub> [K]",
    "logg": "log g [dex]",
    "feh": "[Fe/H] [dex]",
    "m_h": "[M/H] [dex]",
    "mh": "[M/H] [dex]",
    "alpha_m": "[α/M] [dex]",
    "alpham": "[α/M] [dex]",
    "alphafe": "[α/Fe] [dex]",
    "mgfe": "[Mg/Fe] [dex]",
    "vsini": "v sin i [km/s]",
    "vmacro": "v<sub>macro</sub> [km/s]",
    "rv": "RV [km/s]",
}


def write_report(comparison: Comparison, path: PathLike, *, title: str | None = None) -> Path:
    """Write a comparison as one self-contained HTML file.

    Parameters
    ----------
    comparison : Comparison
        From :func:`skspec.diagnostics.compare`.
    path : path-like
        File to write.
    title : str, optional
        Headline.

    Returns
    -------
    Path
        The file.
    """
    title = title or f"{_count(len(comparison.results), 'method')}, the same stars"
    parts = [_header(comparison, title), _failures(comparison)]
    if comparison.succeeded:
        parts += [
            _overview(comparison),
            _label_section(comparison),
            _snr_section(comparison),
            _calibration(comparison),
            _errors(comparison),
            _forward(comparison),
        ]
    note = "The numbers are in results.json, the predictions of every star in predictions.csv."
    parts += [_reading(comparison), made(comparison.settings, note)]
    return write_page(path, title, parts)


def _header(comparison, title):
    settings = comparison.settings
    links = (
        ("summary", "Summary"),
        ("labels", "Each label"),
        ("snr", "By S/N"),
        ("calibration", "Error bars"),
        ("errors", "Predicted minus true"),
        ("forward", "Forward models"),
        ("reading", "How to read this"),
        ("made", "How it was made"),
    )
    nav = "".join(f'<a href="#{key}">{text}</a>' for key, text in links)
    lede = settings.get("data", "Stellar labels from stellar spectra")
    return f"{header('skspec compare', title, str(lede))}<nav>{nav}</nav>{_facts(comparison)}"


def _facts(comparison):
    spectra, snr = comparison.spectra, comparison.snr[np.isfinite(comparison.snr)]
    folds = int(comparison.fold.max()) + 1
    known = [
        (
            len(comparison.star),
            "stars predicted" if folds == 1 else f"stars, each once, {folds} folds",
        ),
        (comparison.n_train, "training stars" if folds == 1 else "training stars per fold"),
    ]
    if spectra is not None:
        known.append((spectra.shape[1], "pixels"))
        if spectra.wavelength is not None:
            low, high = spectra.wavelength.min(), spectra.wavelength.max()
            known.append((f"{low:.0f}–{high:.0f}", "Ångström"))
    if snr.size:
        known.append((f"{snr.min():.0f}–{snr.max():.0f}", "S/N per pixel"))
    known.append((len(comparison.label_names), ", ".join(comparison.label_names)))
    return facts(known)


def _failures(comparison):
    return "".join(
        f'<div class="failed"><b>{escape(comparison.results[name].title)} failed</b> while '
        f"{escape(message)}</div>"
        for name, message in comparison.failures.items()
    )


def _overview(comparison):
    caption = (
        "Filled: robust σ with its 68 % bootstrap interval over stars. Open: RMSE, outliers and bias "
        "included. Dashed: median Cramér-Rao bound of these stars."
    )
    return (
        f'<h2 id="summary">Summary</h2><ul class="findings">{_findings(comparison)}</ul>'
        f"{image(figures.methods_figure(comparison), 'Errors of all methods', caption)}"
        f"{_table(method_table(comparison), comparison)}{_warnings(comparison)}"
    )


def _findings(comparison):
    metrics = comparison.metrics()
    title = {name: result.title for name, result in comparison.results.items()}
    lines = []
    for table in label_tables(comparison):
        part = metrics[metrics["label"] == table.title].reset_index(drop=True)
        row = int(part["robust_std"].idxmin())
        text = (
            f"{_name(table.title)}: <b>{escape(table.rows[row][0])}</b> has the smallest robust σ, "
            f"{table.rows[row][table.header.index('robust σ')]}"
        )
        eta = part["eta"][row]
        if np.isfinite(eta):
            text += f" ({100 * eta:.0f} % of the information used)"
        lines.append(text + ".")
    away = (metrics["coverage_1"] - 0.6827).abs().groupby(metrics["method"]).mean()
    if away.notna().any():
        best = away.idxmin()
        covered = 100 * metrics.loc[metrics["method"] == best, "coverage_1"]
        lines.append(
            f"Most honest error bars: <b>{escape(title[best])}</b>, {covered.min():.0f}–"
            f"{covered.max():.0f} % of stars within 1σ (68 % promised)."
        )
    formal = metrics.dropna(subset="formal_coverage_1")
    if len(formal):
        low, high = (100 * f(formal["formal_coverage_1"]) for f in (min, max))
        lines.append(
            f"Formal errors of the forward models alone would have covered {low:.0f}–{high:.0f} %."
        )
    return "".join(f"<li>{line}</li>" for line in lines)


def _warnings(comparison):
    told = [
        f"<li><b>{escape(result.title)}</b>: left out {', '.join(map(str, result.n_removed))} training "
        "stars as outliers (clean_training)</li>"
        for result in comparison.results.values()
        if any(result.n_removed)
    ]
    told += [
        f"<li><b>{escape(result.title)}</b>: {escape(message)}</li>"
        for result in comparison.results.values()
        for message in result.warnings
    ]
    if not told:
        return ""
    return f'<h3>Notes</h3><ul class="findings note">{"".join(told)}</ul>'


def _label_section(comparison):
    tables = "".join(
        f"<h3>{_name(table.title)}</h3>{_table(table, comparison)}"
        for table in label_tables(comparison)
    )
    note = '<p class="note">Shaded: best of the column.</p>'
    return f'<h2 id="labels">Each label</h2>{note}{tables}'


def _snr_section(comparison):
    tables = snr_tables(comparison)
    fig = figures.snr_figure(comparison)
    head = '<h2 id="snr">By S/N</h2>'
    if fig is None or not tables:
        return f"{head}<p>The S/N of these stars is not known, or the same for all.</p>"
    caption = "Robust σ in bins of equally many stars; dashed, the Cramér-Rao bound."
    body = "".join(f"<h3>{_name(table.title)}</h3>{_table(table, comparison)}" for table in tables)
    note = '<p class="note">Standard deviation of the errors, in brackets their MAD.</p>'
    slopes = "".join(
        f"<h3>{_name(table.title)}, slope</h3>{_table(table, comparison)}"
        for table in attenuation_tables(comparison)
    )
    slopes = (
        '<p class="note">Attenuation: the slope of predicted against true labels. Below 1, noisy '
        f"stars are drawn towards the mean of the training set.</p>{slopes}"
    )
    return f"{head}{image(fig, 'Errors against S/N', caption)}{note}{body}{slopes}"


def _calibration(comparison):
    caption = (
        "Top: share of stars inside the central interval of each level; on the diagonal the errors are "
        "honest, below it too small. Thin lines: formal errors alone. Bottom: a flat histogram is "
        "calibrated, one piled up at both ends is over-confident; the band is the counting noise."
    )
    picture = image(figures.coverage_figure(comparison), "Calibration of all methods", caption)
    return f'<h2 id="calibration">Error bars</h2>{picture}'


def _errors(comparison):
    picture = image(figures.error_figure(comparison), "Predicted minus true labels")
    return f'<h2 id="errors">Predicted minus true</h2>{picture}'


def _forward(comparison):
    head = '<h2 id="forward">Forward models</h2>'
    fits = figures.forward_figures(comparison)
    if not fits:
        return f"{head}<p>None of the methods is a forward model.</p>"
    intro = (
        "<p>For each: the flux error of every pixel, on the training stars and on stars left out; the "
        "fit to the test star with the median χ² per degree of freedom (grey: observed); and the share "
        "of every pixel in the information on each label, averaged over predicted stars with their "
        "own noise. Upwards, with all other labels free: there the label is measured. Downwards, as "
        "if they were known: there the flux reacts to it.</p>"
    )
    what = ("Flux error per pixel of", "Spectrum fitted by", "Information per pixel of")
    body = "".join(
        image(fig, f"{text} {title}")
        for title, *figs in fits
        for text, fig in zip(what, figs)
        if fig is not None
    )
    return head + intro + body


def _reading(comparison):
    bound = ""
    if comparison.reference:
        result = comparison.results.get(comparison.reference)
        whose = result.title if result else _reference_text(comparison.reference)
        bound = (
            f"<p>The Cramér-Rao bound here is made from the gradient spectra of "
            f"<b>{escape(whose)}</b> at the true labels and each star's own noise, all labels free.</p>"
        )
        if comparison.spectra is not None and not comparison.spectra.has_errors:
            bound += (
                "<p>These spectra have no known errors: the pixel scatter of that model stands in for "
                "the noise. The bound and η are then a yardstick between methods, no physical limit; "
                "errors of the reference labels count against every method.</p>"
            )
    return f'<h2 id="reading">How to read this</h2>{bound}{terms(GLOSSARY)}'


def _reference_text(name):
    return "the generator of the spectra itself" if name == "SyntheticGradients" else name


def _table(table, comparison):
    dots = {
        result.title: f'<i class="dot" style="background:{colour(index)}"></i>'
        for index, result in enumerate(comparison.succeeded.values())
    }
    return text_table(table, dots)


def _name(label):
    return _NAMES.get(label.lower(), escape(label))


def _count(number, noun):
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    text = words[number] if number < len(words) else str(number)
    return f"{text.capitalize()} {noun}{'' if number == 1 else 's'}"
