"""Rows of the declared views, and what Redis holds after a push."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import polars as pl

from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.declare.rows import SERVED
from feast_repo.declare.stored import offline_columns
from feast_repo.features import user_click_features

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis

    from feast_repo.declare.batch_views import BatchView
    from feast_repo.declare.views import WindowedView

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
PUSH_SOURCE = user_click_features.push_source


def milliseconds(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def table(view: WindowedView | BatchView, rows: Sequence[dict[str, Any]], **rest: Any) -> pl.DataFrame:
    """Rows as the offline store has them; columns that no row names are null, or what `rest` says."""
    schema = offline_columns(view)
    return pl.DataFrame([{**dict.fromkeys(schema), **rest, **row} for row in rows], schema=schema)


def clicks(users: Sequence[str], time: datetime = NEW_YEAR, **features: Any) -> pl.DataFrame:
    """One row a user as the stream pushes them, with counts that differ from user to user."""
    counts = {
        name: 0 if value_type == "Int64" else 0.25 for name, value_type in user_click_features.value_types.items()
    }
    rows = [
        {"user_id": user, "event_timestamp": time, "created_timestamp": time + timedelta(minutes=2), **counts}
        | {"click_count": number, "revenue_cents": number * 1_000}
        | features
        for number, user in enumerate(users)
    ]
    return table(user_click_features, rows).drop("writer", SERVED).cast({"event_timestamp": UTC_MICROSECONDS})


def everything(redis: Redis) -> dict[bytes, dict[bytes, bytes]]:
    """All hashes by key."""
    return {key: cast("dict[bytes, bytes]", redis.hgetall(key)) for key in redis.scan_iter()}
