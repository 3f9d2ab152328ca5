"""What people are told of a declaration: description, owner and tags. It changes no value and no stored state."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

DERIVED_TAGS = frozenset(
    {"entity", "event_time", "formula", "freshness", "kind", "label", "lateness", "owner", "slide", "stream", "window"}
)
"""Tags that Feast's registry gets from the declaration itself."""


@dataclass(frozen=True, kw_only=True)
class Owned:
    """Who answers for a declaration, such as a team's address, and tags of one's own, by name."""

    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)

    def problem_of_tags(self) -> str | None:
        """Why the tags can't be registered; None if they can."""
        if taken := sorted(DERIVED_TAGS & self.tags.keys()):
            return f"the tags {taken} are derived from the declaration: give yours other names"
        return None


@dataclass(frozen=True, kw_only=True)
class Described(Owned):
    """The same with a description."""

    description: str = ""


ABOUT = frozenset(one.name for one in fields(Described))
"""The names of these fields, which have no part in a declaration's meaning."""


def in_words(duration: timedelta) -> str:
    """A duration in its greatest whole unit, such as `1 h` or `90 s`."""
    seconds = duration.total_seconds()
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds % length == 0:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s"
