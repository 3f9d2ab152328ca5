"""SIGTERM ends whatever serves or produces within 10 s, though what it talks to is frozen: connections, no answers."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Self

from confluent_kafka import Consumer, TopicPartition

from feast_repo.settings import PROJECT_ROOT
from feast_repo.stores.opening import ensure_applied, open_store
from sandbox.processes import wait_until
from stream.kafka import client_config
from tests.integration.conftest import PARTITIONS

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from sandbox.apache_kafka import ApacheKafka
    from sandbox.embedded_kafka import EmbeddedKafka
    from sandbox.redis_server import RedisServer
    from tests.integration.conftest import Stack

STOP_WITHIN_S = 10.0
PATIENCE_S = 60.0


class Service:
    """One of our commands, and what it says."""

    def __init__(self, folder: Path, command: str, **environment: str) -> None:
        self._log = folder / command.split(maxsplit=1)[0]
        with self._log.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command.split()],
                cwd=PROJECT_ROOT,
                env={**os.environ, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()

    def said(self) -> str:
        return self._log.read_text()

    def wait_to_say(self, pattern: str) -> str:
        """What the pattern's group matches."""
        assert wait_until(lambda: re.search(pattern, self.said()) is not None, PATIENCE_S), self.said()
        found = re.search(pattern, self.said())
        assert found is not None
        return found[1]

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def ended(self) -> tuple[int, str]:
        """Its exit code, in time, and its last line."""
        assert wait_until(lambda: self._process.poll() is not None, STOP_WITHIN_S), self.said()
        assert "Traceback" not in self.said()
        return self._process.returncode, self.said().splitlines()[-1]


def records(stack: Stack) -> int:
    """How many the topic holds."""
    with contextlib.closing(Consumer({"group.id": "count", **client_config(stack.settings)})) as consumer:
        topic = stack.settings.catalog.stream().topic
        ends = [consumer.get_watermark_offsets(TopicPartition(topic, partition)) for partition in range(PARTITIONS)]
        return sum(high for _, high in ends)


def test_whatever_is_frozen(
    stack: Stack, redis_server: RedisServer, kafka_server: ApacheKafka | EmbeddedKafka, tmp_path: Path
) -> None:
    ensure_applied(open_store())
    with (
        Service(tmp_path, "serving --port 0") as serving,
        Service(tmp_path, "stream.generator --rate 200") as generator,
        Service(tmp_path, "stream.heartbeat --interval-seconds 0.1") as heartbeat,
        contextlib.ExitStack() as at_the_end,
    ):
        port = int(serving.wait_to_say(r"listening on http://127\.0\.0\.1:(\d+)"))
        heartbeat.wait_to_say(r"(topic) ")
        assert wait_until(lambda: records(stack) > PARTITIONS, PATIENCE_S), generator.said()
        for server in (redis_server, kafka_server):
            server.pause()
            at_the_end.callback(server.resume)
        asked = at_the_end.enter_context(socket.create_connection(("127.0.0.1", port)))
        asked.sendall(b"GET /v1/features/a HTTP/1.1\r\nhost: x\r\n\r\n")
        heartbeat.wait_to_say(r"(no heartbeats): ")
        services = (serving, generator, heartbeat)
        for service in services:
            service.terminate()
        (served, _), (generated, lost), (beat, _) = [service.ended() for service in services]
        assert served == 0, serving.said()
        assert (generated, lost.startswith("stream.generator: ")) == (1, True), generator.said()
        assert beat == 0, heartbeat.said()


def test_deployments_with_a_frozen_prefect_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        environment = {"PREFECT_API_URL": url, "PREFECT_HOME": str(tmp_path / "prefect")}
        with Service(tmp_path, "flows.serve", **environment) as deployments:
            silent.settimeout(PATIENCE_S)
            connection, _ = silent.accept()
            with connection:
                assert connection.recv(1)  # it has asked, and waits
                deployments.terminate()
                assert deployments.ended() == (143, "flows.serve: terminated"), deployments.said()
