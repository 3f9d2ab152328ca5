"""One small history that is the same each time: what the tests of single crashes go through."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY

from tests.crash.kafka import Log
from tests.crash.scheduling import EAGER, LAZY
from tests.crash.traffic import fill
from tests.crash.world import KilledError, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.crash.disk import Tree
    from tests.crash.world import Bench

MOST_STATES = 64
"""That a power cut may leave at one point, if all is synced as soon as it should be."""


def small_world(bench: Bench, seed: int) -> World:
    """A world with a topic of two partitions in which windows close and users expire."""
    logs = [Log(), Log()]
    fill(logs, random.Random(seed), 14)
    return World(bench, seed, logs)


def points_of(bench: Bench, seed: int, eagerness: float = EAGER) -> list[str]:
    """All points of the run that nothing interrupts."""
    with small_world(bench, seed) as world:
        world.scheduler.eagerness = eagerness
        world.run_to_the_end()
        world.check()
        return world.points


def kill_at(bench: Bench, seed: int, number: int) -> None:
    """Kill the run at a point, look at what is there, start again, and compare; then the power fails, all over again.

    What the killed run had not synced may be all that the second one relied on.

    Raises:
        AssertionError: something is lost, there twice or wrong.
    """
    with small_world(bench, seed) as world:
        before = _losses_told()
        _run_until(world, number)
        world.check_what_is_told()
        world.run_to_the_end()
        world.check()
        assert _losses_told() == before, "Redis has lost nothing"
        there = {_state(len(world.committed), world.disk.memory.state_now())}
        for tree in list(_new_states(world, there)):
            world.disk.put(tree)
            world.run_to_the_end()
            world.check()


def kill_lazy_at(bench: Bench, seed: int, number: int) -> None:
    """Kill a run that does nothing before it is waited for; its files are compacted before the next one starts.

    Raises:
        AssertionError: something is lost, there twice or wrong.
    """
    with small_world(bench, seed) as world:
        world.scheduler.eagerness = LAZY
        _run_until(world, number)
        world.check_what_is_told()
        world.compact()
        world.run_to_the_end()
        world.check()


def lose_redis_at(bench: Bench, seed: int, number: int) -> None:
    """Empty Redis at a point of a run that does nothing before it is waited for, and have it refilled by a command.

    Raises:
        AssertionError: something is lost, there twice or wrong.
    """
    with small_world(bench, seed) as world:
        world.scheduler.eagerness = LAZY
        world.between, world.between_at = world.lose_redis, number
        world.run_to_the_end()
        world.check()


def cut_power_at(bench: Bench, seed: int, number: int, seen: set[str]) -> int:
    """The same for each state of the disk that a power cut may leave; returns how many were new.

    Raises:
        AssertionError: something is lost, there twice or wrong.
    """
    with small_world(bench, seed) as world:
        _run_until(world, number)
        committed, online, states = list(world.committed), world.save_redis(), 0
        for tree in _new_states(world, seen):
            states += 1
            world.disk.put(tree)
            world.load_redis(online)
            world.committed = list(committed)
            world.run_to_the_end()
            world.check()
        return states


def _losses_told() -> float | None:
    return REGISTRY.get_sample_value("stream_redis_losses_total")


def _run_until(world: World, number: int) -> None:
    world.stop_at = number
    try:
        world.run_to_the_end()
    except KilledError:
        return
    message = f"the run has no point {number}"
    raise AssertionError(message)


def _new_states(world: World, seen: set[str]) -> Iterator[Tree]:
    """The states of this moment that were not seen: of those that look the same to a run, one."""
    epochs = len(world.committed)
    for count, tree in enumerate(world.disk.memory.states(), 1):
        if (state := _state(epochs, tree)) not in seen:
            seen.add(state)
            yield tree
        assert count < MOST_STATES, "too much is not synced"


def _state(epochs: int, tree: Tree) -> str:
    """What a run would find: nobody looks at temporary files."""
    visible = [(str(path), content) for path, content in sorted(tree.items()) if content is not None]
    return f"{epochs} {[file for file in visible if not file[0].endswith('.tmp')]}"
