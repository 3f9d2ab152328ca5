"""The JSON codec: message bytes to columns, or the reason why they are not an event. Bytes are its only input.

Each message is decoded alone by one C call, so decoding a batch equals decoding each message by itself. A message that
the fast decoder refuses, or may be too lenient about, is checked again by `strict_json`, which also finds the reason.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import polars as pl

from feast_repo.codec import strict_json
from feast_repo.declare.fields import INT64_MAX, INT64_MIN, Integer, Timestamp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feast_repo.declare.events import EventStream
    from feast_repo.declare.fields import EventField

_Int64 = Annotated[int, msgspec.Meta(ge=INT64_MIN, le=INT64_MAX)]
_REFUSED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_MALFORMED = ("JSON is malformed", "Input data was truncated")
"""Prefix of msgspec's errors for documents that are certainly not JSON; other errors may be its own limits."""


class JsonCodec:
    """Reads JSON documents by an event declaration.

    columns, reasons = JsonCodec(clickstream).read(values)
    """

    def __init__(self, declaration: EventStream) -> None:
        self._declaration = declaration
        # A field may have any name, an attribute may not.
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

    def read(self, values: Sequence[bytes]) -> tuple[pl.DataFrame, dict[int, str]]:
        """The declared fields (times Int64, ms UTC), one row per document, and reasons by row; their fields are null.

        Never raises on bad input.
        """
        blank = self._struct()
        events, refused = self._decode_each(values, blank)
        for position in self._doubtful(values, events) - refused.keys():
            outcome = self._look_again(values[position])
            if isinstance(outcome, str):
                refused[position] = outcome
                events[position] = blank
            else:
                events[position] = outcome
        columns = [pl.Series(field.name, list(map(get, events)), dtype=field.dtype) for field, get in self._columns]
        return pl.DataFrame(columns), refused

    def _decode_each(self, values: Sequence[bytes], blank: Any) -> tuple[list[Any], dict[int, str]]:
        """One event per message, and reasons for those that are certainly not JSON, which get a blank event.

        Other messages that the decoder refused are None. `map` simply continues after an exception.
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

    def _doubtful(self, values: Sequence[bytes], events: list[Any]) -> set[int]:
        """Positions to check again: refused messages, and those with content that the decoder skips unchecked.

        It doesn't validate UTF-8 and surrogates there, and its nesting limit depends on the stack. All three are rare,
        so whole-batch searches come first.
        """
        joined = b"\n".join(values)  # joined by newlines, so no byte sequence can continue in the next message
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
        """The event of one message, or the reason against it: not JSON, a missing field, a wrong type."""
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
        kind = declaration.kind
        is_heartbeat = kind is not None and present.get(kind) == declaration.heartbeat is not None
        for field in declaration.fields:
            if field.required and field.name not in present and not (is_heartbeat and field.name == declaration.key):
                return f"missing:{field.name}"
        for field in declaration.fields:
            if field.name in present and not _has_type(field, present[field.name]):
                return f"type:{field.name}"
        return self._struct(**{self._attributes[name]: value for name, value in present.items()})

    def _parse(self, value: bytes) -> Any:
        """Parse any document, with msgspec where it is as strict as `strict_json`.

        Raises:
            NotJsonError: it is not JSON.
        """
        if not (strict_json.may_hold_surrogates(value) or strict_json.may_be_too_deep(value)):
            try:
                return self._decode_any(value)
            except _REFUSED:
                pass  # msgspec limits numbers, JSON doesn't
        return strict_json.parse(value)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _has_type(field: EventField, value: object) -> bool:
    if isinstance(field, (Integer, Timestamp)):
        return type(value) is int and INT64_MIN <= value <= INT64_MAX  # a bool is not an integer
    return isinstance(value, str)
