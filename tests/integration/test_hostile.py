"""A hundred thousand hostile messages through Kafka and the dataflow: nobody is hurt by them, and none is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
from confluent_kafka import Producer

from feast_repo.clickstream import clickstream
from feast_repo.features import user_click_features as view
from feast_repo.stores.offline.tables import dead_letters_folder, events_folder
from sandbox.checks import rows_of
from sandbox.oracle import compare
from simulation.hostile import Corpus
from stream.producing import producer_config
from tests.stream.reference import judge

if TYPE_CHECKING:
    from tests.integration.conftest import Stack

MESSAGES = 100_000
SEED = 11


def test_each_message_is_counted_or_a_dead_letter_with_its_reason(stack: Stack) -> None:
    settings = stack.settings
    producer = Producer({**producer_config(settings), "message.max.bytes": 1_000_000})
    sent = list(Corpus(SEED).messages(MESSAGES))
    for number, one in enumerate(sent):
        # The header tells which message it is, whatever became of its bytes.
        producer.produce(
            settings.catalog.stream().topic,
            one.value,
            one.key,
            timestamp=one.kafka_timestamp,
            headers=[("n", str(number))],
        )
        producer.poll(0)
    assert producer.flush(60) == 0
    status, errors = stack.run()
    assert status == 0, errors
    assert f"read {MESSAGES:,} messages" in errors

    events, letters = (
        rows_of(folder(settings.data_root, clickstream)) for folder in (events_folder, dead_letters_folder)
    )
    at = ["partition", "offset"]
    positions = pl.concat([events.select(at), letters.select(at)])
    assert len(positions) == len(positions.unique()) == MESSAGES
    judged = [judge(clickstream, one.value, one.key, one.kafka_timestamp) for one in sent]
    expected = pl.DataFrame(
        [
            (one.value, one.key, one.kafka_timestamp * 1000, reason)
            for one, reason in zip(sent, judged, strict=True)
            if isinstance(reason, str)
        ],
        schema={name: letters.schema[name] for name in ("value", "key", "kafka_timestamp", "reason")},
        orient="row",
    )
    columns = expected.columns
    assert letters.select(columns).sort(columns).equals(expected.sort(columns))
    accepted = [reason for reason in judged if not isinstance(reason, str)]
    stored = events.select(pl.col("event_id", "user_id", "price_cents")).sort(pl.all())
    assert stored.equals(pl.DataFrame(accepted, schema=clickstream.schema).select(stored.columns).sort(pl.all()))
    found = compare(settings.data_root, view)
    assert found.none, found
    assert found.recomputed > 1_000
