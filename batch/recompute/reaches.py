"""How far the log reached when batch wrote rows by the complete truth.

Later late events make such rows differ from the truth of today. Parity excuses exactly that: a row must then be the
truth as of the reach that is on record here. A reach is recorded before its first row is written, so a crash can leave
one without rows, which explains nothing, and never rows without one.
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
    """The recorded reaches of a view: `<writer>-<created>.parquet`, a row a partition."""

    def __init__(self, data_root: Path, view: WindowedView) -> None:
        self._folder = reaches_folder(data_root, view.name)

    def record(self, writer: str, created: datetime, reach: pl.DataFrame) -> datetime:
        """Put a reach (columns of REACH) on record under a time that no other has; returns it: `created`, or later.

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
        """All of them, with the columns of COLUMNS.

        Raises:
            OSError: a file can't be read.
        """
        files = sorted(self._folder.glob("*.parquet"))
        return scan(files, COLUMNS).collect()
