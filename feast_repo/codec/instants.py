"""Instants from text of ISO 8601, in the profile of RFC 3339: date, time of day and time zone.

`2026-03-01T12:00:00.123456789+01:00`; a fraction has 1 to 9 digits; a zone is `Z`, `+hh:mm`, `+hhmm` or `+hh`; `T` and
`Z` may be small, and a space may stand for `T`. `instant` says what a text is worth. `all_instants` says the same of a
column of texts at once.
"""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa

from feast_repo.codec.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Letters: TypeAlias = npt.NDArray[np.uint8]
    Numbers: TypeAlias = npt.NDArray[np.int64]
    Mask: TypeAlias = npt.NDArray[np.bool_]

_TEXT = re.compile(
    r"(?P<date>([0-9]{4})-([0-9]{2})-([0-9]{2}))[Tt ]"
    r"(?P<time>([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9]))(?:\.(?P<fraction>[0-9]{1,9}))?"
    r"(?P<zone>[Zz]|(?P<sign>[+-])(?P<hours>[01][0-9]|2[0-3])(?::?(?P<minutes>[0-5][0-9]))?)?"
)
_EPOCH = date(1970, 1, 1).toordinal()
_DAY_S = 86_400


def instant(text: str) -> int | Fault:
    """Epoch milliseconds of a text; digits below a millisecond are cut off, towards the past.

    Dates that don't exist, hour 24 and second 60 are of a wrong type. So are years before 0001.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        return Fault.TYPE
    try:
        days = date.fromisoformat(match["date"]).toordinal() - _EPOCH
    except ValueError:
        return Fault.TYPE
    if match["zone"] is None:
        return Fault.TIMEZONE
    hours, minutes, seconds = map(int, match["time"].split(":"))
    offset_s = int(match["hours"] or 0) * 3600 + int(match["minutes"] or 0) * 60
    local_s = days * _DAY_S + hours * 3600 + minutes * 60 + seconds
    utc_s = local_s + offset_s if match["sign"] == "-" else local_s - offset_s
    return utc_s * 1000 + int((match["fraction"] or "").ljust(3, "0")[:3])


_HEAD = "2026-03-01T12:00:00"
_DIGITS = [at for at, letter in enumerate(_HEAD) if letter.isdigit()]
_SHORTEST, _LONGEST = len(_HEAD + "Z"), len(_HEAD + ".123456789+01:00")
_SIGNED_ZONES = ("+01:00", "+0100", "+01")
_DAYS_IN = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_DAYS_BEFORE = np.cumsum(_DAYS_IN) - _DAYS_IN
_DAYS_TO_1970 = _EPOCH - 1


def all_instants(texts: pl.Series) -> pl.Series:
    """`instant` of each text (Int64); null where it is a fault.

    Texts of one length are one matrix of characters, so that all are read at once.
    """
    held = texts.rechunk().to_arrow()
    _, offsets_of, letters_of = held.buffers()
    offsets = np.frombuffer(offsets_of, np.int64)[held.offset : held.offset + len(held) + 1]
    letters = np.frombuffer(letters_of or b"", np.uint8)
    lengths = np.diff(offsets)
    values, good = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.bool_)
    for length in np.unique(lengths):
        if _SHORTEST <= length <= _LONGEST:
            rows = np.flatnonzero(lengths == length)
            each = np.lib.stride_tricks.sliding_window_view(letters, length)[offsets[rows]]
            values[rows], good[rows] = _read(np.ascontiguousarray(each.T))
    return pl.Series(texts.name, pa.array(values, mask=~good))


def _read(letters: Letters) -> tuple[Numbers, Mask]:
    """Epoch milliseconds of texts of one length, and whether each is an instant; `letters[i]` are their i-th bytes."""
    length, count = letters.shape
    digits = letters - np.uint8(ord("0"))
    local_ms, is_time = _head(letters, digits)
    values, good = np.zeros(count, np.int64), np.zeros(count, np.bool_)
    is_z = is_time & ((letters[-1] == ord("Z")) | (letters[-1] == ord("z")))
    fraction_ms, is_fraction = _fraction(letters, digits, length - 1)
    _put(is_z & is_fraction, local_ms + fraction_ms, values, good)
    for zone in _SIGNED_ZONES:
        start = length - len(zone)
        if start < len(_HEAD):
            continue
        is_minus = letters[start] == ord("-")
        is_zone = is_time & (is_minus | (letters[start] == ord("+")))
        if not is_zone.any():
            continue
        numbers = [start + at for at, letter in enumerate(zone) if letter.isdigit()]
        is_zone &= (digits[numbers] <= 9).all(axis=0)  # noqa: PLR2004
        if ":" in zone:
            is_zone &= letters[start + zone.index(":")] == ord(":")
        hours = _number(digits, numbers[:2])
        minutes = _number(digits, numbers[2:])
        is_zone &= (hours < 24) & (minutes < 60)  # noqa: PLR2004
        offset_ms = np.where(is_minus, -1, 1) * (hours * 60 + minutes) * 60_000
        fraction_ms, is_fraction = _fraction(letters, digits, start)
        _put(is_zone & is_fraction, local_ms + fraction_ms - offset_ms, values, good)
    return values, good


def _put(where: Mask, found: Numbers, values: Numbers, good: Mask) -> None:
    values[where] = found[where]
    good |= where


def _head(letters: Letters, digits: Letters) -> tuple[Numbers, Mask]:
    """Milliseconds of date and time to the second, as if in UTC, and whether there is such a time."""
    good = (digits[_DIGITS] <= 9).all(axis=0)  # noqa: PLR2004
    for at, letter in enumerate(_HEAD):
        if letter in "-:":
            good &= letters[at] == ord(letter)
    good &= (letters[10] == ord("T")) | (letters[10] == ord("t")) | (letters[10] == ord(" "))
    year, month, day, hours, minutes, seconds = (
        _number(digits, range(start, end)) for start, end in ((0, 4), (5, 7), (8, 10), (11, 13), (14, 16), (17, 19))
    )
    good &= (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1)  # noqa: PLR2004
    good &= (hours < 24) & (minutes < 60) & (seconds < 60)  # noqa: PLR2004
    month = np.where(good, month, 1)
    is_leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    good &= day <= _DAYS_IN[month] + (is_leap & (month == 2))  # noqa: PLR2004
    past = year - 1
    days = past * 365 + past // 4 - past // 100 + past // 400
    days += _DAYS_BEFORE[month] + (is_leap & (month > 2)) + day - 1 - _DAYS_TO_1970  # noqa: PLR2004
    return (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000, good


def _fraction(letters: Letters, digits: Letters, end: int) -> tuple[Numbers, Mask]:
    """Whole milliseconds between the seconds and `end`, and whether a fraction is what stands there, or nothing."""
    point = len(_HEAD)
    count = digits.shape[1]
    if end == point:
        return np.zeros(count, np.int64), np.ones(count, np.bool_)
    first, last = point + 1, min(end, point + 4)
    if not first < end <= first + 9:
        return np.zeros(count, np.int64), np.zeros(count, np.bool_)
    good = (letters[point] == ord(".")) & (digits[first:end] <= 9).all(axis=0)  # noqa: PLR2004
    return _number(digits, range(first, last)) * 10 ** (3 - (last - first)), good


def _number(digits: Letters, places: Sequence[int]) -> Numbers:
    """The number that the digits at some places are; 0 for no places."""
    number = np.zeros(digits.shape[1], np.int64)
    for place in places:
        number = number * 10 + digits[place]
    return number
