"""What this process has read from Kafka but not committed yet, which an interrupted run must name."""

from __future__ import annotations

from stream.routing import place_of

NAMED = 3


class Uncommitted:
    """The uncommitted offset range of each part of the source; several worker threads may report.

    The last epoch but one counts as committed: nothing reports when the last one is.
    """

    def __init__(self) -> None:
        self._read: dict[str, int] = {}
        self._committed: dict[str, int] = {}

    @property
    def begun(self) -> bool:
        """Whether any part is open."""
        return bool(self._read)

    def open(self, part: str, offset: int) -> None:
        """Record that a part is read from this offset on."""
        self._read[part] = self._committed[part] = offset

    def read(self, part: str, next_offset: int) -> None:
        """Record that a part is read up to this offset."""
        self._read[part] = next_offset

    def committed(self, part: str, next_offset: int) -> None:
        """Record that a part is committed up to this offset."""
        self._committed[part] = next_offset

    def __str__(self) -> str:
        """The ranges in half a line; empty if everything is committed."""
        ranges = [
            f"{_named(part)} from offset {self._committed[part]} to {end}"
            for part, end in sorted(dict(self._read).items())
            if end > self._committed[part]
        ]
        more = f" and {len(ranges) - NAMED} more partitions" if len(ranges) > NAMED else ""
        return ", ".join(ranges[:NAMED]) + more


def _named(part: str) -> str:
    stream, partition = place_of(part)
    return f"partition {partition} of {stream}"


uncommitted = Uncommitted()
