"""Brings a sandbox up for other commands, reports its status, and takes it down."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from feast_repo.stores.offline.tables import progress_folder
from feast_repo.stores.progress import ProgressRecord
from sandbox import apache_kafka, embedded_kafka
from sandbox.processes import RequestError, SandboxError
from sandbox.redis_server import redis_answers
from sandbox.registry import apply_registry, registry_answers
from sandbox.stack import Sandbox
from sandbox.state import StackPart, State, forget, load, save, settings_root, without_password
from sandbox.topics import (
    broker_answers,
    check_retention,
    create_topic,
    end_offsets,
    partition_count,
    require_partitions,
)
from stream.kafka import client_config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.settings import KafkaChoice, SandboxSettings
    from sandbox.topics import ClientConfig

VARIABLES = {"kafka": "KAFKA_BOOTSTRAP_SERVERS", "redis": "REDIS_URL"}


def up(settings: SandboxSettings, *, kafka: KafkaChoice | None = None, partitions: int | None = None) -> State:
    """Start what is not running yet below the data root, create topic and registry, and write `sandbox.env`.

    A server that the environment names is used, not started. Running parts are left unchanged.

    Raises:
        RequestError: running or named servers contradict the request.
        SandboxError: a part does not start or answer; parts started by this call are stopped again.
    """
    root = settings.data_root
    with _locked(root):
        other = settings_root()
        if other not in {None, root} and other is not None and _processes(other):
            message = f"a sandbox is up in {other}; end it first: DATA_ROOT={other} python -m sandbox down"
            raise RequestError(message)
        present = _present(settings)
        if kafka not in {None, "auto"} and "kafka" in present and present["kafka"].kind not in {kafka, "yours"}:
            message = f"{present['kafka'].kind} Kafka is up already; run `python -m sandbox down` first"
            raise RequestError(message)
        sandbox = Sandbox(
            root,
            kafka=kafka or settings.sandbox_kafka,
            partitions=partitions,
            topic=settings.catalog.streams[0].topic,
            usual_ports=True,
            keep=frozenset(present),
        )
        try:
            sandbox.start()
            parts = {**present, **{part.role: part for part in sandbox.parts()}}
            for stream in settings.catalog.streams:
                _ensure_topic(settings, stream.topic, parts["kafka"], partitions)
            registry_url = os.environ.get("FEAST_REGISTRY_URL") or sandbox.registry_url
            environment = {
                "KAFKA_BOOTSTRAP_SERVERS": parts["kafka"].url,
                "FEATURE_REPO": str(settings.feature_repo),
                # Declared topics are left to the declarations, which may change while the sandbox is up.
                **({"KAFKA_TOPIC": settings.kafka_topic} if settings.kafka_topic else {}),
                "REDIS_URL": parts["redis"].url,
                "FEAST_REGISTRY_URL": registry_url,
                "DATA_ROOT": str(root),
            }
            apply_registry(environment)
            own = registry_url == sandbox.registry_url
            registry = StackPart("registry", "sqlite" if own else "yours", registry_url, "Feast's registry")
            state = State((parts["kafka"], parts["redis"], registry), environment)
            save(root, state)
        except BaseException:  # even an interrupt must not leave half a sandbox
            sandbox.close()
            raise
        sandbox.detach()
    return state


def down(root: Path) -> list[StackPart]:
    """Stop the processes that `up` started and that still run; returns their parts. Idempotent."""
    if not (root / "sandbox").is_dir():
        return []
    with _locked(root):
        ended = _processes(root)
        for part in ended:
            if part.process is not None:
                part.process.stop()
        forget(root)
    return ended


def problems(root: Path, settings: SandboxSettings, state: State) -> dict[str, str]:
    """Problems by role; empty if everything is up and nothing was lost."""
    found = {}
    for part in state.parts:
        if part.process is not None and not part.process.alive:
            found[part.role] = f"its process {part.pid} is gone (log: {part.log})"
        elif not _answers(settings, part):
            found[part.role] = "does not answer"
        elif part.kind == "embedded":
            try:
                for stream in settings.catalog.streams:
                    check_retention(part.url, stream.topic)
            except SandboxError as error:
                found[part.role] = str(error)
    if found:
        return found
    return {} if settings_root() == root else {"settings": "sandbox.env is missing or names another sandbox"}


def notes(root: Path, settings: SandboxSettings, state: State) -> list[str]:
    """Notes for the user although everything is up: data of another log, which a dataflow would not continue."""
    kafka = state.part("kafka")
    if kafka is None:
        return []
    found = []
    for stream in settings.catalog.streams:
        if not (known := ProgressRecord(progress_folder(root, stream)).load()):
            continue
        ends = end_offsets(_config(settings, kafka), stream.topic)
        beyond = [one for one in known.values() if one.next_offset > ends.get(one.partition, 0)]
        found += [
            f"{root} holds data up to offset {one.next_offset} of partition {one.partition} of {stream.topic}, but "
            f"this log ends at {ends.get(one.partition, 0)}: it is another log, so choose another DATA_ROOT or remove "
            "that data"
            for one in beyond[:1]
        ]
    return found


def _present(settings: SandboxSettings) -> dict[str, StackPart]:
    """The parts not to start: named by the environment, or already running."""
    known = load(settings.data_root)
    present = {}
    for role, variable in VARIABLES.items():
        ours = known.part(role) if known is not None else None
        named = os.environ.get(variable)
        if ours is not None and (ours.process is None or named not in {None, "", ours.url}):
            ours = None  # not our process, or the user wants another server now
        if named and (ours is None or named != ours.url):
            part = StackPart(role, "yours", named, f"yours, from {variable}")
            if not _answers(settings, part):
                message = f"nothing answers at {without_password(named)}; start it, or unset {variable}"
                raise SandboxError(message)
            present[role] = part
        elif ours is not None and ours.process is not None and ours.process.alive:
            if _answers(settings, ours):
                present[role] = ours
            else:
                ours.process.stop()  # paused or stuck: it makes room for a new one
    return present


def _answers(settings: SandboxSettings, part: StackPart) -> bool:
    match part.role:
        case "kafka":
            return broker_answers(_config(settings, part), timeout_s=5)
        case "redis":
            return redis_answers(part.url)
        case _:
            return registry_answers(part.url)


def _config(settings: SandboxSettings, kafka: StackPart) -> ClientConfig:
    """Client properties; for the user's own broker including those of KAFKA_PROPERTIES_FILE."""
    return {**(client_config(settings) if kafka.kind == "yours" else {}), "bootstrap.servers": kafka.url}


def _ensure_topic(settings: SandboxSettings, topic: str, kafka: StackPart, partitions: int | None) -> None:
    """Create a topic if needed; an existing one must have the requested number of partitions."""
    config = _config(settings, kafka)
    present = partition_count(config, topic)
    if present:
        require_partitions(topic, present, partitions)
    elif kafka.kind == "embedded":
        embedded_kafka.tell(kafka.control, f"create {topic} {partitions or embedded_kafka.DEFAULT_PARTITIONS}")
    else:
        create_topic(config, topic, partitions or apache_kafka.DEFAULT_PARTITIONS)


def _processes(root: Path) -> list[StackPart]:
    """The parts that we started and that still run."""
    state = load(root)
    parts = state.parts if state is not None else ()
    return [part for part in parts if part.process is not None and part.process.alive]


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Lock a data root for one `up` or `down` at a time; the kernel frees a dead holder's lock."""
    folder = root / "sandbox"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
