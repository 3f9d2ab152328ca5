"""A topic of clicks on a sandbox with real servers, and contestants over it with stores that are empty each time."""

from __future__ import annotations

import shutil
import threading
from contextlib import closing
from typing import TYPE_CHECKING

from redis import Redis

from benchmarks.contestants.environments import interpreter
from benchmarks.watch import Watched, cores, pin, watch
from feast_repo.settings import StreamSettings
from stream.producing import TopicSink

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import polars as pl

    from sandbox.stack import Sandbox


class ProduceError(Exception):
    """The broker did not take all records."""


def produce(sandbox: Sandbox, topic: str, frames: Iterable[pl.DataFrame]) -> None:
    """Append frames of `simulation.records.MESSAGE` to a topic.

    Raises:
        ProduceError: some were not taken.
    """
    settings = StreamSettings(kafka_bootstrap_servers=sandbox.bootstrap, kafka_topic=topic)
    sink = TopicSink(settings, topic, threading.Event())
    with closing(sink):
        for frame in frames:
            sink.send(frame)
    if sink.failed:
        message = f"{sink.failed} records did not reach {topic}: {sink.last_error}"
        raise ProduceError(message)


def environment(sandbox: Sandbox, topic: str, folder: Path) -> dict[str, str]:
    """What leads a contestant from a topic to the sandbox's Redis and to files below a folder, and ends it there."""
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


def compete(
    sandbox: Sandbox,
    contestant: str,
    topic: str,
    folder: Path,
    *arguments: str,
    on: set[int] | None = None,
    **more: str,
) -> Watched:
    """A contestant over the whole topic, with an empty Redis and an empty folder, in which its files stay.

    `more`: environment variables. Its log is beside the folder.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with Redis.from_url(sandbox.redis_url) as redis:
        redis.flushall()
    command = [str(interpreter(contestant)), "-m", f"benchmarks.contestants.{contestant}", *arguments]
    return watch(command, {**environment(sandbox, topic, folder), **more}, folder.with_suffix(".log"), on)
