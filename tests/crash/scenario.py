"""One small history that is the same each time: what the tests of single crashes go through."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.crash.kafka import Log
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


def points_of(bench: Bench, seed: int) -> list[str]:
    """All points of the run that nothing interrupts."""
    with small_world(bench, seed) as world:
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
        _run_until(world, number)
        world.check_what_is_told()
        world.run_to_the_end()
        world.check()
        there = {_state(world, world.disk.memory.state_now())}
        for tree in list(_new_states(world, there)):
            world.disk.put(tree)
            world.run_to_the_end()
            world.check()


def cut_power_at(bench: Bench, seed: int, number: int, seen: set[str]) -> int:
    """The same for each state of the disk that a power cut may leave; returns how many were new.

    Raises:
        AssertionError: something is lost, there twice or wrong.
    """
    with small_world(bench, seed) as world:
        _run_until(world, number)
        states = list(_new_states(world, seen))
        online = world.save_redis()
        for tree in states:
            world.disk.put(tree)
            world.load_redis(online)
            del world.committed[world.committed_when_killed :]
            world.run_to_the_end()
            world.check()
        return len(states)


def _run_until(world: World, number: int) -> None:
    world.stop_at = number
    try:
        world.run_to_the_end()
    except KilledError:
        world.committed_when_killed = len(world.committed)
        return
    message = f"the run has no point {number}"
    raise AssertionError(message)


def _new_states(world: World, seen: set[str]) -> Iterator[Tree]:
    for count, tree in enumerate(world.disk.memory.states(), 1):
        if (state := _state(world, tree)) not in seen:
            seen.add(state)
            yield tree
        assert count < MOST_STATES, "too much is not synced"


def _state(world: World, tree: Tree) -> str:
    """What a run would find: nobody looks at temporary files."""
    visible = sorted(
        (str(path), content) for path, content in tree.items() if path.suffix != ".tmp" and content is not None
    )
    return f"{len(world.committed)} {visible}"
