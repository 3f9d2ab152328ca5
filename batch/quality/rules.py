"""The rules for feature rows: those derived from the declarations, and those of this shop's domain.

A row rule identifies single broken rows for quarantine; a table rule says whether the rows as a whole can be trusted. A
rule is plain data that names the Great Expectations expectation it becomes, so it can be read, listed and tested
without that library, and both engines check the same rules.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from feast_repo.declare.algebra import Count, Ratio
from feast_repo.declare.fields import Integer, Text
from feast_repo.profiles import COUNTRIES, TIERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from feast_repo.declare.algebra import Feature
    from feast_repo.declare.events import EventStream
    from feast_repo.declare.views import BatchView, WindowedView

GIVEN = "_as_given"
"""Suffix of the column with a value's original text, beside the column of the declared type."""
UNREADABLE = "_unreadable"
"""Suffix of the column with text that is not a value of the declared type; null otherwise."""
# Anchored for Rust and Java, whose `$` also stands before a line break at the end (in Java; in Rust it does not).
INTEGER = r"\A[+-]?[0-9]{1,18}(\.0*)?\z"
"""Whole numbers as text, including `35.0`, as written by tools without nullable integers."""
NO_FRACTION = r"\.0*\z"
FLOAT = r"\A[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?\z"
READABLE = {"Int64": INTEGER, "Float64": FLOAT}
LARGEST_FLOAT = 1.7976931348623157e308
WRITERS = ("stream", "backfill", "heal")

OFF_GRID, VERSION = "off_grid_us", "version"
"""Columns that the monitor adds: how far a window's end is off the grid, and the row's version number."""
RATIO = "times_the_day_before"


@dataclass(frozen=True)
class OneOf:
    """A value from a fixed set."""

    values: tuple[str, ...]


@dataclass(frozen=True)
class Within:
    """A number from `low` (or above it) to `high`."""

    low: float
    high: float
    above: bool = False


Domain: TypeAlias = OneOf | Within

USER_ID = r"user_[0-9]{6,}"
"""The pattern of a complete user id. Write [0-9] for a digit, because the engines differ in \\d."""
PROFILE_DOMAINS: Mapping[str, Domain] = {
    "age": Within(18, 120),
    "country": OneOf(tuple(COUNTRIES)),
    "subscription_tier": OneOf(tuple(TIERS)),
    "activity_weight": Within(0, 1, above=True),
}
"""Plausible values of a profile. A declared feature that is not named here must still be present and readable."""
THIS_FILE = "batch/quality/rules.py"

LEAST_SHARE_OF_PUBLISHED = 0.5
MOST_BROKEN_SHARE = 0.5
"""With a larger share of broken rows, the file itself is wrong rather than some of its rows."""
MOST_DAYS_OLD = 2.0
VOLUME = Within(0.5, 2.0)
"""Rows of an hour relative to the same hour of the day before."""
LEAST_ROWS_TO_COMPARE = 100


@dataclass(frozen=True)
class Rule:
    """One expectation with a name. `says` completes "each row: ..." or "the table: ..." for people.

    `set_by`: the name in THIS_FILE to change if the data are right and the rule is wrong.
    """

    name: str
    says: str
    expectation: str
    arguments: Mapping[str, Any]
    scope: Literal["row", "table"] = "row"
    set_by: str | None = None


@dataclass(frozen=True)
class Suite:
    """Rules that are checked together on one batch of rows."""

    name: str
    rules: tuple[Rule, ...] = field(default=())


def whole(pattern: str) -> str:
    """A regular expression for a complete text, in Python and Java alike; `$` also matches before a final newline."""
    return rf"^(?:{pattern})(?![\s\S])"


def _present(column: str, given: str | None = None) -> Rule:
    return Rule(f"{column}_present", f"{column} is given", "ExpectColumnValuesToNotBeNull", {"column": given or column})


def _within(name: str, column: str, domain: Within, says: str, scope: Literal["row", "table"] = "row") -> Rule:
    bounds = {"column": column, "min_value": domain.low, "max_value": domain.high, "strict_min": domain.above}
    return Rule(name, says, "ExpectColumnValuesToBeBetween", bounds, scope)


def _length(column: str, events: EventStream) -> Iterator[Rule]:
    """The length of the key, as the events declare it."""
    text = events.by_name[events.key]
    if isinstance(text, Text) and text.max_length is not None:
        yield Rule(
            f"{column}_length",
            f"{column} has {text.min_length} to {text.max_length} characters",
            "ExpectColumnValueLengthsToBeBetween",
            {"column": column, "min_value": text.min_length, "max_value": text.max_length},
        )


def _domain(column: str, domain: Domain) -> Rule:
    set_by = f'PROFILE_DOMAINS["{column}"]'
    if isinstance(domain, OneOf):
        says = f"{column} is one of {', '.join(domain.values)}"
        arguments = {"column": column, "value_set": list(domain.values)}
        return Rule(f"{column}_known", says, "ExpectColumnValuesToBeInSet", arguments, set_by=set_by)
    says = f"{column} is {'above' if domain.above else 'from'} {domain.low:g} to {domain.high:g}"
    return replace(_within(f"{column}_range", column, domain, says), set_by=set_by)


