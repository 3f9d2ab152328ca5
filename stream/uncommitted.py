"""What this process has read of Kafka and not committed yet: what a run that is cut short has to name."""

from __future__ import annotations

NAMED = 3


class Uncommitted:
    """By partition, from which offset up to which; several worker threads may tell.

    Committed is what the last epoch but one holds: of the last one, nobody is told when it is.
    """

    def __init__(self) -> None:
        self._read: dict[int, int] = {}
        self._committed: dict[int, int] = {}

    @property
    def begun(self) -> bool:
        """Whether any partition is open."""
        return bool(self._read)

    def open(self, partition: int, offset: int) -> None:
        """A partition is read from this offset on."""
        self._read[partition] = self._committed[partition] = offset

    def read(self, partition: int, next_offset: int) -> None:
        """A partition is read up to here."""
        self._read[partition] = next_offset

    def committed(self, partition: int, next_offset: int) -> None:
        """A partition is committed up to here."""
        self._committed[partition] = next_offset

    def __str__(self) -> str:
        """In half a line; empty if all is committed."""
        ranges = [
            f"partition {partition} from offset {self._committed[partition]} to {end}"
            for partition, end in sorted(dict(self._read).items())
            if end > self._committed[partition]
        ]
        more = f" and {len(ranges) - NAMED} more partitions" if len(ranges) > NAMED else ""
        return ", ".join(ranges[:NAMED]) + more


uncommitted = Uncommitted()
