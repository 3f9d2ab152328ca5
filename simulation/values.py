"""Values of declared fields: plausible, and within the field's rules.

Each is made of one uniform draw from 0 to below 1, so what a field gets depends on no other field and no other event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import polars as pl

from feast_repo.declare.fields import Bool, Choice, Decimal, EventField, Integer, Text, Timestamp

if TYPE_CHECKING:
    import numpy.typing as npt

    Draws: TypeAlias = npt.NDArray[np.float64]

ZIPF_EXPONENT = 1.0
TEXTS = 50
"""How many different texts a field has that is neither key nor id."""
LEAST_DIGITS = 6
MOST_DIGITS = 18
"""Any integer of so many digits fits in 64 bits."""
LARGEST = 1_000
"""Numbers are from 1 to below this, as many from 1 to 10 as from 10 to 100."""
MOST_BEFORE_MS = 3_600_000
"""How far an event's other times are before it."""
ABSENT_SHARE = 0.1
"""Share of the events that lack an optional field."""


class Zipf:
    """Numbers from 1 to `count`; number n is drawn as often as 1 / n says."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._weights = np.cumsum(np.arange(1, count + 1) ** -ZIPF_EXPONENT)

    def numbers(self, draws: Draws) -> pl.Series:
        """A number (Int64) for each draw."""
        found = np.searchsorted(self._weights, draws * self._weights[-1], side="right")
        return pl.Series(np.minimum(found + 1, self.count), dtype=pl.Int64)


class Values:
    """The values of one field.

    `entities`: it is the key, of so many entities. `never`: a choice that no event makes.
    """

    def __init__(self, field: EventField, *, entities: int | None = None, never: str | None = None) -> None:
        self._field = field
        self._is_key = entities is not None
        self._choices = [value for value in field.values if value != never] if isinstance(field, Choice) else []
        self._zipf = Zipf(entities or (max(len(self._choices), 1) if isinstance(field, Choice) else TEXTS))

    def column(self, draws: Draws, at_ms: pl.Series) -> pl.Series:
        """A value for each draw and time of the event (ms); null where an optional one is absent."""
        if self._field.required:
            return self._values(draws, at_ms)
        present = (draws - ABSENT_SHARE).clip(min=0.0) / (1 - ABSENT_SHARE)
        values = self._values(present, at_ms)
        return pl.select(pl.when(pl.Series(draws >= ABSENT_SHARE)).then(values)).to_series()

    def _values(self, draws: Draws, at_ms: pl.Series) -> pl.Series:
        numbers = self._zipf.numbers(draws)
        match self._field:
            case Text(name=name) as field:
                values = texts(field, f"{name}_", numbers, max(LEAST_DIGITS, len(str(self._zipf.count))))
            case Choice():
                values = pl.Series(self._choices or [None], dtype=pl.String).gather(numbers - 1)
            case Integer():
                values = numbers if self._is_key else pl.Series((LARGEST**draws).astype(np.int64))
            case Decimal(scale=scale):
                largest = min(LARGEST, 9 * 10 ** (MOST_DIGITS - scale))
                values = pl.Series((largest**draws * 10**scale).astype(np.int64))
            case Bool():
                values = pl.Series(draws < 0.5)  # noqa: PLR2004  (as often true as false)
            case Timestamp(earliest_ms=earliest_ms):
                before_ms = pl.Series((draws * MOST_BEFORE_MS).astype(np.int64))
                values = (at_ms - before_ms).clip(lower_bound=earliest_ms)
        return values


def texts(field: Text, head: str, numbers: pl.Series, digits: int) -> pl.Series:
    """A text such as `<head>000001` for each number, of the declared length.

    What is too long loses letters of its head, then its first digits: as many as fit tell the texts apart.
    """
    digits = max(digits, field.min_length - len(head))
    if field.max_length is not None:
        digits = min(digits, field.max_length)
        head = head[: field.max_length - digits]
    told = (numbers % 10 ** min(digits, MOST_DIGITS)).cast(pl.String).str.zfill(digits)
    return pl.select(pl.lit(head) + told).to_series()
