"""Forget an entity: remove it from Redis and from all files below DATA_ROOT, and prove that it is gone.

    python -m batch.maintenance.forget --entity user_000001 --recovery recovery --dry-run
    python -m batch.maintenance.forget --entity user_000001 --recovery recovery
    python -m batch.maintenance.forget --entity card_id=c_1,merchant=m_7 --recovery recovery --yes

The stream must be stopped, and recovery state is removed, so that nothing brings the entity back: the stream's next
start rebuilds its windows from the archive, which does not have it any more. Interrupted at any moment, another run
continues. The proof is a second search, whose every finding makes the exit code 1.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress as ProgressBar
from rich.table import Table

from batch.lock import no_stream, only_forgetting
from batch.maintenance.erasure import DataFiles, Finding
from batch.maintenance.recovery_state import remove_state, state_files
from batch.maintenance.subject import Subject
from feast_repo.commands import Command, as_it_is
from feast_repo.errors import ExitCode, RefusedError
from feast_repo.settings import StreamSettings
from feast_repo.stores.identity import holds_progress
from feast_repo.stores.internals import redis_client
from feast_repo.stores.offline.tables import EVENTS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from feast import FeatureStore
    from redis import Redis

    from feast_repo.declare.catalog import Catalog

REDIS = "Redis"
KEYS_AT_ONCE = 1_000


class UncommittedError(RefusedError):
    """The stream will read records of the entity again."""


@dataclass
class Search:
    """What was found, by place; places without anything are told, too."""

    places: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)

    @property
    def found(self) -> int:
        """Rows, lines, keys and files of recovery state, over all places."""
        return self.places.total()


class Forgetting:
    """One entity in all places that this deployment controls. The caller has locked out the stream and batch jobs."""

    def __init__(self, files: DataFiles, recovery: Sequence[Path], redis: Redis, project: str) -> None:
        self._files, self._recovery = files, recovery
        self._redis, self._project = redis, project
        self._console = Console(stderr=True)

    def search(self, subject: Subject) -> Search:
        """Search everything; nothing is changed.

        Raises:
            UncommittedError: the stream has uncommitted records of the entity, which it would read and count again.
            OSError: a file can't be read.
            polars.exceptions.PolarsError: a file is damaged.
            redis.RedisError: Redis is away.
        """
        from feast_repo.stores.online.found_keys import keys_with  # noqa: PLC0415  (Feast takes seconds to import)

        search = Search(keys=keys_with(self._redis, self._project, subject.values))
        search.places[REDIS] = len(search.keys)
        for directory in self._recovery:
            search.places[str(directory)] = len(state_files(directory))
        with ProgressBar(console=self._console, transient=True) as bar:
            for file in bar.track(self._files.all(), description="searching"):
                place = self._files.place(file)
                search.places[place] += 0
                if (finding := self._files.search(file, subject)) is not None:
                    search.findings.append(finding)
                    search.places[place] += finding.rows
        if uncommitted := sum(finding.uncommitted for finding in search.findings):
            message = (
                f"the stream has stored {uncommitted:,} records of {subject} that it has not committed, and will read "
                "them again: start it, stop it with SIGTERM, then run this again"
            )
            raise UncommittedError(message)
        return search

    def erase(self, search: Search) -> None:
        """Remove what was found: Redis after the files that it could be refilled from.

        Raises:
            OSError: the disk is full or not writable; run it again.
            redis.RedisError: Redis is away; run it again.
        """
        with ProgressBar(console=self._console, transient=True) as bar:
            for finding in bar.track(search.findings, description="removing"):
                if finding.erase is not None:
                    finding.erase()
        for directory in self._recovery:
            remove_state(directory)
        for start in range(0, len(search.keys), KEYS_AT_ONCE):
            self._redis.delete(*search.keys[start : start + KEYS_AT_ONCE])


def notes(catalog: Catalog, subject: Subject, search: Search) -> list[str]:
    """What the command can't remove, or leaves as it is on purpose, a line each."""
    topics = ", ".join(stream.topic for stream in catalog.streams)
    kafka = (
        f"Kafka keeps the records of {topics} until its retention deletes them: start the stream with -r, since a run "
        "without it reads them again, and stop whatever still sends events of the entity"
    )
    lines = [
        kafka,
        "Redis keeps deleted keys in its files until they are rewritten (BGREWRITEAOF, BGSAVE), and backups keep all",
        "a running service writes the predictions of its last minute later: run this again after a minute",
    ]
    touched = {finding.place for finding in search.findings if finding.place.startswith(f"{EVENTS}/")}
    others = [
        view.name
        for view in catalog.windowed
        if f"{EVENTS}/{view.source.name}" in touched and not subject.values.keys() <= {*view.join_keys}
    ]
    if others:
        lines.append(
            f"rows of other entities in {', '.join(others)} counted the removed events and stay as they are: "
            "batch.parity will name them"
        )
    return lines


