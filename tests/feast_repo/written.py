"""What a field's value in a message is worth, told the slow way: json, decimal and datetime, one value at a time."""

from __future__ import annotations

import decimal
import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from feast_repo.declare.fields import INT64_MAX, INT64_MIN, Bool, Choice, Decimal, Integer, Text, Timestamp

if TYPE_CHECKING:
    from feast_repo.declare.fields import EventField

KINDS = ("type", "timezone", "precision")
"""Why a value is none of its field, in the order of the reasons."""
EXACT = decimal.Context(prec=30_000, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)
UNITS = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1000)}
ZONES = ("Z", "z", *(f"{sign}{zone}" for zone in ("dd:dd", "dddd", "dd") for sign in "+-"))
FRACTIONS = ("", *("." + "d" * count for count in range(1, 10)))
TIMES = {f"dddd-dd-dd{between}dd:dd:dd{fraction}" for between in "Tt " for fraction in FRACTIONS}


class FaultError(Exception):
    """One of the KINDS."""


def held(field: EventField, message: Any) -> Any:
    """Find what a message holds at the field's path, None if nothing.

    Raises:
        FaultError: the path leads through a value that is no object.
    """
    for name in (field.name,) if field.path is None else field.components:
        if message is None:
            return None
        if not isinstance(message, dict):
            kind = "type"
            raise FaultError(kind)
        message = message.get(name)
    return message


def worth(field: EventField, message: Any) -> Any:
    """Give the value of a field, None if it is absent.

    Raises:
        FaultError: what stands there is no value of the field.
    """
    given = held(field, message)
    if given is None:
        return None
    value: Any = None
    match field:
        case Text():
            value = given if isinstance(given, str) else None
        case Choice():
            value = field.foreign.get(given, given) if isinstance(given, str) else None
        case Bool():
            value = given if isinstance(given, bool) else None
        case Integer():
            number = _number(given) if field.from_string and isinstance(given, str) else given
            value = _int64(number)
        case Decimal():
            value = _scaled(_number(given), field.scale)
        case Timestamp(format="iso8601"):
            value = _milliseconds(given) if isinstance(given, str) else None
        case Timestamp():
            ticks, (times, parts) = _int64(given), UNITS[field.format]
            value = None if ticks is None else _int64(ticks * times // parts)
    if value is None:
        raise FaultError(KINDS[0])
    return value


def _number(given: Any) -> Any:
    """Read a string as the JSON number that it is; None if it is none."""
    if not isinstance(given, str):
        return given
    if given != given.strip() or given[:1] not in [*"-0123456789"]:
        return None
    try:
        return json.loads(given, parse_float=exactly, parse_int=exactly, parse_constant=lambda _: None)
    except ValueError:
        return None


def exactly(digits: str) -> int | decimal.Decimal:
    """Read a number of any length: a short integer as one, anything else as an exact decimal."""
    is_integer = digits.lstrip("-").isdigit() and len(digits) <= 20
    return int(digits) if is_integer else decimal.Decimal(digits, EXACT)


def _int64(number: Any) -> int | None:
    return number if type(number) is int and INT64_MIN <= number <= INT64_MAX else None


def _scaled(number: Any, scale: int) -> int | None:
    if isinstance(number, bool) or not isinstance(number, int | decimal.Decimal):
        return None
    with decimal.localcontext(EXACT):
        times = decimal.Decimal(number) * 10**scale
        if not INT64_MIN <= times <= INT64_MAX:
            return None
        if times != times.to_integral_value():
            kind = "precision"
            raise FaultError(kind)
        return int(times)


def _milliseconds(text: str) -> int | None:
    shape = "".join("d" if letter in "0123456789" else letter for letter in text)
    zone = next((zone for zone in ZONES if shape.endswith(zone)), "")
    time = text[: len(text) - len(zone)]
    if shape[: len(time)] not in TIMES:
        return None
    try:
        local = datetime.strptime(time[:10] + time[11:19], "%Y-%m-%d%H:%M:%S")  # noqa: DTZ007  (the zone comes later)
        local = local.replace(microsecond=int(time[20:26].ljust(6, "0") or "0"))
    except ValueError:
        return None
    if not zone:
        kind = "timezone"
        raise FaultError(kind)
    ahead = timedelta()
    if zone not in "Zz":
        digits = text[len(time) + 1 :].replace(":", "").ljust(4, "0")
        hours, minutes = int(digits[:2]), int(digits[2:])
        if hours > 23 or minutes > 59:
            return None
        ahead = timedelta(hours=hours, minutes=minutes) * (-1 if text[len(time)] == "-" else 1)
    return (local - datetime(1970, 1, 1) - ahead) // timedelta(milliseconds=1)  # noqa: DTZ001
