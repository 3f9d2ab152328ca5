"""Whether a distribution has drifted, by tests, and how far, by effect sizes.

With many rows a test finds any difference, even one that no model would notice. So a feature has drifted only if a test
is significant, corrected for the number of features (Benjamini and Hochberg 1995), and an effect passes a threshold. If
many values are zero, as in counts, the share of zeros and the non-zero values are compared separately.

Each of these parts has its own test, and its effects count only if that test is significant. A part with few values is
tested exactly: drift that it shows is drift, but too few values can't rule drift out. "none" therefore means that every
part was tested on enough values and shows no major effect; otherwise the verdict is "insufficient data".
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
import polars as pl
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
"""The smallest effects of minor and of major drift."""
TESTS = {
    "ks": ("ks", "wasserstein", "psi"),
    "cramers_v": ("cramers_v", "psi"),
    "zeros": ("zeros",),
    "missing": ("missing",),
}
"""The effects that each test makes significant."""
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
"""With fewer values in a period, a test without a finding proves nothing: it would miss major drift too."""
LEAST_EXPECTED = 5
"""With a smaller expected count in a cell, the test statistic is too far from a chi-square distribution."""
RESAMPLES = 1_999
MANY_ZEROS = 0.1
BINS = 10
LEAST_SHARE = 1e-4
"""The share that an empty bin counts as; otherwise the index would be infinite."""


@dataclass(frozen=True)
class Drift:
    """One feature in two periods.

    `p_values` are those of its TESTS. `p_value` is the smallest of them times their number; `p_adjusted` is also
    corrected for the number of features. `few` has the number of values in both periods for each test that had too few
    to rule drift out. `untold` says, for people, what could not be decided.
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
    few: dict[str, tuple[int, int]] = field(default_factory=dict)
    untold: tuple[str, ...] = ()

    @property
    def drifted(self) -> bool:
        """Whether the feature has drifted."""
        return self.severity in {"minor", "major"}


def compare(feature: str, reference: pl.Series, current: pl.Series) -> Drift:
    """Compare a feature's values, one per entity: numbers, or categories as text.

    Null, NaN and infinity count as missing. The result has no severity yet, because that depends on all features (see
    `judge`).
    """
    is_number = any(one.dtype.is_numeric() for one in (reference, current))
    drift = Drift(feature, "number" if is_number else "category", len(reference), len(current))
    if min(len(reference), len(current)) < LEAST_ROWS:
        untold = f"fewer than {LEAST_ROWS} entities in a period ({len(reference):,}, now {len(current):,})"
        return replace(drift, severity="insufficient data", untold=(untold,), says=untold)
    if is_number:
        reference, current = (_finite(one) for one in (reference, current))
    left, right = reference.drop_nulls(), current.drop_nulls()
    found = _Found({}, {}, [], {})
    if len(left) + len(right):
        found = _numbers(left, right) if is_number else _categories(left, right)
    missing = [one.null_count() / len(one) for one in (reference, current)]
    if any(missing):
        found.p_values["missing"] = _share_test(reference.is_null(), current.is_null())
        found.effects["missing"] = _cohens_h(*missing)
        found.words.append(f"missing {missing[0]:.1%}, now {missing[1]:.1%}")
    p_value = min(1.0, min(found.p_values.values(), default=1.0) * len(found.p_values))
    return replace(
        drift,
        p_values=found.p_values,
        p_value=p_value,
        effects=found.effects,
        says="; ".join(found.words),
        few=found.few,
    )


def _finite(values: pl.Series) -> pl.Series:
    values = values.cast(pl.Float64)
    return pl.select(pl.when(values.is_finite()).then(values)).to_series()


class _Found(NamedTuple):
    p_values: dict[str, float]
    effects: dict[str, float]
    words: list[str]
    few: dict[str, tuple[int, int]]


def _numbers(left: pl.Series, right: pl.Series) -> _Found:
    p_values, effects, words, few = found = _Found({}, {}, [], {})
    if min(len(left), len(right)):
        words.append(_moved("mean", float(np.mean(left.to_numpy())), float(np.mean(right.to_numpy()))))
        zeros = [int((one == 0).sum()) / len(one) for one in (left, right)]
        if max(zeros) >= MANY_ZEROS:
            p_values["zeros"] = _share_test(left == 0, right == 0)
            effects["zeros"] = _cohens_h(*zeros)
            words.append(f"zero {zeros[0]:.1%}, now {zeros[1]:.1%}")
            left, right = left.filter(left != 0), right.filter(right != 0)
    sizes = len(left), len(right)
    if max(sizes) and min(sizes) < LEAST_ROWS:
        few["ks"] = sizes
    if min(sizes):
        a, b = left.to_numpy(), right.to_numpy()
        p_values["ks"], effects["ks"] = _ks_test(a, b)
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


def _ks_test(left: Any, right: Any) -> tuple[float, float]:
    """The p-value and the distance; exact for few values (with ties, p is an upper bound)."""
    few = min(len(left), len(right)) < LEAST_ROWS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # that it takes the other way where the exact one overflows
        test = stats.ks_2samp(left, right, method="auto" if few else "asymp")
    return float(test.pvalue), float(test.statistic)


