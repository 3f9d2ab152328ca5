"""The base of all sandbox servers: start, stop, crash and freeze, on the same port with the same data."""

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
    """A server process on a loopback port, with its data and log in its own folder."""

    role: str
    kind: str
    name: str
    limits: str
    start_timeout_s: float
    control = ""  # address of the control port, for servers that have one

    def __init__(self, folder: Path, port: int, guard: Guard | None = None) -> None:
        self.folder = folder
        self.port = port
        self.process: Process | None = None
        self._guard = guard

    @property
    def address(self) -> str:
        """Its listening address, as `127.0.0.1:port`."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def url(self) -> str:
        """The address for clients."""
        return self.address

    @property
    def log(self) -> Path:
        """Its output since the last start."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def running(self) -> bool:
        """Whether its process exists (paused or not)."""
        return self.process is not None and self.process.alive

    @abstractmethod
    def command(self) -> list[str]:
        """The program and its arguments; may prepare the folder first."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it serves clients now."""

    def start(self) -> None:
        """Run the server and wait until it answers; does nothing if it runs already.

        Raises:
            SandboxError: the port is taken, or the server ends or doesn't answer; the message quotes its log.
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
        """Check that the port is free for us.

        Raises:
            SandboxError: another program listens there.
        """
        if not port_is_free(self.port):
            message = f"port {self.port} is taken, so {self.name} can't start there; end the program that holds it"
            raise SandboxError(message)

    def stop(self) -> None:
        """Stop it cleanly; `start` brings it back with its data."""
        if self.process is not None:
            self.process.stop()

    def kill(self) -> None:
        """Crash it, without shutdown or flush."""
        if self.process is not None:
            self.process.kill()

    def pause(self) -> None:
        """Freeze it: connections stay open, but nothing is answered."""
        if self.process is not None:
            self.process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume a frozen server."""
        if self.process is not None:
            self.process.signal(signal.SIGCONT)

    def close(self) -> None:
        """End it for good."""
        if self.process is not None:
            self.process.stop()

    def _complaint(self) -> str:
        """The most informative line of the log."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        told = [line for line in lines if any(mark in line for mark in MARKS_OF_TROUBLE)]
        return (told or lines[-1:] or ["it wrote nothing"])[0][:300]
