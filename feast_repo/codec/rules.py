"""The rules: an event declaration applied to decoded columns, the same for every source.

Messages from the topic, lines or rows of history, and replayed dead letters all pass through here after a codec has
turned them into columns. docs/semantics.md lists the reasons in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from feast_repo.declare.fields import Choice, Decimal, Integer, Text, Timestamp

if TYPE_CHECKING:
    from feast_repo.declare.events import EventStream


MESSAGE_KEY, BEAT = "message_key", "#beat"


class Rules:
    """The declaration's rules as one expression over whole columns."""

    def __init__(self, declaration: EventStream) -> None:
        self._key = declaration.key
        self._verdict = _verdict(declaration)

    def judge(self, columns: pl.DataFrame, keys: pl.Series | None, beats: pl.Series | None = None) -> pl.Series:
        """The first reason against each row (String), or null if it is accepted.

        `columns`: the declared fields and `kafka_timestamp` (Int64, ms UTC), which limits the event time.
        `keys`: the message keys (Binary), or None if there are none: then the declared key field is the key.
        `beats`: which rows are heartbeats by a header (Boolean), which have a time and nothing else; None: none is.
        """
        own = pl.col(self._key).cast(pl.String).cast(pl.Binary) if keys is None else keys
        marked = pl.lit(value=False) if beats is None else beats
        judged = columns.with_columns(own.alias(MESSAGE_KEY), marked.alias(BEAT))
        return judged.select(self._verdict).to_series()


def _verdict(declaration: EventStream) -> pl.Expr:
    """The first reason against a decoded event, or null; over its columns, kafka_timestamp and message_key."""
    is_heartbeat = pl.col(BEAT)
    if declaration.kind is not None and declaration.heartbeat is not None:
        is_heartbeat = pl.col(declaration.kind).eq_missing(declaration.heartbeat)
    rules: list[tuple[pl.Expr, str]] = []
    fields = declaration.fields
    for field in fields:
        if field.required:
            missing = pl.col(field.name).is_null()
            exempt = pl.col(BEAT) if field.name in declaration.in_heartbeats - {declaration.time} else is_heartbeat
            exempt = exempt if field.name != declaration.time else pl.lit(value=False)
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
    # Subtracted on this side: a time that got this far can't underflow, but any Kafka timestamp may overflow.
    arrival = pl.col("kafka_timestamp")
    rules += [(pl.col(field.name) - field.max_ahead_ms > arrival, "future_timestamp") for field in times]
    rules += [
        (pl.col(field.name) < 0, f"negative:{field.name}")
        for field in fields
        if isinstance(field, Integer | Decimal) and field.non_negative
    ]
    key = pl.col(declaration.key).cast(pl.String).cast(pl.Binary)
    wrong_key = pl.col(MESSAGE_KEY).ne_missing(key) | (is_heartbeat & key.is_not_null())
    rules.append((wrong_key, "key_mismatch"))
    verdict = pl.lit(None, dtype=pl.String)
    for condition, reason in reversed(rules):
        verdict = pl.when(condition.fill_null(value=False)).then(pl.lit(reason)).otherwise(verdict)
    return verdict.alias("reason")
