from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from feast_repo.settings import PROJECT_ROOT
from sandbox.apache_kafka import ApacheKafka
from sandbox.embedded_kafka import EmbeddedKafka
from sandbox.kafka_jars import apache_available
from sandbox.processes import free_port
from tests.conftest import KAFKA

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.processes import Guard

PACKAGES = ("feast_repo", "sandbox", "stream")
COMMAND_TIMEOUT_S = 200


@pytest.fixture(scope="module", params=["embedded", "apache"])
def kafka(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, guard: Guard
) -> Iterator[ApacheKafka | EmbeddedKafka]:
    """A broker of this module's own, of either kind."""
    folder = tmp_path_factory.mktemp("kafka") / "kafka"
    server: ApacheKafka | EmbeddedKafka
    if request.param == "embedded":
        server = EmbeddedKafka(folder, guard)
    elif apache_available() and KAFKA != "embedded":
        server = ApacheKafka(folder, free_port(), guard)
    else:
        pytest.skip("Apache Kafka needs java and mvn, and SANDBOX_KAFKA other than embedded")
    server.start()
    yield server
    server.close()


@dataclass(frozen=True)
class Project:
    """A copy of the packages in a folder of its own, so that its sandbox.env is not the developer's."""

    folder: Path

    @property
    def data_root(self) -> Path:
        return self.folder / "data"

    @property
    def sandbox_env(self) -> Path:
        return self.folder / "sandbox.env"

    def environment(self, **more: str) -> dict[str, str]:
        taken = {"KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "DATA_ROOT"}
        return {name: value for name, value in os.environ.items() if name not in taken} | more

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sandbox", *arguments],
            cwd=self.folder,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )

    def json(self, *arguments: str, **environment: str) -> dict[str, Any]:
        done = self.run(*arguments, "--json", **environment)
        assert done.returncode in {0, 1}, done.stderr
        assert done.stdout, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("project")
    for package in PACKAGES:
        shutil.copytree(PROJECT_ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    copy = Project(folder)
    yield copy
    copy.run("down")
