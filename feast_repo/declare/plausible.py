"""Plausible values: the quality gate keeps rows with other ones apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feast_repo.declare.values import ValueType


@dataclass(frozen=True, kw_only=True)
class Plausible:
    """What a feature's values may be; without any of it, all that its type allows.

    A value may be missing only if it is `nullable`. A number is from `minimum` (or above `above`) to `maximum`. A text
    is one of `values`, and matches `pattern` as a whole: write [0-9] for a digit, because engines differ in their
    classes of characters.
    """

    nullable: bool = False
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    values: tuple[str, ...] | None = None
    pattern: str | None = None

    def problem(self, value_type: ValueType) -> str | None:
        """Why values of a type can't be checked by it; None if they can."""
        bounds = [bound for bound in (self.minimum, self.above, self.maximum) if bound is not None]
        if value_type == "String":
            return "a text has no minimum, above or maximum" if bounds else problem_of_pattern(self.pattern)
        if self.values is not None or self.pattern is not None:
            return "only a text has values or a pattern"
        if self.minimum is not None and self.above is not None:
            return "it has both minimum and above: one says where its values begin"
        low = self.minimum if self.above is None else self.above
        if low is not None and self.maximum is not None and low > self.maximum:
            return f"no value is from {low:g} to {self.maximum:g}"
        return None


def problem_of_pattern(pattern: str | None) -> str | None:
    """Why a text is no regular expression; None if it is one."""
    try:
        re.compile(pattern or "")
    except re.error as error:
        return f"pattern={pattern!r} is no regular expression: {error}"
    return None
