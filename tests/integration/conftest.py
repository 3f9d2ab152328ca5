from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

import pytest

from feast_repo.settings import PROJECT_ROOT, StreamSettings
from simulation.clock import Traffic, historical
from simulation.events import simulate
from stream.producing import TopicSink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PARTITIONS = 6
TIMEOUT_S = 120


def free_addresses(count: int) -> str:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    addresses = ";".join(f"127.0.0.1:{one.getsockname()[1]}" for one in sockets)
    for one in sockets:
        one.close()
    return addresses


@dataclass
class Stack:
    """A topic, an empty Redis and a data folder, and the commands that use them."""

    environment: dict[str, str]
    folder: Path = PROJECT_ROOT
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def settings(self) -> StreamSettings:
        return StreamSettings()

    def start(
        self, *arguments: str, stop_at_end: bool = True, errors: Path | None = None, **environment: str
    ) -> subprocess.Popen[str]:
        with contextlib.ExitStack() as files:
            log = subprocess.PIPE if errors is None else files.enter_context(errors.open("w"))
            return self._start(arguments, log, {**environment, "STREAM_STOP_AT_END": str(int(stop_at_end))})

    def _start(
        self, arguments: tuple[str, ...], errors: int | TextIO, environment: dict[str, str]
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "bytewax.run", "stream.dataflow", *arguments],
            cwd=self.folder,
            env={**os.environ, **self.environment, **environment},
            stdout=subprocess.DEVNULL,
            stderr=errors,
            text=True,
        )
        self.running.append(process)
        return process

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        process = self.start(*arguments, stop_at_end=True, errors=None, **environment)
        _, errors = process.communicate(timeout=TIMEOUT_S)
        return process.returncode, errors

    def run_processes(self, count: int, *arguments: str) -> list[tuple[int, str]]:
        addresses = free_addresses(count)
        processes = [self.start("-i", str(number), "-a", addresses, *arguments) for number in range(count)]
        errors = [process.communicate(timeout=TIMEOUT_S)[1] for process in processes]
        return [(process.returncode, error) for process, error in zip(processes, errors, strict=True)]

    def produce(
        self, *, events: int = 20_000, seed: int = 1, hours: float = 2, hours_later: int = 0, drain: bool = False
    ) -> int:
        """Disorder, late and malformed records, and the heartbeats that close the windows; returns how many."""
        settings = self.settings
        simulation = historical(
            settings.catalog.stream(),
            settings.catalog.windowed,
            Traffic(users=300, seed=seed, disorder_ms=60_000, late_share=0.02, malformed_share=0.01),
            events=events,
            hours=hours,
            now_ms=1_767_225_600_000 + 600_000 + hours_later * 3_600_000,
            start_ms=None,
            drain=drain,
            partitions=tuple(range(PARTITIONS)),
        )
        with contextlib.closing(TopicSink(settings, settings.catalog.stream().topic, threading.Event())) as sink:
            for records in simulate(simulation):
                sink.send(records)
        assert sink.failed == 0
        return events + PARTITIONS


@pytest.fixture
def stack(
    kafka_broker: str,
    fresh_topic: Callable[[int], str],
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Stack:
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka_broker,
        "KAFKA_TOPIC": fresh_topic(PARTITIONS),
        "REDIS_URL": redis_url,
        "DATA_ROOT": str(tmp_path / "data"),
        "FEAST_REGISTRY_URL": f"sqlite:///{tmp_path / 'data' / 'registry.db'}",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Stack(environment)


@pytest.fixture(autouse=True)
def _nothing_left_running(stack: Stack) -> Iterator[None]:
    yield
    for process in stack.running:
        with process:  # also closes its pipe, which a test that failed in between has not read to its end
            process.kill()
