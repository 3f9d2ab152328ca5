"""A stop never hangs and a start never waits in silence, whatever is frozen: connections open, and no answers."""

from __future__ import annotations

import contextlib
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from feast_repo.clickstream import clickstream
from feast_repo.errors import ExitCode
from feast_repo.stores.offline.tables import progress_folder
from feast_repo.stores.progress import ProgressRecord
from sandbox.processes import wait_until
from tests.integration.conftest import free_addresses

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from sandbox.apache_kafka import ApacheKafka
    from sandbox.embedded_kafka import EmbeddedKafka
    from sandbox.redis_server import RedisServer
    from tests.integration.conftest import Stack

STOP_WITHIN_S = 10.0
TELL_WITHIN_S = 15.0
PATIENCE_S = 60.0


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def frozen(server: ApacheKafka | EmbeddedKafka | RedisServer) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


def ended(process: subprocess.Popen[str], within_s: float) -> int:
    """The exit code, in time."""
    assert wait_until(lambda: process.poll() is not None, within_s), f"still running after {within_s:.0f} s"
    assert process.returncode is not None
    return process.returncode


def own_lines(log: Path) -> list[str]:
    """What is no log record."""
    return [line for line in log.read_text().splitlines() if " INFO " not in line and " WARNING " not in line]


def stored(stack: Stack) -> int:
    return sum(
        one.next_offset
        for one in ProgressRecord(progress_folder(stack.settings.data_root, clickstream)).load().values()
    )


def takes_signals(process: subprocess.Popen[str]) -> bool:
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) & (1 << (signal.SIGTERM - 1)))


def test_nothing_that_is_frozen_or_gone_keeps_a_run_from_ending(
    stack: Stack, redis_server: RedisServer, kafka_server: ApacheKafka | EmbeddedKafka, tmp_path: Path
) -> None:
    recovery = ["-r", str(tmp_path / "recovery"), "-s", "1", "-b", "0"]

    def cluster(log: str) -> list[tuple[subprocess.Popen[str], Path]]:
        addresses, logs = free_addresses(2), [tmp_path / f"{log}-{number}" for number in range(2)]
        return [
            (stack.start(*recovery, "-i", str(number), "-a", addresses, stop_at_end=False, errors=path), path)
            for number, path in enumerate(logs)
        ]

    def wait_for(condition: Callable[[], bool], *runs: tuple[subprocess.Popen[str], Path]) -> None:
        assert wait_until(lambda: condition() or any(run.poll() is not None for run, _ in runs), PATIENCE_S)
        assert condition(), [log.read_text() for _, log in runs]

    messages = stack.produce(events=2_000)
    (killed, _), (left, log) = runs = cluster("killed")
    wait_for(lambda: stored(stack) == messages, *runs)
    killed.kill()
    assert (ended(left, 5.0), len(lines := own_lines(log))) == (1, 1), log.read_text()
    assert "another process of the cluster is gone: start all of its processes again" in lines[0]

    log = tmp_path / "frozen-redis"
    run = stack.start(*recovery, stop_at_end=False, errors=log)
    messages += stack.produce(events=2_000, hours_later=1, seed=2)
    wait_for(lambda: stored(stack) == messages, (run, log))
    with frozen(redis_server):
        messages += stack.produce(events=2_000, hours_later=2, seed=3)
        wait_for(lambda: "Redis is away" in log.read_text(), (run, log))
        run.send_signal(signal.SIGTERM)
        run.send_signal(signal.SIGTERM)
        assert (ended(run, STOP_WITHIN_S), len(lines := own_lines(log))) == (1, 1), log.read_text()
    assert "stopped while Redis is away; read and not committed: partition" in lines[0]

    runs = cluster("frozen-kafka")
    wait_for(lambda: stored(stack) == messages, *runs)
    with frozen(kafka_server):
        for run, _ in runs:
            run.send_signal(signal.SIGTERM)
        assert {ended(run, STOP_WITHIN_S) for run, _ in runs} == {0}, [log.read_text() for _, log in runs]
    assert [own_lines(log) for _, log in runs] == [[], []]


def test_a_start_tells_what_does_not_answer(stack: Stack, silent: str, tmp_path: Path) -> None:
    log = tmp_path / "kafka"
    run = stack.start(stop_at_end=False, errors=log, KAFKA_BOOTSTRAP_SERVERS=silent)
    assert ended(run, TELL_WITHIN_S) == ExitCode.TRY_AGAIN, log.read_text()
    assert ["no Kafka broker answers" in line for line in own_lines(log)] == [True]

    log = tmp_path / "redis"  # it waits, as in the middle of a run
    run = stack.start(stop_at_end=False, errors=log, REDIS_URL=f"redis://{silent}/0")
    assert wait_until(lambda: "Redis is away" in log.read_text(), PATIENCE_S)
    run.send_signal(signal.SIGTERM)
    assert (ended(run, STOP_WITHIN_S), own_lines(log)) == (0, []), "nothing was read"


def test_a_start_can_be_stopped_at_any_moment(stack: Stack, silent: str, tmp_path: Path) -> None:
    """While it imports, while it waits for Kafka, and while it waits for the other processes of its cluster."""
    alone = ["-i", "0", "-a", free_addresses(2)]
    cases = [(0.0, [], {}), (0.7, [], {}), (2.5, [], {"KAFKA_BOOTSTRAP_SERVERS": silent}), (5.0, alone, {})]
    for number, (moment_s, arguments, environment) in enumerate(cases):
        for what in (signal.SIGTERM, signal.SIGINT) if moment_s == 0.0 else (signal.SIGTERM,):
            log = tmp_path / f"{number}-{what.name}"
            run = stack.start(*arguments, stop_at_end=False, errors=log, **environment)
            assert wait_until(lambda run=run: takes_signals(run), PATIENCE_S)  # type: ignore[misc]
            wait_until(lambda: False, moment_s)
            run.send_signal(what)
            assert (ended(run, STOP_WITHIN_S), own_lines(log)) == (0, []), log.read_text()
