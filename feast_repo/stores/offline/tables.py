"""The layout of DATA_ROOT: tables, folders and columns.

Log tables (events, late, dead_letters) are keyed by (`partition`, `offset`), with one folder per day of the Kafka
timestamp; feature rows have one folder per day of the window's end. All times are UTC with microseconds.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl

from feast_repo.declare.events import UTC_MICROSECONDS, EventStream

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from feast_repo.declare.services import FeatureService
    from feast_repo.declare.views import WindowedView

LOG_KEY: dict[str, pl.DataType] = {
    "partition": pl.Int32(),
    "offset": pl.Int64(),
    "kafka_timestamp": UTC_MICROSECONDS,
}


EVENTS, LATE, DEAD_LETTERS, REPLAYS, PROGRESS = "events", "late", "dead_letters", "replays", "progress"
"""The tables of event streams below DATA_ROOT, each with a folder per stream (late records: per view)."""
FEATURES = "features"
"""The rows of views, with a folder per view."""


def events_folder(data_root: Path, stream: EventStream) -> Path:
    """Every accepted record of a stream, heartbeats and duplicates included."""
    return data_root / EVENTS / stream.name


def late_folder(data_root: Path, view: WindowedView) -> Path:
    """Records that arrived after one or more of their windows had closed."""
    return data_root / LATE / view.name


def dead_letters_folder(data_root: Path, stream: EventStream) -> Path:
    """Messages of a stream that were not accepted, with their raw bytes and the reason."""
    return data_root / DEAD_LETTERS / stream.name


def replays_folder(data_root: Path, stream: EventStream) -> Path:
    """Which dead letters of a stream were replayed, by the day of the replay."""
    return data_root / REPLAYS / stream.name


def rejects_folder(data_root: Path) -> Path:
    """Rejected lines and rows of imported files, one file per source."""
    return data_root / "rejects"


def progress_folder(data_root: Path, stream: EventStream) -> Path:
    """The progress record of a stream, one file per partition."""
    return data_root / PROGRESS / stream.name


def features_folder(data_root: Path, view_name: str) -> Path:
    """The view's rows in the offline store."""
    return data_root / FEATURES / view_name


def reaches_folder(data_root: Path, view_name: str) -> Path:
    """How far the log reached when batch wrote complete rows of the view."""
    return data_root / "reaches" / view_name


def predictions_folder(data_root: Path, service: FeatureService, services: Collection[FeatureService]) -> Path:
    """Predictions of a feature service, by their day; each has a folder of its own if the catalog has several."""
    folder = data_root / "predictions"
    return folder / service.name if len(services) > 1 else folder


def prediction_columns(service: FeatureService) -> dict[str, pl.DataType]:
    """Columns of a service's predictions: their time, the join keys of its views, the result."""
    keys = {name: dtype for view in service.views for name, dtype in view.entity.schema.items()}
    return {"scored_at": UTC_MICROSECONDS, **keys, "probability": pl.Float64(), "model_version": pl.String()}


def event_columns(events: EventStream) -> dict[str, pl.DataType]:
    """Columns of `events/`: the log key, whether the time is the producer's, the watermark it saw, and its fields."""
    fields = {name: UTC_MICROSECONDS if name == events.time else dtype for name, dtype in events.schema.items()}
    return {**LOG_KEY, "create_time": pl.Boolean(), "watermark": UTC_MICROSECONDS, **fields}


def late_columns(events: EventStream) -> dict[str, pl.DataType]:
    """Columns of `late/<view>/`: those of `events/`, and the number of windows that the record missed."""
    return {**event_columns(events), "missed_windows": pl.Int32()}


DEAD_LETTER_COLUMNS: dict[str, pl.DataType] = {
    **LOG_KEY,
    "key": pl.Binary(),
    "value": pl.Binary(),
    "reason": pl.String(),
}

FORGOTTEN = "forgotten"
"""The reason of a dead letter whose key and value were removed with an entity (`batch/maintenance/forget.py`)."""


def day(milliseconds: int) -> str:
    """The UTC day of a time, as in `dt=YYYY-MM-DD`."""
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC).strftime("%Y-%m-%d")


def from_milliseconds(column: str) -> pl.Expr:
    """A column of epoch milliseconds as UTC time with microseconds."""
    return (pl.col(column) * 1000).cast(UTC_MICROSECONDS)


def window_file(writer: str, partition: int, window_end_ms: int) -> str:
    """The file name of one writer's rows of one window and partition."""
    return f"{writer}-p{partition:05d}-{_instant(window_end_ms)}.parquet"


def windows_file(writer: str, first_end_ms: int, last_end_ms: int) -> str:
    """The file name of one writer's rows of several windows of a day, of any partition."""
    return f"{writer}-{_instant(first_end_ms)}-{_instant(last_end_ms)}.parquet"


def _instant(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, tz=UTC):%Y%m%dT%H%M%SZ}"