def _moved(what: str, before: float, now: float) -> str:
    texts = in_figures(before), in_figures(now)
    change = f" ({(now - before) / abs(before):+.0%})" if before and texts[0] != texts[1] else ""
    return f"{what} {texts[0]}, now {texts[1]}{change}"


def in_figures(value: float) -> str:
    """A number for people: four digits, and all digits before the point."""
    return f"{value:,.0f}" if abs(value) >= 1e3 else f"{value:.4g}"  # noqa: PLR2004  (four digits)


def _categories(left: pl.Series, right: pl.Series) -> _Found:
    few = {"cramers_v": (len(left), len(right))} if min(len(left), len(right)) < LEAST_ROWS else {}
    if not min(len(left), len(right)):
        return _Found({}, {}, [], few)
    counts = [dict(one.cast(pl.String).value_counts().iter_rows()) for one in (left, right)]
    names = sorted({*counts[0], *counts[1]})
    table = np.array([[count.get(name, 0) for name in names] for count in counts], dtype=np.int64)
    shares = table / table.sum(axis=1, keepdims=True)
    effects = {"psi": _psi(shares[0], shares[1])}
    p_values = {}
    if len(names) > 1:
        p_values["cramers_v"], statistic = _table_test(table)
        effects["cramers_v"] = math.sqrt(statistic / float(table.sum()))
    moved = max(range(len(names)), key=lambda place: (abs(shares[1][place] - shares[0][place]), shares[0][place]))
    words = [f"{names[moved]} {shares[0][moved]:.1%}, now {shares[1][moved]:.1%}"]
    words += [f"new: {name}" for name in names if name not in counts[0]]
    words += [f"gone: {name}" for name in names if name not in counts[1]]
    return _Found(p_values, effects, words, few)


def _table_test(table: Any) -> tuple[float, float]:
    """P-value and statistic of the chi-square test [2, categories], by random tables for small expected counts."""
    test = stats.chi2_contingency(table, correction=False)
    if test.expected_freq.min() < LEAST_EXPECTED:
        draws = stats.MonteCarloMethod(n_resamples=RESAMPLES, batch=100, rng=np.random.default_rng(0))
        return float(stats.chi2_contingency(table, correction=False, method=draws).pvalue), float(test.statistic)
    return float(test.pvalue), float(test.statistic)


def _psi(reference: Any, current: Any) -> float:
    a, b = np.maximum(reference, LEAST_SHARE), np.maximum(current, LEAST_SHARE)
    return float(np.sum((b - a) * np.log(b / a)))


def _cohens_h(reference: float, current: float) -> float:
    return abs(2 * math.asin(math.sqrt(current)) - 2 * math.asin(math.sqrt(reference)))


def _share_test(left: pl.Series, right: pl.Series) -> float:
    """The p-value that two shares differ: chi-square on the two-by-two table, or Fisher's exact test for few counts."""
    table = np.array([[one.sum(), len(one) - one.sum()] for one in (left, right)], dtype=np.int64)
    if (table.sum(axis=0) == 0).any():
        return 1.0
    test = stats.chi2_contingency(table, correction=False)
    exact = test.expected_freq.min() < LEAST_EXPECTED
    return float(stats.fisher_exact(table).pvalue if exact else test.pvalue)


def judge(drifts: Sequence[Drift], p_threshold: float = DEFAULT_P) -> list[Drift]:
    """Set each feature's severity: it must be significant among all features and have an effect that matters.

    Within a significant feature, its tests are compared with the level that the correction for the number of features
    leaves (Benjamini and Bogomolov 2014).
    """
    tested = [one for one in drifts if one.severity != "insufficient data"]
    adjusted = [float(p) for p in stats.false_discovery_control([one.p_value for one in tested])] if tested else []
    bound = p_threshold * sum(p < p_threshold for p in adjusted) / max(len(adjusted), 1)
    by_name = {one.feature: _judged(one, p, bound) for one, p in zip(tested, adjusted, strict=True)}
    return [by_name.get(one.feature, one) for one in drifts]


def _judged(drift: Drift, p_adjusted: float, bound: float) -> Drift:
    significant = {test for test, p in drift.p_values.items() if p * len(drift.p_values) < bound}
    effects = {name for test in significant for name in TESTS[test]} & drift.effects.keys()
    level = max((level_of(name, drift.effects[name]) for name in effects), default=0)
    kind = "values that are not zero" if "zeros" in drift.effects else "values"
    untold = [
        f"too few {kind} ({before:,}, now {now:,})"
        for test, (before, now) in drift.few.items()
        if test not in significant
    ]
    untold += [
        f"{name} {drift.effects[name]:.2g} may be chance"
        for test in drift.p_values
        for name in TESTS[test]
        if test not in significant and test not in drift.few and _is_major(name, drift.effects)
    ]
    severity = SEVERITIES[level] if level or not untold else "insufficient data"
    says = "; ".join([*filter(None, [drift.says]), *(f"not told: {one}" for one in untold)])
    return replace(drift, p_adjusted=p_adjusted, severity=severity, untold=tuple(untold), says=says)


def _is_major(name: str, effects: Mapping[str, float]) -> bool:
    return name in effects and SEVERITIES[level_of(name, effects[name])] == "major"


def level_of(name: str, effect: float) -> int:
    """The severity of an effect if it is significant, as an index into SEVERITIES."""
    return sum(effect >= bound for bound in THRESHOLDS[name])
