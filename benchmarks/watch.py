"""A program as its user would pay for it: time between two of its lines, CPU time and memory of its process tree.

It runs on one core, the servers that it talks to on the others. What it prints is told in `benchmarks/contestants`.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from feast_repo.settings import PROJECT_ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SAMPLE_S = 0.1
LAST_LINES = 30


class ContestantError(Exception):
    """The program failed, or did not say what it should."""


@dataclass(frozen=True)
class Watched:
    """From `ready` to `done`: seconds, CPU seconds of all its processes, and their greatest memory together (bytes).

    `told` is what the program says in its last line.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    told: dict[str, Any]


def cores() -> tuple[set[int], set[int]]:
    """The core for the measured program, and those for everything else (the same one if there is no other)."""
    available = sorted(os.sched_getaffinity(0))
    return {available[-1]}, set(available[:-1] or available)


def pin(pid: int, to: set[int]) -> None:
    """Let all threads of a process that runs already run on these cores only."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), to)


def watch(command: Sequence[str], environment: Mapping[str, str], log: Path, on: set[int] | None = None) -> Watched:
    """Run a program on the measured core (or on others) to its end.

    Raises:
        ContestantError: it failed; the message has the end of its log.
    """
    with log.open("w") as errors:
        child = subprocess.Popen(
            ["taskset", "--cpu-list", ",".join(map(str, on or cores()[0])), *command],
            cwd=PROJECT_ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        with _sampled(child.pid) as tree:
            found = _follow(child, tree)
        code = child.wait()
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    if code or found is None:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-LAST_LINES:])
        message = f"{' '.join(command)} ended with {code} before it was done:\n{end}"
        raise ContestantError(message)
    return found


def _follow(child: subprocess.Popen[str], tree: _Tree) -> Watched | None:
    started: tuple[float, float] | None = None
    done: Watched | None = None
    for line in child.stdout or ():
        now, cpu = time.perf_counter(), tree.cpu_seconds()
        with contextlib.suppress(ValueError):
            told = json.loads(line)
            if told["event"] == "ready":
                started = now, cpu
            elif told["event"] == "done" and started is not None:
                done = Watched(now - started[0], cpu - started[1], tree.peak_bytes, told)
    return done


class _Tree:
    """A process and all its descendants."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._ended_cpu: dict[int, float] = {}
        self.peak_bytes = 0

    def cpu_seconds(self) -> float:
        """User and system time so far, also of processes that have ended since the last look."""
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                self._ended_cpu[process.pid] = times.user + times.system
        return sum(self._ended_cpu.values())

    def sample(self) -> None:
        """Look at the memory; shared pages are counted in each process that has them."""
        held = 0
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                held += process.memory_info().rss
        self.peak_bytes = max(self.peak_bytes, held)

    def _processes(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return []


@contextlib.contextmanager
def _sampled(pid: int) -> Iterator[_Tree]:
    tree, over = _Tree(pid), threading.Event()

    def look() -> None:
        while not over.wait(SAMPLE_S):
            tree.sample()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield tree
    finally:
        over.set()
        thread.join()
