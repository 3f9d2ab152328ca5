"""Simulated events as messages, of which some are broken, and the heartbeats at their end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from feast_repo.codec.encoding import document
from feast_repo.codec.heartbeats import heartbeat
from feast_repo.declare.fields import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feast_repo.declare.events import EventStream
    from simulation.malformed import Flaw

EVENT, LATE, COPY, HEARTBEAT = "event", "late", "copy", "heartbeat"
COPIED, FIRST_FLAW = 2, 3
"""The numbers of copies, and of the first way to be malformed; those below are an event in time and a late one."""

MESSAGE: dict[str, pl.DataType] = {
    "arrival_ms": pl.Int64(),
    "partition": pl.Int32(),
    "key": pl.String(),
    "value": pl.Binary(),
    "kind": pl.String(),
}
"""A message: its Kafka timestamp (arrival at the broker), its partition (null: by key), and its kind.

`kind` is `event`, `late` (delayed beyond the allowed lateness), `copy` (of a record before it), `heartbeat`, or the
dead-letter reason of a malformed record.
"""
HEADERS: dict[str, pl.DataType] = {"headers": pl.List(pl.Struct({"name": pl.String(), "value": pl.Binary()}))}
"""A column more, of streams whose heartbeats are told by a header; null for other messages."""


def message_schema(stream: EventStream) -> dict[str, pl.DataType]:
    """The columns of a stream's messages."""
    return MESSAGE | (HEADERS if stream.heartbeat is None else {})


def messages(
    stream: EventStream, flaws: Sequence[Flaw], rows: pl.DataFrame, fields: pl.DataFrame, values: pl.Series
) -> pl.DataFrame:
    """Events as messages, in the same order. `values`: the sound events as bytes.

    `rows`: `arrival_ms` and `kind`, whose numbers from FIRST_FLAW on are those of `flaws`. `fields`: as declared.
    """
    malformed = rows["kind"] >= FIRST_FLAW
    if malformed.any():
        values = _break(stream, flaws, rows.filter(malformed), fields.filter(malformed), values, malformed)
    kinds = pl.Series([EVENT, LATE, COPY, *(flaw.reason for flaw in flaws)])
    return pl.select(
        rows["arrival_ms"],
        fields[stream.key].cast(pl.String).alias("key"),
        values.alias("value"),
        kinds.gather(rows["kind"]).alias("kind"),
    ).select(
        pl.col(name) if name in {"arrival_ms", "key", "value", "kind"} else pl.lit(None, dtype).alias(name)
        for name, dtype in message_schema(stream).items()
    )


def _break(
    stream: EventStream,
    flaws: Sequence[Flaw],
    rows: pl.DataFrame,
    fields: pl.DataFrame,
    values: pl.Series,
    malformed: pl.Series,
) -> pl.Series:
    """Replace the values that are to be malformed, those of `rows` and `fields`."""
    broken = [
        flaws[kind - FIRST_FLAW].apply(document(stream, event), arrival_ms)
        for kind, event, arrival_ms in zip(rows["kind"], fields.iter_rows(named=True), rows["arrival_ms"], strict=True)
    ]
    source = np.arange(len(values))
    source[malformed.to_numpy()] = len(values) + np.arange(len(broken))
    return pl.concat([values, pl.Series(broken, dtype=pl.Binary)]).gather(source)


def heartbeats(stream: EventStream, run: str, at_ms: int, partitions: Sequence[int]) -> pl.DataFrame:
    """One heartbeat per partition, as messages."""
    beats = [heartbeat(stream, heartbeat_id(stream, run, partition), at_ms) for partition in partitions]
    columns: dict[str, Any] = {
        "arrival_ms": at_ms,
        "partition": list(partitions),
        "key": None,
        "value": [value for value, _ in beats],
        "kind": HEARTBEAT,
        "headers": [[{"name": name, "value": value} for name, value in headers] for _, headers in beats],
    }
    schema = message_schema(stream)
    return pl.DataFrame({name: columns[name] for name in schema}, schema=schema)


def heartbeat_id(stream: EventStream, run: str, partition: int) -> str:
    """The id of a heartbeat, if it must have one: of declared length, since time and id tell events apart."""
    told = f"{run}-heartbeat-{partition}"
    field = None if stream.event_id is None else stream.by_name[stream.event_id]
    if not isinstance(field, Text):
        return told
    return told.ljust(field.min_length, "-")[-(field.max_length or len(told) + field.min_length) :]
