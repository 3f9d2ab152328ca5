"""The dataflow: clicks in Kafka become features in Redis and Parquet.

python -m bytewax.run stream.dataflow -r recovery -s 10 -b 0       # exact resume after any crash
python -m bytewax.run stream.dataflow                              # from the topic's beginning

Kafka source -> decode -> windows -> stores
(RawBatch)     (columns)  (panes by   (Redis at once; log tables, feature files
                          partition)   and progress record at the end of the epoch)
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from pydantic import ValidationError

from feast_repo.progress import Progress
from stream import metrics
from stream.decoding import DecodedBatch, Decoder, RawBatch
from stream.epoch import Outcome
from stream.kafka import KafkaUnavailableError
from stream.lock import AlreadyRunningError, bytewax_arguments, lock_run
from stream.recovery import prepare
from stream.recovery_store import RecoveryError
from stream.routing import key_of
from stream.settings import StreamSettings
from stream.source import KafkaSource
from stream.steps import FLOW, KAFKA, STORES, WINDOWS
from stream.stopping import refuse, stop_on_signals
from stream.stores import Stores
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

    flow = Dataflow(FLOW)
    batches = op.input(KAFKA, flow, KafkaSource(settings))
    decoded = op.map("decode", batches, decode)
    outcomes = op.stateful_batch(WINDOWS, decoded, lambda state: Windows(settings.kafka_topic, view, state))
    op.output(STORES, outcomes, Stores(settings))
    return flow


def ready() -> StreamSettings:
    """The settings, with the data folder locked and the recovery state of `-r` ready; or refused with one line."""
    try:
        settings = StreamSettings()
        process, recovery = bytewax_arguments(sys.argv)
        lock_run(settings.data_root, recovery)
        if recovery is not None:
            prepare(settings, recovery)
        metrics.serve(settings, process)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False, include_input=False)[0]
        refuse(f"{'.'.join(map(str, first['loc'])).upper()}: {first['msg']}; see .env.example")
    except (AlreadyRunningError, KafkaUnavailableError, RecoveryError, ValueError, OSError) as error:
        refuse(str(error))
    return settings


logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
stop_on_signals()
flow = build(ready())
