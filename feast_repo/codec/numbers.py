"""Decimal numbers from their text, exactly: never through a float.

`scaled` says what a text is worth. `all_scaled` says the same of a column of usual texts at once.
"""

from __future__ import annotations

import re

import polars as pl

from feast_repo.codec.faults import Fault
from feast_repo.declare.fields import INT64_MAX, INT64_MIN

_NUMBER = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?)([0-9]+))?")
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_INT64_DIGITS = 19
_SURE_DIGITS = 18
"""Any integer of so many digits fits in 64 bits."""
_EXPONENT_DIGITS = 9
"""Exponents with more digits move any number that fits in a message out of 64 bits, or below any scale."""


class Number(str):
    """The text of a JSON number that is no integer of usual length."""

    __slots__ = ()


def integer(text: str) -> int | Fault:
    """The 64-bit integer that a text is, as JSON writes integers."""
    if not _INTEGER.fullmatch(text) or len(text) > _INT64_DIGITS + 1:
        return Fault.TYPE
    value = int(text)
    return value if INT64_MIN <= value <= INT64_MAX else Fault.TYPE


def scaled(text: str, scale: int) -> int | Fault:
    """The number that a text is, as JSON writes numbers, times 10 ** scale, as an integer of 64 bits.

    A text of any length takes time in proportion to it. What is beyond 64 bits is a wrong type, however precise it is.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        return Fault.TYPE
    minus, whole, fraction, exponent_sign, exponent = match.groups("")
    digits = (whole + fraction).lstrip("0")
    significant = digits.rstrip("0")
    if not significant:
        return 0
    exponent = exponent.lstrip("0") or "0"
    if len(exponent) > _EXPONENT_DIGITS:
        return Fault.PRECISION if exponent_sign == "-" else Fault.TYPE
    point = len(digits) - len(fraction) + int(exponent_sign + exponent) + scale
    return _whole(minus, significant, point)


def _whole(minus: str, significant: str, point: int) -> int | Fault:
    """The integer 0.<significant> * 10 ** point; the last digit is no zero."""
    if point > _INT64_DIGITS:
        return Fault.TYPE
    magnitude = int(significant[: max(point, 0)].ljust(point, "0") or "0")
    is_whole = len(significant) <= point
    # Whatever is behind the point makes the number greater than its integer part.
    if magnitude + (not is_whole) > (-INT64_MIN if minus else INT64_MAX):
        return Fault.TYPE
    if not is_whole:
        return Fault.PRECISION
    return -magnitude if minus else magnitude


def all_integers(texts: pl.Series) -> pl.Series:
    """`integer` of each text (Int64); null also where it takes a closer look."""
    fits = texts.str.contains(rf"^-?(?:0|[1-9][0-9]{{0,{_SURE_DIGITS - 1}}})$")
    return _where(fits, texts).cast(pl.Int64)


def all_scaled(texts: pl.Series, scale: int) -> pl.Series:
    """`scaled` of each text (Int64); null also where it takes a closer look."""
    whole = "0" if scale == _SURE_DIGITS else rf"(?:0|[1-9][0-9]{{0,{_SURE_DIGITS - scale - 1}}})"
    fraction = rf"[0-9]{{1,{scale}}}0*" if scale else "0+"
    fits = texts.str.contains(rf"^-?{whole}(?:\.{fraction})?$")
    decimals = _where(fits, texts).cast(pl.Decimal(_SURE_DIGITS + 1, scale))
    return decimals.to_physical().cast(pl.Int64)


def _where(fits: pl.Series, texts: pl.Series) -> pl.Series:
    return texts if fits.all(ignore_nulls=False) else texts.zip_with(fits.fill_null(value=False), _NULL)


_NULL = pl.Series([None], dtype=pl.String)
