"""Rejected rows of a file: counted, and kept with their place and reason."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from feast_repo.codec.raw_bytes import as_member
from feast_repo.stores.offline.parquet import whole_file
from feast_repo.stores.offline.tables import rejects_folder

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import BinaryIO

    import polars as pl

NAME_CHARACTERS = 40


def rejects_file(data_root: Path, source: Path) -> Path:
    """The file that keeps the rejects of a source: one per source, however often it is read."""
    digest = hashlib.sha256(bytes(source.resolve())).hexdigest()[:8]
    return rejects_folder(data_root) / f"{source.name[:NAME_CHARACTERS]}-{digest}.jsonl"


class Rejects:
    """Collects rejects as lines of JSON: file, `line` or `row` (from 1), reason and value.

    As a context manager it replaces `path` atomically at the end, or removes it if nothing was rejected. After an error
    `path` is unchanged. With `path` None, rejects are only counted.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.reasons: Counter[str] = Counter()
        self._stack = ExitStack()
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)
        if kind is None and self._file is None and self.path is not None:
            self.path.unlink(missing_ok=True)

    def add(self, file: Path, place: str, rows: pl.DataFrame) -> None:
        """Keep rows of a file with the columns number (Int64, from 1), reason (String) and value (Binary).

        Raises:
            OSError: the disk is full or not writable.
        """
        self.reasons.update(rows["reason"].to_list())
        if self.path is None or rows.is_empty():
            return
        if self._file is None:
            self._file = self._stack.enter_context(whole_file(self.path))
        for number, reason, value in rows.select("number", "reason", "value").iter_rows():
            line = {**as_member("file", bytes(file)), place: number, "reason": reason, **as_member("value", value)}
            self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")

    @property
    def summary(self) -> str:
        """The number of rows by reason, most frequent first."""
        return ", ".join(f"{count:,} {reason}" for reason, count in self.reasons.most_common())
