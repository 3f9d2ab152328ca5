"""Locks on a data folder for batch jobs: who writes excludes who would undo it.

Backfill, heal and compaction read files and then replace them, so there is one batch writer at a time. The stream
doesn't need that lock, because it only adds its own files. To forget an entity takes more: the stream, and jobs that
carry rows from files to elsewhere, would bring it back, so they are locked out, too.

The operating system holds the locks, so they end with the process, however that ends.
"""

from __future__ import annotations

import fcntl
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from feast_repo.errors import RefusedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from feast_repo.errors import FeatureStoreError

FORGETTING = ".forgetting.lock"


class BatchRunningError(UnavailableError):
    """Another batch job holds the folder that the message names."""


class StreamRunningError(RefusedError):
    """A run of the dataflow holds the folder that the message names."""


@contextmanager
def only_batch_writer(data_root: Path) -> Iterator[None]:
    """Lock the data folder, creating it if needed.

    Raises:
        BatchRunningError: another process holds it.
        OSError: the folder can't be written.
    """
    data_root.mkdir(parents=True, exist_ok=True)
    message = f"another backfill, heal or compaction writes to {data_root}: run this again when it is done"
    with _locked(data_root / ".batch.lock", fcntl.LOCK_EX, BatchRunningError(message)):
        yield


@contextmanager
def carrying_rows(data_root: Path) -> Iterator[None]:
    """Keep entities from being forgotten while rows are carried from files to Redis, a data set or a report.

    Any number of jobs may do so at once. A folder that doesn't exist has no rows.

    Raises:
        BatchRunningError: an entity is just being forgotten.
        OSError: the folder can't be written.
    """
    if not data_root.is_dir():
        yield
        return
    message = f"an entity is being removed from {data_root}: run this again when that is done"
    with _locked(data_root / FORGETTING, fcntl.LOCK_SH, BatchRunningError(message)):
        yield


@contextmanager
def only_forgetting(data_root: Path) -> Iterator[None]:
    """Lock out batch writers and jobs that carry rows. The folder must exist.

    Raises:
        BatchRunningError: one of them is running.
        OSError: the folder can't be written.
    """
    message = f"a batch job reads {data_root} and writes what it finds elsewhere: run this again when it is done"
    with (
        only_batch_writer(data_root),
        _locked(data_root / FORGETTING, fcntl.LOCK_EX, BatchRunningError(message)),
    ):
        yield


@contextmanager
def no_stream(folder: Path) -> Iterator[None]:
    """Lock the dataflow out of a data folder or a recovery directory, which must exist.

    Each process of a run holds `.stream-<number>.lock`. A run always has a process 0, so holding its lock also keeps
    out runs with more processes than ever before.

    Raises:
        StreamRunningError: a run holds the folder.
        OSError: the folder can't be written.
    """
    refusal = StreamRunningError(f"the stream writes to {folder}: stop it, then run this again")
    with ExitStack() as held:
        for path in sorted({folder / ".stream-0.lock", *folder.glob(".stream-*.lock")}):
            held.enter_context(_locked(path, fcntl.LOCK_EX, refusal))
        yield


@contextmanager
def _locked(path: Path, kind: int, refusal: FeatureStoreError) -> Iterator[None]:
    with path.open("a") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise refusal from error
        yield
