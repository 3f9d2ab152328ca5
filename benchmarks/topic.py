"""A topic of clicks on a sandbox with real servers, and the dataflow over it with stores that are empty each time."""

from __future__ import annotations

import shutil
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING

from redis import Redis

from benchmarks.watch import Watched, cores, pin, watch
from stream.producing import TopicSink
from stream.settings import StreamSettings

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import polars as pl

    from sandbox.stack import Sandbox

OURS = [sys.executable, "-m", "benchmarks.contestants.ours"]


class ProduceError(Exception):
    """The broker did not take all records."""


def produce(sandbox: Sandbox, topic: str, frames: Iterable[pl.DataFrame]) -> None:
    """Append frames of `stream.records.RECORD` to a topic.

    Raises:
        ProduceError: some were not taken.
    """
    settings = StreamSettings(kafka_bootstrap_servers=sandbox.bootstrap, kafka_topic=topic)
    sink = TopicSink(settings, threading.Event())
    with closing(sink):
        for frame in frames:
            sink.send(frame)
    if sink.failed:
        message = f"{sink.failed} records did not reach {topic}: {sink.last_error}"
        raise ProduceError(message)


def environment(sandbox: Sandbox, topic: str, folder: Path) -> dict[str, str]:
    """What leads the dataflow from a topic to the sandbox's Redis and to files below a folder, and ends it there."""
    return {
        **sandbox.environment,
        "KAFKA_TOPIC": topic,
        "DATA_ROOT": str(folder),
        "FEAST_REGISTRY_URL": f"sqlite:///{folder}/registry.db",
        "STREAM_STOP_AT_END": "1",
    }


def aside(sandbox: Sandbox) -> None:
    """Keep the servers off the core of the measured program, if there is another one."""
    for server in (sandbox.kafka, sandbox.redis):
        if server.process is not None:
            pin(server.process.pid, cores()[1])


def run_ours(sandbox: Sandbox, topic: str, folder: Path, log: Path, recovery: Path | None = None) -> Watched:
    """The dataflow over the whole topic, with an empty Redis and an empty folder, in which its files stay.

    `recovery`: where its recovery state stays, too.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with Redis.from_url(sandbox.redis_url) as redis:
        redis.flushall()
    more = {} if recovery is None else {"BENCH_RECOVERY": str(recovery)}
    return watch(OURS, {**environment(sandbox, topic, folder), **more}, log)
