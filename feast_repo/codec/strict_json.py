"""JSON exactly as in RFC 8259, one document at a time.

Stricter than the standard library: invalid UTF-8, `NaN`, `Infinity` and lone surrogates (anywhere, also in object
keys) are not JSON. Nesting deeper than `MAX_DEPTH` isn't either: the RFC lets a parser set a limit, and a fixed one
means that the answer never depends on how deep the caller's stack happens to be.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from feast_repo.codec.numbers import Number

MAX_DEPTH = 500

_INT64_DIGITS = 20
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_STEP = np.zeros(256, dtype=np.int8)
_STEP[[*b"[{"]], _STEP[[*b"]}"]] = 1, -1
_ESCAPE = re.compile(
    rb"\\(?:u(?P<high>[dD][89abAB]..)(?P<pair>\\u[dD][c-fC-F]..)?|u(?P<low>[dD][c-fC-F]..)|.)", re.DOTALL
)


class NotJsonError(ValueError):
    """The bytes are not a JSON document."""


def parse(document: bytes) -> Any:
    """Parse one document; the last of duplicate members counts.

    A number with a fraction, an exponent or more digits than a 64-bit integer comes as its text, a `Number`.

    Raises:
        NotJsonError: the bytes are not a JSON document.
    """
    if may_be_too_deep(document) and _depth(document) > MAX_DEPTH:
        message = f"nested deeper than {MAX_DEPTH} levels"
        raise NotJsonError(message)
    try:
        text = document.decode("utf-8")
        try:
            value = _load(text)
        except RecursionError:
            # The caller is deep in its stack. A new thread has an empty one, with room for `MAX_DEPTH` levels.
            with ThreadPoolExecutor(1) as thread:
                value = thread.submit(_load, text).result()
    except ValueError as error:
        raise NotJsonError(str(error)) from error
    if may_hold_surrogates(document) and any(
        match["low"] or (match["high"] and not match["pair"]) for match in _ESCAPE.finditer(document)
    ):
        message = "lone surrogate"
        raise NotJsonError(message)
    return value


def _load(text: str) -> Any:
    return json.loads(text, parse_constant=_reject_constant, parse_int=_integer, parse_float=Number)


def may_be_too_deep(document: bytes) -> bool:
    """Whether there are enough brackets to nest deeper than `MAX_DEPTH`; cheap for short documents."""
    return len(document) > MAX_DEPTH and document.count(b"[") + document.count(b"{") > MAX_DEPTH


def may_hold_surrogates(document: bytes) -> bool:
    r"""Whether the document may hold an escaped surrogate (`\ud800` to `\udfff`)."""
    return b"\\ud" in document or b"\\uD" in document


def _depth(document: bytes) -> int:
    """How deep brackets nest outside of strings; any number for a document that isn't JSON anyway."""
    outside = _STRING.sub(b"", document) if b"\\" in document else b"".join(document.split(b'"')[::2])
    characters = np.frombuffer(outside, dtype=np.uint8)
    return int(np.cumsum(_STEP[characters], dtype=np.int64).max(initial=0))


def _reject_constant(name: str) -> None:
    message = f"{name} is not a JSON value"
    raise NotJsonError(message)


def _integer(digits: str) -> int | Number:
    # Python refuses to convert thousands of digits; no 64-bit integer has more than 20 characters.
    return int(digits) if len(digits) <= _INT64_DIGITS else Number(digits)
