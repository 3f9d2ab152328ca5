"""Has a distribution drifted, and by how much: tests for whether, effect sizes for how much.

With many rows a test finds any difference, also one that no model would notice. So a feature has drifted only if the
test says so, corrected for the number of features (Benjamini and Hochberg 1995), and an effect passes a threshold:

- `psi`: population stability index, over tenths of the reference, or over categories
- `ks`: the greatest distance of the distribution functions (Kolmogorov and Smirnov)
- `wasserstein`: the mean distance that values have moved, in standard deviations of the reference
- `cramers_v`: the strength of association between category and period (Cramer 1946)
- `zeros`, `missing`: the change of a share, as Cohen's h: 2 asin sqrt(p)

Where many values are zero, as counts are, their share is compared apart, and the other values with each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import polars as pl
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Sequence

Severity: TypeAlias = Literal["none", "minor", "major", "insufficient data"]
SEVERITIES: tuple[Severity, ...] = ("none", "minor", "major")
THRESHOLDS = {
    "psi": (0.1, 0.25),
    "ks": (0.1, 0.2),
    "wasserstein": (0.1, 0.3),
    "cramers_v": (0.1, 0.3),
    "zeros": (0.1, 0.25),
    "missing": (0.1, 0.25),
}
"""From which effect on drift is minor, and from which it is major."""
DEFAULT_P = 0.05
LEAST_ROWS = 200
MANY_ZEROS = 0.1
BINS = 10
LEAST_SHARE = 1e-4
"""An empty bin counts as so much, or the index would be infinite."""


@dataclass(frozen=True)
class Drift:
    """One feature in two periods. `p_value` is of the most significant test, times the number of tests."""

    feature: str
    kind: Literal["number", "category"]
    reference_rows: int
    current_rows: int
    p_value: float = 1.0
    p_adjusted: float = 1.0
    effects: dict[str, float] = field(default_factory=dict)
    severity: Severity = "none"
    says: str = ""

    @property
    def drifted(self) -> bool:
        """Whether it has."""
        return self.severity in {"minor", "major"}


def compare(feature: str, reference: pl.Series, current: pl.Series) -> Drift:
    """Compare a feature's values, one for each user: numbers, or categories as text; null is missing.

    The result has no severity yet: that takes all features, see `judge`.
    """
    kind: Literal["number", "category"] = "number" if reference.dtype.is_numeric() else "category"
    drift = Drift(feature, kind, len(reference), len(current))
    if min(len(reference), len(current)) < LEAST_ROWS:
        return replace(drift, severity="insufficient data")
    tests, effects, words = [], {}, []
    missing = [one.null_count() / len(one) for one in (reference, current)]
    if any(missing):
        tests.append(_share_test(reference.is_null(), current.is_null()))
        effects["missing"] = _cohens_h(*missing)
        words.append(f"missing {missing[0]:.1%}, now {missing[1]:.1%}")
    left, right = reference.drop_nulls(), current.drop_nulls()
    if min(len(left), len(right)):
        more = _numbers(left.cast(pl.Float64), right.cast(pl.Float64)) if kind == "number" else _categories(left, right)
        tests += more[0]
        effects |= more[1]
        words = [*more[2], *words]
    p_value = min(1.0, min(tests, default=1.0) * len(tests))
    return replace(drift, p_value=p_value, effects=effects, says="; ".join(words))


def _numbers(left: pl.Series, right: pl.Series) -> tuple[list[float], dict[str, float], list[str]]:
    tests, effects, words = [], {}, []
    means = [float(np.mean(one.to_numpy())) for one in (left, right)]
    words.append(f"mean {means[0]:.4g}, now {means[1]:.4g}")
    zeros = [int((one == 0).sum()) / len(one) for one in (left, right)]
    if max(zeros) >= MANY_ZEROS:
        tests.append(_share_test(left == 0, right == 0))
        effects["zeros"] = _cohens_h(*zeros)
        words.append(f"zero {zeros[0]:.1%}, now {zeros[1]:.1%}")
        left, right = left.filter(left != 0), right.filter(right != 0)
    if min(len(left), len(right)) >= LEAST_ROWS:
        a, b = left.to_numpy(), right.to_numpy()
        found = stats.ks_2samp(a, b, method="asymp")
        tests.append(float(found.pvalue))
        effects["ks"] = float(found.statistic)
        sigma = float(np.std(a))
        distance = float(stats.wasserstein_distance(a, b))
        effects["wasserstein"] = distance / sigma if sigma else float(distance > 0)
        edges = np.unique(np.quantile(a, np.linspace(0, 1, BINS + 1)[1:-1]))
        shares = [
            np.bincount(np.searchsorted(edges, one, side="right"), minlength=len(edges) + 1) / len(one)
            for one in (a, b)
        ]
        effects["psi"] = _psi(*shares)
    return tests, effects, words


def _categories(left: pl.Series, right: pl.Series) -> tuple[list[float], dict[str, float], list[str]]:
    counts = [dict(one.cast(pl.String).value_counts().iter_rows()) for one in (left, right)]
    names = sorted({*counts[0], *counts[1]})
    table = np.array([[count.get(name, 0) for name in names] for count in counts], dtype=np.float64)
    shares = table / table.sum(axis=1, keepdims=True)
    effects = {"psi": _psi(shares[0], shares[1])}
    tests = []
    if len(names) > 1:
        found = stats.chi2_contingency(table, correction=False)
        tests.append(float(found.pvalue))
        effects["cramers_v"] = math.sqrt(float(found.statistic) / float(table.sum()))
    moved = int(np.argmax(np.abs(shares[1] - shares[0])))
    words = [f"{names[moved]} {shares[0][moved]:.1%}, now {shares[1][moved]:.1%}"]
    words += [f"new: {name}" for name in names if name not in counts[0]]
    words += [f"gone: {name}" for name in names if name not in counts[1]]
    return tests, effects, words


def _psi(reference: Any, current: Any) -> float:
    a, b = np.maximum(reference, LEAST_SHARE), np.maximum(current, LEAST_SHARE)
    return float(np.sum((b - a) * np.log(b / a)))


def _cohens_h(reference: float, current: float) -> float:
    return abs(2 * math.asin(math.sqrt(current)) - 2 * math.asin(math.sqrt(reference)))


def _share_test(left: pl.Series, right: pl.Series) -> float:
    """Whether two shares differ: the chi-square test of the two-by-two table."""
    table = np.array([[one.sum(), len(one) - one.sum()] for one in (left, right)], dtype=np.float64)
    if (table.sum(axis=0) == 0).any():
        return 1.0
    return float(stats.chi2_contingency(table, correction=False).pvalue)


def judge(drifts: Sequence[Drift], p_threshold: float = DEFAULT_P) -> list[Drift]:
    """Give each feature its severity: significant among all of them, and of an effect that matters."""
    tested = [one for one in drifts if one.severity != "insufficient data"]
    adjusted = stats.false_discovery_control([one.p_value for one in tested]) if tested else []
    by_name = {one.feature: float(p) for one, p in zip(tested, adjusted, strict=True)}
    return [
        replace(one, p_adjusted=by_name[one.feature], severity=_severity(one, by_name[one.feature], p_threshold))
        if one.feature in by_name
        else one
        for one in drifts
    ]


def _severity(drift: Drift, p_adjusted: float, p_threshold: float) -> Severity:
    if p_adjusted >= p_threshold:
        return "none"
    levels = [sum(effect >= bound for bound in THRESHOLDS[name]) for name, effect in drift.effects.items()]
    return SEVERITIES[max(levels, default=0)]
