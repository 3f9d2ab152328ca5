"""Event declarations: the fields, their rules, and which fields are the key and the time.

Decoding, dead-letter reasons and the archive's columns derive from the declaration, so your own events take one file
like `feast_repo/clickstream.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from feast_repo.declare.fields import Choice, EventField, Text, Timestamp

UTC_MICROSECONDS = pl.Datetime("us", "UTC")
RESERVED = frozenset(
    {"partition", "offset", "kafka_timestamp", "create_time", "watermark", "missed_windows", "message_key"}
)


@dataclass(frozen=True)
class EventDeclaration:
    """One kind of event on one topic.

    `key` names the field that must equal the message key. `heartbeat` is the value of the `kind` field for records that
    only carry time: a heartbeat has neither message key nor key field, moves the watermark and counts nowhere.
    """

    name: str
    fields: tuple[EventField, ...]
    key: str
    time: str
    event_id: str
    kind: str
    heartbeat: str

    def __post_init__(self) -> None:
        """Refuse a declaration that contradicts itself.

        Raises:
            ValueError: a field is declared twice or can't have its name, or the field of a role is not declared or is
                of the wrong kind.
        """
        for field in self.fields:
            if not field.name or not field.name.isprintable() or re.search(r'["\\]|^\^.*\$$', field.name):
                message = f"event {self.name!r}: {field.name!r} can't be the name of a field"
                raise ValueError(message)
        if len(self.by_name) < len(self.fields):
            message = f"event {self.name!r}: a field is declared twice"
            raise ValueError(message)
        if taken := RESERVED & self.by_name.keys():
            message = f"event {self.name!r}: field names {sorted(taken)} are taken by the columns of the log tables"
            raise ValueError(message)
        for role, name, kind in (
            ("key", self.key, Text),
            ("time", self.time, Timestamp),
            ("event_id", self.event_id, Text),
            ("kind", self.kind, Choice),
        ):
            if not isinstance(self.by_name.get(name), kind):
                message = f"event {self.name!r}: {role}={name!r} must name a {kind.__name__} field"
                raise ValueError(message)  # noqa: TRY004
        kind_field = self.by_name[self.kind]
        if isinstance(kind_field, Choice) and self.heartbeat not in kind_field.values:
            message = f"event {self.name!r}: heartbeat={self.heartbeat!r} is not a value of {self.kind!r}"
            raise ValueError(message)

    @cached_property
    def by_name(self) -> dict[str, EventField]:
        """The fields by name, in declared order."""
        return {field.name: field for field in self.fields}

    @cached_property
    def schema(self) -> dict[str, pl.DataType]:
        """Columns of decoded events in declared order; times are epoch milliseconds (Int64)."""
        return {field.name: field.dtype for field in self.fields}
