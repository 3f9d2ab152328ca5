"""Threads without threads: what the product hands to its executors runs when a seeded scheduler says so.

Each executor keeps what its real counterpart keeps: one thread runs tasks in order, several in any order. Everything
happens on the calling thread, so a seed always gives the same run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    import pytest


EAGER, LAZY = 0.4, 0.0


class Scheduler:
    """Runs tasks of all executors at moments of its own choice, and those that are waited for at the latest then.

    `eagerness`: how likely a task begins when another one has; LAZY ones begin only when they are waited for.
    """

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.eagerness = EAGER
        self.executors: list[SimulatedExecutor] = []

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Take the place of thread pools where the stores use them."""

        def executor(threads: int, thread_name_prefix: str) -> SimulatedExecutor:
            del thread_name_prefix
            self.executors.append(SimulatedExecutor(self, threads))
            return self.executors[-1]

        patch.setattr("stream.background.ThreadPoolExecutor", executor)
        patch.setattr("stream.sinks.ThreadPoolExecutor", executor)

    def go_on(self) -> None:
        """Let other threads run for a while."""
        while (busy := [one for one in self.executors if one.tasks]) and self.chance.random() < self.eagerness:
            self.chance.choice(busy).run_one()


class SimulatedExecutor:
    """`ThreadPoolExecutor`, as far as the stores use it."""

    def __init__(self, scheduler: Scheduler, threads: int) -> None:
        self._scheduler = scheduler
        self._threads = threads
        self.tasks: list[SimulatedFuture] = []

    def submit(self, function: Callable[..., object], *arguments: object) -> SimulatedFuture:
        """Have it done some time."""
        self.tasks.append(future := SimulatedFuture(self, lambda: function(*arguments)))
        self._scheduler.go_on()
        return future

    def run_one(self) -> None:
        """Run a task that one of the threads could be at."""
        self.tasks.pop(self._scheduler.chance.randrange(min(self._threads, len(self.tasks)))).run()

    def shutdown(self) -> None:
        """Run what is left."""
        while self.tasks:
            self.run_one()


class SimulatedFuture:
    """`Future`, as far as the stores use it. An end of the process goes through to the caller."""

    def __init__(self, executor: SimulatedExecutor, task: Callable[[], object]) -> None:
        self._executor = executor
        self._task = task
        self._error: Exception | None = None
        self._is_done = False

    def run(self) -> None:
        """Do it now."""
        self._is_done = True
        try:
            self._task()
        except Exception as error:  # noqa: BLE001  (told by `result`)
            self._error = error

    def result(self) -> None:
        """Wait for it."""
        self._executor._scheduler.go_on()  # noqa: SLF001  (of this module)
        while not self._is_done:
            self._executor.run_one()
        if self._error is not None:
            raise self._error
