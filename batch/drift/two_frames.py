"""Drift of one column between two frames, for notebooks and other jobs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from batch.drift.statistics import DEFAULT_P, compare, judge


@dataclass(frozen=True)
class DriftResult:
    """The result of `analyze_click_count_drift`; attributes are also available by name, as in `result["p_value"]`."""

    is_drift_detected: bool
    p_value: float
    severity: str
    effects: dict[str, float]
    says: str

    def __getitem__(self, name: str) -> Any:
        """An attribute by its name."""
        if name not in asdict(self):
            raise KeyError(name)
        return getattr(self, name)


def analyze_click_count_drift(
    yesterday_data: Any, today_data: Any, feature_column: str = "click_count", p_threshold: float = DEFAULT_P
) -> DriftResult:
    """Compare a column of two frames (Polars, pandas or Arrow), one row per entity.

    `click_count_1h` is another name for `click_count`.

    Raises:
        ValueError: a frame has no such column.
    """
    values = []
    for data in (yesterday_data, today_data):
        frame = data if isinstance(data, pl.DataFrame) else pl.DataFrame(data)
        names = [name for name in (feature_column, feature_column.removesuffix("_1h")) if name in frame.columns]
        if not names:
            message = f"there is no column {feature_column!r}; the columns are {', '.join(frame.columns)}"
            raise ValueError(message)
        values.append(frame[names[0]])
    (drift,) = judge([compare(feature_column, *values)], p_threshold)
    return DriftResult(drift.drifted, drift.p_value, drift.severity, drift.effects, drift.says)
