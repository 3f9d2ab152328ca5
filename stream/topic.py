"""The topic as Kafka reports it now: its cluster, its id, its number of partitions.

A topic that is deleted and recreated has another id, and so has a topic of the same name on another cluster. Two kinds
of broker report no id, which is then UNKNOWN: Kafka before 2.8, and the one inside librdkafka (the sandbox's default).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException, TopicCollection, Uuid
from confluent_kafka.admin import AdminClient

from feast_repo.errors import ExitCode
from feast_repo.stores.identity import UNKNOWN, StreamIdentity
from stream.kafka import METADATA_TIMEOUT_S, KafkaUnavailableError, client_config, look_up

if TYPE_CHECKING:
    from feast_repo.settings import StreamSettings

EMBEDDED = "mockCluster"
"""Prefix of the cluster id of librdkafka's own broker; the rest differs at each start."""
NO_ID = str(Uuid(0, 0))


class TopicForbiddenError(KafkaUnavailableError):
    """We are not allowed to describe the topic; the message names the remedy."""

    exit_code = ExitCode.REFUSED


class Topic:
    """The topic of an event stream, queried over a separate connection. Threads may share it."""

    def __init__(self, settings: StreamSettings, topic: str) -> None:
        self._settings, self._topic = settings, topic
        self._admin = AdminClient({**client_config(settings), "log_level": 0})

    def identity(self) -> StreamIdentity:
        """The topic's current identity.

        Raises:
            KafkaUnavailableError: no broker answers within 10 s, or the topic does not exist or may not be described.
        """
        cluster_id, partitions = look_up(self._admin, self._settings, self._topic)
        if not cluster_id or cluster_id.startswith(EMBEDDED):
            return StreamIdentity(self._topic, UNKNOWN, UNKNOWN, len(partitions))
        return self._described(cluster_id, METADATA_TIMEOUT_S)

    def same_cluster(self, known: StreamIdentity, timeout_s: float) -> StreamIdentity:
        """The topic's current identity on the known cluster: one short request. librdkafka's broker can't answer it.

        Raises:
            KafkaUnavailableError: no broker answers in time, or the topic does not exist.
        """
        return self._described(known.cluster_id, timeout_s)

    def _described(self, cluster_id: str, timeout_s: float) -> StreamIdentity:
        topic, servers = self._topic, self._settings.kafka_bootstrap_servers
        asked = self._admin.describe_topics(TopicCollection([topic]), request_timeout=timeout_s)
        try:
            told = asked[topic].result()
        except KafkaException as error:
            message = f"{servers} tells nothing about topic {topic!r}: {error.args[0].str()}"
            if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                message += "; allow this user to describe it"
                raise TopicForbiddenError(message) from error
            raise KafkaUnavailableError(message) from error
        topic_id = str(told.topic_id)
        return StreamIdentity(topic, cluster_id, UNKNOWN if topic_id == NO_ID else topic_id, len(told.partitions))


def identities(settings: StreamSettings) -> dict[str, StreamIdentity]:
    """The current identity of each stream's topic, by the stream's name.

    Raises:
        KafkaUnavailableError: no broker answers within 10 s, or a topic does not exist or may not be described.
    """
    return {stream.name: Topic(settings, stream.topic).identity() for stream in settings.catalog.streams}
