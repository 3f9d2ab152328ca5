"""What all servers of the sandbox can do: start, stop, crash, freeze, on the same port and with the same data."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from sandbox.processes import LOOPBACK, Process, SandboxError, port_is_free, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.processes import Guard

MARKS_OF_TROUBLE = ("Exception", "Error", "ERROR", "FATAL", "rror:", "ailed")


class Server(ABC):
    """One server process on a loopback port, with its data and log in a folder of its own."""

    role: str
    kind: str
    name: str
    limits: str
    start_timeout_s: float
    control = ""  # address of a control port, of a server that has one

    def __init__(self, folder: Path, port: int, guard: Guard | None = None) -> None:
        self.folder = folder
        self.port = port
        self.process: Process | None = None
        self._guard = guard

    @property
    def address(self) -> str:
        """Where it listens, as `127.0.0.1:port`."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def url(self) -> str:
        """The address as clients are given it."""
        return self.address

    @property
    def log(self) -> Path:
        """Its output since the last start."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def running(self) -> bool:
        """Whether its process is there (paused or not)."""
        return self.process is not None and self.process.alive

    @abstractmethod
    def command(self) -> list[str]:
        """The program and its arguments; may prepare the folder."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether a client is served now."""

    def start(self) -> None:
        """Run the server and wait until it answers; on a running one, nothing happens.

        Raises:
            SandboxError: the port is taken, or the server ends or stays silent; the message quotes its log.
        """
        if self.running:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.require_port()
        process = self.process = Process.start(self.command(), log=self.log, guard=self._guard)
        answered = wait_until(lambda: not process.alive or self.answers(), self.start_timeout_s)
        if answered and process.alive:
            return
        problem = "ended while starting" if answered else f"does not answer after {self.start_timeout_s:.0f} s"
        process.kill()
        message = f"{self.name} on {self.address} {problem}: {self._complaint()} (log: {self.log})"
        raise SandboxError(message)

    def require_port(self) -> None:
        """Check that the port is ours to take.

        Raises:
            SandboxError: another program listens there.
        """
        if not port_is_free(self.port):
            message = f"port {self.port} is taken, so {self.name} can't start there; end the program that holds it"
            raise SandboxError(message)

    def stop(self) -> None:
        """Take it down in order; `start` brings it back with its data."""
        if self.process is not None:
            self.process.stop()

    def kill(self) -> None:
        """Crash it: no goodbye, no flush."""
        if self.process is not None:
            self.process.kill()

    def pause(self) -> None:
        """Freeze it: connections stay open, nothing is answered."""
        if self.process is not None:
            self.process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen server go on."""
        if self.process is not None:
            self.process.signal(signal.SIGCONT)

    def close(self) -> None:
        """End it for good."""
        if self.process is not None:
            self.process.stop()

    def _complaint(self) -> str:
        """The line of the log that tells most."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        told = [line for line in lines if any(mark in line for mark in MARKS_OF_TROUBLE)]
        return (told or lines[-1:] or ["it wrote nothing"])[0][:300]
