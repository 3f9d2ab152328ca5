"""The run is killed at every point, and the power fails at every point: the stores end as if nothing had happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash.scenario import cut_power_at, kill_at, kill_lazy_at, lose_redis_at, points_of
from tests.crash.scheduling import LAZY

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.crash.world import Bench

SEED = 5
SOME = slice(None, None, 3)
"""Every third point: enough for each kind of command, before it is sent and after it was answered."""


def test_killed_at_every_point(bench: Bench) -> None:
    points = points_of(bench, SEED)
    kinds = {name.partition(" ")[0] for name in points}
    assert kinds == {"create", "sync", "rename", "add", "send", "answer", "Bytewax"}
    for number in range(1, len(points) + 1):
        kill_at(bench, SEED, number)


@pytest.mark.parametrize("happens_at", [kill_lazy_at, lose_redis_at])
def test_threads_that_begin_only_when_they_are_waited_for(
    bench: Bench, happens_at: Callable[[Bench, int, int], None]
) -> None:
    points = range(1, len(points_of(bench, SEED, LAZY)) + 1)
    for number in points[SOME]:
        happens_at(bench, SEED, number)


def test_every_state_that_a_power_cut_leaves(bench: Bench) -> None:
    seen: set[str] = set()
    states = sum(cut_power_at(bench, SEED, number, seen) for number in range(1, len(points_of(bench, SEED)) + 1))
    assert states > len(points_of(bench, SEED)) / 4
