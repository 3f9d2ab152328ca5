"""Message bytes to columns: the one seam where a wire format enters.

Each message is decoded alone by one C call, and all that follows works on whole columns, so decoding a batch equals
decoding each message by itself. A message that the fast decoder refuses, or that it may be too lenient about, is looked
at again by `strict_json`, which also tells why. Nothing raises on bad input: what isn't accepted becomes a dead letter
with its raw bytes and the first reason that holds, in the order of `docs/semantics.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Any

import msgspec
import polars as pl

from feast_repo.events import INT64_MAX, INT64_MIN, Choice, EventDeclaration, EventField, Integer, Text, Timestamp
from stream import strict_json

MESSAGES_AT_ONCE = 2_000
"""Messages that are taken apart, or decoded, before the next ones: as many as fit in a core's own cache."""

_Int64 = Annotated[int, msgspec.Meta(ge=INT64_MIN, le=INT64_MAX)]
_REFUSED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_MALFORMED = ("JSON is malformed", "Input data was truncated")
"""How msgspec's errors begin where a document is no JSON by any reading; its other errors may be of its own limits."""


@dataclass(frozen=True)
class RawBatch:
    """Consecutive messages of one partition, as they came: parallel lists. A missing value is `b""`."""

    partition: int
    values: list[bytes]
    keys: list[bytes | None]
    kafka_timestamps: list[int]
    offsets: list[int]

    @property
    def next_offset(self) -> int:
        """The offset after the last message; 0 for no messages."""
        return self.offsets[-1] + 1 if self.offsets else 0


@dataclass(frozen=True)
class DecodedBatch:
    """The messages of a batch, split in two; both frames are in offset order. `next_offset` is the one after them.

    `records`: offset, kafka_timestamp (Int64, ms UTC), then the declared fields (times Int64, ms UTC).
    `dead_letters`: offset, kafka_timestamp, key (Binary, null if there was none), value (Binary), reason (String).
    """

    partition: int
    next_offset: int
    records: pl.DataFrame
    dead_letters: pl.DataFrame


class Decoder:
    """Decodes JSON messages by an event declaration.

    decoded = Decoder(clickstream).decode(batch)
    """

    def __init__(self, declaration: EventDeclaration) -> None:
        self._declaration = declaration
        # A field may have any name, but an attribute can't.
        attributes = {field.name: f"field_{position}" for position, field in enumerate(declaration.fields)}
        self._struct = msgspec.defstruct(
            "Event",
            [
                (attributes[field.name], (_Int64 if isinstance(field, (Integer, Timestamp)) else str) | None, None)
                for field in declaration.fields
            ],
            rename={attribute: name for name, attribute in attributes.items()},
            gc=False,
        )
        self._decode_one = msgspec.json.Decoder(self._struct).decode
        self._decode_any = msgspec.json.Decoder().decode
        self._attributes = attributes
        self._columns = [(field, attrgetter(attributes[field.name])) for field in declaration.fields]
        self._verdict = _verdict(declaration)

    def decode(self, batch: RawBatch) -> DecodedBatch:
        """Decode a batch of any size; never raises on bad input."""
        reasons: dict[int, str] = {}
        starts = range(0, len(batch.values), MESSAGES_AT_ONCE) or [0]
        fields = [self._fields(batch.values[start : start + MESSAGES_AT_ONCE], start, reasons) for start in starts]
        columns = pl.concat(fields, rechunk=True).select(
            pl.Series("offset", batch.offsets, dtype=pl.Int64),
            pl.Series("kafka_timestamp", batch.kafka_timestamps, dtype=pl.Int64),
            pl.all(),
        )
        keys = pl.Series("message_key", batch.keys, dtype=pl.Binary)
        verdict = columns.with_columns(keys).select(self._verdict).to_series()
        if reasons:
            verdict = verdict.scatter(list(reasons), list(reasons.values()))
        if verdict.null_count() == len(verdict):
            return DecodedBatch(batch.partition, batch.next_offset, columns, self._dead_letters(batch, []))
        bad = verdict.is_not_null()
        dead_letters = self._dead_letters(batch, bad.arg_true().to_list(), verdict.drop_nulls())
        return DecodedBatch(batch.partition, batch.next_offset, columns.filter(~bad), dead_letters)

    def _fields(self, values: list[bytes], start: int, reasons: dict[int, str]) -> pl.DataFrame:
        """The declared fields of some messages; adds the reasons against those that have none, counted from `start`."""
        blank = self._struct()
        events, refused = self._decode_each(values, blank)
        for position in self._doubtful(values, events) - refused.keys():
            outcome = self._look_again(values[position])
            if isinstance(outcome, str):
                refused[position] = outcome
                events[position] = blank
            else:
                events[position] = outcome
        reasons.update((start + position, reason) for position, reason in refused.items())
        return pl.DataFrame(
            [pl.Series(field.name, list(map(get, events)), dtype=field.dtype) for field, get in self._columns]
        )

    def _decode_each(self, values: list[bytes], blank: Any) -> tuple[list[Any], dict[int, str]]:
        """One event a message, and the reasons against those that are no JSON for sure, which have a blank event.

        None is in the place of other messages that the decoder refused. `map` simply goes on after an exception.
        """
        events: list[Any] = []
        reasons: dict[int, str] = {}
        decoding = map(self._decode_one, values)
        while len(events) < len(values):
            try:
                events.extend(decoding)
            except _REFUSED as error:
                at = len(events)
                if type(error) is msgspec.DecodeError and error.args[0].startswith(_MALFORMED):
                    reasons[at] = "not_json" if values[at] else "empty"
                    events.append(blank)
                else:
                    events.append(None)
        return events, reasons

    def _doubtful(self, values: list[bytes], events: list[Any]) -> set[int]:
        """Positions to look at again: what was refused, and what the decoder doesn't check in fields it skips.

        It doesn't validate UTF-8 and surrogates there, and its nesting limit depends on the stack. All three are rare,
        so whole-batch searches come first.
        """
        joined = b"\n".join(values)  # a newline between, so that no sequence can continue in the next message
        doubtful = [position for position, event in enumerate(events) if event is None]
        if not joined.isascii():
            doubtful += [p for p, value in enumerate(values) if not value.isascii() and not _is_utf8(value)]
        if b"\\" in joined and b"\\u" in joined:  # one byte is found sixty times as fast as two
            may_hold = strict_json.may_hold_surrogates
            doubtful += [p for p, value in enumerate(values) if b"\\u" in value and may_hold(value)]
        if max(map(len, values), default=0) > strict_json.MAX_DEPTH:
            long = strict_json.MAX_DEPTH
            doubtful += [
                p for p, value in enumerate(values) if len(value) > long and strict_json.may_be_too_deep(value)
            ]
        return set(doubtful)

    def _look_again(self, value: bytes) -> Any:
        """The event of one message, or the reason why it is none: not JSON, a missing field, a wrong type."""
        try:
            document = self._parse(value)
        except strict_json.NotJsonError:
            return "not_json"
        if not isinstance(document, dict):
            return "not_an_object"
        declaration = self._declaration
        present = {
            field.name: document[field.name] for field in declaration.fields if document.get(field.name) is not None
        }
        is_heartbeat = present.get(declaration.kind) == declaration.heartbeat
        for field in declaration.fields:
            if field.required and field.name not in present and not (is_heartbeat and field.name == declaration.key):
                return f"missing:{field.name}"
        for field in declaration.fields:
            if field.name in present and not _has_type(field, present[field.name]):
                return f"type:{field.name}"
        return self._struct(**{self._attributes[name]: value for name, value in present.items()})

    def _parse(self, value: bytes) -> Any:
        """Any document, quickly where msgspec is as strict as `strict_json`.

        Raises:
            NotJsonError: it is no JSON.
        """
        if not (strict_json.may_hold_surrogates(value) or strict_json.may_be_too_deep(value)):
            try:
                return self._decode_any(value)
            except _REFUSED:
                pass  # its numbers have limits that JSON hasn't
        return strict_json.parse(value)

    @staticmethod
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


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _has_type(field: EventField, value: object) -> bool:
    if isinstance(field, (Integer, Timestamp)):
        return type(value) is int and INT64_MIN <= value <= INT64_MAX  # a bool is no integer
    return isinstance(value, str)


