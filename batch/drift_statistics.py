"""Has a distribution drifted, and by how much: tests for whether, effect sizes for how much.

With many rows a test finds any difference, also one that no model would notice. So a feature has drifted only if the
test says so, corrected for the number of features (Benjamini and Hochberg 1995), and an effect passes a threshold.
Where many values are zero, as counts are, their share is compared apart, and the other values with each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

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
MEANINGS = {
    "psi": "population stability index, over tenths of the reference, or over categories",
    "ks": "the greatest distance of the distribution functions (Kolmogorov and Smirnov)",
    "wasserstein": "the mean distance that values have moved, in standard deviations of the reference",
    "cramers_v": "the strength of association between category and period (Cramer 1946)",
    "zeros": "the change of the share of zeros, as Cohen's h: 2 asin sqrt(p), subtracted",
    "missing": "the change of the share of missing values, likewise",
}
DEFAULT_P = 0.05
LEAST_ROWS = 200
MANY_ZEROS = 0.1
BINS = 10
LEAST_SHARE = 1e-4
"""An empty bin counts as so much, or the index would be infinite."""


@dataclass(frozen=True)
class Drift:
    """One feature in two periods.

    `p_values` are those of its tests, named as the effects that they tell significant. `p_value` is the smallest of
    them times their number, `p_adjusted` is corrected for the number of features too.
    """

    feature: str
    kind: Literal["number", "category"]
    reference_rows: int
    current_rows: int
    p_values: dict[str, float] = field(default_factory=dict)
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
    """Compare a feature's values, one for each user: numbers, or categories as text; null and NaN are missing.

    The result has no severity yet: that takes all features, see `judge`.
    """
    is_number = any(one.dtype.is_numeric() for one in (reference, current))
    drift = Drift(feature, "number" if is_number else "category", len(reference), len(current))
    if min(len(reference), len(current)) < LEAST_ROWS:
        return replace(drift, severity="insufficient data")
    if is_number:
        reference, current = (one.cast(pl.Float64).fill_nan(None) for one in (reference, current))
    left, right = reference.drop_nulls(), current.drop_nulls()
    found = _Found({}, {}, [])
    if min(len(left), len(right)):
        found = _numbers(left, right) if is_number else _categories(left, right)
    missing = [one.null_count() / len(one) for one in (reference, current)]
    if any(missing):
        found.p_values["missing"] = _share_test(reference.is_null(), current.is_null())
        found.effects["missing"] = _cohens_h(*missing)
        found.words.append(f"missing {missing[0]:.1%}, now {missing[1]:.1%}")
    p_value = min(1.0, min(found.p_values.values(), default=1.0) * len(found.p_values))
    return replace(drift, p_values=found.p_values, p_value=p_value, effects=found.effects, says="; ".join(found.words))


class _Found(NamedTuple):
    p_values: dict[str, float]
    effects: dict[str, float]
    words: list[str]


def _numbers(left: pl.Series, right: pl.Series) -> _Found:
    p_values, effects, words = found = _Found({}, {}, [])
    means = [float(np.mean(one.to_numpy())) for one in (left, right)]
    words.append(_moved("mean", *means))
    zeros = [int((one == 0).sum()) / len(one) for one in (left, right)]
    if max(zeros) >= MANY_ZEROS:
        p_values["zeros"] = _share_test(left == 0, right == 0)
        effects["zeros"] = _cohens_h(*zeros)
        words.append(f"zero {zeros[0]:.1%}, now {zeros[1]:.1%}")
        left, right = left.filter(left != 0), right.filter(right != 0)
    if min(len(left), len(right)) >= LEAST_ROWS:
        a, b = left.to_numpy(), right.to_numpy()
        test = stats.ks_2samp(a, b, method="asymp")
        p_values["ks"] = float(test.pvalue)
        effects["ks"] = float(test.statistic)
        sigma = float(np.std(a))
        distance = float(stats.wasserstein_distance(a, b))
        effects["wasserstein"] = distance / sigma if sigma else float(distance > 0)
        edges = np.unique(np.quantile(a, np.linspace(0, 1, BINS + 1)[1:-1]))
        shares = [
            np.bincount(np.searchsorted(edges, one, side="right"), minlength=len(edges) + 1) / len(one)
            for one in (a, b)
        ]
        effects["psi"] = _psi(*shares)
        words.append(_moved("median of the others" if "zeros" in effects else "median", np.median(a), np.median(b)))
    return found


def _moved(what: str, before: float, now: float) -> str:
    texts = in_figures(before), in_figures(now)
    change = f" ({(now - before) / abs(before):+.0%})" if before and texts[0] != texts[1] else ""
    return f"{what} {texts[0]}, now {texts[1]}{change}"


def in_figures(value: float) -> str:
    """A number for people: four digits, and all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 1e3 else f"{value:.4g}"  # noqa: PLR2004  (four digits)


def _categories(left: pl.Series, right: pl.Series) -> _Found:
    counts = [dict(one.cast(pl.String).value_counts().iter_rows()) for one in (left, right)]
    names = sorted({*counts[0], *counts[1]})
    table = np.array([[count.get(name, 0) for name in names] for count in counts], dtype=np.float64)
    shares = table / table.sum(axis=1, keepdims=True)
    effects = {"psi": _psi(shares[0], shares[1])}
    p_values = {}
    if len(names) > 1:
        test = stats.chi2_contingency(table, correction=False)
        p_values["cramers_v"] = float(test.pvalue)
        effects["cramers_v"] = math.sqrt(float(test.statistic) / float(table.sum()))
    moved = max(range(len(names)), key=lambda place: (abs(shares[1][place] - shares[0][place]), shares[0][place]))
    words = [f"{names[moved]} {shares[0][moved]:.1%}, now {shares[1][moved]:.1%}"]
    words += [f"new: {name}" for name in names if name not in counts[0]]
    words += [f"gone: {name}" for name in names if name not in counts[1]]
    return _Found(p_values, effects, words)


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
    return SEVERITIES[max((level_of(*effect) for effect in drift.effects.items()), default=0)]


def level_of(name: str, effect: float) -> int:
    """Which severity an effect has if it is significant, as an index into SEVERITIES."""
    return sum(effect >= bound for bound in THRESHOLDS[name])
