"""Diagnosis: everything that a careful referee would ask, in one call."""

from skbi.diagnosis.diagnose import diagnose
from skbi.diagnosis.report import Diagnosis

__all__ = ["Diagnosis", "diagnose"]
