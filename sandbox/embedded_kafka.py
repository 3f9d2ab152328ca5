"""The embedded broker as a sandbox server: start it, create topics, take it off the network and back."""

from __future__ import annotations

import json
import socket
import sys
from typing import TYPE_CHECKING

from sandbox.processes import SandboxError, wait_until
from sandbox.server import Server
from sandbox.topics import broker_answers

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.processes import Guard

DEFAULT_PARTITIONS = 64
CONTROL_TIMEOUT_S = 5.0


def tell(control: str, command: str) -> None:
    """Send one command to an embedded broker's control port (see `sandbox.broker`).

    Raises:
        SandboxError: the broker does not answer, or refuses.
    """
    host, _, port = control.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=CONTROL_TIMEOUT_S) as connection:
            connection.sendall(f"{command}\n".encode())
            answer = connection.makefile().readline().strip()
    except OSError as error:
        message = f"the embedded broker does not answer on its control port {control}: {error}; is it paused or gone?"
        raise SandboxError(message) from error
    if answer != "ok":
        message = f"the embedded broker refuses {command!r}: {answer}"
        raise SandboxError(message)


class EmbeddedKafka(Server):
    """The broker inside librdkafka.

    Its log lives in its process, so `stop` and `kill` cut it off the network instead of ending it: clients see a
    missing broker, and `start` brings it back on the same port with the same log, like a durable broker. `pause`
    freezes the process. `close` ends it, and with it the log. librdkafka chooses the port.
    """

    role = "kafka"
    kind = "embedded"
    name = "embedded Kafka (librdkafka)"
    limits = "in memory; 5 MiB or 100,000 batches a partition, older ones are dropped; no transactions"
    start_timeout_s = 15.0

    def __init__(self, folder: Path, guard: Guard | None = None) -> None:
        super().__init__(folder, 0, guard)
        self._port_file = folder / "broker.json"

    def command(self) -> list[str]:
        """The current Python interpreter with the broker's module."""
        self._port_file.unlink(missing_ok=True)
        return [sys.executable, "-m", "sandbox.broker", "--port-file", str(self._port_file)]

    def require_port(self) -> None:
        """Nothing to check: librdkafka picks a free port."""

    def answers(self) -> bool:
        """Whether it is ready and lists its topics."""
        if not self._port_file.exists():
            return False
        ready = json.loads(self._port_file.read_text())
        self.port, self.control = int(ready["bootstrap"].rpartition(":")[2]), ready["control"]
        return broker_answers({"bootstrap.servers": self.url})

    def start(self) -> None:
        """Run it, or put it back on the network.

        Raises:
            SandboxError: it does not come up.
        """
        if not self.running:
            super().start()
            return
        tell(self.control, "up")
        if not wait_until(self.answers, self.start_timeout_s):
            message = f"{self.name} on {self.address} does not come back (log: {self.log})"
            raise SandboxError(message)

    def stop(self) -> None:
        """Cut it off the network, keeping port and log."""
        if self.running:
            tell(self.control, "down")

    def kill(self) -> None:
        """As `stop`: in both cases connections break without a shutdown."""
        self.stop()

    def create_topic(self, topic: str, partitions: int) -> None:
        """Create a topic; an existing one is left unchanged.

        Raises:
            SandboxError: the broker refuses.
        """
        tell(self.control, f"create {topic} {partitions}")
