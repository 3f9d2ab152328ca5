"""Compares the topics and declarations that stored data came from with those that it is to continue with.

`identity.json` records them for DATA_ROOT, `about.json` for a recovery directory. Rows of different topics, partition
counts or meanings must not be mixed, so a difference is refused before anything is written.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from feast_repo.errors import RefusedError
from feast_repo.stores import identity
from feast_repo.stores.identity import UNKNOWN, Identity, StreamIdentity
from feast_repo.stores.offline.tables import dead_letters_folder, events_folder, progress_folder
from feast_repo.stores.progress import ProgressRecord

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from feast_repo.declare.events import EventStream
    from feast_repo.settings import StreamSettings

Meaning: TypeAlias = "dict[str, Any]"
"""What determines the meaning of a view's rows (`WindowedView.meaning`), after a round trip through JSON."""

APART = "use another DATA_ROOT and a new recovery directory"


class OriginError(RefusedError, ValueError):
    """The stored data doesn't belong to these topics or declarations; the message names the remedy."""


def check(settings: StreamSettings, now: Mapping[str, StreamIdentity], recovery: Path | None) -> None:
    """Compare DATA_ROOT's origin with the current topics (by stream) and declarations. Nothing is written.

    Raises:
        OriginError: they differ.
        IdentityError: `identity.json` is damaged.
        OSError: DATA_ROOT can't be read.
    """
    check_topics(settings, now, recovery)
    if (known := identity.load(settings.data_root)) and any(
        _holds_data(settings.data_root, stream) for stream in settings.catalog.streams
    ):
        changed_features(known.declarations, meanings(settings), settings.data_root, recovery)


def check_topics(settings: StreamSettings, now: Mapping[str, StreamIdentity], recovery: Path | None) -> None:
    """Compare the origin of DATA_ROOT's records with the current topics; raises as `check` does."""
    for stream in settings.catalog.streams:
        if _holds_data(settings.data_root, stream):
            known = _known(settings.data_root, stream, now[stream.name])
            if problem := difference(known, now[stream.name], settings.data_root, recovery):
                raise OriginError(problem)


def record(settings: StreamSettings, now: Mapping[str, StreamIdentity]) -> Identity:
    """Record DATA_ROOT's origin; an id that was unknown may be known now.

    What is no longer declared stays recorded: its data is still there.

    Raises:
        IdentityError: `identity.json` is damaged.
        OSError: DATA_ROOT can't be written.
    """
    return _record(settings, now, meanings(settings))


def record_topics(settings: StreamSettings, now: Mapping[str, StreamIdentity]) -> Identity:
    """Record the topics that DATA_ROOT continues on; raises as `record` does."""
    return _record(settings, now, {})


def _record(settings: StreamSettings, now: Mapping[str, StreamIdentity], declared: dict[str, Meaning]) -> Identity:
    identity.ensure(settings.data_root)
    with identity.writing(settings.data_root):
        known = identity.load(settings.data_root)
        assert known is not None  # noqa: S101  (nobody removes it)
        named = {name: meaning for name, meaning in known.declarations.items() if name != UNKNOWN or not declared}
        wanted = replace(known, streams={**known.streams, **now}, declarations={**named, **declared})
        if wanted != known:
            identity.save(settings.data_root, wanted)
    return wanted


def meanings(settings: StreamSettings) -> dict[str, Meaning]:
    """The meaning of each windowed view, by name."""
    told: dict[str, Meaning] = json.loads(json.dumps({view.name: view.meaning for view in settings.catalog.windowed}))
    return told


def difference(known: StreamIdentity, now: StreamIdentity, holder: Path, recovery: Path | None) -> str | None:
    """Why the data in a folder can't continue on the current topic, with the remedy; None if it can."""
    adopt = f"`python -m stream.recovery adopt {recovery or 'RECOVERY_DIRECTORY'}`"
    same_records = f"if it holds the same records at the same offsets, {adopt}"
    if known.topic != now.topic:
        return (
            f"{holder} holds the data of topic {known.topic!r}, not of {now.topic!r}: correct KAFKA_TOPIC or "
            f"DATA_ROOT, or {APART}; {same_records}"
        )
    if UNKNOWN != known.cluster_id != now.cluster_id:
        return (
            f"{holder} holds the data of topic {now.topic!r} on Kafka cluster {known.cluster_id}, and this is cluster "
            f"{now.cluster_id}: correct KAFKA_BOOTSTRAP_SERVERS, or {APART}; {same_records}"
        )
    if UNKNOWN != known.topic_id != now.topic_id:
        return (
            f"{holder} holds the data of topic {now.topic!r} with the id {known.topic_id}, and its id is "
            f"{now.topic_id} now: this is another topic, or it was recreated; {APART}; {same_records}"
        )
    if known.partitions != now.partitions:
        return (
            f"topic {now.topic!r} has {now.partitions} partitions, and had {known.partitions} when {holder} was made: "
            f"keys have moved between partitions, and windows would miss their halves; {APART}"
        )
    return None


def changed_features(
    old: Mapping[str, Meaning], new: Mapping[str, Meaning], holder: Path, recovery: Path | None
) -> str:
    """The features and views that were added or removed since the data in a folder was written; empty if none were.

    Raises:
        OriginError: something else has changed.
    """
    changes: list[str] = []
    for name in sorted(old.keys() | new.keys()):
        before = old.get(name, old.get(UNKNOWN) if name == next(iter(new), None) else None)
        if name == UNKNOWN:
            continue
        if before is None:
            changes.append(f"+{name}")
        elif name not in new:
            changes.append(f"-{name}")
        else:
            changes += _changed_in(name, before, new[name], holder, recovery)
    return ", ".join(changes)


def _changed_in(view: str, old: Meaning, new: Meaning, holder: Path, recovery: Path | None) -> list[str]:
    """The features of one view that were added or removed."""
    if {**old, "aggregates": None} != {**new, "aggregates": None}:
        message = (
            f"{holder} belongs to another declaration of view {view!r} (its times, key or deduplication differ): go "
            f"back to that declaration, declare the new one under another name beside it, or {APART}"
        )
        raise OriginError(message)
    before, now = old["aggregates"], new["aggregates"]
    rebuild = f"`python -m stream.recovery rebuild {recovery or 'RECOVERY_DIRECTORY'}`"
    if redefined := sorted(name for name in before.keys() & now.keys() if before[name] != now[name]):
        message = (
            f"{holder} belongs to another declaration of {', '.join(redefined)}: give the new meaning a new name, or "
            f"accept it for rows from now on with {rebuild}"
        )
        raise OriginError(message)
    changes = [f"+{name}" for name in now.keys() - before.keys()] + [f"-{name}" for name in before.keys() - now.keys()]
    return sorted(changes)


def _holds_data(data_root: Path, stream: EventStream) -> bool:
    tables = (table(data_root, stream) for table in (events_folder, dead_letters_folder, progress_folder))
    return any(next(table.rglob("*.parquet"), None) is not None for table in tables)


def _known(data_root: Path, stream: EventStream, now: StreamIdentity) -> StreamIdentity:
    """The stored data's origin. For data of older versions it is known only from the progress record."""
    known = identity.load(data_root)
    if known is not None and (found := known.streams.get(stream.name)) is not None:
        return found
    progress = ProgressRecord(progress_folder(data_root, stream)).load()
    if not progress:
        return now
    topic = next(iter(progress.values())).topic
    return replace(now, topic=topic, partitions=max(now.partitions, *(partition + 1 for partition in progress)))
