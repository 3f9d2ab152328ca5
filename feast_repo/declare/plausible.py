"""Plausible values and publications: the quality gate keeps rows with other values apart, and refuses other tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feast_repo.declare.values import ValueType


@dataclass(frozen=True, kw_only=True)
class Plausible:
    """What a feature's values may be; without any of it, all that its type allows.

    A value may be missing only if it is `nullable`. A number is from `minimum` (or above `above`) to `maximum`. A text
    is one of `values`, and matches `pattern` as a whole: write [0-9] for a digit, because engines differ in their
    classes of characters. A `unique` text or whole number is that of one entity only in a publication.
    """

    nullable: bool = False
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    values: tuple[str, ...] | None = None
    pattern: str | None = None
    unique: bool = False

    def problem(self, value_type: ValueType) -> str | None:
        """Why values of a type can't be checked by it; None if they can."""
        is_bounded = any(bound is not None for bound in (self.minimum, self.above, self.maximum))
        if value_type.startswith("List"):
            return "a batch feature is a text, a number or a Bool: tables for the quality gate have no lists"
        if value_type == "String":
            return "a text has no minimum, above or maximum" if is_bounded else problem_of_pattern(self.pattern)
        if self.values is not None or self.pattern is not None:
            return "only a text has values or a pattern"
        if self.unique and value_type != "Int64":
            return "only a text or a whole number is unique"
        if value_type == "Bool" and is_bounded:
            return "a Bool has no minimum, above or maximum"
        return self._problem_of_bounds()

    def _problem_of_bounds(self) -> str | None:
        if self.minimum is not None and self.above is not None:
            return "it has both minimum and above: one says where its values begin"
        low = self.minimum if self.above is None else self.above
        if low is not None and self.maximum is not None and low > self.maximum:
            return f"no value is from {low:g} to {self.maximum:g}"
        return None


def problem_of_publication(rows: tuple[int | None, int | None], max_age: timedelta | None) -> str | None:
    """Why no publication could have so many rows or be of that age; None if one can."""
    bounds = [bound for bound in rows if bound is not None]
    if any(bound < 0 for bound in bounds) or bounds != sorted(bounds):
        return f"rows={rows}: no table has so many rows"
    if max_age is not None and max_age <= timedelta(0):
        return f"max_age {max_age} must be positive"
    return None


def problem_of_pattern(pattern: str | None) -> str | None:
    """Why a text is no regular expression; None if it is one."""
    try:
        re.compile(pattern or "")
    except re.error as error:
        return f"pattern={pattern!r} is no regular expression: {error}"
    return None
