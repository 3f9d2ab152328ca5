"""Prepares recovery state for a run: created if missing, checked if present, rebuilt from the archive.

    python -m bytewax.run stream.dataflow -r recovery -s 10 -b 0     # prepares its directory by itself
    python -m stream.recovery rebuild recovery                       # when a run refused to start on it
    python -m stream.recovery adopt recovery                         # when the topic moved, or DATA_ROOT is a copy

A rebuild produces what the run would have saved: offsets from the progress record, windows from `events/`. The features
continue with the same values, and stored data is not touched. The old state is kept in the directory.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from feast_repo.commands import Command
from feast_repo.errors import FeatureStoreError
from feast_repo.settings import PROJECT_ROOT, StreamSettings
from feast_repo.stores.identity import UNKNOWN, StreamIdentity, data_id, holds_progress
from stream.adopt import adopt
from stream.layout import move_old_tables
from stream.lock import lock_run
from stream.origin import OriginError, changed_features, check_topics, difference, meanings, record
from stream.recovery_store import About, RecoveryError, RecoveryStore
from stream.seen_ids import HASHING
from stream.topic import identities
from stream.windows import STATE_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

logger = logging.getLogger(__name__)

STATE = f"{STATE_VERSION}-{HASHING}"


def prepare(settings: StreamSettings, streams: Mapping[str, StreamIdentity], directory: Path) -> None:
    """Prepare recovery state for a run, or say why it can't be used. Processes of one cluster take turns.

    Without state, the run starts where the progress record ends, or at the topics' beginning if there is no record. If
    features or views were added or removed, the state is rebuilt for the new declarations.

    Raises:
        RecoveryError: the state can't be read or rebuilt; nothing was changed.
        OriginError: the state doesn't fit; nothing was changed.
        OSError: the directory can't be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    store = RecoveryStore(directory)
    with alone(directory):
        now = about(settings, streams)
        remedy = f"; `python -m stream.recovery rebuild {directory}` makes it anew from the archive"
        if not store.exists():
            _create(settings, store, now)
            return
        try:
            used = store.check()
            before = store.about()
        except RecoveryError as error:
            message = f"recovery state: {error}{remedy}"
            raise RecoveryError(message) from error
        if not used:
            store.describe(now)
        elif before is None or before.state != now.state:
            message = f"recovery state in {directory} has a format that this program doesn't read{remedy}"
            raise RecoveryError(message)
        elif changed := _changed_features(before, now, settings.data_root, directory):
            logger.info("features have changed (%s): rebuilding the recovery state for them", changed)
            rebuild(store, now)
        elif before != now:  # what was unknown may be known now
            store.describe(now)


def _changed_features(before: About, now: About, data_root: Path, directory: Path) -> str:
    """The features that were added or removed since the state was written; empty if none were.

    Raises:
        OriginError: something else has changed.
    """
    for name in before.streams.keys() & now.streams.keys():
        if problem := difference(before.streams[name], now.streams[name], directory, directory):
            raise OriginError(problem)
    if UNKNOWN != before.data_id != now.data_id:
        message = (
            f"{directory} belongs to the data with the id {before.data_id}, and {data_root} has the id {now.data_id}: "
            "correct DATA_ROOT, or use the recovery directory that belongs to it; if both were restored or copied "
            f"together, `python -m stream.recovery adopt {directory}`"
        )
        raise OriginError(message)
    return changed_features(before.declarations, now.declarations, directory, directory)


def rebuild(store: RecoveryStore, now: About) -> Path | None:
    """Rebuild recovery state from the archive and the progress record; returns where the old state is kept.

    Raises:
        RecoveryError: the archive doesn't fit the declaration; nothing was changed.
    """
    new, start = store.new(), time.monotonic()
    flow = [sys.executable, "-m", "bytewax.run", "stream.rebuild", "-r", str(new.directory), "-s", "3600", "-b", "0"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BYTEWAX_")}
    done = subprocess.run(flow, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        shutil.rmtree(new.directory)
        reason = done.stderr.strip().rpartition("\n")[2].removeprefix("stream.dataflow: ")
        message = f"can't rebuild the recovery state: {reason}"
        raise RecoveryError(message)
    kept = store.install(new, now)
    logger.info("recovery state rebuilt from the archive in %.1f s", time.monotonic() - start)
    return kept


def _create(settings: StreamSettings, store: RecoveryStore, now: About) -> None:
    if holds_progress(settings.data_root):
        logger.info("no recovery state in %s: rebuilding it from the archive", store.directory)
        rebuild(store, now)
    else:
        store.install(store.new(), now)


def about(settings: StreamSettings, streams: Mapping[str, StreamIdentity]) -> About:
    """The description of recovery state for a run with these settings.

    Raises:
        IdentityError: `identity.json` is damaged.
        OSError: DATA_ROOT can't be written.
    """
    return About(STATE, data_id(settings.data_root), dict(streams), meanings(settings))


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Let one process of a cluster prepare the directory at a time; the others then find it ready."""
    with (directory / ".prepare.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command("python -m stream.recovery", "Rebuild recovery state, or continue stored data on another topic.")
    actions = (
        "rebuild: from events/ and progress/ under DATA_ROOT; adopt: DATA_ROOT was copied, topic or registry moved"
    )
    command.add_argument("action", choices=["rebuild", "adopt"], help=actions)
    command.add_argument("directory", type=Path, help="the recovery directory; its old state is kept")
    options = command.parse_args(arguments)
    settings = command.settings(StreamSettings)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    try:
        lock_run(settings.data_root, None)
        move_old_tables(settings)
        if not holds_progress(settings.data_root):
            command.error(f"{settings.data_root} has no progress record, so there is nothing to {options.action}")
        lock_run(settings.data_root, options.directory)
        options.directory.mkdir(parents=True, exist_ok=True)
        with alone(options.directory):
            done = {"rebuild": _rebuild, "adopt": adopt}[options.action](settings, RecoveryStore(options.directory))
    except FeatureStoreError as error:
        command.fail(error)
    except (OSError, ValueError) as error:
        command.error(str(error))
    sys.stdout.write("".join(f"{line}\n" for line in done))
    return 0


def _rebuild(settings: StreamSettings, store: RecoveryStore) -> list[str]:
    """Rebuild for the current declaration, even if aggregates have changed their meaning."""
    streams = identities(settings)
    check_topics(settings, streams, store.directory)
    kept = rebuild(store, about(settings, streams))
    record(settings, streams)
    return [f"{store.directory} is rebuilt" + (f"; the old state is in {kept}" if kept else "")]


if __name__ == "__main__":
    sys.exit(main())
