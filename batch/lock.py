"""A lock for one batch writer per data folder: backfill, heal and compaction read files and then replace them.

The operating system holds the lock, so it ends with the process, however that ends. The stream doesn't need it, because
it only adds its own files.
"""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from feast_repo.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class BatchRunningError(UnavailableError):
    """Another batch writer holds the folder that the message names."""


@contextmanager
def only_batch_writer(data_root: Path) -> Iterator[None]:
    """Lock the data folder, creating it if needed.

    Raises:
        BatchRunningError: another process holds it.
        OSError: the folder can't be written.
    """
    data_root.mkdir(parents=True, exist_ok=True)
    with (data_root / ".batch.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"another backfill, heal or compaction writes to {data_root}: run this again when it is done"
            raise BatchRunningError(message) from error
        yield
