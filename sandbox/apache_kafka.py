"""Apache Kafka as one KRaft node on loopback, from jars fetched by Maven: the real broker without Docker."""

from __future__ import annotations

import base64
import shutil
import subprocess
import uuid
from string import Template
from typing import TYPE_CHECKING

from sandbox.kafka_jars import KAFKA_FILES, KAFKA_JARS, kafka_version
from sandbox.processes import RequestError, SandboxError, free_port
from sandbox.server import Server
from sandbox.topics import broker_answers, create_topic

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.processes import Guard

DEFAULT_PORT = 9092
DEFAULT_PARTITIONS = 12
FORMAT_TIMEOUT_S = 60
# A small heap, a collector without helper threads, and only the quick compiler: half the CPU time until it answers.
JVM_OPTIONS = ("-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


class ApacheKafka(Server):
    """A Kafka node whose log survives stop and kill; its first start fetches the jars and formats the folder."""

    role = "kafka"
    kind = "apache"
    name = "Apache Kafka"
    limits = "one node; no records are ever deleted"
    start_timeout_s = 90.0

    def __init__(self, folder: Path, port: int, guard: Guard | None = None) -> None:
        super().__init__(folder, port, guard)
        self._controller_port = free_port()

    @property
    def version(self) -> str:
        """Kafka's version, once the jars are fetched."""
        return kafka_version(KAFKA_JARS.folder)

    def command(self) -> list[str]:
        """Java with Kafka's jars; formats the folder before its first use.

        Raises:
            RequestError: Java or Maven is missing.
            SandboxError: the jars can't be fetched, or the folder can't be formatted.
        """
        java = shutil.which("java")
        if java is None:
            message = "Apache Kafka needs Java 17 or newer; `java` is not on PATH: install it, or use embedded Kafka"
            raise RequestError(message)
        jars = KAFKA_JARS.ensure()
        properties = self.folder / "server.properties"
        template = Template((KAFKA_FILES / "server.properties").read_text())
        properties.write_text(
            template.substitute(port=self.port, controller_port=self._controller_port, log_folder=self.folder / "log")
        )
        logging_option = f"-Dlog4j2.configurationFile={(KAFKA_FILES / 'log4j2.properties').as_uri()}"
        run = [java, *JVM_OPTIONS, logging_option, "-cp", f"{jars}/*"]
        if not (self.folder / "log" / "meta.properties").exists():
            self._format([*run, "kafka.tools.StorageTool"], properties)
        return [*run, "kafka.Kafka", str(properties)]

    def answers(self) -> bool:
        """Whether the broker lists its topics."""
        return broker_answers({"bootstrap.servers": self.url})

    def create_topic(self, topic: str, partitions: int) -> None:
        """Create a topic and wait until every partition has a leader.

        Raises:
            SandboxError: the broker refuses.
        """
        create_topic({"bootstrap.servers": self.url}, topic, partitions)

    def _format(self, tool: list[str], properties: Path) -> None:
        """Format the folder with a cluster id, which every KRaft node needs before its first start."""
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        # "=" in one argument, since an id may begin with "-"; a format that was cut short is finished, not refused.
        command = [*tool, "format", "--standalone", "--ignore-formatted", f"--cluster-id={cluster_id}"]
        command += ["--config", str(properties)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=FORMAT_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            message = f"Apache Kafka did not format {self.folder} within {FORMAT_TIMEOUT_S} s; try again"
            raise SandboxError(message) from error
        if done.returncode:
            lines = f"{done.stderr}\n{done.stdout}".strip().splitlines()
            reason = next((line for line in lines if "rror" in line or "xception" in line), "it does not say why")
            message = f"Apache Kafka can't format {self.folder}: {reason[:300]} (Java 17 or newer is needed)"
            raise SandboxError(message)
