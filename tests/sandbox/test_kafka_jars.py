"""Fetching with a Maven of our own making: a script, since only its exit code and the files it leaves matter."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from sandbox.apache_kafka import ApacheKafka
from sandbox.kafka_jars import KAFKA_JARS, apache_available, kafka_version
from sandbox.processes import RequestError, SandboxError, free_port

if TYPE_CHECKING:
    from pathlib import Path

FETCHES = """#!/bin/sh
echo run >> "{count}"
for argument in "$@"; do case "$argument" in -DoutputDirectory=*) out=${{argument#*=}};; esac; done
mkdir -p "$out" && touch "$out/kafka_2.13-9.9.9.jar"
"""
FAILS = """#!/bin/sh
echo "[ERROR] Could not resolve the parts"
exit 1
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a folder that comes first on PATH."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def test_concurrent_callers_fetch_once_and_get_the_same_folder(programs: Path, tmp_path: Path) -> None:
    write_program(programs / "mvn", FETCHES.format(count=tmp_path / "count"))
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: KAFKA_JARS.ensure(), range(8)))
    assert len(folders) == 1
    assert kafka_version(folders.pop()) == "9.9.9"
    assert (tmp_path / "count").read_text() == "run\n"


def test_a_failing_maven_is_quoted_and_leaves_nothing(programs: Path, tmp_path: Path) -> None:
    write_program(programs / "mvn", FAILS)
    with pytest.raises(SandboxError, match=r"Maven can't fetch Apache Kafka: \[ERROR\] Could not resolve the parts;"):
        KAFKA_JARS.ensure()
    left = [path.name for path in (tmp_path / "cache" / "ml-feature-store").iterdir()]
    assert [name for name in left if not name.endswith(".lock")] == []


def test_without_java_or_maven_one_line_says_so(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(programs))  # empty
    assert not apache_available()
    with pytest.raises(RequestError, match="`java` is not on PATH"):
        ApacheKafka(tmp_path / "kafka", free_port()).start()
    write_program(programs / "java", "#!/bin/sh\n")
    assert not apache_available()
    with pytest.raises(RequestError, match="`mvn` is not on PATH"):
        ApacheKafka(tmp_path / "kafka", free_port()).start()


def test_a_java_that_fails_is_quoted(programs: Path, tmp_path: Path) -> None:
    write_program(programs / "mvn", FETCHES.format(count=tmp_path / "count"))
    write_program(programs / "java", "#!/bin/sh\necho 'Error: this Java is too old' >&2\nexit 1\n")
    with pytest.raises(SandboxError, match=r"can't format .+: Error: this Java is too old"):
        ApacheKafka(tmp_path / "kafka", free_port()).start()
