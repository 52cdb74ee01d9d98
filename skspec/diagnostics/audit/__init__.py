"""Does a model measure its labels, or infer them from others? Eight tests, a file each."""

from skspec.diagnostics.audit._audit import LabelAudit, audit_labels
from skspec.diagnostics.audit._result import AuditTest

__all__ = ["AuditTest", "LabelAudit", "audit_labels"]
