"""What makes up the events of a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl

    from simulation.malformed import Flaw


class Source(Protocol):
    """Makes up events; a pure function of the simulation for which it was made."""

    @property
    def flaws(self) -> Sequence[Flaw]:
        """The ways in which an event may be malformed."""
        ...

    def draw(self) -> Iterator[pl.DataFrame]:
        """What happens, without end and in chronological order, in columns of the source's own.

        Other ones than `number`, `at_ms`, `arrival_ms` and `kind`, which the clock adds.
        """
        ...

    def encode(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows that the clock has timed, as frames of the same columns as `heartbeats`, in the same order."""
        ...

    def heartbeats(self, at_ms: int, partitions: Sequence[int]) -> pl.DataFrame:
        """One heartbeat per partition, with at least the columns of `message_schema`."""
        ...
