"""Labels: what the model of a feature service predicts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from feast_repo.declare.about import in_words

if TYPE_CHECKING:
    from feast_repo.declare.conditions import Condition
    from feast_repo.declare.events import EventStream


@dataclass(frozen=True)
class Label:
    """Whether an entity has an event that meets a condition within a time from now.

    Label("purchased", where=field("event_type") == "purchase", within=timedelta(hours=1))

    A model learns from an entity's first event in each `spacing`, so that bursts don't outweigh the rest. `stream` has
    these events and those that the condition is about; without it, the one stream that the service's views read.
    """

    name: str
    where: Condition
    within: timedelta
    spacing: timedelta = timedelta(minutes=1)
    stream: EventStream | None = None

    def __str__(self) -> str:
        """Such as `purchased within 1 h`."""
        return f"{self.name} within {in_words(self.within)}"

    def problem(self, stream: EventStream) -> str | None:
        """Why the events of a stream can't be labelled; None if they can."""
        if min(self.within, self.spacing) <= timedelta(0):
            return "within and spacing must be positive"
        if unknown := self.where.columns() - stream.schema.keys():
            return f"unknown event fields {sorted(unknown)}; declared are {sorted(stream.schema)}"
        return self.where.problem(stream)
