"""Records how far the log reached when batch wrote complete rows.

Later late events make such rows differ from today's truth. Parity excuses exactly that: a row must then equal the truth
as of the reach recorded here. A reach is recorded before its first row is written, so a crash can leave a reach without
rows, which is harmless, but never rows without a reach.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from batch.recompute.archive import PARTITION, REACH
from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.stores.offline.parquet import publish, scan
from feast_repo.stores.offline.tables import reaches_folder

if TYPE_CHECKING:
    from pathlib import Path

    from feast_repo.declare.views import WindowedView

COLUMNS: dict[str, pl.DataType] = {
    "writer": pl.String(),
    "created_timestamp": UTC_MICROSECONDS,
    PARTITION: REACH[PARTITION],
    "next_offset": REACH["next_offset"],
}
MICROSECOND = timedelta(microseconds=1)


class Reaches:
    """The recorded reaches of a view: `<writer>-<created>.parquet`, one row per partition."""

    def __init__(self, data_root: Path, view: WindowedView) -> None:
        self._folder = reaches_folder(data_root, view.name)

    def record(self, writer: str, created: datetime, reach: pl.DataFrame) -> datetime:
        """Record a reach (columns of REACH) under a unique time; returns that time: `created` or later.

        Raises:
            OSError: the disk is full or not writable.
        """
        while (file := self._folder / f"{writer}-{created.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}.parquet").exists():
            created += MICROSECOND
        rows = reach.select(
            pl.lit(writer).alias("writer"),
            pl.lit(created).cast(UTC_MICROSECONDS).alias("created_timestamp"),
            PARTITION,
            "next_offset",
        )
        publish(file, rows)
        return created

    def load(self) -> pl.DataFrame:
        """All reaches, with the columns of COLUMNS.

        Raises:
            OSError: a file can't be read.
        """
        files = sorted(self._folder.glob("*.parquet"))
        return scan(files, COLUMNS).collect()
