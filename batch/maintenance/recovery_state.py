"""Removes the stream's recovery state, whose open windows hold entities: the next start rebuilds it from the archive.

The state is Bytewax's files, their description, and what rebuilds have replaced; nothing else in the folder is touched.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from feast_repo.stores.offline import disk

if TYPE_CHECKING:
    from pathlib import Path

# SQLite's own files come before the database that they belong to, which is no state without them, and the description
# comes last: state without it is refused.
FILES, REPLACED, ABOUT = "part-*.sqlite3*", ("replaced-*", ".new-*"), "about.json"


def state_files(directory: Path) -> list[Path]:
    """What a recovery directory holds, in the order of removal."""
    older = [path for pattern in REPLACED for path in sorted(directory.glob(pattern))]
    return [*older, *sorted(directory.glob(FILES), reverse=True), *directory.glob(ABOUT)]


def remove_state(directory: Path) -> None:
    """Remove it all; idempotent. The caller has locked the stream out.

    Raises:
        OSError: the folder is not writable.
    """
    for path in state_files(directory):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            disk.remove(path)
    disk.sync_folder(directory)