def _redis_of(command: Command, store: FeatureStore) -> Redis:
    from feast_repo.stores.online.store import RedisUrlOnlineStoreConfig  # noqa: PLC0415  (needs Feast)

    if not isinstance(store.config.online_store, RedisUrlOnlineStoreConfig):
        command.error("the online store is none that this command knows: it removes keys from Redis only")
    return redis_client(store)


def _table(title: str, before: Search, after: Search | None) -> Table:
    table = Table("place", "found", *([] if after is None else ["left"]), title=title)
    for name, count in before.places.items():
        table.add_row(name, f"{count:,}", *([] if after is None else [f"{after.places[name]:,}"]))
    return table


def _confirm(command: Command, subject: Subject, search: Search) -> None:
    """Ask on the terminal; exits unless the answer is yes."""
    console = Console(stderr=True, markup=False, emoji=False)
    console.print(_table(f"found of {subject}", search, None))
    console.print(f"Remove {subject} for good? [y/N] ", end="")
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        command.error("nothing was removed")


def _show(subject: Subject, before: Search, after: Search | None, told: Sequence[str]) -> None:
    console = as_it_is()
    title = f"forgotten: {subject}" if after is not None else f"would be removed of {subject}"
    console.print(_table(title, before, after))
    for finding in [] if after is None else after.findings:
        console.print(f"left: {finding.file}", soft_wrap=True)
    for line in told:
        console.print(line, soft_wrap=True)


def _as_json(subject: Subject, before: Search, after: Search | None, told: Sequence[str]) -> dict[str, Any]:
    left = {} if after is None else {name: {"left": after.places[name]} for name in before.places}
    return {
        "entity": dict(subject.values),
        "places": {name: {"found": count, **left.get(name, {})} for name, count in before.places.items()},
        "files_left": [] if after is None else [str(finding.file) for finding in after.findings],
        "notes": list(told),
    }


def _options(command: Command, arguments: Sequence[str] | None) -> argparse.Namespace:
    command.add_argument("--entity", required=True, metavar="ID", help="its join key, or key=value,key=value")
    command.add_argument(
        "--recovery", action="append", type=Path, default=[], metavar="DIR",
        help="recovery directory of the stream, repeatable: its state is removed, and the next start rebuilds it",
    )  # fmt: skip
    command.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    command.add_argument("--yes", action="store_true", help="don't ask")
    command.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = command.parse_args(arguments)
    if not (options.dry_run or options.yes or sys.stdin.isatty()):
        command.error("without a terminal to ask on, --yes is needed: what is removed can't be restored")
    if missing := [directory for directory in options.recovery if not directory.is_dir()]:
        command.error(f"--recovery {missing[0]} does not exist")
    return options


def _check_folders(command: Command, root: Path, options: argparse.Namespace) -> None:
    if not root.is_dir():
        command.error(f"DATA_ROOT: {root} does not exist, so there is nothing to search")
    if holds_progress(root) and not options.recovery and not options.dry_run:
        command.error(
            "name each recovery directory of the stream with --recovery, since its open windows hold the entity (a new "
            "folder if the stream ran without one)"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command(
        "python -m batch.maintenance.forget", "Remove an entity from Redis and all files, and prove that it is gone."
    )
    options = _options(command, arguments)
    settings = command.settings(StreamSettings)
    root, catalog = settings.data_root, settings.catalog
    _check_folders(command, root, options)
    after: Search | None = None
    with command.telling(root), ExitStack() as held:
        subject = Subject.parse(catalog, options.entity)
        store = command.feature_store()
        redis = _redis_of(command, store)
        held.enter_context(only_forgetting(root))
        for folder in (root, *options.recovery):
            held.enter_context(no_stream(folder))
        files = DataFiles(root, catalog)
        forgetting = Forgetting(files, options.recovery, redis, store.project)
        if options.dry_run:
            command.check_redis(store, settings)
        else:
            command.claim_redis(redis, store.project, settings)
            files.tidy()
        before = forgetting.search(subject)
        if not options.dry_run:
            if before.found and not options.yes:
                _confirm(command, subject, before)
            forgetting.erase(before)
            after = forgetting.search(subject)
    told = notes(catalog, subject, before)
    if options.json:
        sys.stdout.write(json.dumps(_as_json(subject, before, after, told)) + "\n")
    else:
        _show(subject, before, after, told)
    return ExitCode.FAILED if after is not None and after.found else ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
