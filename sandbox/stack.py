"""The whole stack in one object: Kafka, a Redis-compatible server, and a folder for the registry and the data.

with Sandbox(tmp_path, kafka="embedded") as sandbox:
    subprocess.run(command, env={**os.environ, **sandbox.environment})
    sandbox.redis.kill()
    sandbox.redis.start()
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

from sandbox import apache_kafka, embedded_kafka, redis_server
from sandbox.apache_kafka import ApacheKafka
from sandbox.embedded_kafka import EmbeddedKafka
from sandbox.kafka_jars import apache_available
from sandbox.processes import Guard, free_port
from sandbox.redis_server import RedisServer
from sandbox.state import StackPart

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.settings import KafkaChoice


class Sandbox:
    """A separate stack below `root`, which becomes DATA_ROOT.

    `kafka="auto"` means Apache Kafka if it can run, else the embedded broker. Without `partitions` the topic gets 64
    on the embedded broker (its limits count per partition) and 12 on Apache Kafka. Ports are free ones, or the usual
    ones where they are free if `usual_ports`. `keep` names roles, `kafka` or `redis`, that are not to be started.

    Kafka and Redis keep their data over stop, kill and start, on the same port. Leaving the context ends every process;
    so does the death of ours, however it dies.
    """

    def __init__(
        self,
        root: Path,
        *,
        kafka: KafkaChoice = "embedded",
        partitions: int | None = None,
        topic: str = "clickstream",
        usual_ports: bool = False,
        keep: frozenset[str] = frozenset(),
    ) -> None:
        self.root = root.resolve()
        self.topic = topic
        self._keep = keep
        self._guard = Guard()
        folder = self.root / "sandbox"
        self.kafka: ApacheKafka | EmbeddedKafka
        if kafka == "apache" or (kafka == "auto" and apache_available()):
            port = free_port(apache_kafka.DEFAULT_PORT if usual_ports else None)
            self.kafka = ApacheKafka(folder / "kafka", port, self._guard)
            self.partitions = partitions or apache_kafka.DEFAULT_PARTITIONS
        else:
            self.kafka = EmbeddedKafka(folder / "embedded-kafka", self._guard)
            self.partitions = partitions or embedded_kafka.DEFAULT_PARTITIONS
        port = free_port(redis_server.DEFAULT_PORT if usual_ports else None)
        self.redis = RedisServer(folder / "redis", port, self._guard, durable=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def bootstrap(self) -> str:
        """Kafka's address."""
        return self.kafka.url

    @property
    def redis_url(self) -> str:
        """Redis's address."""
        return self.redis.url

    @property
    def registry_url(self) -> str:
        """Feast's registry: a file, so there is nothing to start."""
        return f"sqlite:///{self.root / 'registry.db'}"

    @property
    def environment(self) -> dict[str, str]:
        """The settings that lead every command of the project here."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "KAFKA_TOPIC": self.topic,
            "REDIS_URL": self.redis_url,
            "FEAST_REGISTRY_URL": self.registry_url,
            "DATA_ROOT": str(self.root),
        }

    def start(self) -> None:
        """Start every server and wait until it answers; create the topic.

        Raises:
            SandboxError: a part does not start; the others are ended again.
        """
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            if "redis" not in self._keep:
                self.redis.start()
            if "kafka" not in self._keep:
                self.kafka.start()
                self.kafka.create_topic(self.topic, self.partitions)
            undo.pop_all()

    def close(self) -> None:
        """End every server that was started here."""
        self.kafka.close()
        self.redis.close()
        self._guard.close()

    def detach(self) -> None:
        """Leave the servers running when our process ends."""
        self._guard.release()
        self._guard.close()

    def parts(self) -> list[StackPart]:
        """The servers that were started here."""
        return [
            StackPart(
                role=server.role,
                kind=server.kind,
                url=server.url,
                name=server.name,
                limits=server.limits,
                pid=server.process.pid,
                started=server.process.started,
                log=str(server.log),
                control=server.control,
            )
            for server in (self.kafka, self.redis)
            if server.process is not None
        ]
