"""The dataflow: clicks in Kafka become features in Redis and Parquet.

python -m bytewax.run stream.dataflow                              # from the beginning
python -m bytewax.run stream.dataflow -r recovery -s 10 -b 60      # exact resume after any crash

Kafka source -> decode -> windows -> stores
(RawBatch)     (columns)  (panes by   (Redis at once; log tables, feature files
                          partition)   and progress record at the end of the epoch)
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from pydantic import ValidationError

from feast_repo.progress import Progress
from stream.decoding import DecodedBatch, Decoder, RawBatch
from stream.routing import key_of
from stream.settings import StreamSettings
from stream.source import KafkaSource
from stream.stopping import refuse, stop_on_signals
from stream.stores import Outcome, Stores
from stream.windows import SnapshotError, WindowEngine

if TYPE_CHECKING:
    from feast_repo.views import WindowedView


class Windows(StatefulBatchLogic[DecodedBatch, Outcome, bytes]):
    """The window engine of one Kafka partition as a Bytewax operator; the end of the input closes no window."""

    def __init__(self, topic: str, view: WindowedView, state: bytes | None) -> None:
        self._topic = topic
        try:
            self._engine = WindowEngine(view) if state is None else WindowEngine.restore(view, state)
        except SnapshotError as error:
            refuse(str(error))

    def on_batch(self, values: list[DecodedBatch]) -> tuple[list[Outcome], bool]:
        """Process the partition's next batches."""
        return [self._outcome(batch) for batch in values], StatefulBatchLogic.RETAIN

    def _outcome(self, batch: DecodedBatch) -> Outcome:
        processed = self._engine.process(batch.records)
        progress = Progress(
            self._topic, batch.partition, batch.next_offset, self._engine.watermark_ms, self._engine.last_closed_end_ms
        )
        return Outcome(progress, processed.records, batch.dead_letters, processed.windows)

    def snapshot(self) -> bytes:
        """The engine's state, as immutable bytes: Bytewax pickles it later."""
        return self._engine.snapshot()


def build(settings: StreamSettings) -> Dataflow:
    """The dataflow for these settings; nothing is opened before it runs."""
    view = settings.view
    decoder = Decoder(view.events)

    def decode(batch: RawBatch) -> tuple[str, DecodedBatch]:
        return key_of(batch.partition), decoder.decode(batch)

    flow = Dataflow("clicks_to_features")
    batches = op.input("kafka", flow, KafkaSource(settings))
    decoded = op.map("decode", batches, decode)
    outcomes = op.stateful_batch("windows", decoded, lambda state: Windows(settings.kafka_topic, view, state))
    op.output("stores", outcomes, Stores(settings))
    return flow


logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
stop_on_signals()
try:
    flow = build(StreamSettings())
except ValidationError as invalid:
    first = invalid.errors(include_url=False, include_input=False)[0]
    refuse(f"{'.'.join(map(str, first['loc'])).upper()}: {first['msg']}; see .env.example")
