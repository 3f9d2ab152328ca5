"""The rules for feature rows, derived from the declarations.

A row rule identifies single broken rows for quarantine; a table rule says whether the rows as a whole can be trusted. A
rule is plain data that names the Great Expectations expectation it becomes, so it can be read, listed and tested
without that library, and both engines check the same rules.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from feast_repo.declare.fields import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from feast_repo.declare.batch_views import BatchFeature, BatchView
    from feast_repo.declare.events import EventStream
    from feast_repo.declare.views import WindowedView

GIVEN = "_as_given"
"""Suffix of the column with a value's original text, beside the column of the declared type."""
UNREADABLE = "_unreadable"
"""Suffix of the column with text that is not a value of the declared type; null otherwise."""
EXACT = "_exact"
"""Suffix of the column with a unique whole number as text, because pandas has no integers beside nulls."""
# Anchored for Rust and Java, whose `$` also stands before a line break at the end (in Java; in Rust it does not).
INTEGER = r"\A[+-]?[0-9]{1,18}(\.0*)?\z"
"""Whole numbers as text, including `35.0`, as written by tools without nullable integers."""
NO_FRACTION = r"\.0*\z"
FLOAT = r"\A[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?\z"
TRUTH = r"\A(?i:true|false)\z"
READABLE = {"Int64": INTEGER, "Float64": FLOAT, "Bool": TRUTH}
"""What a value looks like as text, by type; a text is as it is."""
KINDS = {"Int64": "a whole number", "Float64": "a number", "Bool": "true or false"}
LARGEST_FLOAT = 1.7976931348623157e308
WRITERS = ("stream", "backfill", "heal")

OFF_GRID, VERSION = "off_grid_us", "version"
"""Columns that the monitor adds: how far a window's end is off the grid, and the row's version number."""
RATIO = "times_the_day_before"


LEAST_SHARE_OF_PUBLISHED = 0.5
MOST_BROKEN_SHARE = 0.5
"""With a larger share of broken rows, the file itself is wrong rather than some of its rows."""
MOST_DAYS_OLD = 2.0
"""Of a publication whose view declares no `max_age`."""
LEAST_VOLUME, MOST_VOLUME = 0.5, 2.0
"""Rows of an hour relative to the same hour of the day before."""
LEAST_ROWS_TO_COMPARE = 100


@dataclass(frozen=True)
class Rule:
    """One expectation with a name. `says` completes "each row: ..." or "the table: ..." for people.

    `set_by`: the declaration to change if the data are right and the rule is wrong.
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


def _within(
    name: str,
    column: str,
    low: float | None,
    high: float | None,
    says: str,
    *,
    above: bool = False,
    set_by: str | None = None,
) -> Rule:
    bounds = {"column": column, "min_value": low, "max_value": high, "strict_min": above}
    return Rule(name, says, "ExpectColumnValuesToBeBetween", bounds, set_by=set_by)


def _length(column: str, streams: Iterable[EventStream]) -> Iterator[Rule]:
    """The length of a join key, as the first of the event streams that has such a field declares it."""
    fields = (stream.by_name.get(column) for stream in streams)
    text = next((one for one in fields if isinstance(one, Text) and one.max_length is not None), None)
    if text is not None:
        yield Rule(
            f"{column}_length",
            f"{column} has {text.min_length} to {text.max_length} characters",
            "ExpectColumnValueLengthsToBeBetween",
            {"column": column, "min_value": text.min_length, "max_value": text.max_length},
        )


def _well_formed(column: str, pattern: str, set_by: str) -> Rule:
    says, arguments = f"{column} matches {pattern}", {"column": column, "regex": whole(pattern)}
    return Rule(f"{column}_well_formed", says, "ExpectColumnValuesToMatchRegex", arguments, set_by=set_by)


def _plausible(view: BatchView, column: str, feature: BatchFeature) -> Iterator[Rule]:
    """What the declaration says about a feature's values."""
    set_by = f"{column} of {view.name}"
    if feature.values is not None:
        says = f"{column} is one of {', '.join(feature.values)}"
        arguments = {"column": column, "value_set": list(feature.values)}
        yield Rule(f"{column}_known", says, "ExpectColumnValuesToBeInSet", arguments, set_by=set_by)
    if feature.pattern is not None:
        yield _well_formed(column, feature.pattern, set_by)
    low, high = feature.minimum if feature.above is None else feature.above, feature.maximum
    if low is not None or high is not None:
        begin = "" if low is None else f"{'from' if feature.above is None else 'above'} {low:g}"
        says = begin if high is None else f"{begin} to {high:g}" if begin else f"at most {high:g}"
        above = feature.above is not None
        yield _within(f"{column}_range", column, low, high, f"{column} is {says}", above=above, set_by=set_by)
    if feature.unique:
        yield _unique_feature(view, column, f"{column}_unique", f"{column} comes once")


def unique_numbers(view: BatchView) -> list[str]:
    """The unique features that are whole numbers, which are compared by their column with EXACT."""
    return [name for name, feature in view.features.items() if feature.unique and feature.value_type == "Int64"]


