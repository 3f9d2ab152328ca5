"""Drift of stored features between two periods.

In: stored features. Out: a report with effect sizes, and exit code 1 for major drift.
Guarantee: too few rows for a verdict are reported as such.
"""

from __future__ import annotations

from batch.drift.two_frames import analyze_click_count_drift

__all__ = ["analyze_click_count_drift"]
