"""Server processes of the sandbox: how they are identified, signalled and ended.

A process is identified by pid and start time, so a pid that the system has reused is never signalled.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from feast_repo.errors import ExitCode, FeatureStoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HOME = Path(__file__).resolve().parent.parent  # where `python -m sandbox...` finds this package
LOOPBACK = "127.0.0.1"
# Standard input is the guard's pipe until the program starts.
REPORT_AND_RUN = ("/bin/sh", "-c", 'echo "$$" >&0; exec "$@" </dev/null', "sh")
STOP_TIMEOUT_S = 15.0
POLL_S = 0.02
# Below the ephemeral ports (32768 up): otherwise a client that retries a stopped server could be given that server's
# port and connect to itself.
FIRST_PORT, PORTS = 20_000, 12_000


class SandboxError(FeatureStoreError):
    """A part of the sandbox fails; one line with the remedy."""


class RequestError(SandboxError):
    """The request can't be fulfilled here; one line with the remedy."""

    exit_code = ExitCode.REFUSED


def started_at(pid: int) -> str | None:
    """The process's start time as opaque text, which differs between two holders of a pid; None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return _started_at_by_ps(pid) if sys.platform == "darwin" else None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces
    if fields[0] == "Z" and fields[17] == "1":  # with more than one thread, one of them may still hold a port
        return None
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{fields[19]}"


def _started_at_by_ps(pid: int) -> str | None:
    command = ["ps", "-o", "state=,lstart=", "-p", str(pid)]
    state, _, started = subprocess.run(command, capture_output=True, text=True, check=False).stdout.partition(" ")
    return None if not started or state.startswith("Z") else started.strip()


class Process:
    """A process: our child, or one that an earlier command started."""

    def __init__(self, pid: int, started: str, child: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self.started = started
        self._child = child

    @classmethod
    def start(cls, command: Sequence[str], *, log: Path, guard: Guard | None = None) -> Process:
        """Run a program in its own session, out of reach of our terminal's Ctrl-C; output goes to `log`.

        With a guard it does not outlive us, however we end.

        Raises:
            SandboxError: the program doesn't exist.
        """
        if shutil.which(command[0]) is None:
            message = f"can't run {command[0]}: there is no such program"
            raise SandboxError(message)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            child = subprocess.Popen(
                command if guard is None else [*REPORT_AND_RUN, *command],
                stdin=subprocess.DEVNULL if guard is None else guard.pipe(),
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=HOME,
                start_new_session=True,
            )
        return cls(child.pid, started_at(child.pid) or "", child)

    @property
    def alive(self) -> bool:
        """Whether this same process still runs (paused counts)."""
        if self._child is not None:
            return self._child.poll() is None
        return started_at(self.pid) == self.started

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process is gone."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):  # it may end in between
                os.kill(self.pid, number)

    def stop(self) -> None:
        """Stop it, even if paused; kill it after 15 s. Harmless if it is gone."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        if not wait_until(lambda: not self.alive, STOP_TIMEOUT_S):
            self.kill()

    def kill(self) -> None:
        """Kill it, like a crash, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        wait_until(lambda: not self.alive, STOP_TIMEOUT_S)


class Guard:
    """Kills the processes that were started with it if our own process dies, even by SIGKILL.

    It is a separate process that reads the pids to watch from a pipe until all writers are gone. A watched program
    writes its pid before it starts, so our death can't leave it behind at any moment.
    """

    def __init__(self) -> None:
        self._guard: subprocess.Popen[bytes] | None = None

    def pipe(self) -> IO[bytes]:
        """The pipe for reporting pids; starts the guard if needed."""
        if self._guard is None:
            command = [sys.executable, "-m", "sandbox.guard"]
            self._guard = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=HOME, start_new_session=True)
        if self._guard.stdin is None:
            raise AssertionError
        return self._guard.stdin

    def release(self) -> None:
        """Let all processes started so far outlive us."""
        if self._guard is not None:
            with contextlib.suppress(BrokenPipeError):  # someone killed the guard: then nothing is watched anyway
                self.pipe().write(b"release\n")
                self.pipe().flush()

    def close(self) -> None:
        """End the guard, and with it all running processes that were not released."""
        if self._guard is not None:
            self._guard.communicate()
            self._guard = None


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Poll until the condition holds (True) or the time is up (False)."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections don't count
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise
    return True


def free_port(preferred: int | None = None) -> int:
    """The preferred port if it is free, else another free one."""
    if preferred is not None and port_is_free(preferred):
        return preferred
    while True:
        port = FIRST_PORT + secrets.randbelow(PORTS)
        if port_is_free(port):
            return port
