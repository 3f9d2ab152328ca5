"""The dataflow as a user runs it: one process or two, with a recovery directory, killed and started again."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from feast_repo.errors import ExitCode, FeatureStoreError
from feast_repo.settings import PROJECT_ROOT
from feast_repo.stores.progress import ProgressRecord
from sandbox.processes import LOOPBACK, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

STOP_WITHIN_S = 10.0
PATIENCE_S = 120.0
STACKS_WITHIN_S = 5.0
CURRENT_THREAD = "Current thread"
CALM_CORES, CALM_FOR_S, CALM_WITHIN_S = 0.1, 3.0, 60.0


class DrillError(FeatureStoreError):
    """A part broke its promise; the message names it and quotes its output."""


class Runs:
    """The dataflow's processes, their exit codes and their output."""

    def __init__(self, environment: dict[str, str], recovery: Path, progress: Path, log: Path) -> None:
        self.recovery = recovery
        self._environment = {**os.environ, **environment}
        self._record = ProgressRecord(progress)
        self._log = log
        self._processes: list[subprocess.Popen[bytes]] = []
        self._said_before = 0
        log.touch()

    def start(self, processes: int = 1, redis_url: str | None = None, *, stop_at_end: bool = False) -> None:
        """Start the documented command; several processes form one cluster. `redis_url` overrides the usual one."""
        recovery = ["-r", str(self.recovery), "-s", "1", "-b", "0"]
        self._said_before = self._log.stat().st_size
        cluster = [f"{LOOPBACK}:{free_port()}" for _ in range(processes)]
        for number in range(processes):
            place = ["-i", str(number), "-a", ";".join(cluster)] if processes > 1 else []
            self._processes.append(self._popen([*recovery, *place], redis_url, stop_at_end=stop_at_end))

    def _popen(
        self, arguments: list[str], redis_url: str | None = None, *, stop_at_end: bool = False
    ) -> subprocess.Popen[bytes]:
        settings = {"STREAM_STOP_AT_END": str(int(stop_at_end))} | ({"REDIS_URL": redis_url} if redis_url else {})
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "bytewax.run", "stream.dataflow", *arguments],
                cwd=PROJECT_ROOT,
                env={**self._environment, **settings},
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def kill(self) -> None:
        """Kill every process at once, like a power cut."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self._processes.clear()

    def terminate(self) -> None:
        """Send SIGTERM to every process."""
        for process in self._processes:
            process.send_signal(signal.SIGTERM)

    def kill_one(self, number: int) -> None:
        """Kill one process of a cluster."""
        killed = self._processes.pop(number)
        killed.kill()
        killed.wait()

    def stop(self) -> float:
        """Stop every process, expecting exit 0; returns the seconds that it took.

        Raises:
            DrillError: one takes more than 10 s or ends with another code.
        """
        start = time.monotonic()
        self.terminate()
        self.ended(0)
        return time.monotonic() - start

    def ended(self, *allowed: int) -> set[int]:
        """Wait until every stopping process has ended; returns the exit codes.

        Raises:
            DrillError: one takes more than 10 s, ends with a code that is not allowed, or shows a traceback.
        """
        codes = self.codes(STOP_WITHIN_S)
        said = self.said()
        if not codes <= set(allowed) or "Traceback" in said:
            message = f"after SIGTERM exit codes {codes}, not {allowed}: {said[-2000:]}"
            raise DrillError(message)
        return codes

    def codes(self, within_s: float = PATIENCE_S) -> set[int]:
        """The exit codes, once every process has ended.

        Raises:
            DrillError: one has not ended in time.
        """
        deadline = time.monotonic() + within_s
        try:
            codes = {process.wait(max(0.0, deadline - time.monotonic())) for process in self._processes}
        except subprocess.TimeoutExpired as error:
            message = f"a process did not end within {within_s:.0f} s: {self.said()[-2000:]}\n{self.stacks()}"
            raise DrillError(message) from error
        self._processes.clear()
        return codes

    def refused(self, code: ExitCode = ExitCode.REFUSED) -> str:
        """Start another run on the same data and recovery directory; returns the line that refuses it.

        Raises:
            DrillError: it is not refused, or with another exit code.
        """
        before = self._log.stat().st_size
        process = self._popen(["-r", str(self.recovery), "-s", "1", "-b", "0"])
        try:
            ended = process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.wait()
            message = f"a run that had to be refused goes on: {self._read(before)[-2000:]}"
            raise DrillError(message) from error
        said = self._read(before)
        if ended != code:
            message = f"a run that had to be refused with {code} ended with {ended}: {said[-2000:]}"
            raise DrillError(message)
        return said.strip().rpartition("\n")[2]

    def stacks(self) -> str:
        """The stacks of all threads of the running processes."""
        before = self._log.stat().st_size
        running = [process for process in self._processes if process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGUSR1)
        if running:
            wait_until(lambda: self._read(before).count(CURRENT_THREAD) >= len(running), STACKS_WITHIN_S)
        return self._read(before)

    def require_calm(self) -> float:
        """Wait until each process is idle, as it must be without work; returns the greatest CPU use, in cores.

        Raises:
            DrillError: one keeps using more than a tenth of a core.
        """
        used = [math.inf]

        def calm() -> bool:
            before = [_cpu_s(process.pid) for process in self._processes]
            wait_until(lambda: False, CALM_FOR_S)
            used[:] = [
                (_cpu_s(process.pid) - s) / CALM_FOR_S for process, s in zip(self._processes, before, strict=True)
            ]
            return max(used) < CALM_CORES

        if not wait_until(calm, CALM_WITHIN_S):
            message = f"with nothing to do, the processes use {used} cores\n{self.stacks()}"
            raise DrillError(message)
        return max(used)

    def said(self) -> str:
        """The log of the current processes."""
        return self._read(self._said_before)

    def _read(self, start: int) -> str:
        with self._log.open("rb") as log:
            log.seek(start)
            return log.read().decode(errors="replace")

    def wait_to_say(self, text: str, *, more_than: int = 0) -> None:
        """Wait until the current processes have logged a text more than `more_than` times.

        Raises:
            DrillError: they don't, or a process ends.
        """
        self._wait(lambda: self.said().count(text) > more_than, f"nobody said {text!r}")

    def wait_until_back(self, away: str, back: str) -> None:
        """Wait until what was said to be away, by whichever process, is said to be back as often.

        Raises:
            DrillError: it isn't, or a process ends.
        """
        self._wait(lambda: self.said().count(back) >= self.said().count(away), f"nobody said {back!r}")

    def position(self) -> int:
        """The number of messages that the progress record covers."""
        return sum(one.next_offset for one in self._record.load().values())

    def wait_for_progress(self, messages: int) -> None:
        """Wait until this many more messages are stored.

        Raises:
            DrillError: they aren't, or a process ends.
        """
        start = self.position()
        self._wait(lambda: self.position() >= start + messages, f"{messages} messages were not stored")

    def _wait(self, condition: Callable[[], bool], complaint: str) -> None:
        def over() -> bool:
            return condition() or any(process.poll() is not None for process in self._processes)

        if not wait_until(over, PATIENCE_S) or any(process.poll() is not None for process in self._processes):
            message = f"{complaint}; the dataflow said: {self.said()[-2000:]}\n{self.stacks()}"
            raise DrillError(message)


def _cpu_s(pid: int) -> float:
    """The processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
