"""Messages to accepted records and dead letters: a codec turns bytes into columns, then the rules judge the columns.

Decoding a batch equals decoding each message by itself. Nothing raises on bad input: a rejected message becomes a dead
letter with its raw bytes and the first reason that applies, in the order of `docs/semantics.md`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from feast_repo.codec.json_codec import JsonCodec
from feast_repo.codec.rules import Rules

if TYPE_CHECKING:
    from feast_repo.declare.events import EventStream

MESSAGES_AT_ONCE = 2_000
"""Messages that are taken apart or decoded at a time: as many as fit in a core's own cache."""


@dataclass(frozen=True)
class RawBatch:
    """Consecutive messages of one partition as they arrived, in parallel lists. A missing value is `b""`.

    `create_time` tells which Kafka times are producers'; empty where none is.
    """

    partition: int
    values: list[bytes]
    keys: list[bytes | None]
    kafka_timestamps: list[int]
    offsets: list[int]
    create_time: list[bool] = field(default_factory=list)

    @property
    def columns(self) -> tuple[list[Any], ...]:
        """The lists, in declared order."""
        return self.values, self.keys, self.kafka_timestamps, self.offsets, self.create_time

    @property
    def next_offset(self) -> int:
        """The offset after the last message; 0 for no messages."""
        return self.offsets[-1] + 1 if self.offsets else 0


@dataclass(frozen=True)
class DecodedBatch:
    """The messages of a batch, accepted and rejected, both in offset order. `next_offset` is the one after them.

    `records`: offset, kafka_timestamp (Int64, ms UTC), create_time (Boolean) if the batch has it, then the
    declared fields.
    `dead_letters`: offset, kafka_timestamp, key (Binary, null if there was none), value (Binary), reason (String).
    """

    partition: int
    next_offset: int
    records: pl.DataFrame
    dead_letters: pl.DataFrame


class Decoder:
    """Decodes JSON messages by an event declaration.

        decoded = Decoder(clickstream).decode(batch)

    `keyed`: whether the messages have keys. Documents from a file have none: then all of `batch.keys` are None, and the
    declared key field serves as the key.
    """

    def __init__(self, declaration: EventStream, *, keyed: bool = True) -> None:
        self._keyed = keyed
        self._codec = JsonCodec(declaration)
        self._rules = Rules(declaration)

    def decode(self, batch: RawBatch) -> DecodedBatch:
        """Decode a batch of any size; never raises on bad input."""
        reasons: dict[int, str] = {}
        starts = range(0, len(batch.values), MESSAGES_AT_ONCE) or [0]
        fields = [self._fields(batch.values[start : start + MESSAGES_AT_ONCE], start, reasons) for start in starts]
        columns = pl.concat(fields, rechunk=True).select(
            pl.Series("offset", batch.offsets, dtype=pl.Int64),
            pl.Series("kafka_timestamp", batch.kafka_timestamps, dtype=pl.Int64),
            *([pl.Series("create_time", batch.create_time, dtype=pl.Boolean)] if batch.create_time else []),
            pl.all(),
        )
        keys = pl.Series(batch.keys, dtype=pl.Binary) if self._keyed else None
        verdict = self._rules.judge(columns, keys)
        if reasons:
            verdict = verdict.scatter(list(reasons), list(reasons.values()))
        if verdict.null_count() == len(verdict):
            return DecodedBatch(batch.partition, batch.next_offset, columns, _dead_letters(batch, []))
        bad = verdict.is_not_null()
        dead_letters = _dead_letters(batch, bad.arg_true().to_list(), verdict.drop_nulls())
        return DecodedBatch(batch.partition, batch.next_offset, columns.filter(~bad), dead_letters)

    def _fields(self, values: list[bytes], start: int, reasons: dict[int, str]) -> pl.DataFrame:
        """The declared fields of some messages; adds the codec's reasons, counted from `start`."""
        columns, refused = self._codec.read(values)
        reasons.update((start + position, reason) for position, reason in refused.items())
        return columns


def _dead_letters(batch: RawBatch, positions: list[int], reasons: pl.Series | None = None) -> pl.DataFrame:
    return pl.DataFrame(
        [
            pl.Series("offset", [batch.offsets[i] for i in positions], dtype=pl.Int64),
            pl.Series("kafka_timestamp", [batch.kafka_timestamps[i] for i in positions], dtype=pl.Int64),
            pl.Series("key", [batch.keys[i] for i in positions], dtype=pl.Binary),
            pl.Series("value", [batch.values[i] for i in positions], dtype=pl.Binary),
            pl.Series("reason", [] if reasons is None else reasons, dtype=pl.String),
        ]
    )
