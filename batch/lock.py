"""One batch writer at a time on a data folder: backfill, heal and compaction read files, and then write in their place.

The lock is the operating system's, so it ends with the process, however it ends. The stream needs none of it: it only
adds files of its own.
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
    """Another batch writer holds the folder; the message names it."""


@contextmanager
def only_batch_writer(data_root: Path) -> Iterator[None]:
    """Hold the data folder, which is made if it isn't there.

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
