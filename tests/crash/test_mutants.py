"""The tests of this folder find mistakes: each is put into the running product, and its histories must go wrong."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.crash.disk import SimulatedDisk
from tests.crash.mutants import MISTAKES, Mutant, changed, commit_mutants
from tests.crash.scenario import cut_power_at, kill_at, kill_lazy_at, lose_redis_at, points_of
from tests.crash.simulation import simulate
from tests.crash.test_crashes import SEED, SOME
from tests.crash.test_simulation import SEEDS
from tests.crash.world import EndedError

FEW = 8

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from tests.crash.world import Bench


def histories(bench: Bench) -> Iterator[tuple[str, Callable[[], object]]]:
    """Give what the other tests here go through, the cheapest first."""
    points = range(len(points_of(bench, SEED)), 0, -1)
    seen: set[str] = set()
    yield "uninterrupted", partial(points_of, bench, SEED)
    for seed in range(FEW):
        yield f"seed {seed}", partial(simulate, bench, seed)
    for point in points:
        yield f"power {point}", partial(cut_power_at, bench, SEED, point, seen)
        yield f"kill {point}", partial(kill_at, bench, SEED, point)
        if point in points[SOME]:
            yield f"kill lazy {point}", partial(kill_lazy_at, bench, SEED, point)
            yield f"lose Redis {point}", partial(lose_redis_at, bench, SEED, point)
    for seed in range(FEW, SEEDS):
        yield f"seed {seed}", partial(simulate, bench, seed)


def goes_wrong(history: Callable[[], object]) -> bool:
    """Whether a history ends in any other way than it should."""
    try:
        history()
    except (Exception, EndedError):  # noqa: BLE001  (a mistake may lead to anything)
        return True
    return False


def is_found(bench: Bench, mutant: Mutant) -> bool:
    """Whether a mutant makes any history go wrong."""
    all_of_them = list(histories(bench))
    with mutant.installed():
        return any(goes_wrong(history) for _, history in all_of_them)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake[0])
def test_a_mistake_is_found(bench: Bench, mistake: tuple[str, str, str, str]) -> None:
    assert is_found(bench, changed(*mistake))


@pytest.mark.parametrize("mutant", list(commit_mutants()), ids=lambda mutant: mutant.name)
def test_a_commit_in_another_order_is_found(bench: Bench, mutant: Mutant) -> None:
    assert is_found(bench, mutant)


def test_a_disk_that_syncs_nothing_is_found(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def flush(disk: SimulatedDisk, file: BinaryIO) -> None:
        disk.point("sync a file")
        file.flush()

    def nothing(disk: SimulatedDisk, folder: Path) -> None:
        disk.point(f"sync folder {folder.name}")

    monkeypatch.setattr(SimulatedDisk, "sync", flush)
    monkeypatch.setattr(SimulatedDisk, "sync_folder", nothing)
    points = range(len(points_of(bench, SEED)), 0, -1)
    assert any(goes_wrong(partial(cut_power_at, bench, SEED, point, set())) for point in points)
