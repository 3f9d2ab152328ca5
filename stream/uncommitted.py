"""What this process has read from Kafka but not committed yet, which an interrupted run must name."""

from __future__ import annotations

NAMED = 3


class Uncommitted:
    """The uncommitted offset range of each partition; several worker threads may report.

    The last epoch but one counts as committed: nothing reports when the last one is.
    """

    def __init__(self) -> None:
        self._read: dict[int, int] = {}
        self._committed: dict[int, int] = {}

    @property
    def begun(self) -> bool:
        """Whether any partition is open."""
        return bool(self._read)

    def open(self, partition: int, offset: int) -> None:
        """Record that a partition is read from this offset on."""
        self._read[partition] = self._committed[partition] = offset

    def read(self, partition: int, next_offset: int) -> None:
        """Record that a partition is read up to this offset."""
        self._read[partition] = next_offset

    def committed(self, partition: int, next_offset: int) -> None:
        """Record that a partition is committed up to this offset."""
        self._committed[partition] = next_offset

    def __str__(self) -> str:
        """The ranges in half a line; empty if everything is committed."""
        ranges = [
            f"partition {partition} from offset {self._committed[partition]} to {end}"
            for partition, end in sorted(dict(self._read).items())
            if end > self._committed[partition]
        ]
        more = f" and {len(ranges) - NAMED} more partitions" if len(ranges) > NAMED else ""
        return ", ".join(ranges[:NAMED]) + more


uncommitted = Uncommitted()
