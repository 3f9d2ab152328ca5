"""Event streams: the fields, their rules, which fields are the key and the time, and how late an event may be.

Decoding, dead-letter reasons and the archive's columns derive from the declaration, so your own events take one file
like `feast_repo/clickstream.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias

import polars as pl

from feast_repo.declare.about import Owned
from feast_repo.declare.fields import Choice, Integer, Text, Timestamp, problem_of_paths

if TYPE_CHECKING:
    from feast_repo.declare.fields import EventField

UTC_MICROSECONDS = pl.Datetime("us", "UTC")
RESERVED = frozenset(
    {"partition", "offset", "kafka_timestamp", "create_time", "watermark", "missed_windows", "message_key"}
)

Codec: TypeAlias = Literal["json"]
CODECS: tuple[Codec, ...] = ("json",)
NAME = re.compile(r"[A-Za-z0-9_-]+")
TOPIC, LONGEST_TOPIC = re.compile(r"[A-Za-z0-9._-]*[A-Za-z0-9_-][A-Za-z0-9._-]*"), 249
"""Kafka's rule for topics: not only dots."""


@dataclass(frozen=True)
class EventStream(Owned):
    """One kind of event on one topic, and what is true of its log.

    `key` names the field that must equal the message key; of an Integer field, its decimal digits. `time` is the event
    time. With `event_id`, a redelivered event (same id, time and partition) counts once. `kind` names the Choice field
    that tells what happened.

    A heartbeat only carries time: it has neither message key nor key field, moves the watermark and counts nowhere. It
    is a message of the kind `heartbeat` or, in a stream without that, any message with the header `heartbeat`.

    The watermark lags `allowed_lateness` behind the greatest event time, so windows of the stream close that much after
    their end. A copy is recognized until the watermark reaches its event time plus `deduplication_horizon` (default:
    the longest window of the stream's views plus one slide); each event takes 16 bytes of state for that long.
    """

    name: str
    topic: str
    fields: tuple[EventField, ...]
    key: str
    time: str
    allowed_lateness: timedelta
    event_id: str | None = None
    kind: str | None = None
    heartbeat: str | None = None
    deduplication_horizon: timedelta | None = None
    codec: Codec = "json"
    description: str = ""

    def __post_init__(self) -> None:
        """Refuse a declaration that contradicts itself.

        Raises:
            ValueError: the message names the stream and the problem.
        """
        if problem := self._problem():
            message = f"event stream {self.name!r}: {problem}"
            raise ValueError(message)

    def _problem(self) -> str | None:
        problems = (self._problem_of_names(), problem_of_paths(self.fields), self._problem_of_roles())
        return next(
            (problem for problem in (*problems, self._problem_of_heartbeat(), self._problem_of_horizon()) if problem),
            None,
        )

    def _problem_of_names(self) -> str | None:
        if not NAME.fullmatch(self.name):
            return "a name has letters, digits, '_' and '-' only, since it names folders"
        if not TOPIC.fullmatch(self.topic) or len(self.topic) > LONGEST_TOPIC:
            return f"topic={self.topic!r} can't be the name of a topic"
        for one in self.fields:
            if not one.name or not one.name.isprintable() or re.search(r'["\\]|^\^.*\$$', one.name):
                return f"{one.name!r} can't be the name of a field"
        if len(self.by_name) < len(self.fields):
            return "a field is declared twice"
        if taken := RESERVED & self.by_name.keys():
            return f"field names {sorted(taken)} are taken by the columns of the log tables"
        return None if self.codec in CODECS else f"codec={self.codec!r} is unknown; known are {list(CODECS)}"

    def _problem_of_roles(self) -> str | None:
        roles: tuple[tuple[str, str | None, tuple[type, ...]], ...] = (
            ("key", self.key, (Text, Integer)),
            ("time", self.time, (Timestamp,)),
            ("event_id", self.event_id, (Text,)),
            ("kind", self.kind, (Choice,)),
        )
        for role, name, kinds in roles:
            if name is not None and not isinstance(self.by_name.get(name), kinds):
                return f"{role}={name!r} must name a field of type {' or '.join(one.__name__ for one in kinds)}"
            if role in {"key", "event_id"} and name is not None and not self.by_name[name].required:
                return f"{role}={name!r} must be a required field"
        return None

    def _problem_of_heartbeat(self) -> str | None:
        if self.heartbeat is None:
            return None
        kind = None if self.kind is None else self.by_name[self.kind]
        if not isinstance(kind, Choice) or self.heartbeat not in kind.values:
            return f"heartbeat={self.heartbeat!r} is not a value of kind={self.kind!r}"
        return None

    def _problem_of_horizon(self) -> str | None:
        if self.lateness_ms < 0:
            return "allowed_lateness must not be negative"
        if self.deduplication_horizon is None:
            return None
        if self.event_id is None:
            return "deduplication_horizon needs an event_id"
        return "deduplication_horizon must be positive" if milliseconds(self.deduplication_horizon) <= 0 else None

    @cached_property
    def by_name(self) -> dict[str, EventField]:
        """The fields by name, in declared order."""
        return {field.name: field for field in self.fields}

    @cached_property
    def schema(self) -> dict[str, pl.DataType]:
        """Columns of decoded events in declared order; times are epoch milliseconds (Int64)."""
        return {field.name: field.dtype for field in self.fields}

    @property
    def lateness_ms(self) -> int:
        """How far the watermark lags behind the greatest event time."""
        return milliseconds(self.allowed_lateness)

    @property
    def ahead_ms(self) -> int:
        """The furthest that an accepted event may be ahead of its Kafka time."""
        time = self.by_name[self.time]
        assert isinstance(time, Timestamp)  # noqa: S101  (refused otherwise)
        return time.max_ahead_ms

    @cached_property
    def in_heartbeats(self) -> frozenset[str]:
        """The fields that a heartbeat must have as an event must; all others it may lack, and the key it must."""
        return frozenset({self.time, self.kind or self.time, self.event_id or self.time})

    @property
    def is_heartbeat(self) -> pl.Expr:
        """Which of the accepted records are heartbeats: no other one is without a key."""
        return pl.col(self.key).is_null()


def milliseconds(duration: timedelta) -> int:
    """A duration as whole milliseconds."""
    return duration // timedelta(milliseconds=1)
