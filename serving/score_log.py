"""Stores served predictions as Parquet for drift reports: `DATA_ROOT/predictions/dt=.../`, or in a folder of the
service there if there are several.

They are buffered in memory and written once a minute, so a killed process loses the last minute's predictions. On a
full disk they wait; beyond a bound the oldest are dropped and counted.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

import polars as pl

from feast_repo.stores.offline.parquet import day_folder, publish
from feast_repo.stores.offline.tables import day, prediction_columns, predictions_folder
from serving import metrics

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from feast_repo.declare.services import FeatureService
    from serving.messages import Asked

    Entry: TypeAlias = tuple[float, Sequence[Asked], Sequence[float], str]

logger = logging.getLogger(__name__)

EVERY_S = 60.0
MOST_SCORES = 1_000_000


class ScoreLog:
    """Buffers predictions and writes them. `add` is fast; run `flush` in a thread."""

    def __init__(
        self,
        data_root: Path,
        service: FeatureService,
        services: Collection[FeatureService],
        *,
        most: int = MOST_SCORES,
    ) -> None:
        self._folder, self._most = predictions_folder(data_root, service, services), most
        self._columns = prediction_columns(service)
        self._entries: deque[Entry] = deque()
        self._held = 0
        self._lock = threading.Lock()

    def add(self, time_s: float, entities: Sequence[Asked], probabilities: Sequence[float], version: str) -> None:
        """Buffer the predictions of one request."""
        with self._lock:
            self._entries.append((time_s, entities, probabilities, version))
            self._held += len(entities)
            self._shrink()

    def _shrink(self) -> None:
        while self._held > self._most:
            lost = len(self._entries.popleft()[1])
            self._held -= lost
            metrics.scores_lost.inc(lost)

    def flush(self) -> int:
        """Write the buffered predictions; returns how many. Those that can't be written are kept for later."""
        with self._lock:
            entries, self._entries = self._entries, deque()
            held, self._held = self._held, 0
        if not entries:
            return 0
        try:
            for name, rows in _by_day(entries, self._columns):
                file = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:12]}.parquet"
                publish(day_folder(self._folder, name) / file, rows)
        except OSError as error:
            logger.warning("predictions can't be kept in %s: %s; trying again", self._folder, error)
            with self._lock:
                self._entries.extendleft(reversed(entries))
                self._held += held
                self._shrink()
            return 0
        return held


def _by_day(entries: Sequence[Entry], columns: dict[str, pl.DataType]) -> list[tuple[str, pl.DataFrame]]:
    keys = [name for name in columns if name not in {"scored_at", "probability", "model_version"}]
    rows = [
        # A plain id is the value of the only join key.
        (round(time_s * 1e6), *([one] if isinstance(one, str) else map(one.get, keys)), probability, version)
        for time_s, entities, probabilities, version in entries
        for one, probability in zip(entities, probabilities, strict=True)
    ]
    schema: dict[str, pl.DataType] = {**columns, "scored_at": pl.Int64()}
    frame = pl.DataFrame(rows, schema, orient="row").with_columns(pl.col("scored_at").cast(columns["scored_at"]))
    days = frame.with_columns(pl.col("scored_at").dt.date().alias("#day")).partition_by("#day", include_key=False)
    return [(day(round(one["scored_at"][0].timestamp() * 1000)), one) for one in days]
