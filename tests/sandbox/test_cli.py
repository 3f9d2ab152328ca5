"""The commands, run as a user does, on a copy of the project. Each `up` imports Feast: seconds, so there are few."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest
import redis
from dotenv import dotenv_values

from sandbox import redis_server
from sandbox.processes import LOOPBACK, Process, started_at, wait_until
from sandbox.state import StackPart, state_file
from sandbox.topics import partition_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.sandbox.conftest import Project


def processes(report: dict[str, Any]) -> dict[str, int]:
    return {part["role"]: part["pid"] for part in report["parts"] if part["pid"]}


@pytest.fixture
def usual_port_taken() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # then someone else holds it, which is as good
            stack.enter_context(socket.create_server((LOOPBACK, redis_server.DEFAULT_PORT)))
        yield


@pytest.mark.usefixtures("usual_port_taken")
def test_up_status_down(project: Project) -> None:
    status = project.run("status")
    assert status.returncode == 1
    assert "`python -m sandbox up` starts one" in status.stdout

    first = project.json("up", "--partitions", "80")
    assert first["up"]
    assert [part["kind"] for part in first["parts"]] == ["embedded", "valkey", "sqlite"]
    assert dict(dotenv_values(project.sandbox_env)) == first["environment"]
    assert first["environment"]["DATA_ROOT"] == str(project.data_root)
    assert not first["environment"]["REDIS_URL"].endswith(":6379/0")
    assert partition_count({"bootstrap.servers": first["environment"]["KAFKA_BOOTSTRAP_SERVERS"]}, "clickstream") == 80

    status = project.run("status")
    assert status.returncode == 0
    assert "100,000 batches" in status.stdout

    assert "KAFKA_TOPIC" not in dotenv_values(project.sandbox_env), "a stream may be renamed while it is up"
    wrong = project.run("up", "--partitions", "3")
    assert wrong.returncode == 2
    assert "topic 'clickstream' has 80 partitions, not 3" in wrong.stderr
    wrong = project.run("up", "--kafka", "apache")
    assert wrong.returncode == 2
    assert "embedded Kafka is up already" in wrong.stderr
    wrong = project.run("up", DATA_ROOT=str(project.folder / "elsewhere"))
    assert wrong.returncode == 2
    assert f"a sandbox is up in {project.data_root}" in wrong.stderr
    assert project.json("status") == first  # nothing of this did harm

    started = processes(first)
    os.kill(started["redis"], signal.SIGKILL)
    assert wait_until(lambda: started_at(started["redis"]) is None, 10)
    status = project.run("status", "--json")
    assert status.returncode == 1
    assert "is gone" in json.loads(status.stdout)["problems"]["redis"]

    second = project.json("up")  # starts what is missing, and leaves the rest alone
    assert second["up"]
    restarted = processes(second)
    assert restarted["kafka"] == started["kafka"]
    assert restarted["redis"] != started["redis"]

    ended = project.json("down")
    assert {part["role"]: part["pid"] for part in ended["ended"]} == restarted
    assert all(started_at(pid) is None for pid in restarted.values())
    assert not project.sandbox_env.exists()
    assert project.json("down") == {"ended": []}
    assert project.run("status").returncode == 1


def test_servers_of_the_users_own_are_used_and_left_alone(
    project: Project, redis_url: str, kafka_broker: str, fresh_topic: Callable[[int], str]
) -> None:
    topic = fresh_topic(2)
    own = {"KAFKA_BOOTSTRAP_SERVERS": kafka_broker, "REDIS_URL": redis_url}
    up = project.json("up", "--topic", topic, "--partitions", "2", **own)
    assert [part["kind"] for part in up["parts"]] == ["yours", "yours", "sqlite"]
    assert not any(part["pid"] for part in up["parts"])
    assert dotenv_values(project.sandbox_env)["KAFKA_TOPIC"] == topic
    assert project.json("down") == {"ended": []}
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()


def test_a_server_of_the_users_own_that_is_silent_is_named_without_its_password(project: Project) -> None:
    done = project.run("up", REDIS_URL="redis://:secret@127.0.0.1:1/0")
    assert done.returncode == 1
    assert done.stderr == "error: nothing answers at redis://***@127.0.0.1:1/0; start it, or unset REDIS_URL\n"
    assert not project.sandbox_env.exists()


def test_a_state_of_the_past_ends_nobody(project: Project) -> None:
    """The pids of a sandbox that a reboot ended belong to others now."""
    file = state_file(project.data_root)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = StackPart("redis", "valkey", "redis://127.0.0.1:1/0", "", pid=os.getpid(), started="an earlier boot:1")
    file.write_text(json.dumps({"parts": [asdict(part)], "environment": {"KAFKA_TOPIC": "clickstream"}}))
    status = project.run("status", "--json")
    assert status.returncode == 1
    assert "is gone" in json.loads(status.stdout)["problems"]["redis"]
    assert project.json("down") == {"ended": []}
    assert not file.exists()


def test_an_up_that_is_killed_leaves_no_process(project: Project) -> None:
    root = project.data_root
    log = root / "sandbox" / "redis.log"
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "sandbox", "up"]
    with subprocess.Popen(command, cwd=project.folder, env=project.environment(), stdout=subprocess.DEVNULL) as up:
        children = f"/proc/{up.pid}/task/{up.pid}/children"
        assert wait_until(lambda: log.exists() and "Ready to accept" in log.read_text(), 60)
        with open(children) as file:  # noqa: PTH123  (a file of the kernel)
            started = [Process(int(pid), started_at(int(pid)) or "") for pid in file.read().split()]
        up.kill()
    assert len(started) >= 2  # the guard and Redis
    assert wait_until(lambda: not any(process.alive for process in started), 30)


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (["up", "--partitions", "0"], {}, "'0' is not a positive number"),
        (["up", "--kafka", "rabbit"], {}, "invalid choice: 'rabbit'"),
        (["up"], {"SANDBOX_KAFKA": "rabbit"}, "error: setting SANDBOX_KAFKA: Input should be 'embedded', 'apache' or"),
        (["up", "--kafka", "apache"], {"PATH": "/nowhere"}, "`java` is not on PATH"),
        ([], {}, "the following arguments are required: command"),
    ],
)
def test_bad_input_is_told_in_one_line(
    project: Project, arguments: list[str], environment: dict[str, str], told: str
) -> None:
    done = project.run(*arguments, **environment)
    assert done.returncode == 2
    assert told in done.stderr.splitlines()[-1]
