"""The window engine of one Kafka partition as a step of the dataflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bytewax.operators import StatefulBatchLogic

from feast_repo.codec.decoding import DecodedBatch
from feast_repo.stores.progress import Progress
from stream.epoch import Outcome
from stream.stopping import refuse
from stream.windows import SnapshotError, WindowEngine

if TYPE_CHECKING:
    from feast_repo.declare.views import WindowedView


class Windows(StatefulBatchLogic[DecodedBatch, Outcome, bytes]):
    """The window engine of one Kafka partition as a Bytewax operator; the end of the input closes no window."""

    def __init__(self, topic: str, view: WindowedView, state: bytes | None) -> None:
        self._topic = topic
        try:
            self._engine = WindowEngine(view) if state is None else WindowEngine.restore(view, state)
        except SnapshotError as error:
            refuse(error)

    def on_batch(self, values: list[DecodedBatch]) -> tuple[list[Outcome], bool]:
        """Process the partition's next batches."""
        return [self._outcome(batch) for batch in values], StatefulBatchLogic.RETAIN

    def _outcome(self, batch: DecodedBatch) -> Outcome:
        processed = self._engine.process(batch.records)
        progress = Progress(
            self._topic, batch.partition, batch.next_offset, self._engine.watermark_ms, self._engine.last_closed_end_ms
        )
        return Outcome(progress, processed.records, batch.dead_letters, processed.windows, batch.ignored)

    def snapshot(self) -> bytes:
        """The engine's state, as immutable bytes: Bytewax pickles it later."""
        return self._engine.snapshot()
