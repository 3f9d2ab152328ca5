"""The bytes that the installed Feast would send to Redis, to verify that `format.py` writes the same."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.infra.provider import get_provider
from redis.connection import Connection

from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.stores.internals import answer_with, write_with
from feast_repo.stores.online.format import UnsupportedFormatError
from feast_repo.stores.online.store import Recorder

if TYPE_CHECKING:
    from feast import FeatureView
    from feast.repo_config import RepoConfig

    from feast_repo.stores.online.format import RowFormat

LONG = 300  # long enough that the length takes more than one byte
ENTITIES: dict[str, list[Any]] = {
    "String": ["user_000001", "ü€😀 %b", "x" * LONG, ""],
    "Int64": [1 << 14, -1, (1 << 63) - 1, -(1 << 63)],
}
TIMES = [datetime(2026, 1, 1, 0, 10, tzinfo=UTC), datetime(1969, 1, 1, 0, 0, 0, 1500, tzinfo=UTC)] * 2
SAMPLES: dict[str, list[Any]] = {
    "Int64": [1 << 14, -1, (1 << 63) - 1, -(1 << 63)],
    "Int32": [1 << 14, -1, (1 << 31) - 1, -(1 << 31)],
    "Bool": [True, False, False, True],
    "Float64": [0.1, -0.0, 1e300, float("inf")],
    "Float32": [0.1, -0.0, 1e30, float("inf")],
    "String": ["free", "ü€😀 %b", "x" * LONG, ""],
    "Array(Int64)": [[1 << 14, -1], [(1 << 63) - 1, -(1 << 63)], [], [0] * LONG],
    "Array(String)": [["free", ""], ["ü€😀 %b", "x" * LONG], [], ["x"] * LONG],
}


def feast_commands(config: RepoConfig, view: FeatureView, rows: pl.DataFrame) -> bytes:
    """The write commands of `FeatureStore.push` as sent over the wire; no server is needed."""
    recorder, provider, online_store = Recorder(), get_provider(config), RedisOnlineStore()
    answer_with(online_store, recorder)
    write_with(provider, online_store)
    provider.ingest_df(view, rows.to_pandas())
    return b"".join(Connection().pack_commands(recorder.commands()))


def compare_with_feast(config: RepoConfig, view: FeatureView, row_format: RowFormat) -> None:
    """Write a few rows of a view both ways, without a server.

    Raises:
        UnsupportedFormatError: the bytes differ, or Feast failed.
    """
    types = {field.name: str(field.dtype) for field in view.features}
    columns = {name: SAMPLES[feast_type] for name, feast_type in types.items()}
    entities = {name: ENTITIES[key_type] for name, key_type in row_format.join_keys.items()}
    rows = pl.DataFrame({**entities, "event_timestamp": TIMES, **columns}).with_columns(
        pl.col("event_timestamp").cast(UTC_MICROSECONDS), created_timestamp=pl.lit(TIMES[0]).cast(UTC_MICROSECONDS)
    )
    # Together with nulls, Feast converts integers through floats, which corrupts the extremes.
    first = pl.int_range(pl.len()) == 0
    some_null = rows.with_columns(pl.when(first).then(name).alias(name) for name in types)
    try:
        theirs = feast_commands(config, view, rows) + feast_commands(config, view, some_null)
    except Exception as error:
        # Any error inside an unknown Feast version means the same: its bytes aren't known.
        message = f"the installed Feast could not be asked for its bytes ({type(error).__name__}: {error})"
        raise UnsupportedFormatError(message) from error
    keys = row_format.keys(rows)
    payloads = [*row_format.write_commands(keys, rows), *row_format.write_commands(keys, some_null)]
    if b"".join(payload for payload, _ in payloads) != theirs:
        message = f"view {view.name!r} would not get the bytes that the installed Feast writes"
        raise UnsupportedFormatError(message)
