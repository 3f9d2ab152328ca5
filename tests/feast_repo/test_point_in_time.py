"""The join's rule against a reference that looks at every row."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, strategies as st

from feast_repo.stores.offline.point_in_time import NONE, Rows, answers, newest

KEYS = st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from([1, 2, None]))
TIMES = st.one_of(st.integers(0, 6), st.none())
STORED = st.lists(st.tuples(KEYS, TIMES, TIMES), max_size=12)
ASKED = st.lists(st.tuples(KEYS, TIMES), max_size=8)
MOST = 2**63 - 1


def rows(keys: list[tuple[Any, Any]], times: list[Any], created: list[Any] | None = None) -> Rows:
    return Rows(
        {
            "word": pl.Series("word", [key[0] for key in keys], pl.String),
            "number": pl.Series("number", [key[1] for key in keys], pl.Int64),
        },
        pl.Series("time", times, pl.Int64),
        None if created is None else pl.Series("created", created, pl.Int64),
    )


def reference(
    asked: list[tuple[Any, Any]], stored: list[tuple[Any, Any, Any]], ttl: int | None, *, as_known: bool, told: bool
) -> list[int]:
    def fits(question: tuple[Any, Any], row: tuple[Any, Any, Any]) -> bool:
        key, time = question
        return (
            None not in key
            and key == row[0]
            and time is not None
            and row[1] is not None
            and row[1] <= time
            and (ttl is None or time - row[1] <= ttl)
            and (not (as_known and told) or (row[2] is not None and row[2] <= time))
        )

    def order(number: int) -> tuple[int, int, int]:
        _, time, created = stored[number]
        return time, -1 if created is None or not told else created, number

    return [
        max((number for number, row in enumerate(stored) if fits(question, row)), key=order, default=NONE)
        for question in asked
    ]


@given(asked=ASKED, stored=STORED, ttl=st.sampled_from([None, 0, 2]), as_known=st.booleans(), told=st.booleans())
def test_equals_looking_at_every_row(asked: Any, stored: Any, ttl: int | None, *, as_known: bool, told: bool) -> None:
    found = answers(
        rows([key for key, _ in asked], [time for _, time in asked]),
        rows([row[0] for row in stored], [row[1] for row in stored], [row[2] for row in stored] if told else None),
        ttl=ttl,
        as_known=as_known,
    )
    assert found.tolist() == reference(asked, stored, ttl, as_known=as_known, told=told)


@given(stored=STORED)
def test_newest_row_of_each_key(stored: Any) -> None:
    found = newest(rows([row[0] for row in stored], [row[1] for row in stored], [row[2] for row in stored]))
    best: dict[Any, tuple[Any, ...]] = {}
    for number, (key, time, created) in enumerate(stored):
        if time is not None:
            best[key] = max(best.get(key, (-1,)), (time, -1 if created is None else created, number))
    assert found.tolist() == sorted(order[2] for order in best.values())


@given(asked=st.lists(TIMES, max_size=6), stored=st.lists(TIMES, max_size=8))
def test_a_view_without_entities_has_one_row_for_all(asked: Any, stored: Any) -> None:
    def alone(times: Any) -> Rows:
        return Rows({}, pl.Series("time", times, pl.Int64))

    expected = reference(
        [((), time) for time in asked], [((), time, None) for time in stored], None, as_known=False, told=False
    )
    assert answers(alone(asked), alone(stored)).tolist() == expected
    assert len(newest(alone(stored))) == any(time is not None for time in stored)


@pytest.mark.parametrize(("ttl", "alive"), [(2**64, True), (2 * MOST, True), (2 * MOST - 1, False), (MOST, False)])
def test_ages_beyond_63_bits_are_right(ttl: int, *, alive: bool) -> None:
    asked, stored = rows([("a", 1)], [MOST]), rows([("a", 1)], [-MOST])
    assert (answers(asked, stored, ttl=ttl) != NONE).tolist() == [alive]


def test_of_many_ties_the_last_stored_counts() -> None:
    count = 100_000
    stored = Rows({"key": pl.Series([1] * count)}, pl.Series([7] * count), pl.Series([7] * count))
    assert answers(Rows({"key": pl.Series([1])}, pl.Series([7])), stored).tolist() == [count - 1]
    assert np.array_equal(newest(stored), [count - 1])
