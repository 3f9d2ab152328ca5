"""The algebra in Polars: conditions and aggregates equal plain Python, and states merge in any grouping."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

from feast_repo.clickstream import clickstream
from feast_repo.declare.algebra import Count, Max, Mean, Min, Ratio, Sum
from feast_repo.declare.conditions import COMPARISONS, Both, Comparison, field
from feast_repo.declare.fields import INT64_MAX, INT64_MIN, Bool
from feast_repo.declare.values import POLARS_TYPES
from feast_repo.declare.vocabulary import POLARS
from tests.aggregates import Ever, Greatest, Integers, Strings

if TYPE_CHECKING:
    from collections.abc import Callable

    from feast_repo.declare.algebra import Aggregate
    from feast_repo.declare.conditions import Condition

SCHEMA = {"kind": pl.String(), "price": pl.Int64()}
Rows = list[tuple[str | None, int | None]]
State = Mapping[str, Any]

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


def selected(where: Condition, data: Rows) -> Rows:
    keep = frame(data).select(where.holds(POLARS)).to_series()
    assert keep.null_count() == 0
    return [row for row, kept in zip(data, keep, strict=True) if kept]


def state_of(aggregate: Aggregate, terms: Mapping[str, Any], rows: pl.DataFrame) -> State:
    """Compute a state in a group, as the engine does; a group is never empty."""
    assert terms.keys() == aggregate.state.keys() == aggregate.empty.keys()
    result = rows.group_by(pl.lit(1)).agg(term.alias(f"s{part}") for part, term in terms.items())
    assert result.drop("literal").schema == {f"s{part}": dtype for part, dtype in aggregate.state.items()}
    return {part: result[f"s{part}"].to_list()[0] for part in terms}


def lifted(aggregate: Aggregate, data: Rows) -> State:
    return state_of(aggregate, aggregate.lift(POLARS), frame(data))


def merged(aggregate: Aggregate, *states: State) -> State:
    columns = {part: f"c{part}" for part in aggregate.state}
    rows = pl.DataFrame(
        {column: [state[part] for state in states] for part, column in columns.items()},
        schema={columns[part]: dtype for part, dtype in aggregate.state.items()},
    )
    return state_of(aggregate, aggregate.merge(POLARS, columns), rows)


def finished(aggregate: Aggregate, state: State) -> Any:
    columns = {part: f"c{part}" for part in aggregate.state}
    rows = pl.DataFrame(
        {columns[part]: [value] for part, value in state.items()},
        schema={columns[part]: dtype for part, dtype in aggregate.state.items()},
    )
    (result,) = rows.select(aggregate.finish(columns)).get_columns()
    assert result.dtype == POLARS_TYPES[aggregate.value_type]
    return result.to_list()[0]


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
        ((field("kind") == "view") | (field("price") == 300), [("view", 5), ("view", None), ("buy", 300)]),
        (~(field("price") >= 5), [("view", None), ("buy", -7), ("buy", None)]),
        (field("price").is_null(), [("view", None), ("buy", None)]),
        (~field("price").is_null() & ~(field("kind") == "buy"), [("view", 5), (None, 40)]),
        (field("price").is_in([5, 40, 41]), [("view", 5), (None, 40)]),
        (~field("kind").is_in(["view", "buy"]), [(None, 40)]),
        (field("kind") < "c", [("buy", 300), ("buy", -7), ("buy", None)]),
    ],
    ids=str,
)
def test_condition_selects_and_null_is_never_selected(condition: Condition, expected: Rows) -> None:
    assert selected(condition, ROWS) == expected


def test_condition_reads_as_it_is_written() -> None:
    assert str(field("kind") == "buy") == "kind == 'buy'"
    assert str((field("kind") == "buy") & (field("price") >= 5)) == "(kind == 'buy') & (price >= 5)"
    either = field("kind").is_in(["buy"]) | ~field("price").is_null()
    assert str(either) == "(kind in ('buy')) | (~(price is null))"


def test_condition_knows_its_columns() -> None:
    condition = (field("kind") == "buy") & (field("price") >= 5) & (field("kind") != "view")
    assert condition.columns() == {"kind", "price"}
    assert (~field("a").is_null() | field("b").is_in([1])).columns() == {"a", "b"}


def test_each_condition_means_something_else_for_stored_state() -> None:
    one, other = field("kind") == "buy", field("price") > 1
    others = (one & other, one | other, ~one, ~one | other, field("kind").is_null(), field("kind").is_in(["buy"]))
    meanings = [repr(Count(where=where).meaning) for where in (one, *others)]
    assert len(set(meanings)) == len(meanings)
    assert Count(where=one & other).meaning == [
        "Count",
        {
            "where": {
                "left": {"column": "kind", "symbol": "==", "value": "buy"},
                "right": {"column": "price", "symbol": ">", "value": 1},
            }
        },
    ]  # as it was before there were others: stored states go on


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        (field("event_type") == 5, "the field is of type String"),
        (field("price_cents") == "5", "the field is of type Int64"),
        (field("price_cents") == True, "the field is of type Int64"),  # noqa: E712  (a condition, no truth)
        (field("price_cents").is_in([1, "2"]), "the field is of type Int64"),
        (field("event_type").is_in(["view", "buy"]), "'event_type' never has that value"),
        (field("product_id").is_in([]), "no value is named"),
        (~field("event_type").is_null(), "the field is required"),
        ((field("price_cents") > 1) | (field("event_type") == "buy"), "never has that value"),
    ],
    ids=str,
)
def test_a_condition_that_cannot_be_asked_is_refused(condition: Condition, says: str) -> None:
    assert says in str(condition.problem(clickstream))


def test_booleans_are_equal_or_not() -> None:
    stream = replace(clickstream, fields=(*clickstream.fields, Bool("member")))
    member = field("member") == True  # noqa: E712  (a condition, no truth)
    assert member.problem(stream) is None
    assert "have no order" in str((field("member") > False).problem(stream))
    data = pl.DataFrame({"member": [True, False, None]})
    assert data.select(member.holds(POLARS)).to_series().to_list() == [True, False, False]
    assert data.select((~member).holds(POLARS)).to_series().to_list() == [False, True, True]


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
ALL: list[Aggregate] = [
    *(kind(where=where) for kind in (Count, Ever) for where in (None, BUY)),
    *(kind("price", where=where) for kind in (Sum, Min, Max, Mean, Integers) for where in (None, BUY)),
    *(kind("kind", where=where) for kind in (Greatest, Strings) for where in (None, BUY)),
]


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
        (Ever(where=BUY), True),
        (Ever(where=field("kind") == "nothing"), False),
        (Mean("price"), 84.5),
        (Mean("price", where=field("kind") == "nothing"), None),
        (Mean("price", where=field("price") < 0), -7.0),
        (Greatest("kind"), "view"),
        (Greatest("kind", where=field("kind") == "nothing"), None),
        (Strings("kind"), ["buy", "view"]),
        (Strings("kind", where=field("kind") == "nothing"), []),
        (Integers("price", where=BUY), [-7, 300]),
    ],
    ids=str,
)
def test_aggregate_of_a_pane(aggregate: Aggregate, expected: Any) -> None:
    assert finished(aggregate, lifted(aggregate, ROWS)) == expected


@pytest.mark.parametrize("aggregate", ALL, ids=str)
def test_empty_state_is_neutral_in_a_merge(aggregate: Aggregate) -> None:
    some: list[Rows] = [ROWS, [("buy", INT64_MAX)], [(None, None)]]
    for state in (lifted(aggregate, data) for data in some):
        assert merged(aggregate, state, aggregate.empty) == merged(aggregate, state) == state
    assert merged(aggregate, aggregate.empty, aggregate.empty) == aggregate.empty


@pytest.mark.parametrize("aggregate", [one for one in ALL if not isinstance(one, Count | Ever)], ids=str)
def test_state_of_a_field_that_is_absent_everywhere_is_the_empty_one(aggregate: Aggregate) -> None:
    assert lifted(aggregate, [(None, None), (None, None)]) == aggregate.empty


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(INT64_MIN, INT64_MAX) | st.sampled_from([INT64_MIN, INT64_MAX, -1, 0]), max_size=6),
    st.integers(0, 6),
)
def test_a_mean_is_the_exact_sum_divided_once(values: list[int], cut: int) -> None:
    one, other = ([("buy", value) for value in part] for part in (values[:cut], values[cut:]))
    mean = Mean("price")
    state = merged(mean, lifted(mean, [*one, ("view", None)]), lifted(mean, [*other, ("view", None)]))
    assert state["low"] >= 0
    assert finished(mean, state) == (float(sum(values)) / float(len(values)) if values else None)


def test_sum_is_exact_modulo_two_to_the_64() -> None:
    assert lifted(Sum("price"), [("buy", INT64_MAX), ("buy", 1)]) == {"": INT64_MIN}
    assert merged(Sum("price"), {"": INT64_MIN}, {"": -1}) == {"": INT64_MAX}


def test_aggregate_knows_its_columns() -> None:
    assert Count().columns() == frozenset()
    assert Count(where=BUY).columns() == {"kind"}
    assert Sum("price").columns() == {"price"}
    assert Max("price", where=BUY).columns() == {"kind", "price"}


@settings(max_examples=150, deadline=None)
@given(rows, st.sampled_from(ALL), st.data())
def test_states_merge_to_the_same_in_any_grouping(data: Rows, aggregate: Aggregate, draw: st.DataObject) -> None:
    shuffled = draw.draw(st.permutations(data))
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=3)))
    states = [
        lifted(aggregate, shuffled[start:end])
        for start, end in itertools.pairwise([0, *cuts, len(data)])
        if start < end
    ]
    whole = lifted(aggregate, data) if data else aggregate.empty
    assert merged(aggregate, aggregate.empty, *states) == whole
    together = aggregate.empty
    for state in reversed(states):
        together = merged(aggregate, state, together)
    assert together == whole


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
    result = window.select(rate=Ratio("above", "below").finish({}))
    assert result.schema["rate"] == pl.Float64()
    assert result["rate"].item() == expected


@settings(max_examples=50, deadline=None)
@given(st.integers(INT64_MIN, INT64_MAX), st.integers(INT64_MIN, INT64_MAX))
def test_ratio_equals_plain_python(above: int, below: int) -> None:
    window = pl.DataFrame({"above": [above], "below": [below]}, schema={"above": pl.Int64, "below": pl.Int64})
    expected = float(above) / float(below) if below else 0.0
    assert window.select(Ratio("above", "below").finish({})).item() == expected
