"""Which events a pane has had, against a plain set."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given, settings, strategies as st

from stream.seen_ids import Ids, SeenIds, ids_of

small = st.integers(0, 3)
batches = st.lists(st.lists(st.tuples(small, small), max_size=12), max_size=8)


@settings(max_examples=100, deadline=None)
@given(batches, st.integers(0, 8))
def test_copies_are_those_of_a_set_also_where_half_of_the_hash_is_shared(
    rounds: list[list[tuple[int, int]]], restart: int
) -> None:
    seen, known = SeenIds(), set[tuple[int, int]]()
    for number, events in enumerate(rounds):
        if number == restart:
            data, seen = seen.to_bytes(), SeenIds()
            seen.load(data)
        expected = []
        for event in events:
            expected.append(event in known)
            known.add(event)
        first, second = (np.array([event[place] for event in events], dtype=np.int64) for place in range(2))
        found = seen.add(first % 2, Ids(first.view(np.uint64), second.view(np.uint64)))
        assert found.tolist() == expected
        assert len(seen) == len(known)


def test_panes_are_forgotten_up_to_an_index() -> None:
    seen = SeenIds()
    ids = ids_of(pl.Series(["a", "b", "c"]), np.array([1, 2, 3]))
    seen.add(np.array([1, 2, 3]), ids)
    seen.forget(2)
    assert len(seen) == 1
    assert seen.add(np.array([1, 2, 3]), ids).tolist() == [False, False, True]


def test_an_event_is_its_id_and_its_time() -> None:
    seen = SeenIds()
    events = pl.Series(["a", "a", "b", "a"])
    assert seen.add(np.zeros(4, int), ids_of(events, np.array([1, 2, 1, 1]))).tolist() == [False, False, False, True]
