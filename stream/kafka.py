"""What all Kafka clients share: configuration and the lookup of the topic's partitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from feast_repo.errors import ExitCode, UnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    from feast_repo.settings import StreamSettings

METADATA_TIMEOUT_S = 5.0
CHECKED_ON = {"confluent-kafka": "2.16.1"}
# librdkafka's public names, which begin with an underscore.
ALL_BROKERS_DOWN = KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001
AUTO_OFFSET_RESET = KafkaError._AUTO_OFFSET_RESET  # noqa: SLF001
PARTITION_EOF = KafkaError._PARTITION_EOF  # noqa: SLF001


class KafkaUnavailableError(UnavailableError):
    """The broker does not answer, or the topic does not exist; the message names the remedy."""


class NoTopicError(KafkaUnavailableError):
    """The topic does not exist; waiting does not create it."""

    exit_code = ExitCode.REFUSED


def client_config(settings: StreamSettings) -> dict[str, str | int | bool]:
    """Properties of every client: the brokers, and whatever `KAFKA_PROPERTIES_FILE` adds (it wins).

    Raises:
        ValueError: a line of the properties file is not `key=value`, or librdkafka rejects a property.
        OSError: the properties file can't be read.
    """
    config: dict[str, str | int | bool] = {"bootstrap.servers": settings.kafka_bootstrap_servers}
    if (file := settings.kafka_properties_file) is not None:
        config |= _properties(file)
        try:
            AdminClient({**config, "log_level": 0})  # every kind of client accepts all properties
        except (KafkaException, TypeError) as error:
            reason = error.args[0].str() if isinstance(error, KafkaException) else error
            message = f"{file}: {reason}; correct KAFKA_PROPERTIES_FILE"
            raise ValueError(message) from error
    return config


def _properties(file: Path) -> dict[str, str]:
    try:
        lines = file.read_bytes().decode().split("\n")
    except UnicodeDecodeError as error:
        message = f"{file}: not UTF-8 text; correct KAFKA_PROPERTIES_FILE"
        raise ValueError(message) from error
    properties = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        key, equals, value = text.partition("=")
        if not equals:  # the line may hold a secret, so it is not shown
            message = f"{file}, line {number}: expected key=value"
            raise ValueError(message)
        properties[key.strip()] = value.strip()
    return properties


def topic_partitions(settings: StreamSettings, topic: str) -> list[int]:
    """A topic's partition ids, ascending.

    Raises:
        KafkaUnavailableError: no broker answers within 5 s (`NoTopicError`: the topic does not exist).
        ValueError: the properties file is wrong.
        OSError: the properties file can't be read.
    """
    return look_up(AdminClient({**client_config(settings), "log_level": 0}), settings, topic)[1]


def look_up(admin: AdminClient, settings: StreamSettings, topic: str) -> tuple[str | None, list[int]]:
    """The cluster's id (None if it reports none), and a topic's partition ids, ascending.

    Raises:
        KafkaUnavailableError: no broker answers within 5 s (`NoTopicError`: the topic does not exist).
    """
    try:
        # List all topics: asking for one by name may create it.
        told = admin.list_topics(timeout=METADATA_TIMEOUT_S)
    except KafkaException as error:
        message = (
            f"no Kafka broker answers at {settings.kafka_bootstrap_servers}: {error.args[0].str()}; "
            "check KAFKA_BOOTSTRAP_SERVERS, or start one with `python -m sandbox up`"
        )
        raise KafkaUnavailableError(message) from error
    found = told.topics.get(topic)
    if found is None or found.error is not None or not found.partitions:
        message = (
            f"topic {topic!r} is not on {settings.kafka_bootstrap_servers}; create it, or name another with KAFKA_TOPIC"
        )
        raise NoTopicError(message)
    return told.cluster_id, sorted(found.partitions)
