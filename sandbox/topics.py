"""Topics of any broker that speaks Kafka's admin protocol, and checks that all written records are still there."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from sandbox.processes import RequestError, SandboxError, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

ClientConfig: TypeAlias = "Mapping[str, str | int | bool]"
ANSWER_TIMEOUT_S = 10.0
CREATION_TIMEOUT_S = 60.0  # the Apache broker writes to disk for every partition, on a machine that may be busy


class RetentionError(SandboxError):
    """A topic no longer holds its first records."""


def broker_answers(config: ClientConfig, timeout_s: float = 1.0) -> bool:
    """Whether a broker lists its topics within the time."""
    try:
        _admin(config).list_topics(timeout=timeout_s)
    except KafkaException:
        return False
    return True


def partition_count(config: ClientConfig, topic: str) -> int:
    """The number of partitions of a topic; 0 if it doesn't exist.

    Raises:
        SandboxError: no broker answers within 10 s.
    """
    # All topics are listed: asking the embedded broker for one by name would create it.
    try:
        found = _admin(config).list_topics(timeout=ANSWER_TIMEOUT_S).topics.get(topic)
    except KafkaException as error:
        servers = config["bootstrap.servers"]
        message = f"no Kafka broker answers at {servers}: {error.args[0].str()}; check KAFKA_BOOTSTRAP_SERVERS"
        raise SandboxError(message) from error
    return 0 if found is None else sum(partition.leader >= 0 for partition in found.partitions.values())


def create_topic(config: ClientConfig, topic: str, partitions: int) -> None:
    """Create the topic with one replica, and wait until every partition has a leader; an existing one is unchanged.

    Raises:
        SandboxError: the broker refuses, or that takes more than 60 s, or the partitions get no leader for 60 s.
    """
    admin = _admin(config)  # kept until the answer arrives: an abandoned client cancels its requests
    try:
        admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(CREATION_TIMEOUT_S)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            message = f"can't create topic {topic!r}: {error.args[0].str()}; create it by hand, or name another"
            raise SandboxError(message) from error
        return
    except TimeoutError as error:
        message = f"the broker did not create topic {topic!r} within {CREATION_TIMEOUT_S:.0f} s; create it by hand"
        raise SandboxError(message) from error
    if not wait_until(lambda: partition_count(config, topic) == partitions, CREATION_TIMEOUT_S):
        message = (
            f"topic {topic!r} has fewer than {partitions} live partitions after its creation; see the broker's log"
        )
        raise SandboxError(message)


def require_partitions(topic: str, present: int, wanted: int | None) -> None:
    """Check that an existing topic has the requested number of partitions.

    Raises:
        RequestError: it doesn't; changing the number would move users to other partitions.
    """
    if wanted is not None and present != wanted:
        message = (
            f"topic {topic!r} has {present} partitions, not {wanted}; leave --partitions out, or choose another --topic"
        )
        raise RequestError(message)


def check_retention(bootstrap: str, topic: str) -> None:
    """Check that every partition of the topic still begins at offset 0.

    The embedded broker silently drops a partition's oldest batches once it holds 5 MiB (as stored, compressed) or
    100,000 batches; a real broker does so after its retention time. Cost: one request.

    Raises:
        RetentionError: records are gone; the message names the first such partition.
        SandboxError: the topic doesn't exist, or no broker answers.
    """
    config = {"bootstrap.servers": bootstrap}
    offsets = _offsets(config, topic, OffsetSpec.earliest())
    if not offsets:
        message = f"topic {topic!r} is not on {bootstrap}; create it with `python -m sandbox up`"
        raise SandboxError(message)
    for number, first in offsets.items():
        if first > 0:
            message = (
                f"topic {topic!r} on {bootstrap} has lost its oldest records: partition {number} begins at offset "
                f"{first}; use more partitions, zstd and larger batches, or Apache Kafka (SANDBOX_KAFKA=apache)"
            )
            raise RetentionError(message)


def end_offsets(config: ClientConfig, topic: str) -> dict[int, int]:
    """The next offset of each partition; empty if the topic doesn't exist.

    Raises:
        SandboxError: no broker answers.
    """
    return _offsets(config, topic, OffsetSpec.latest())


def _offsets(config: ClientConfig, topic: str, which: OffsetSpec) -> dict[int, int]:
    partitions = [TopicPartition(topic, number) for number in range(partition_count(config, topic))]
    if not partitions:
        return {}
    admin = _admin(config)  # kept until the answers arrive: an abandoned client cancels its requests
    asked = admin.list_offsets(dict.fromkeys(partitions, which))
    try:
        return {partition.partition: future.result(ANSWER_TIMEOUT_S).offset for partition, future in asked.items()}
    except (KafkaException, TimeoutError) as error:
        message = f"the broker at {config['bootstrap.servers']} does not tell the offsets of {topic!r}; see its log"
        raise SandboxError(message) from error


def _admin(config: ClientConfig) -> AdminClient:
    return AdminClient({**config, "log_level": 0})  # problems are reported by the error
