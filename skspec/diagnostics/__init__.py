"""How good are the labels, and how good could they be?

:func:`compare` runs several methods on the same stars and returns a :class:`Comparison`;
:func:`cramer_rao_bound` gives the physical limit and :func:`efficiency` how close a method comes;
:func:`calibration_report` tells whether error bars hold what they promise;
:func:`information_map` shows which pixels know a label, :func:`attention_map` where a network looks;
:func:`synthetic_gap` measures how far synthetic spectra are from observed ones;
:func:`error_table` and :func:`snr_table` tabulate errors in the layout of the SLAM paper.
"""

from skspec.diagnostics._attention import attention_map
from skspec.diagnostics._calibration import (
    CalibrationReport,
    calibration_report,
    interval_coverage,
)
from skspec.diagnostics._compare import compare
from skspec.diagnostics._comparison import Comparison, MethodResult
from skspec.diagnostics._cramer_rao import (
    CramerRaoBound,
    Efficiency,
    cramer_rao_bound,
    efficiency,
)
from skspec.diagnostics._format import (
    TextTable,
    attenuation_tables,
    label_tables,
    method_table,
    snr_tables,
)
from skspec.diagnostics._information import InformationMap, information_map
from skspec.diagnostics._methods import Method, available_methods, find_method, make_method
from skspec.diagnostics._residuals import attenuation_slope, error_table, snr_bins, snr_table
from skspec.diagnostics._synthetic_gap import SyntheticGap, synthetic_gap
from skspec.diagnostics._synthetic_gradients import SyntheticGradients
from skspec.diagnostics.audit import AuditTest, LabelAudit, audit_labels

__all__ = [
    "AuditTest",
    "CalibrationReport",
    "Comparison",
    "CramerRaoBound",
    "Efficiency",
    "InformationMap",
    "LabelAudit",
    "Method",
    "MethodResult",
    "SyntheticGap",
    "SyntheticGradients",
    "TextTable",
    "attention_map",
    "attenuation_slope",
    "attenuation_tables",
    "audit_labels",
    "available_methods",
    "calibration_report",
    "compare",
    "cramer_rao_bound",
    "efficiency",
    "error_table",
    "find_method",
    "information_map",
    "interval_coverage",
    "label_tables",
    "make_method",
    "method_table",
    "snr_bins",
    "snr_table",
    "snr_tables",
    "synthetic_gap",
]
