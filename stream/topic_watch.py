"""Checks, beside the dataflow, that the topic is still the one that the stored data came from.

To the consumer, a topic that was deleted, recreated under its name and has grown past our offset looks like one that
was briefly away: librdkafka continues with the new topic's records. Only the topic's id tells them apart, so records
are held until Kafka has reported the id after their arrival. One short request, in a separate thread, covers all that
has arrived meanwhile.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from feast_repo.stores.identity import UNKNOWN
from stream import availability
from stream.kafka import KafkaUnavailableError, client_config
from stream.origin import difference
from stream.stopping import fail, stop_requested
from stream.topic import Topic, TopicForbiddenError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from feast_repo.settings import StreamSettings
    from feast_repo.stores.identity import StreamIdentity

EVERY_S = 20.0
"""How often an idle topic is checked, unless `topic.metadata.refresh.interval.ms` is shorter."""
ANSWER_S = 5.0
PAUSE_S = 0.5
"""Between retries while Kafka doesn't answer."""


class TopicWatch:
    """Checks the topic for all consumers of a process.

        ticket = watch.ask()
        watch.confirms(ticket)      # True: the topic was the known one at some time after `ask`

    A topic that was replaced or has more partitions ends the run (exit 1) with the remedy. While Kafka doesn't answer,
    nothing is confirmed. If Kafka reports no topic ids, everything is confirmed and only the partitions are watched.
    The thread never delays a stop.
    """

    def __init__(self, settings: StreamSettings, known: StreamIdentity, recovery: Path | None) -> None:
        self._topic = Topic(settings, known.topic)
        self._known = known
        self._tells_ids = known.topic_id != UNKNOWN
        self._holder = settings.data_root, recovery
        self._every_s = _interval_s(settings)
        self._asks = threading.Condition()
        self._asked = self._confirmed = 0
        threading.Thread(target=self._run, name="topic", daemon=True).start()

    def ask(self) -> int:
        """Request a check of the topic that starts after this call."""
        with self._asks:
            self._asked += 1
            self._asks.notify()
            return self._asked

    def confirms(self, ticket: int) -> bool:
        """Whether a check since `ask` returned this ticket has found the known topic."""
        return self._confirmed >= ticket or not self._tells_ids

    def _run(self) -> None:
        looked_s = time.monotonic()
        while not stop_requested.is_set():
            left_s = looked_s + self._every_s - time.monotonic()
            with self._asks:
                self._asks.wait_for(lambda: self._tells_ids and self._asked > self._confirmed, timeout=max(left_s, 0))
                ticket = self._asked
            is_due = not self._tells_ids or time.monotonic() - looked_s >= self._every_s
            if not self._look(self._topic.identity if is_due else self._described):
                stop_requested.wait(PAUSE_S)
                continue
            self._confirmed = ticket
            looked_s = time.monotonic() if is_due else looked_s

    def _described(self) -> StreamIdentity:
        return self._topic.same_cluster(self._known, ANSWER_S)

    def _look(self, identity: Callable[[], StreamIdentity]) -> bool:
        """Check the topic; returns whether Kafka answered, and ends the run if it is another topic."""
        try:
            problem = difference(self._known, identity(), *self._holder)
        except TopicForbiddenError as error:
            problem = str(error)
        except KafkaUnavailableError as error:
            availability.kafka.is_away(self, error, "waiting")
            return False
        if problem and not stop_requested.is_set():  # a stop drains confirmed records, and the next start refuses
            fail(problem)
        availability.kafka.is_back(self)
        return not problem


def _interval_s(settings: StreamSettings) -> float:
    told = client_config(settings).get("topic.metadata.refresh.interval.ms", -1)
    return min(EVERY_S, float(told) / 1000) if float(told) > 0 else EVERY_S