def _unique_feature(view: BatchView, column: str, name: str, says: str) -> Rule:
    arguments = {"column": column + EXACT if view.features[column].value_type == "Int64" else column}
    return Rule(name, says, "ExpectColumnValuesToBeUnique", arguments, set_by=f"{column} of {view.name}")


def _unique(columns: tuple[str, ...]) -> Rule:
    name, says = f"{'_'.join(columns)}_unique", f"{', '.join(columns)} comes once"
    if len(columns) == 1:
        return Rule(name, says, "ExpectColumnValuesToBeUnique", {"column": columns[0]})
    return Rule(name, says, "ExpectCompoundColumnsToBeUnique", {"column_list": list(columns)})


def batch_suite(view: BatchView, streams: Iterable[EventStream] = ()) -> Suite:
    """The row rules of a batch view; its entities are those of the event streams."""
    streams = tuple(streams)
    rules: list[Rule] = []
    for name, value_type in {**view.entity.join_keys, **view.value_types}.items():
        feature = view.features.get(name)
        if feature is None or not feature.nullable:
            rules.append(_present(name, name + GIVEN if value_type in READABLE else None))
        if value_type in READABLE:
            kind = KINDS[value_type]
            arguments = {"column": name + UNREADABLE}
            rules.append(Rule(f"{name}_readable", f"{name} is {kind}", "ExpectColumnValuesToBeNull", arguments))
        if feature is not None:
            rules += _plausible(view, name, feature)
            continue
        rules += _length(name, streams)
        if name in view.key_patterns:
            rules.append(_well_formed(name, view.key_patterns[name], f"{name} of {view.name}"))
        if name == view.join_keys[-1]:
            rules.append(_unique(view.join_keys))
    return Suite(f"{view.name}_rows", tuple(rules))


def joined_suite(view: BatchView) -> Suite:
    """The row rules of rows that are added to published ones, on all of them together: no unique value comes twice."""
    unique = [name for name, feature in view.features.items() if feature.unique]
    rules = [
        _unique_feature(view, name, f"{name}_not_published", f"no other published row has this {name}")
        for name in unique
    ]
    return Suite(f"{view.name}_joined", tuple(rules))


def table_suite(view: BatchView, *, least_rows: int, most_days_old: float | None) -> Suite:
    """The table rules of a batch view, on one row of figures: `good_rows`, `broken_share`, `days_old`.

    With no `most_days_old`, rows may be of any time up to now.
    """
    most_rows = view.rows[1]
    count = {"column": "good_rows", "min_value": least_rows, "max_value": most_rows}
    share = {"column": "broken_share", "min_value": 0, "max_value": MOST_BROKEN_SHARE}
    days = {"column": "days_old", "min_value": 0, "max_value": most_days_old}
    several = f"{least_rows:,} or more" if most_rows is None else f"{least_rows:,} to {most_rows:,}"
    age = "not of the future" if most_days_old is None else f"at most {_duration(most_days_old)} old"
    between = "ExpectColumnValuesToBeBetween"
    by_rows = None if view.rows == (None, None) else f"rows of {view.name}"
    by_age = None if view.max_age is None else f"max_age of {view.name}"
    return Suite(
        f"{view.name}_table",
        (
            Rule("row_count", f"{several} good rows", between, count, "table", by_rows),
            Rule("broken_share", f"at most {MOST_BROKEN_SHARE:.0%} of the rows are broken", between, share, "table"),
            Rule("publication_age", f"the rows are {age}", between, days, "table", by_age),
        ),
    )


def _duration(days: float) -> str:
    return f"{days:g} days" if days >= 1 else f"{24 * days:g} hours"


def windowed_suite(view: WindowedView) -> Suite:
    """The row rules of a windowed view."""
    minutes = view.slide_ms / 60_000
    identity = [*view.join_keys, "event_timestamp", "writer"]
    rules = [rule for key in view.join_keys for rule in (_present(key), *_length(key, (view.source,)))]
    rules += [
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
        if view.defaults[name] is not None:
            rules.append(_present(name))
        never_negative = feature.is_never_negative(view.source, view.features)
        if feature.value_type == "Float64":
            least = 0 if never_negative else -LARGEST_FLOAT
            at_least = " and 0 or more" if never_negative else ""
            rules.append(_within(f"{name}_range", name, least, LARGEST_FLOAT, f"{name} is finite{at_least}"))
        elif never_negative:
            arguments = {"column": name, "min_value": 0}
            rules.append(Rule(f"{name}_range", f"{name} is 0 or more", "ExpectColumnValuesToBeBetween", arguments))
    return Suite(f"{view.name}_rows", tuple(rules))


def volume_suite(view: WindowedView) -> Suite:
    """The table rule of a windowed view, on one row per hour."""
    says = f"rows of an hour are {LEAST_VOLUME:g} to {MOST_VOLUME:g} times those of the same hour on the day before"
    bounds = {"column": RATIO, "min_value": LEAST_VOLUME, "max_value": MOST_VOLUME}
    return Suite(f"{view.name}_volume", (Rule("volume", says, "ExpectColumnValuesToBeBetween", bounds, "table"),))
