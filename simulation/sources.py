"""Which source makes up the events of a stream: one that was written for it, or else its declaration."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from simulation.clicks import Shop
from simulation.clock import USUAL
from simulation.declared import Declared

if TYPE_CHECKING:
    from feast_repo.declare.events import EventStream
    from simulation.clock import Simulation
    from simulation.source import Source

WRITTEN: tuple[type[Shop], ...] = (Shop,)
"""Sources that were written for one declaration. Your own needs `written_for`, `drifts`, and what a `Source` has."""

DRIFTS = tuple(dict.fromkeys((USUAL, *(drift for source in WRITTEN for drift in source.drifts))))
"""All changes of habits that some source knows."""


def source_of(simulation: Simulation) -> Source:
    """The source of a simulation's events.

    Raises:
        RefusedError: it can't make up such events; the message says why.
    """
    for source in WRITTEN:
        if _is_same(simulation.stream, source.written_for):
            return source(simulation)
    return Declared(simulation)


def _is_same(stream: EventStream, other: EventStream) -> bool:
    """Whether two declarations differ in nothing but what a deployment sets."""
    return replace(stream, topic=other.topic, allowed_lateness=other.allowed_lateness) == other
