"""Recovery state, before a run uses it: made if there is none, checked if there is, rebuilt from the archive.

    python -m bytewax.run stream.dataflow -r recovery -s 10 -b 0     # looks after its directory by itself
    python -m stream.recovery rebuild recovery                       # when a run refused to start on it

A rebuild gives what the run would have saved: offsets from the progress record, windows from `events/`. So the features
go on with the same values, and nothing that is stored is touched. The old state is kept in the directory.
"""

from __future__ import annotations

import fcntl
import json
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
from feast_repo.progress import ProgressRecord
from feast_repo.settings import PROJECT_ROOT
from feast_repo.tables import progress_folder
from stream.kafka import KafkaUnavailableError, topic_partitions
from stream.lock import AlreadyRunningError, lock_run
from stream.recovery_store import About, RecoveryError, RecoveryStore
from stream.seen_ids import HASHING
from stream.settings import StreamSettings
from stream.windows import STATE_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

logger = logging.getLogger(__name__)

STATE = f"{STATE_VERSION}-{HASHING}"


def prepare(settings: StreamSettings, directory: Path) -> None:
    """Make recovery state ready for a run, or tell why it can't be used. Processes of one cluster take turns.

    Without state, the run begins where the progress record ends, or at the topic's beginning if there is none. If
    features were added or removed, the state is rebuilt for the new declaration.

    Raises:
        RecoveryError: the state doesn't fit; nothing was changed.
        KafkaUnavailableError: the topic's partitions are not known.
        OSError: the directory can't be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    store = RecoveryStore(directory)
    with _alone(directory):
        now = _about(settings)
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
        if before is None and not used:
            store.describe(now)
        elif before is None or before.state != now.state:
            message = f"recovery state in {directory} has a format that this program doesn't read{remedy}"
            raise RecoveryError(message)
        elif changed := changed_features(before, now, directory):
            logger.info("features have changed (%s): rebuilding the recovery state for them", changed)
            rebuild(settings, store)


def rebuild(settings: StreamSettings, store: RecoveryStore) -> Path | None:
    """Make recovery state anew from the archive and the progress record; returns where the old state is kept.

    Raises:
        RecoveryError: the archive doesn't fit the declaration; nothing was changed.
        KafkaUnavailableError: the topic's partitions are not known.
    """
    about, new, start = _about(settings), store.new(), time.monotonic()
    flow = [sys.executable, "-m", "bytewax.run", "stream.rebuild", "-r", str(new.directory), "-s", "3600", "-b", "0"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BYTEWAX_")}
    done = subprocess.run(flow, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        shutil.rmtree(new.directory)
        reason = done.stderr.strip().rpartition("\n")[2].removeprefix("stream.dataflow: ")
        message = f"can't rebuild the recovery state: {reason}"
        raise RecoveryError(message)
    kept = store.install(new, about)
    logger.info("recovery state rebuilt from the archive in %.1f s", time.monotonic() - start)
    return kept


def _create(settings: StreamSettings, store: RecoveryStore, about: About) -> None:
    if any(progress_folder(settings.data_root).glob("partition-*.parquet")):
        logger.info("no recovery state in %s: rebuilding it from the archive", store.directory)
        rebuild(settings, store)
    else:
        store.install(store.new(), about)


def _about(settings: StreamSettings) -> About:
    partitions = len(topic_partitions(settings))
    declaration = json.loads(json.dumps(settings.view.meaning))  # as it will be read back
    return About(STATE, settings.kafka_topic, partitions, declaration)


def changed_features(before: About, now: About, directory: Path) -> str:
    """The features that were added or removed since; empty if none were.

    Raises:
        RecoveryError: something else has changed.
    """
    if before.topic != now.topic:
        message = f"{directory} is for topic {before.topic!r}, not {now.topic!r}: use another one, or mend KAFKA_TOPIC"
        raise RecoveryError(message)
    if before.partitions != now.partitions:
        message = (
            f"topic {now.topic!r} has {now.partitions} partitions, and had {before.partitions} when {directory} was "
            "made: users have moved between partitions, and windows would miss their halves; go on with another "
            "DATA_ROOT and a new recovery directory"
        )
        raise RecoveryError(message)
    old, new = before.declaration["aggregates"], now.declaration["aggregates"]
    if {**before.declaration, "aggregates": None} != {**now.declaration, "aggregates": None}:
        message = (
            f"{directory} belongs to another declaration (its times, key or deduplication differ): go back to that "
            "declaration, or use another DATA_ROOT and a new recovery directory"
        )
        raise RecoveryError(message)
    if redefined := sorted(name for name in old.keys() & new.keys() if old[name] != new[name]):
        message = (
            f"{directory} belongs to another declaration of {', '.join(redefined)}: give the new meaning a new name, "
            f"or accept it for rows from now on with `python -m stream.recovery rebuild {directory}`"
        )
        raise RecoveryError(message)
    changes = [f"+{name}" for name in new.keys() - old.keys()] + [f"-{name}" for name in old.keys() - new.keys()]
    return ", ".join(sorted(changes))


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Let one process of a cluster prepare the directory; the others then find it ready."""
    with (directory / ".prepare.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command("python -m stream.recovery", "Make the stream's recovery state anew from the archive.")
    command.add_argument("action", choices=["rebuild"], help="rebuild: from events/ and progress/ under DATA_ROOT")
    command.add_argument("directory", type=Path, help="the recovery directory; what is in it is kept beside")
    options = command.parse_args(arguments)
    settings = command.settings(StreamSettings)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    try:
        if not ProgressRecord(progress_folder(settings.data_root)).load():
            command.error(f"{settings.data_root} has no progress record, so there is nothing to rebuild from")
        lock_run(settings.data_root, options.directory)
        options.directory.mkdir(parents=True, exist_ok=True)
        with _alone(options.directory):
            kept = rebuild(settings, RecoveryStore(options.directory))
    except (RecoveryError, KafkaUnavailableError, AlreadyRunningError, OSError, ValueError) as error:
        command.error(str(error))
    sys.stdout.write(f"{options.directory} is rebuilt" + (f"; the old state is in {kept}\n" if kept else "\n"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
