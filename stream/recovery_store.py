"""A directory of Bytewax recovery state, with a description of it in `about.json`.

Bytewax checks at its start that its SQLite files are complete, and ends with a stack trace if not. This module checks
them first, so a problem is reported in one line with its remedy.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bytewax.recovery import init_db_dir

from feast_repo.errors import RefusedError
from feast_repo.stores.identity import UNKNOWN, StreamIdentity

if TYPE_CHECKING:
    from pathlib import Path

FILES = "part-*.sqlite3*"  # with SQLite's own files beside them
CHECKED_ON = {"bytewax": "0.21.1"}
"""The version whose recovery tables are read here; they are not a public format."""
PART_COUNT = 1
"""One file for all workers: an epoch's state is small, and a single file is either complete or missing."""


class RecoveryError(RefusedError):
    """The recovery state can't be used; the message says why and what to do."""


@dataclass(frozen=True)
class About:
    """Describes recovery state: the window state's format, DATA_ROOT's id, and by name the topics of the streams and
    the meanings of the views.
    """

    state: str
    data_id: str
    streams: dict[str, StreamIdentity]
    declarations: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, told: dict[str, Any]) -> About:
        """A description from its JSON. One of an older version has a state that this program doesn't read."""
        streams = {name: StreamIdentity(**stream) for name, stream in told.get("streams", {}).items()}
        return cls(told["state"], told.get("data_id", UNKNOWN), streams, told.get("declarations", {}))


class RecoveryStore:
    """The recovery state in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._about = directory / "about.json"

    def exists(self) -> bool:
        """Whether there is any state, readable or not."""
        return any(self.directory.glob(FILES))

    def about(self) -> About | None:
        """The description of the state; None if there is none.

        Raises:
            RecoveryError: it can't be read.
        """
        if not self._about.exists():
            return None
        try:
            return About.read(json.loads(self._about.read_text()))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            message = f"can't read {self._about}: {error}"
            raise RecoveryError(message) from error

    def describe(self, about: About) -> None:
        """Write the description of the state."""
        temporary = self._about.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(about), indent=1))
        temporary.replace(self._about)

    def check(self) -> bool:
        """Check that the files are readable and complete; returns whether a run has used them.

        Raises:
            RecoveryError: they are not.
        """
        used, count, found = False, 0, set()
        for path in sorted(self.directory.glob("part-*.sqlite3")):
            try:
                with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as database:
                    if (verdict := database.execute("pragma quick_check(1)").fetchone()) != ("ok",):
                        message = f"{path} is damaged: {verdict[0] if verdict else 'no answer'}"
                        raise RecoveryError(message)
                    index, count = database.execute("select part_index, part_count from parts").fetchone()
                    used = used or database.execute("select count(*) from exs").fetchone() != (0,)
            except (sqlite3.Error, TypeError) as error:
                message = f"{path} can't be read: {error}"
                raise RecoveryError(message) from error
            found.add(index)
        if missing := sorted(set(range(count)) - found):
            message = f"{self.directory} lacks {', '.join(f'part-{index}.sqlite3' for index in missing)} of {count}"
            raise RecoveryError(message)
        return used

    def new(self) -> RecoveryStore:
        """An empty store below this one, to fill and then install."""
        directory = self.directory / f".new-{uuid.uuid4().hex}"
        directory.mkdir()
        init_db_dir(directory, PART_COUNT)  # type: ignore[no-untyped-call]
        return RecoveryStore(directory)

    def install(self, new: RecoveryStore, about: About) -> Path | None:
        """Replace the files with another store's; returns where the old ones are kept, if there were any.

        The description is removed first and written last, so a crash in between leaves files without a description.
        """
        kept = None
        if self.exists():
            kept = self.directory / f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
            kept.mkdir()
            for path in [self._about, *self.directory.glob(FILES)]:
                if path.exists():
                    path.rename(kept / path.name)
        for path in new.directory.glob(FILES):
            path.rename(self.directory / path.name)
        self.describe(about)
        new.directory.rmdir()
        return kept
