"""Locks that allow one run at a time per data folder and per recovery directory.

Each run assumes that it is the only writer of its log tables. The operating system holds the lock, so it ends with the
process, however that ends. Each process of a cluster (`-i/-a`) holds one lock under its number and writes `TOKEN` into
it, so others can tell what belongs to a live process.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
import uuid
from pathlib import Path
from typing import TextIO

from feast_repo.errors import RefusedError

TOKEN = uuid.uuid4().hex
"""Identifies this process uniquely, across all processes ever."""

_held: dict[Path, TextIO] = {}  # an open file keeps its lock


class AlreadyRunningError(RefusedError):
    """Another run holds the folder that the message names."""


def lock_run(data_root: Path, recovery: Path | None) -> None:
    """Lock the data folder and the recovery directory until this process ends; idempotent.

    Raises:
        AlreadyRunningError: another run holds one of them.
        OSError: the folder can't be written.
    """
    process, _ = bytewax_arguments(sys.argv)
    for folder in [data_root] if recovery is None else [data_root, recovery]:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder.resolve() / f".stream-{process}.lock"
        if path in _held:
            continue
        file = path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            message = f"another run writes to {folder}: stop it first, or use another DATA_ROOT and recovery directory"
            raise AlreadyRunningError(message) from error
        file.truncate(0)
        file.write(TOKEN)
        file.flush()
        _held[path] = file


def live_tokens(data_root: Path) -> set[str]:
    """The tokens of the live processes that hold the data folder.

    Raises:
        OSError: the folder can't be read.
    """
    tokens = set()
    for path in data_root.resolve().glob(".stream-*.lock"):
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                tokens.add(file.read())
    return tokens


def bytewax_arguments(command: list[str]) -> tuple[int, Path | None]:
    """The process number and the recovery directory, as `bytewax.run` reads them; 0 and None under other commands."""
    if Path(command[0]).parts[-2:] != ("bytewax", "run.py"):
        return 0, None
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-i", "--process-id", type=int, default=int(os.environ.get("BYTEWAX_PROCESS_ID", "0")))
    parser.add_argument("-r", "--recovery-directory", type=Path)
    known, _ = parser.parse_known_args(command[1:])
    recovery = known.recovery_directory or os.environ.get("BYTEWAX_RECOVERY_DIRECTORY")
    return known.process_id or 0, None if recovery is None else Path(recovery)
