"""Messages to accepted records and dead letters: a codec turns bytes into columns, then the rules judge the columns.

Decoding a batch equals decoding each message by itself. Nothing raises on bad input: a rejected message becomes a dead
letter with its raw bytes and the first reason that applies, in the order of `docs/semantics.md`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from feast_repo.codec.forms import IGNORED
from feast_repo.codec.heartbeats import times_of
from feast_repo.codec.json_codec import JsonCodec
from feast_repo.codec.rules import Rules

if TYPE_CHECKING:
    from feast_repo.declare.events import EventStream


@dataclass(frozen=True)
class RawBatch:
    """Consecutive messages of one partition as they arrived, in parallel lists. A missing value is `b""`.

    `create_time` tells which Kafka times are producers'; empty where none is. `heartbeats` has the header's value of
    messages that are heartbeats by a header, and None for the others; empty where none can be.
    """

    partition: int
    values: list[bytes]
    keys: list[bytes | None]
    kafka_timestamps: list[int]
    offsets: list[int]
    create_time: list[bool] = field(default_factory=list)
    heartbeats: list[bytes | None] = field(default_factory=list)

    @property
    def columns(self) -> tuple[list[Any], ...]:
        """The lists, in declared order."""
        return self.values, self.keys, self.kafka_timestamps, self.offsets, self.create_time, self.heartbeats

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
    `ignored`: how many messages are neither, since the declaration ignores them.
    """

    partition: int
    next_offset: int
    records: pl.DataFrame
    dead_letters: pl.DataFrame
    ignored: int = 0


class Decoder:
    """Decodes JSON messages by an event declaration.

        decoded = Decoder(clickstream).decode(batch)

    `keyed`: whether the messages have keys. Documents from a file have none: then all of `batch.keys` are None, and the
    declared key field serves as the key.
    """

    def __init__(self, declaration: EventStream, *, keyed: bool = True) -> None:
        self._keyed = keyed
        self._declaration = declaration
        self._codec = JsonCodec(declaration)
        self._rules = Rules(declaration)

    def decode(self, batch: RawBatch) -> DecodedBatch:
        """Decode a batch of any size; never raises on bad input."""
        fields, reasons = self._codec.read(batch.values)
        beats = None
        if any(header is not None for header in batch.heartbeats):
            fields, beats = self._with_heartbeats(fields, batch.heartbeats, reasons)
        columns = fields.select(
            pl.Series("offset", batch.offsets, dtype=pl.Int64),
            pl.Series("kafka_timestamp", batch.kafka_timestamps, dtype=pl.Int64),
            *([pl.Series("create_time", batch.create_time, dtype=pl.Boolean)] if batch.create_time else []),
            pl.all(),
        )
        keys = pl.Series(batch.keys, dtype=pl.Binary) if self._keyed else None
        verdict = self._rules.judge(columns, keys, beats)
        if reasons:
            verdict = verdict.scatter(list(reasons), list(reasons.values()))
        if verdict.null_count() == len(verdict):
            return DecodedBatch(batch.partition, batch.next_offset, columns, _dead_letters(batch, []))
        accepted = verdict.is_null()
        dead = verdict.ne(IGNORED).fill_null(value=False)
        dead_letters = _dead_letters(batch, dead.arg_true().to_list(), verdict.filter(dead))
        records = columns.filter(accepted)
        ignored = len(verdict) - len(records) - len(dead_letters)
        return DecodedBatch(batch.partition, batch.next_offset, records, dead_letters, ignored)

    def _with_heartbeats(
        self, fields: pl.DataFrame, headers: list[bytes | None], reasons: dict[int, str]
    ) -> tuple[pl.DataFrame, pl.Series]:
        """The fields with the times of heartbeats by a header, whose values are not read, and which rows they are."""
        positions, times, unreadable = times_of(headers)
        for position in positions:
            reasons.pop(position, None)
        reasons.update(dict.fromkeys(unreadable, f"type:{self._declaration.time}"))
        beats = pl.zeros(len(headers), pl.Boolean, eager=True).scatter(positions, values=True)
        fields = fields.select(pl.when(~beats).then(pl.all()))
        return fields.with_columns(fields[self._declaration.time].scatter(positions, times)), beats


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
