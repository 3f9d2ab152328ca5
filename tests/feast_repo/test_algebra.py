"""The algebra: its expressions equal plain Python, and panes merge in any grouping."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

from feast_repo.declare.algebra import COMPARISONS, Both, Comparison, Count, Max, Min, Ratio, Sum, field
from feast_repo.declare.fields import INT64_MAX, INT64_MIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from feast_repo.declare.algebra import Aggregate, Predicate

SCHEMA = {"kind": pl.String(), "price": pl.Int64()}
Rows = list[tuple[str | None, int | None]]

ROWS: Rows = [("view", 5), ("view", None), ("buy", 300), ("buy", -7), (None, 40), ("buy", None)]

rows = st.lists(
    st.tuples(
        st.sampled_from(["view", "buy", "", None]),
        st.none() | st.integers(-5, 5) | st.sampled_from([INT64_MIN, INT64_MAX]),
    ),
    max_size=8,
)


def frame(data: Rows) -> pl.DataFrame:
    return pl.DataFrame(data, schema=SCHEMA, orient="row")


def selected(where: Predicate, data: Rows) -> Rows:
    keep = frame(data).select(where.polars()).to_series()
    assert keep.null_count() == 0
    return [row for row, kept in zip(data, keep, strict=True) if kept]


def in_one_pane(aggregate: Aggregate, data: Rows) -> int | None:
    """Compute an aggregate in a group, as the engine does; a group is never empty."""
    result = frame(data).group_by(pl.lit(1)).agg(aggregate.pane().alias("n"))
    assert result.schema["n"] == pl.Int64()
    return result["n"].item()  # type: ignore[no-any-return]  # of an Int64 column


def merged(aggregate: Aggregate, values: list[int | None]) -> int | None:
    panes = pl.DataFrame({"n": values}, schema={"n": pl.Int64})
    result = panes.group_by(pl.lit(1)).agg(aggregate.merge("n"))
    assert result.schema["n"] == pl.Int64()
    return result["n"].item()  # type: ignore[no-any-return]  # of an Int64 column


# --- Conditions


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (field("kind") == "view", [("view", 5), ("view", None)]),
        (field("kind") != "view", [("buy", 300), ("buy", -7), ("buy", None)]),
        (field("price") == 5, [("view", 5)]),
        (field("price") > 5, [("buy", 300), (None, 40)]),
        (field("price") >= 5, [("view", 5), ("buy", 300), (None, 40)]),
        (field("price") < 5, [("buy", -7)]),
        (field("price") <= 5, [("view", 5), ("buy", -7)]),
        ((field("kind") == "buy") & (field("price") > 0), [("buy", 300)]),
        ((field("kind") == "buy") & (field("price") > 0) & (field("price") > 300), []),
    ],
    ids=str,
)
def test_condition_selects_and_null_is_never_selected(condition: Predicate, expected: Rows) -> None:
    assert selected(condition, ROWS) == expected


def test_condition_reads_as_it_is_written() -> None:
    assert str(field("kind") == "buy") == "kind == 'buy'"
    assert str((field("kind") == "buy") & (field("price") >= 5)) == "(kind == 'buy') & (price >= 5)"


def test_condition_knows_its_columns() -> None:
    condition = (field("kind") == "buy") & (field("price") >= 5) & (field("kind") != "view")
    assert condition.columns() == {"kind", "price"}


def test_conditions_are_values() -> None:
    assert (field("kind") == "buy") == Comparison("kind", "==", "buy")
    assert (field("kind") == "buy") & (field("price") > 1) == Both(
        Comparison("kind", "==", "buy"), Comparison("price", ">", 1)
    )
    assert len({Count(where=field("kind") == "buy"), Count(where=field("kind") == "buy")}) == 1


def test_field_is_no_value_itself() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(field("kind"))


@settings(max_examples=50, deadline=None)
@given(rows, st.sampled_from(sorted(COMPARISONS)), st.integers(-5, 5))
def test_comparison_equals_plain_python(data: Rows, symbol: str, value: int) -> None:
    meaning: dict[str, Callable[[int], bool]] = {
        "==": lambda price: price == value,
        "!=": lambda price: price != value,
        ">": lambda price: price > value,
        ">=": lambda price: price >= value,
        "<": lambda price: price < value,
        "<=": lambda price: price <= value,
    }
    expected = [row for row in data if row[1] is not None and meaning[symbol](row[1])]
    assert selected(Comparison("price", symbol, value), data) == expected


# --- Aggregates

BUY = field("kind") == "buy"


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [
        (Count(), 6),
        (Count(where=BUY), 3),
        (Count(where=field("kind") == "nothing"), 0),
        (Sum("price"), 338),
        (Sum("price", where=BUY), 293),
        (Sum("price", where=field("kind") == "nothing"), 0),
        (Min("price"), -7),
        (Min("price", where=field("kind") == "view"), 5),
        (Min("price", where=field("kind") == "nothing"), None),
        (Max("price"), 300),
        (Max("price", where=field("kind") == "view"), 5),
        (Max("price", where=field("kind") == "nothing"), None),
    ],
    ids=str,
)
def test_aggregate_of_a_pane(aggregate: Aggregate, expected: int | None) -> None:
    assert in_one_pane(aggregate, ROWS) == expected


@pytest.mark.parametrize("aggregate", [Count(), Count(where=BUY), Sum("price"), Min("price"), Max("price")], ids=str)
def test_empty_value_is_neutral_in_a_merge(aggregate: Aggregate) -> None:
    for value in (0, 7, INT64_MAX):
        assert merged(aggregate, [value, aggregate.empty]) == value
    assert merged(aggregate, [aggregate.empty, aggregate.empty]) == aggregate.empty


def test_values_of_a_field_that_is_absent_everywhere_are_the_empty_ones() -> None:
    nothing: Rows = [("buy", None), ("buy", None)]
    for aggregate in (Sum("price"), Min("price"), Max("price"), Sum("price", where=BUY), Max("price", where=BUY)):
        assert in_one_pane(aggregate, nothing) == aggregate.empty


def test_sum_is_exact_modulo_two_to_the_64() -> None:
    assert in_one_pane(Sum("price"), [("buy", INT64_MAX), ("buy", 1)]) == INT64_MIN
    assert merged(Sum("price"), [INT64_MIN, -1]) == INT64_MAX


def test_aggregate_knows_its_columns() -> None:
    assert Count().columns() == frozenset()
    assert Count(where=BUY).columns() == {"kind"}
    assert Sum("price").columns() == {"price"}
    assert Max("price", where=BUY).columns() == {"kind", "price"}


@settings(max_examples=60, deadline=None)
@given(
    rows,
    st.sampled_from([Count(), Count(where=BUY), Sum("price"), Sum("price", where=BUY), Min("price"), Max("price")]),
    st.data(),
)
def test_panes_merge_to_the_same_value_in_any_grouping(data: Rows, aggregate: Aggregate, draw: st.DataObject) -> None:
    shuffled = draw.draw(st.permutations(data))
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=3)))
    bounds = [0, *cuts, len(data)]
    panes = [shuffled[start:end] for start, end in itertools.pairwise(bounds) if start < end]
    whole = in_one_pane(aggregate, data) if data else aggregate.empty
    assert merged(aggregate, [aggregate.empty, *(in_one_pane(aggregate, pane) for pane in panes)]) == whole


# --- Ratios


@pytest.mark.parametrize(
    ("above", "below", "expected"),
    [
        (1, 4, 0.25),
        (1, 3, 1 / 3),
        (0, 3, 0.0),
        (3, 0, 0.0),
        (0, 0, 0.0),
        (-1, 2, -0.5),
        (None, 2, 0.0),
        (2, None, 0.0),
        (None, None, 0.0),
        (INT64_MAX, 1, float(INT64_MAX)),
        (INT64_MIN, -1, -float(INT64_MIN)),
    ],
)
def test_ratio_is_the_quotient_or_zero(above: int | None, below: int | None, expected: float) -> None:
    values: dict[str, Any] = {"above": [above], "below": [below]}
    window = pl.DataFrame(values, schema={"above": pl.Int64, "below": pl.Int64})
    result = window.select(rate=Ratio("above", "below").final())
    assert result.schema["rate"] == pl.Float64()
    assert result["rate"].item() == expected


@settings(max_examples=50, deadline=None)
@given(st.integers(INT64_MIN, INT64_MAX), st.integers(INT64_MIN, INT64_MAX))
def test_ratio_equals_plain_python(above: int, below: int) -> None:
    window = pl.DataFrame({"above": [above], "below": [below]}, schema={"above": pl.Int64, "below": pl.Int64})
    expected = float(above) / float(below) if below else 0.0
    assert window.select(Ratio("above", "below").final()).item() == expected


def test_value_types_and_empty_values() -> None:
    for aggregate, empty in ((Count(), 0), (Sum("price"), 0), (Min("price"), None), (Max("price"), None)):
        assert aggregate.value_type == "Int64"
        assert aggregate.empty == empty
    assert Ratio("a", "b").value_type == "Float64"
    assert Ratio("a", "b").empty == 0.0
