"""Seeded histories of crashes: what happens, in which order, and what must hold in the end."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import TYPE_CHECKING

from feast_repo.errors import ExitCode
from tests.crash.kafka import Log
from tests.crash.scheduling import EAGER, LAZY
from tests.crash.traffic import fill
from tests.crash.world import Committed, EndedError, KilledError, World

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.crash.world import Bench

FAR = 250
"""Points that a life has at most before it is ended: more than most lives have in all."""


def failing_seeds(bench: Bench, seeds: Iterable[int]) -> dict[int, str]:
    """Go through histories; gives the seeds of those that went wrong, each with the reason."""
    failed = {}
    for seed in seeds:
        try:
            simulate(bench, seed)
        except (Exception, EndedError, KilledError) as error:  # noqa: BLE001  (whatever goes wrong is told)
            failed[seed] = f"{type(error).__name__}: {error}"
    return failed


def simulate(bench: Bench, seed: int) -> list[str]:
    """Go through one history; returns the points that it came by.

    Raises:
        AssertionError: the stores hold something else than what follows from the topic.
    """
    chance = random.Random(seed)
    logs = [Log() for _ in range(chance.randint(1, 3))]
    fill(logs, chance, chance.randint(5, 12))
    with World(bench, seed, logs) as world:
        for _ in range(chance.randint(1, 3)):
            _live(world, chance)
            _meanwhile(world, chance)
        _run(world, chance)
        world.check()
        return world.points


def _live(world: World, chance: random.Random) -> None:
    """One life of the processes, among stores that fail now and then; mostly it ends in the middle of something."""
    world.stop_at = len(world.points) + chance.randrange(1, FAR)
    world.trouble = chance.choice((0, 0, 0.01, 0.05))
    world.between = chance.choice((None, None, world.lose_redis))
    world.scheduler.eagerness = chance.choice((EAGER, EAGER, LAZY))
    with suppress(KilledError):
        _run(world, chance)
    world.between, world.stop_at, world.trouble = None, 0, 0
    if not world.redis_is_behind:
        world.check_what_is_told()
    world.saved.append(world.save_redis())


def _run(world: World, chance: random.Random) -> None:
    """Run to the end. A start that retention makes impossible is refused; the rebuilt state is the remedy."""
    workers = chance.randint(1, 3)
    try:
        world.run_to_the_end(_resume(world, chance), workers)
    except EndedError as ended:
        if ended.code != ExitCode.REFUSED or "(retention)" not in str(ended):
            raise
        world.run_to_the_end(world.rebuilt(), workers)


def _resume(world: World, chance: random.Random) -> Committed:
    """Go on from the last commit, an older one, the archive, or without recovery state."""
    kind = chance.random()
    if kind < 0.15:
        return chance.choice(world.committed)
    if kind < 0.3:
        return world.rebuilt()
    if kind < 0.4:
        return Committed()
    return world.committed[-1]


def _meanwhile(world: World, chance: random.Random) -> None:
    """What can happen while nothing runs."""
    if chance.random() < 0.4:  # the power fails
        world.disk.put(world.disk.memory.state(chance))
    if chance.random() < 0.2:
        world.compact()
    if chance.random() < 0.2:
        world.lose_redis()
    if chance.random() < 0.2:
        world.roll_redis_back()
    if chance.random() < 0.2:
        world.delete_old_messages()
    if chance.random() < 0.7:
        fill(world.logs, chance, chance.randint(0, 10))
