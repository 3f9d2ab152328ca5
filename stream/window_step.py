"""The window engine of one Kafka partition as a step of the dataflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from bytewax.operators import StatefulBatchLogic

from feast_repo.codec.decoding import DecodedBatch
from feast_repo.stores.progress import Progress
from stream.epoch import Outcome
from stream.stopping import refuse
from stream.windows import SnapshotError, WindowEngine

if TYPE_CHECKING:
    from feast_repo.declare.catalog import Catalog

OfStream: TypeAlias = tuple[str, DecodedBatch]
"""A decoded batch, after the name of its stream."""


class Windows(StatefulBatchLogic[OfStream, Outcome, bytes]):
    """The window engine of one Kafka partition as a Bytewax operator; the end of the input closes no window."""

    def __init__(self, catalog: Catalog, state: bytes | None) -> None:
        self._catalog = catalog
        self._state = state
        self._engine: WindowEngine | None = None
        """Made with the first batch, which names the stream: Bytewax doesn't tell a step its key."""

    def on_batch(self, values: list[OfStream]) -> tuple[list[Outcome], bool]:
        """Process the partition's next batches."""
        return [self._outcome(stream, batch) for stream, batch in values], StatefulBatchLogic.RETAIN

    def _outcome(self, name: str, batch: DecodedBatch) -> Outcome:
        stream = self._catalog.stream(name)
        engine = self._engine = self._engine or self._opened(name)
        processed = engine.process(batch.records)
        progress = Progress(stream.topic, batch.partition, batch.next_offset, engine.watermark_ms)
        late = {view: processed.late(view) for view in processed.missed}
        dead = batch.dead_letters
        return Outcome(name, progress, processed.records, late, dead, processed.windows, batch.ignored)

    def _opened(self, name: str) -> WindowEngine:
        stream = self._catalog.stream(name)
        views = self._catalog.views_of(stream)
        if self._state is None:
            return WindowEngine(stream, views)
        try:
            return WindowEngine.restore(stream, views, self._state)
        except SnapshotError as error:
            refuse(error)

    def snapshot(self) -> bytes:
        """The engine's state, as immutable bytes: Bytewax pickles it later."""
        return (self._state or b"") if self._engine is None else self._engine.snapshot()
