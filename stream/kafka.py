"""What all our Kafka clients share: their configuration and the topic's partitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

if TYPE_CHECKING:
    from stream.settings import StreamSettings

METADATA_TIMEOUT_S = 10.0


class KafkaUnavailableError(Exception):
    """The broker does not answer, or the topic is not there; the message names the remedy."""


def client_config(settings: StreamSettings) -> dict[str, str | int | bool]:
    """Properties of every client: the brokers, and whatever `KAFKA_PROPERTIES_FILE` adds (it wins).

    Raises:
        ValueError: a line of the properties file is no `key=value`.
        OSError: the properties file can't be read.
    """
    config: dict[str, str | int | bool] = {"bootstrap.servers": settings.kafka_bootstrap_servers}
    if settings.kafka_properties_file is not None:
        for number, line in enumerate(settings.kafka_properties_file.read_text().splitlines(), 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            key, equals, value = text.partition("=")
            if not equals:  # the line itself may hold a secret, so it is not shown
                message = f"{settings.kafka_properties_file}, line {number}: expected key=value"
                raise ValueError(message)
            config[key.strip()] = value.strip()
    return config


def topic_partitions(settings: StreamSettings) -> list[int]:
    """The topic's partition ids, ascending.

    Raises:
        KafkaUnavailableError: no broker answers within 10 s, or the topic does not exist.
    """
    try:
        admin = AdminClient({**client_config(settings), "log_level": 0})
    except KafkaException as error:
        message = f"{settings.kafka_properties_file}: {error.args[0].str()}; correct KAFKA_PROPERTIES_FILE"
        raise KafkaUnavailableError(message) from error
    try:
        # All topics, since brokers may create a topic that is asked for by name.
        topic = admin.list_topics(timeout=METADATA_TIMEOUT_S).topics.get(settings.kafka_topic)
    except KafkaException as error:
        message = (
            f"no Kafka broker answers at {settings.kafka_bootstrap_servers}: {error.args[0].str()}; "
            "check KAFKA_BOOTSTRAP_SERVERS, or start one with `python -m sandbox up`"
        )
        raise KafkaUnavailableError(message) from error
    if topic is None or topic.error is not None or not topic.partitions:
        message = (
            f"topic {settings.kafka_topic!r} is not on {settings.kafka_bootstrap_servers}; "
            "create it, or name another with KAFKA_TOPIC"
        )
        raise KafkaUnavailableError(message)
    return sorted(topic.partitions)
