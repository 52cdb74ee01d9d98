"""The figures of the report."""

from __future__ import annotations

import numpy as np

from skspec.distributions import MultivariateNormal
from skspec.plotting._coverage import CoverageDisplay
from skspec.plotting._information import InformationMapDisplay
from skspec.plotting._methods import MethodsDisplay
from skspec.plotting._one_to_one import OneToOneDisplay
from skspec.plotting._pixel_error import PixelErrorDisplay
from skspec.plotting._residual_snr import ResidualSNRDisplay
from skspec.plotting._spectrum_fit import SpectrumFitDisplay
from skspec.plotting._style import colour, figure, styled

__all__ = [
    "coverage_figure",
    "error_figure",
    "forward_figures",
    "methods_figure",
    "snr_figure",
]

WIDTH = 11.0  # inches
_MAX_STARS = 100  # whose information is averaged


def methods_figure(comparison):
    """Errors of all methods at a glance."""
    n_labels = len(comparison.label_names)
    with styled():
        size = (WIDTH, 0.95 + 0.33 * len(comparison.succeeded))
        fig, axes = figure(1, n_labels, size, sharey=True)
        MethodsDisplay.from_comparison(comparison, ax=axes[0])
    return fig


def snr_figure(comparison):
    """Scatter against S/N, all methods; None when the S/N is not known or all equal."""
    known = comparison.snr[np.isfinite(comparison.snr)]
    if known.size == 0 or np.ptp(known) < 1e-3 * known.max():
        return None
    n_labels = len(comparison.label_names)
    with styled():
        fig, axes = figure(1, n_labels, (WIDTH, min(3.9, 0.6 + WIDTH / n_labels)))
        for index, result in enumerate(comparison.succeeded.values()):
            ResidualSNRDisplay.from_predictions(
                comparison.labels,
                result.dist,
                comparison.snr,
                bound=comparison.bound,
                label_names=comparison.label_names,
                name=result.title,
                ax=axes[0],
                color=colour(index),
                points=False,
                marker="osD^vP*X"[index % 8],
                show_bound=index == len(comparison.succeeded) - 1,
            )
        _legend(fig, axes[0, 0].get_legend_handles_labels())
    return fig


def error_figure(comparison):
    """Predicted minus true against true labels: a row per method, a column per label."""
    n_labels, n_methods = len(comparison.label_names), len(comparison.succeeded)
    with styled():
        size = (WIDTH, 0.5 + 1.9 * n_methods)
        fig, axes = figure(n_methods, n_labels, size, sharex="col", sharey="col")
        for index, result in enumerate(comparison.succeeded.values()):
            OneToOneDisplay.from_predictions(
                comparison.labels,
                result.dist,
                label_names=comparison.label_names,
                name=result.title,
                ax=axes[index],
                color=colour(index),
                kind="residual",
            )
            if index < n_methods - 1:
                for one in axes[index]:
                    one.set_xlabel("")
    return fig


def coverage_figure(comparison):
    """Calibration: a column per method, up to four side by side."""
    n_methods = len(comparison.succeeded)
    n_rows = -(-n_methods // 4)
    n_columns = -(-n_methods // n_rows)
    with styled():
        width = min(WIDTH, 3.4 * n_columns)
        fig, axes = figure(
            2 * n_rows,
            n_columns,
            (width, 0.4 + 1.75 * n_rows * width / n_columns),
            gridspec_kw={"height_ratios": [3, 2] * n_rows},
        )
        pairs = axes.reshape(n_rows, 2, n_columns).transpose(0, 2, 1).reshape(-1, 2)
        for index, result in enumerate(comparison.succeeded.values()):
            formal = result.formal_cov
            CoverageDisplay.from_predictions(
                comparison.labels,
                result.dist,
                formal=None if formal is None else MultivariateNormal(result.mean, cov=formal),
                label_names=comparison.label_names,
                name=result.title,
                ax=pairs[index],
                legend=False,
            )
        for unused in pairs[n_methods:].ravel():
            unused.remove()
        _legend(fig, max((one.get_legend_handles_labels() for one, _ in pairs), key=_length))
    return fig


def _length(handles_and_names):
    return len(handles_and_names[1])


def _legend(fig, handles_and_names, most=6):
    """Legend above the panels, in rows as equal as can be."""
    n = _length(handles_and_names)
    n_rows = max(1, -(-n // most))
    fig.legend(*handles_and_names, loc="outside upper left", ncols=-(-n // n_rows))


def forward_figures(comparison):
    """``[(title, pixel errors, spectrum fit, information map), ...]``; None for what a model lacks."""
    out = []
    for index, result in enumerate(comparison.succeeded.values()):
        last = getattr(result.model, "steps", [(None, result.model)])[-1][1]
        if not hasattr(last, "predict_flux"):
            continue
        with styled():
            pixel, axes = figure(1, 1, (WIDTH, 2.5))
            try:
                PixelErrorDisplay.from_estimator(result.model, name=result.title, ax=axes)
            except TypeError:  # keeps no error per pixel
                pixel = None
            ratio = {"height_ratios": [2.4, 1]}
            fit, axes = figure(2, 1, (WIDTH, 3.9), sharex=True, gridspec_kw=ratio)
            star = _typical_star(comparison, result)
            SpectrumFitDisplay.from_estimator(
                result.model,
                comparison.spectra,
                star=star,
                name=result.title,
                ax=axes[:, 0],
                color=colour(index),
            )
        out.append((result.title, pixel, fit, _information_figure(comparison, result)))
    return out


def _information_figure(comparison, result):
    """Information of the pixels, averaged over stars of the last split; None without any."""
    rows = np.flatnonzero(comparison.fold == comparison.fold.max())
    rows = rows[:: -(-len(rows) // _MAX_STARS)]
    n_panels = len(comparison.label_names) + 1
    with styled():
        fig, axes = figure(n_panels, 1, (WIDTH, 1.55 * n_panels), sharex=True)
        try:
            InformationMapDisplay.from_estimator(
                result.model,
                comparison.labels[rows],
                comparison.spectra[rows],
                name=result.title,
                ax=axes[:, 0],
            )
        except (TypeError, ValueError):  # no gradients, or labels that look the same
            return None
    return fig


def _typical_star(comparison, result):
    """Star of the last split with the median chi2 per degree of freedom."""
    rows = np.flatnonzero(comparison.fold == comparison.fold.max())
    chi2 = result.quality.get("reduced_chi2")
    if chi2 is None or not np.isfinite(chi2[rows]).any():
        return int(rows[len(rows) // 2])
    rows = rows[np.isfinite(chi2[rows])]
    return int(rows[np.argsort(chi2[rows])[len(rows) // 2]])
