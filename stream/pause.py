"""Let a worker sleep while it waits for another one, instead of spinning on a core.

Bytewax polls no source until every worker has finished the previous epoch. It re-activates an overdue source at once,
again and again, without calling any of its methods. So each process used a core while another one was held by a store,
or was merely behind with its epoch. The only Python that Bytewax still calls then is a stateful step with a due timer.
Each of several workers gets one, which sleeps while the worker's partitions are overdue.

Guarantee: nothing is read, dropped or reordered here. A held epoch resumes later by at most a few sleeps, each up to
`PAUSE_SHARE` of the time that it was held.
"""

from __future__ import annotations

import math
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from threading import get_ident
from time import monotonic, sleep
from typing import TYPE_CHECKING, TypeVar

import bytewax.operators as op
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.operators import StatefulBatchLogic

from stream.routing import key_of_worker

if TYPE_CHECKING:
    from bytewax.dataflow import Stream

X = TypeVar("X")

LOOK_EVERY = timedelta(milliseconds=20)
AT_ONCE = datetime.fromtimestamp(0, UTC)
OVERDUE_S = 0.005
PAUSE_SHARE, LONGEST_PAUSE_S = 0.01, 0.01
"""A short hold ends without delay, and a long one takes little CPU."""


class Worker:
    """When the partitions that a worker reads are to be asked next."""

    def __init__(self) -> None:
        self._due_s: dict[str, float] = {}

    def ask_in(self, part: str, wait_s: float) -> None:
        """A part was asked for what has arrived, and is to be asked again."""
        self._due_s[part] = monotonic() + wait_s

    def ask_no_more(self, part: str) -> None:
        """A part has ended."""
        self._due_s.pop(part, None)

    def due_s(self) -> float:
        """When the first of them is to be asked, on the monotonic clock."""
        return min(self._due_s.values(), default=math.inf)


class Workers:
    """The workers of this process by their threads.

    Not a `threading.local`: Bytewax's threads are none of Python's, and forget those between two calls.
    """

    def __init__(self) -> None:
        self._of_thread: defaultdict[int, Worker] = defaultdict(Worker)

    def this(self) -> Worker:
        """The one in whose thread we are."""
        return self._of_thread[get_ident()]


def pause_while_held(items: Stream[X], workers: Workers) -> None:
    """Let each worker pause as long as an epoch is held; `items` is what the source gives."""
    once = op.input("workers", items.flow(), _OnceEach())
    none = op.flat_map("nothing", items, lambda _: list[tuple[str, None]]())  # keeps the step going until the end
    op.stateful_batch("pause", op.merge("to_pause", once, none), lambda _: Pause(workers))


class _OnceEach(DynamicSource[tuple[str, None]]):
    """For each worker a key that leads to it; none for a single one, which has no other to wait for."""

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Once:
        del step_id
        return _Once([(key_of_worker(worker_index, worker_count), None)] if worker_count > 1 else [])


class _Once(StatelessSourcePartition[tuple[str, None]]):
    def __init__(self, items: list[tuple[str, None]]) -> None:
        self._items = items

    def next_batch(self) -> list[tuple[str, None]]:
        if not self._items:
            raise StopIteration
        items, self._items = self._items, []
        return items


class Pause(StatefulBatchLogic[None, None, None]):
    """The step of one worker; of none, if the recovery state has its key from a run with another number of them."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._worker: Worker | None = None
        self._overdue_since_s: float | None = None

    def on_batch(self, values: list[None]) -> tuple[list[None], bool]:
        """Begin to look."""
        del values
        self._worker = self._workers.this()
        return [], StatefulBatchLogic.RETAIN

    def on_notify(self) -> tuple[list[None], bool]:
        """Sleep if a partition was overdue at the last look, too; before that, this worker may have been at work."""
        assert self._worker is not None  # noqa: S101  (else no time was told)
        due_s, now_s = self._worker.due_s(), monotonic()
        if now_s - due_s < OVERDUE_S:
            self._overdue_since_s = None
        elif due_s != self._overdue_since_s:
            self._overdue_since_s = due_s
        else:
            sleep(min(PAUSE_SHARE * (now_s - due_s), LONGEST_PAUSE_S))
        return [], StatefulBatchLogic.RETAIN

    def notify_at(self) -> datetime | None:
        """When to look again."""
        if self._worker is None:
            return None
        return datetime.now(UTC) + LOOK_EVERY if self._overdue_since_s is None else AT_ONCE

    def snapshot(self) -> None:
        """A resumed run looks anew."""
