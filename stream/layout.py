"""Moves the tables of older versions, which knew one event stream, to the places where they are per stream."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from feast_repo.stores import identity
from feast_repo.stores.offline import disk
from feast_repo.stores.offline.tables import DEAD_LETTERS, EVENTS, PROGRESS, REPLAYS

if TYPE_CHECKING:
    from feast_repo.settings import StreamSettings

logger = logging.getLogger(__name__)

OLD = {EVENTS: "dt=*", DEAD_LETTERS: "dt=*", REPLAYS: "dt=*", PROGRESS: "partition-*.parquet"}
"""What lay directly in a table's folder, the progress record last, since it says that the data is there."""


def move_old_tables(settings: StreamSettings) -> None:
    """Move what an older version has left; repeatable, and nothing to do from then on. The caller holds the run's lock.

    The tables belong to the only stream that `identity.json` knows, else to the first declared one.

    Raises:
        IdentityError: `identity.json` is damaged.
        OSError: a folder can't be written; what was moved stays, and the next call goes on.
    """
    root = settings.data_root
    found = [(table, path) for table, pattern in OLD.items() for path in sorted((root / table).glob(pattern))]
    if not found:
        return
    known = identity.load(root)
    stream = next(iter([*(known.streams if known else ()), settings.catalog.streams[0].name]))
    for table, path in found:
        folder = root / table / stream
        folder.mkdir(exist_ok=True)
        disk.rename(path, folder / path.name)
        disk.sync_folder(folder)
        disk.sync_folder(root / table)
    logger.info("%s comes from an older version: its tables are those of event stream %s now", root, stream)
