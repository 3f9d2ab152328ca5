"""Heartbeats for quiet partitions, written into the log so that windows close even when nothing happens.

    python -m stream.heartbeat

A partition is quiet when nothing but our own heartbeats was appended to it for `--quiet-seconds`. An empty partition is
quiet too, so all partitions advance. A heartbeat states that no event from before its time is still to come, so a
larger `--delay-seconds` gives slow producers more time and closes windows later. While the brokers are away nobody can
write, so that time counts as busy. Two services side by side see each other's heartbeats as activity, so they take
turns instead of doubling them.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from feast_repo.codec.heartbeats import heartbeat, is_heartbeat
from feast_repo.commands import Command, number, stop_event
from feast_repo.errors import ExitCode
from feast_repo.settings import StreamSettings
from stream.kafka import KafkaUnavailableError, client_config
from stream.producing import producer_config

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from feast_repo.declare.events import EventStream

log = logging.getLogger("stream.heartbeat")

REQUEST_TIMEOUT_S = 5.0
"""Of one request; a stop signal waits no longer than this."""
LAST_RECORDS_TIMEOUT_S = 10.0


@dataclass
class Activity:
    """When anything but our own heartbeats was last appended to a partition (epoch ms; 0: never)."""

    end: int
    busy_ms: int = 0

    def look(self, end: int, now_ms: int) -> None:
        """Record where the partition ends now."""
        if end != self.end:
            self.end, self.busy_ms = end, now_ms

    def wrote(self, offset: int) -> None:
        """Record our own heartbeat; it hides nothing that others wrote before it."""
        if offset == self.end:
            self.end += 1


class HeartbeatService:
    """Checks all partitions of the topic and writes heartbeats into the quiet ones.

    A heartbeat that the broker doesn't accept in time is lost; the next round writes a newer one.
    """

    def __init__(self, settings: StreamSettings, stream: EventStream, *, quiet_ms: int, delay_ms: int) -> None:
        """Connect lazily: no request is sent before the first round."""
        self._stream, self._topic = stream, stream.topic
        self._quiet_ms = quiet_ms
        self._delay_ms = delay_ms
        self._activity: dict[int, Activity] = {}
        silent = {"log_level": 0, "error_cb": lambda _error: None}  # the rounds report errors, once
        self._admin = AdminClient({**client_config(settings), **silent})
        self._consumer = Consumer(
            {
                **client_config(settings),
                "group.id": "stream.heartbeat",  # never joined: partitions are assigned by hand
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                **silent,
            }
        )
        self._producer = Producer(
            {
                **producer_config(settings),
                "linger.ms": 0,
                "message.timeout.ms": round(REQUEST_TIMEOUT_S * 1000),
                **silent,
            }
        )

    def round(self, now_ms: int) -> list[int]:
        """Write a heartbeat of time `now_ms` - delay into each quiet partition; returns these partitions.

        Raises:
            KafkaException: the brokers don't answer, don't know the topic, or don't accept a heartbeat.
            KafkaUnavailableError: the producer is stuck.
        """
        ends = self._ends()
        new = {partition: end for partition, end in ends.items() if partition not in self._activity}
        self._activity |= self._first_look(new, now_ms)
        for partition, end in ends.items():
            self._activity[partition].look(end, now_ms)
        quiet = [p for p, activity in self._activity.items() if now_ms - activity.busy_ms >= self._quiet_ms]
        self._write(quiet, now_ms - self._delay_ms)
        return quiet

    def call_busy(self, now_ms: int) -> None:
        """Count every known partition as busy until now, because quiet means nothing while the brokers are away."""
        for activity in self._activity.values():
            activity.busy_ms = now_ms

    def _ends(self) -> dict[int, int]:
        """The offset after the last record of each partition."""
        # List all topics: asking for one by name may create it.
        topic = self._admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics.get(self._topic)
        if topic is None or topic.error is not None:
            error = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART) if topic is None else topic.error
            raise KafkaException(error)
        partitions = [TopicPartition(self._topic, partition) for partition in sorted(topic.partitions)]
        answers = self._admin.list_offsets(
            dict.fromkeys(partitions, OffsetSpec.latest()), request_timeout=REQUEST_TIMEOUT_S
        )
        return {partition.partition: answer.result().offset for partition, answer in answers.items()}

    def _first_look(self, ends: dict[int, int], now_ms: int) -> dict[int, Activity]:
        """The activity of new partitions, judged by the Kafka timestamp of their last record."""
        activity = {partition: Activity(end) for partition, end in ends.items()}
        open_questions = {partition for partition, end in ends.items() if end > 0}
        self._consumer.assign([TopicPartition(self._topic, p, ends[p] - 1) for p in sorted(open_questions)])
        deadline = time.monotonic() + LAST_RECORDS_TIMEOUT_S
        while open_questions and time.monotonic() < deadline:
            message = self._consumer.poll(REQUEST_TIMEOUT_S)
            if message is None or message.partition() not in open_questions:
                continue
            error = message.error()
            if error is None:
                kind, timestamp_ms = message.timestamp()
                known = kind != TIMESTAMP_NOT_AVAILABLE
                beat = is_heartbeat(self._stream, message.value(), message.headers())
                activity[message.partition()].busy_ms = 0 if beat else timestamp_ms if known else now_ms
            else:
                # The last offset holds no readable record (it expired, or it is a transaction marker).
                activity[message.partition()].busy_ms = now_ms
            open_questions.discard(message.partition())
        self._consumer.unassign()
        for partition in open_questions:
            activity[partition].busy_ms = now_ms
        return activity

    def _write(self, partitions: list[int], at_ms: int) -> None:
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                self._activity[message.partition()].wrote(message.offset())
            else:
                failures.append(error)

        for partition in partitions:
            value, headers = heartbeat(self._stream, uuid.uuid4().hex, at_ms)
            self._producer.produce(
                self._topic, value, partition=partition, headers=list(headers), on_delivery=delivered
            )
        if self._producer.flush(2 * REQUEST_TIMEOUT_S):
            message = "heartbeats are still under way after their time is up"
            raise KafkaUnavailableError(message)
        if failures:
            raise KafkaException(failures[0])


@dataclass
class Tally:
    """What a run did."""

    rounds: int = 0
    heartbeats: int = 0
    failed: bool = False


def serve(services: Sequence[HeartbeatService], stop: threading.Event, *, interval_s: float, once: bool) -> Tally:
    """Run a round over all streams every `interval_s` until `stop` is set, or only one.

    Logs once when brokers go away or come back.
    """
    tally = Tally()
    while not stop.is_set():
        try:
            quiet = sum(len(service.round(_now_ms())) for service in services)
        except (KafkaException, KafkaUnavailableError) as error:
            if not tally.failed:
                log.warning("no heartbeats: %s; trying again", _reason(error))
            tally.failed = True
            for service in services:
                service.call_busy(_now_ms())
        else:
            if tally.failed:
                log.warning("the brokers are back")
            tally.failed = False
            tally.rounds += 1
            tally.heartbeats += quiet
        if once:
            break
        stop.wait(interval_s)
    return tally


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _reason(error: Exception) -> str:
    cause = error.args[0]
    return cause.str() if isinstance(cause, KafkaError) else str(cause)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command("python -m stream.heartbeat", "Write heartbeats into quiet partitions until SIGTERM or Ctrl-C.")
    add = command.add_argument
    add("--quiet-seconds", type=number(), default=10.0, help="a partition is quiet after this long (%(default)s)")
    add("--delay-seconds", type=number(), default=5.0, help="how far a heartbeat's time lies behind now (%(default)s)")
    add("--interval-seconds", type=number(above=0.0), default=5.0, help="time between two checks (%(default)s)")
    command.add_choice("stream", "all streams")
    add("--once", action="store_true", help="check once; exit 1 if the brokers don't answer")
    add("--json", action="store_true", help="print the result as one JSON object")
    options = command.parse_args(arguments)
    settings = command.settings(StreamSettings)
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.INFO)
    catalog = settings.catalog
    streams = catalog.streams if options.stream is None else (command.chosen(catalog.stream, options.stream),)
    try:
        times = {"quiet_ms": round(options.quiet_seconds * 1000), "delay_ms": round(options.delay_seconds * 1000)}
        services = [HeartbeatService(settings, stream, **times) for stream in streams]
    except (OSError, ValueError) as error:
        command.error(str(error))
    except KafkaException as error:
        command.error(f"{_reason(error)}; check KAFKA_PROPERTIES_FILE")
    with stop_event() as stop:
        if not options.once:
            topics = "topic " if len(streams) == 1 else "topics "
            topics += ", ".join(stream.topic for stream in streams)
            log.info("%s on %s", topics, settings.kafka_bootstrap_servers)
        tally = serve(services, stop, interval_s=options.interval_seconds, once=options.once)
    if options.json:
        sys.stdout.write(json.dumps({"rounds": tally.rounds, "heartbeats": tally.heartbeats}) + "\n")
    else:
        sys.stdout.write(f"{tally.heartbeats:,} heartbeats in {tally.rounds:,} rounds\n")
    return ExitCode.FAILED if options.once and tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
