"""Checks before a run begins: topic and Redis settings that break this store's guarantees.

The first process of a cluster warns of each once per run. Settings that can't be queried (the broker inside librdkafka,
a user without permission) are skipped.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource
from redis.exceptions import RedisError

from feast_repo.stores.online.errors import can_pass, explained
from stream.availability import hold_for_redis
from stream.kafka import METADATA_TIMEOUT_S, client_config
from stream.lock import bytewax_arguments
from stream.stopping import refuse

if TYPE_CHECKING:
    from redis import Redis

    from feast_repo.settings import StreamSettings

logger = logging.getLogger(__name__)


def look_at_topics(settings: StreamSettings) -> None:
    """Warn of topics that lose records.

    Raises:
        ValueError: the properties file is wrong.
        OSError: the properties file can't be read.
    """
    if not first_process():
        return
    admin = AdminClient({**client_config(settings), "log_level": 0})
    for stream in settings.catalog.streams:
        _look_at_topic(admin, stream.topic)


def _look_at_topic(admin: AdminClient, topic: str) -> None:
    try:
        asked = admin.describe_configs(
            [ConfigResource(ConfigResource.Type.TOPIC, topic)], request_timeout=METADATA_TIMEOUT_S
        )
        configuration = next(iter(asked.values())).result(METADATA_TIMEOUT_S)
    except (KafkaException, TimeoutError):
        return
    policy = configuration["cleanup.policy"].value
    if "compact" in policy:
        logger.warning(
            "topic %s is compacted (cleanup.policy=%s): Kafka deletes all but the last event of each key, also those "
            "that were not read yet, and counts will lack them; set cleanup.policy=delete",
            topic,
            policy,
        )


def look_at_redis(redis: Redis) -> None:
    """Refuse a Redis that will never accept a row (exit 2), wait for one that is away, warn of one that loses rows."""
    facts: dict[str, Any] = {}

    def ask() -> None:
        try:
            facts.update(cast("dict[str, Any]", redis.info()))
        except RedisError as error:
            if not can_pass(error):
                refuse(explained(error))
            raise

    hold_for_redis(ask)
    if not first_process():
        return
    policy = facts.get("maxmemory_policy", "noeviction")
    if facts.get("maxmemory") and policy != "noeviction":
        logger.warning(
            "Redis evicts keys when it is full (maxmemory-policy %s): entities will be served defaults until their "
            "next window; set maxmemory-policy noeviction and give it enough memory",
            policy,
        )
    if not facts.get("aof_enabled", 1):
        logger.warning(
            "Redis keeps no append-only file: a restart loses rows, or goes back to a snapshot, and the stream has to "
            "refill it; set appendonly yes"
        )


def first_process() -> bool:
    """Whether this is the process that reports for the whole cluster."""
    return bytewax_arguments(sys.argv)[0] == 0