def _verdict(declaration: EventDeclaration) -> pl.Expr:
    """The first reason against a decoded event, or null; over its columns, kafka_timestamp and message_key."""
    is_heartbeat = pl.col(declaration.kind).eq_missing(declaration.heartbeat)
    rules: list[tuple[pl.Expr, str]] = []
    fields = declaration.fields
    for field in fields:
        if field.required:
            missing = pl.col(field.name).is_null()
            exempt = is_heartbeat if field.name == declaration.key else pl.lit(value=False)
            rules.append((missing & ~exempt, f"missing:{field.name}"))
    for field in fields:
        if isinstance(field, Text) and (field.min_length or field.max_length is not None):
            length = pl.col(field.name).str.len_chars()
            too_long = length > field.max_length if field.max_length is not None else pl.lit(value=False)
            rules.append(((length < field.min_length) | too_long, f"length:{field.name}"))
    rules += [
        (~pl.col(field.name).is_in(field.values), f"unknown_{field.name}")
        for field in fields
        if isinstance(field, Choice)
    ]
    times = [field for field in fields if isinstance(field, Timestamp)]
    rules += [(pl.col(field.name) < field.earliest_ms, "timestamp_range") for field in times]
    # Subtracted on this side, since a time that got this far can't underflow, but any Kafka timestamp may overflow.
    arrival = pl.col("kafka_timestamp")
    rules += [(pl.col(field.name) - field.max_ahead_ms > arrival, "future_timestamp") for field in times]
    rules += [
        (pl.col(field.name) < 0, f"negative:{field.name}")
        for field in fields
        if isinstance(field, Integer) and field.non_negative
    ]
    key = pl.col(declaration.key).cast(pl.Binary)
    wrong_key = pl.col("message_key").ne_missing(key) | (is_heartbeat & key.is_not_null())
    rules.append((wrong_key, "key_mismatch"))
    verdict = pl.lit(None, dtype=pl.String)
    for condition, reason in reversed(rules):
        verdict = pl.when(condition.fill_null(value=False)).then(pl.lit(reason)).otherwise(verdict)
    return verdict.alias("reason")