def profile_suite(
    view: BatchView, events: EventStream, domains: Mapping[str, Domain] = PROFILE_DOMAINS, pattern: str = USER_ID
) -> Suite:
    """The row rules of a batch view; its users are those of the events."""
    key = view.join_keys[0]
    rules = [
        _present(key),
        *_length(key, events),
        Rule(
            f"{key}_well_formed",
            f"{key} matches {pattern}",
            "ExpectColumnValuesToMatchRegex",
            {"column": key, "regex": whole(pattern)},
            set_by="USER_ID",
        ),
        Rule(f"{key}_unique", f"{key} comes once", "ExpectColumnValuesToBeUnique", {"column": key}),
    ]
    for name, value_type in view.value_types.items():
        if value_type in READABLE:
            kind = "a whole number" if value_type == "Int64" else "a number"
            rules.append(_present(name, name + GIVEN))
            arguments = {"column": name + UNREADABLE}
            rules.append(Rule(f"{name}_readable", f"{name} is {kind}", "ExpectColumnValuesToBeNull", arguments))
        else:
            rules.append(_present(name))
        if name in domains:
            rules.append(_domain(name, domains[name]))
    return Suite(f"{view.name}_rows", tuple(rules))


def profile_table_suite(view: BatchView, *, least_rows: int, most_days_old: float | None) -> Suite:
    """The table rules of a batch view, on one row of figures: `good_rows`, `broken_share`, `days_old`.

    With no `most_days_old`, rows may be of any time up to now.
    """
    says = "it is not of the future" if most_days_old is None else f"it is at most {most_days_old:g} days old"
    days = {"column": "days_old", "min_value": 0, "max_value": most_days_old}
    return Suite(
        f"{view.name}_table",
        (
            Rule(
                "row_count",
                f"{least_rows:,} or more good rows",
                "ExpectColumnValuesToBeBetween",
                {"column": "good_rows", "min_value": least_rows},
                "table",
            ),
            _within(
                "broken_share",
                "broken_share",
                Within(0, MOST_BROKEN_SHARE),
                f"at most {MOST_BROKEN_SHARE:.0%} of the rows are broken",
                "table",
            ),
            Rule("freshness", says, "ExpectColumnValuesToBeBetween", days, "table"),
        ),
    )


def click_suite(view: WindowedView) -> Suite:
    """The row rules of a windowed view."""
    key = view.join_keys[0]
    minutes = view.slide_ms / 60_000
    identity = [key, "event_timestamp", "writer"]
    rules = [
        _present(key),
        *_length(key, view.source),
        Rule(
            "window_end_on_grid",
            f"the window's end is a multiple of {minutes:g} minutes",
            "ExpectColumnValuesToBeInSet",
            {"column": OFF_GRID, "value_set": [0]},
        ),
        Rule(
            "writer_known",
            f"writer is one of {', '.join(WRITERS)}",
            "ExpectColumnValuesToBeInSet",
            {"column": "writer", "value_set": list(WRITERS)},
        ),
        # A backfill or heal may write a window again later; that is a version of the row, not a duplicate.
        Rule(
            "row_unique",
            f"a row comes once by {', '.join(identity)}",
            "ExpectCompoundColumnsToBeUnique",
            {"column_list": [*identity, VERSION]},
        ),
    ]
    for name, feature in view.features.items():
        if feature.empty is not None:
            rules.append(_present(name))
        low = _least(feature, view)
        if feature.value_type == "Float64":
            finite = Within(-LARGEST_FLOAT if low is None else low, LARGEST_FLOAT)
            at_least = "" if low is None else " and 0 or more"
            rules.append(_within(f"{name}_range", name, finite, f"{name} is finite{at_least}"))
        elif low is not None:
            arguments = {"column": name, "min_value": low}
            rules.append(Rule(f"{name}_range", f"{name} is 0 or more", "ExpectColumnValuesToBeBetween", arguments))
    return Suite(f"{view.name}_rows", tuple(rules))


def _least(feature: Feature, view: WindowedView) -> int | None:
    """0 if a feature can never be negative by its definition."""
    if isinstance(feature, Ratio):
        sides = (view.aggregates[feature.numerator], view.aggregates[feature.denominator])
        return None if None in (_least(side, view) for side in sides) else 0
    if isinstance(feature, Count):
        return 0
    column = view.source.by_name[feature.column]
    return 0 if isinstance(column, Integer) and column.non_negative else None


def volume_suite(view: WindowedView) -> Suite:
    """The table rule of a windowed view, on one row per hour."""
    says = f"rows of an hour are {VOLUME.low:g} to {VOLUME.high:g} times those of the same hour on the day before"
    return Suite(f"{view.name}_volume", (_within("volume", RATIO, VOLUME, says, "table"),))
