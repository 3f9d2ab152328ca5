"""Pausing while another worker holds the epoch."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.testing import cluster_main, run_main

from stream import pause
from stream.pause import Workers, pause_while_held
from stream.routing import key_of_worker

if TYPE_CHECKING:
    from collections.abc import Callable

Item = tuple[str, int]
WORKERS, PATIENCE_S = 2, 30.0
KEYS = [key_of_worker(worker, WORKERS) for worker in range(WORKERS)]


class Part(StatefulSourcePartition[Item, int]):
    """Numbers for one worker's part of the sink, until `enough`."""

    def __init__(self, key: str, workers: Workers, enough: Callable[[], bool]) -> None:
        self._key, self._worker, self._enough, self._next = key, workers.this(), enough, 0

    def next_batch(self) -> list[Item]:
        self._worker.ask_in(self._key, 0.0)
        if self._enough():
            raise StopIteration
        self._next += 1
        return [(self._key, self._next)]

    def snapshot(self) -> int:
        return self._next

    def close(self) -> None:
        self._worker.ask_no_more(self._key)


class Numbers(FixedPartitionedSource[Item, int]):
    def __init__(self, workers: Workers, enough: Callable[[], bool]) -> None:
        self._workers, self._enough = workers, enough

    def list_parts(self) -> list[str]:
        return KEYS

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> Part:
        del step_id, resume_state
        return Part(for_part, self._workers, self._enough)


class Held(StatefulSinkPartition[int, None]):
    """A part of the sink that may hold each epoch."""

    def __init__(self, hold: Callable[[], None], out: list[int]) -> None:
        self._hold, self._out = hold, out

    def write_batch(self, values: list[int]) -> None:
        self._out += values

    def snapshot(self) -> None:
        self._hold()


class Sink(FixedPartitionedSink[int, None]):
    def __init__(self, hold: Callable[[], None]) -> None:
        self._hold = hold
        self.out: dict[str, list[int]] = {key: [] for key in KEYS}

    def list_parts(self) -> list[str]:
        return KEYS

    def part_fn(self, item_key: str) -> int:
        return KEYS.index(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> Held:
        del step_id, resume_state
        return Held(self._hold if for_part == KEYS[0] else lambda: None, self.out[for_part])


def flow_of(source: Numbers, sink: Sink, workers: Workers) -> Dataflow:
    flow = Dataflow("held")
    numbers = op.input("numbers", flow, source)
    op.output("out", numbers, sink)
    pause_while_held(numbers, workers)
    return flow


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was slept, each time."""
    seconds: list[float] = []

    def sleep(s: float) -> None:
        seconds.append(s)
        time.sleep(s)

    monkeypatch.setattr(pause, "sleep", sleep)
    return seconds


def test_a_worker_pauses_while_another_one_holds_the_epoch(slept: list[float]) -> None:
    held = threading.Event()

    def hold() -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not held.is_set() and pause.LONGEST_PAUSE_S not in slept and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        held.set()

    workers = Workers()
    sink = Sink(hold)
    flow = flow_of(Numbers(workers, held.is_set), sink, workers)
    cluster_main(flow, [], 0, epoch_interval=timedelta(milliseconds=50), worker_count_per_proc=WORKERS)  # type: ignore[no-untyped-call]
    assert pause.LONGEST_PAUSE_S in slept
    for numbers in sink.out.values():
        assert numbers == list(range(1, len(numbers) + 1))


def test_a_single_worker_never_pauses(slept: list[float]) -> None:
    workers, sink = Workers(), Sink(lambda: None)
    source = Numbers(workers, lambda: len(sink.out[KEYS[0]]) >= 500)
    run_main(flow_of(source, sink, workers), epoch_interval=timedelta(0))  # type: ignore[no-untyped-call]
    assert slept == []
