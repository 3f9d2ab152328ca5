"""The JSON codec: message bytes to columns, or the reason why they are not an event. Bytes are its only input.

Each message is decoded alone by one C call, so decoding a batch equals decoding each message by itself. A message that
the fast decoder refuses, or may be too lenient about, is checked again by `strict_json`, which also finds the reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from feast_repo.codec import strict_json
from feast_repo.codec.faults import Fault
from feast_repo.codec.forms import IGNORED, Forms, Value, as_texts, corrected
from feast_repo.codec.layout import Layout, Path
from feast_repo.codec.numbers import Number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from feast_repo.declare.events import EventStream
    from feast_repo.declare.fields import EventField

_REFUSED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_MALFORMED = ("JSON is malformed", "Input data was truncated")
"""Prefix of msgspec's errors for documents that are certainly not JSON; other errors may be its own limits."""

MESSAGES_AT_ONCE = 2_000
"""Messages that are taken apart at a time: as many as fit in a core's own cache."""


class JsonCodec:
    """Reads JSON documents by an event declaration.

    columns, reasons = JsonCodec(clickstream).read(values)
    """

    def __init__(self, declaration: EventStream) -> None:
        self._fields = declaration.fields
        self._forms = Forms(declaration)
        wires: dict[Path, Any] = {}
        for field in declaration.fields:
            wire = self._forms[field.name].wire
            wires[field.components] = wire if wires.get(field.components, wire) == wire else Any
        self._wires = wires
        self._layout = Layout(wires)
        self._decode_one = msgspec.json.Decoder(self._layout.type, float_hook=Number).decode
        self._decode_any = msgspec.json.Decoder(float_hook=Number).decode

    def read(self, values: Sequence[bytes]) -> tuple[pl.DataFrame, dict[int, str]]:
        """The declared fields (times Int64, ms UTC), one row per document, and reasons by row.

        A message that is to be ignored has the reason `IGNORED`. Never raises on bad input.
        """
        reasons: dict[int, str] = {}
        doubtful: set[int] = set()
        starts = range(0, len(values), MESSAGES_AT_ONCE) or [0]
        parts = [
            self._take_apart(values[start : start + MESSAGES_AT_ONCE], start, reasons, doubtful) for start in starts
        ]
        written = pl.concat(parts, rechunk=True)
        reasons.update(dict.fromkeys(self._forms.ignored(written), IGNORED))
        columns, unsure = self._forms.convert(written)
        settled: dict[int, dict[str, Value]] = {}
        for position in sorted(doubtful | unsure):
            outcome = self._look_again(values[position])
            if isinstance(outcome, str):
                reasons[position] = outcome
            else:
                settled[position] = outcome
        return corrected(columns, settled), reasons

    def _take_apart(
        self, values: Sequence[bytes], start: int, reasons: dict[int, str], doubtful: set[int]
    ) -> pl.DataFrame:
        """The fields of some messages as they are written; adds reasons and what is in doubt, counted from `start`."""
        events, refused = self._decode_each(values)
        reasons.update((start + position, reason) for position, reason in refused.items())
        unread = self._doubtful(values, events) - refused.keys()
        for position in unread:
            events[position] = self._layout.blank
        lists = self._layout.lists(events)
        columns = []
        for field in self._fields:
            fitting = self._fitting(field, lists[field.components], unread)
            columns.append(pl.Series(field.name, fitting, dtype=self._forms[field.name].given))
        doubtful.update(start + position for position in unread)
        return pl.DataFrame(columns)

    def _fitting(self, field: EventField, held: list[Any], unread: set[int]) -> list[Any]:
        """A field's values as its form takes them; adds the rows where that takes a closer look."""
        wire = self._forms[field.name].wire
        if wire is Any:
            return as_texts(held)
        if self._wires[field.components] is not Any:
            return held
        # Another field reads the same values as another type.
        value = self._forms[field.name].value
        fitting = [None if one is None or isinstance(value(one), Fault) else one for one in held]
        unread.update(at for at, one in enumerate(fitting) if one is None and held[at] is not None)
        return fitting

    def _decode_each(self, values: Sequence[bytes]) -> tuple[list[Any], dict[int, str]]:
        """One event per message, and reasons for those that are certainly not JSON, which get a blank event.

        Other messages that the decoder refused are None.
        """
        events, refused = _each(self._decode_one, values)
        reasons: dict[int, str] = {}
        for at, error in refused.items():
            if type(error) is msgspec.DecodeError and error.args[0].startswith(_MALFORMED):
                reasons[at] = "not_json" if values[at] else "empty"
                events[at] = self._layout.blank
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

    def _look_again(self, value: bytes) -> dict[str, Value] | str:
        """The values of one message, or the reason against it: not JSON, to be ignored, a missing field, a fault."""
        try:
            document = self._parse(value)
        except strict_json.NotJsonError:
            return "not_json"
        if not isinstance(document, dict):
            return "not_an_object"
        found = ((field.name, _at(field.components, document)) for field in self._fields)
        return self._forms.settle({name: held for name, held in found if held is not None})

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


def _at(path: Path, document: Any) -> Any:
    """What stands at a path; None if nothing does, and a fault if it leads through something that is no object."""
    held = document
    for name in path:
        if not isinstance(held, dict):
            return None if held is None else Fault.TYPE
        held = held.get(name)
    return held


def _each(decode: Callable[[bytes], Any], values: Sequence[bytes]) -> tuple[list[Any], dict[int, Exception]]:
    """Each value decoded, and errors by position; there it is None. `map` simply continues after an exception."""
    decoded: list[Any] = []
    errors: dict[int, Exception] = {}
    decoding = map(decode, values)
    while len(decoded) < len(values):
        try:
            decoded.extend(decoding)
        except _REFUSED as error:
            errors[len(decoded)] = error
            decoded.append(None)
    return decoded, errors
