"""Redis is emptied and restored between a push and the epoch's end, when Parquet doesn't have the pushed rows yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest

from batch.maintenance import restore_online
from feast_repo.features import user_click_features as view
from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.tables import DEAD_LETTER_COLUMNS, event_columns, late_columns
from feast_repo.stores.progress import Progress
from feast_repo.stores.push import Pusher
from sandbox.checks import online_equals_offline
from stream.epoch import Outcome
from stream.view_windows import ClosedWindow
from tests.feast_repo.conftest import opened, store  # noqa: F401  (fixtures)
from tests.feast_repo.rows import NEW_YEAR, PUSH_SOURCE, clicks, milliseconds
from tests.stream.parts import part_with

if TYPE_CHECKING:
    from feast import FeatureStore

RECORDS = pl.DataFrame(schema=event_columns(view.source))
LATE = pl.DataFrame(schema=late_columns(view.source))
DEAD = pl.DataFrame(schema=DEAD_LETTER_COLUMNS)


def closed(number: int) -> Outcome:
    """Window `number` of partition 0 closes with a row of one user of its own, and of one who is in all."""
    end = NEW_YEAR + number * view.slide
    rows = clicks(["everywhere", f"only in {number}"], end)
    window = ClosedWindow(view.name, milliseconds(end), rows)
    progress = Progress("clickstream", 0, number + 1, milliseconds(end))
    return Outcome("clickstream", progress, RECORDS, {view.name: LATE}, DEAD, [window])


@pytest.mark.parametrize("restore", ["in the same epoch", "over two epochs"])
def test_rows_of_the_open_epoch_are_online_in_the_end(
    store: FeatureStore,  # noqa: F811
    restore: str,
) -> None:
    settings = StreamSettings()
    part = part_with(pusher := Pusher(store, PUSH_SOURCE))
    part.write_batch([closed(0)])
    part.snapshot()
    part.write_batch([closed(1)])
    assert pusher.redis is not None
    pusher.redis.flushall()
    if restore == "over two epochs":
        part.snapshot()
        part.write_batch([closed(2)])
        pusher.redis.flushall()
    assert restore_online.main([]) == 0
    part.snapshot()
    part.close()
    check = online_equals_offline(store, settings.data_root, view)
    assert check.holds, check.figures
