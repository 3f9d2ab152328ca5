"""One run at a time on a data folder and on a recovery directory.

Two runs would each believe to be the only one that appends to a log table. The lock is the operating system's, so it
ends with the process, however it ends. Processes of one cluster (`-i/-a`) hold one lock each, by their number, and
leave `TOKEN` in it, by which others know what belongs to a process that lives.
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
"""Stands for this process, and for no other that ever was."""

_held: dict[Path, TextIO] = {}  # an open file keeps its lock


class AlreadyRunningError(RefusedError):
    """Another run holds the folder; the message names it."""


def lock_run(data_root: Path, recovery: Path | None) -> None:
    """Lock the data folder and the recovery directory until this process ends; again is no error.

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
    """The tokens of the processes that hold the data folder.

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
