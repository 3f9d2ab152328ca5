"""Two hundred histories of crashes, always the same ones; `make test-full` goes through ten thousand new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash.simulation import failing_seeds, simulate

if TYPE_CHECKING:
    from tests.crash.world import Bench

SEEDS = 200


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS // 2))
def test_any_history_ends_as_if_nothing_had_happened(bench: Bench, first: int) -> None:
    failed = failing_seeds(bench, range(first, first + SEEDS // 2))
    assert not failed, "\n".join(f"seed {seed}: {reason}" for seed, reason in failed.items())


def test_a_seed_always_gives_the_same_history(bench: Bench) -> None:
    assert simulate(bench, 7) == simulate(bench, 7)
