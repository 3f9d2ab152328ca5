"""JSON lines of history, decoded and validated like messages. Only a line feed ends a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch.recompute.archive import ArchiveError
from feast_repo.codec.decoding import Decoder, RawBatch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    import polars as pl

    from feast_repo.declare.events import EventStream

BLOCK_BYTES = 8 * 2**20
LONGEST_LINE = 64 * 2**20
"""Kafka brokers accept messages of up to 1 MiB by default."""


def judged_lines(path: Path, events: EventStream, now_ms: int) -> Iterator[tuple[pl.DataFrame, pl.DataFrame, int]]:
    """A file's records with the declared fields, its rejects with number, reason and value, and how many are ignored.

    They come part by part. A line counts as a message that arrives at `now_ms`. A blank line is rejected as `empty`,
    and a byte order mark at the beginning of the file makes its first line `not_json`. Memory: a block of the file, or
    its longest line.

    Raises:
        ArchiveError: a line is longer than 64 MiB.
        OSError: the file can't be read.
    """
    decoder = Decoder(events, keyed=False)
    first = 1
    with path.open("rb") as file:
        for lines in _lines(file):
            if lines is None:
                message = f"{path}, line {first}: longer than {LONGEST_LINE:,} bytes; write one event a line"
                raise ArchiveError(message)
            count = len(lines)
            batch = RawBatch(0, lines, [None] * count, [now_ms] * count, list(range(first, first + count)))
            decoded = decoder.decode(batch)
            yield (
                decoded.records.select(*events.schema),
                decoded.dead_letters.select("reason", "value", number="offset"),
                decoded.ignored,
            )
            first += count


def _lines(file: BinaryIO) -> Iterator[list[bytes] | None]:
    """The next complete lines without their line ends; None if the next one is too long."""
    rest = b""
    while block := file.read(BLOCK_BYTES):
        *lines, rest = (rest + block).split(b"\n")
        if lines:
            yield [line.removesuffix(b"\r") for line in lines]
        if len(rest) > LONGEST_LINE:
            yield None
    if rest:
        yield [rest.removesuffix(b"\r")]
