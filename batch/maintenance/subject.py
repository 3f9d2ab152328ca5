"""The entity to forget, and what names it: rows by their columns, messages by their JSON, other text by its words.

A text is searched for more than it may mean, because a line too many that is lost costs less than one that stays.
"""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from feast_repo.declare.fields import INT64_MAX, INT64_MIN
from feast_repo.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from feast_repo.declare.catalog import Catalog
    from feast_repo.declare.values import ValueType

INTEGER = re.compile(r"-?[0-9]{1,19}")
NO_FRACTION = r"\.0*$"
"""Text columns hold what a file had, and programs write integers with gaps as 7.0."""


class SubjectError(RefusedError):
    """The text names no entity of the catalog; the message says how to name one."""


@dataclass(frozen=True)
class Subject:
    """Values of join keys. What it names are all rows and texts that have all of them.

    `members`: by join key, the names that its value may have in a message.
    """

    values: Mapping[str, str | int]
    members: Mapping[str, frozenset[str]]

    @classmethod
    def parse(cls, catalog: Catalog, text: str) -> Subject:
        """An entity from `value`, if the catalog has one join key, or from `key=value,key=value`.

        Raises:
            SubjectError: the text has no such form, or a value is none of its type.
        """
        types = {name: kind for entity in catalog.entities for name, kind in entity.join_keys.items()}
        told = cls._told(types, text)
        values = {name: _value(name, types[name], value) for name, value in told.items()}
        fields = [stream.by_name for stream in catalog.streams]
        members = {
            name: frozenset({name, *(of[name].components[-1] for of in fields if name in of)}) for name in values
        }
        return cls(values, members)

    @staticmethod
    def _told(types: Mapping[str, ValueType], text: str) -> dict[str, str]:
        names = "|".join(map(re.escape, types))
        if types and re.match(rf"(?:{names})=", text):
            # A value may hold a comma.
            pairs = [pair.partition("=") for pair in re.split(rf",(?=(?:{names})=)", text)]
            told = {name: value for name, _, value in pairs}
            if len(told) == len(pairs):
                return told
        elif len(types) == 1:
            return dict.fromkeys(types, text)
        message = f"--entity {text!r}: name the entity by its join keys, as {','.join(f'{name}=...' for name in types)}"
        if len(types) > 1:
            message += ", or by some of them"
        raise SubjectError(message)

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.values.items())

    def in_row(self, schema: Mapping[str, pl.DataType]) -> pl.Expr | None:
        """Whether a row is the entity's, never null; None if the table lacks one of the columns."""
        if not self.values.keys() <= schema.keys():
            return None
        return pl.all_horizontal(
            _is(pl.col(name), schema[name], value).fill_null(value=False) for name, value in self.values.items()
        )

    def in_cells(self, cells: Mapping[str, str]) -> bool:
        """Whether a row of texts by column is the entity's."""
        return all(cells.get(name) == str(value) for name, value in self.values.items())

    def in_message(self, value: bytes, key: tuple[str, bytes | None] = ("", None)) -> bool:
        """Whether a message names the entity, at whatever place in its JSON.

        A String is named by an equal string, an Int64 by a member of the join key's name. Of a message that is no
        JSON, the words decide. `key`: the join key that the message key holds, and that key.
        """
        name_of_key, data = key
        unkeyed = [name for name, wanted in self.values.items() if name != name_of_key or data != str(wanted).encode()]
        try:
            members = list(_members(json.loads(value, object_pairs_hook=tuple)))
        except (ValueError, RecursionError):
            return all(self._words[name].search(value) for name in unkeyed)
        return all(any(self._is_told(name, member) for member in members) for name in unkeyed)

    def _is_told(self, name: str, member: tuple[str, Any]) -> bool:
        wanted, (of, found) = self.values[name], member
        if isinstance(wanted, str):
            return wanted in {of, found}
        return of in self.members[name] and not isinstance(found, bool) and found in {wanted, str(wanted)}

    def in_text(self, text: bytes) -> bool:
        """Whether the words of a text name the entity."""
        return all(words.search(text) for words in self._words.values())

    @cached_property
    def _words(self) -> dict[str, re.Pattern[bytes]]:
        """By join key: a String as words of their own, however JSON or HTML writes it; an Int64 after its name."""
        return {
            name: _text_words(value) if isinstance(value, str) else _number_words(value, self.members[name])
            for name, value in self.values.items()
        }


def _value(name: str, kind: ValueType, text: str) -> str | int:
    if kind == "String" and text:
        return text
    if kind == "Int64" and INTEGER.fullmatch(text) and INT64_MIN <= int(text) <= INT64_MAX:
        return int(text)
    message = f"--entity: {text!r} is no {name}, which is of type {kind}"
    raise SubjectError(message)


def _is(column: pl.Expr, dtype: pl.DataType, value: str | int) -> pl.Expr:
    if isinstance(value, int) and dtype.is_integer():
        return column == value
    text = column.cast(pl.String, strict=False)
    return (
        text == value if isinstance(value, str) else text.str.strip_chars().str.replace(NO_FRACTION, "") == str(value)
    )


def _members(document: Any) -> Iterator[tuple[str, Any]]:
    """All values within a document that are no containers, with the names of their members; empty in arrays.

    Objects are tuples of members, since two may have the same name.
    """
    waiting = [("", document)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, tuple):
            waiting += value
        elif isinstance(value, list):
            waiting += (("", item) for item in value)
        else:
            yield name, value


def _text_words(value: str) -> re.Pattern[bytes]:
    forms = {value, html.escape(value), json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    return re.compile(rb"(?<!\w)(?:" + b"|".join(re.escape(form.encode()) for form in sorted(forms)) + rb")(?!\w)")


def _number_words(value: int, names: frozenset[str]) -> re.Pattern[bytes]:
    # Reports call the values of an entity's join keys, joined by commas, its `entity`.
    called = b"|".join(re.escape(name.encode()) for name in sorted({*names, "entity"}))
    return re.compile(rb"(?:" + called + rb')\W{0,3}[:=]\s*"?(?:[^"\n]*[ ,])?' + str(value).encode() + rb"(?![\w.])")
