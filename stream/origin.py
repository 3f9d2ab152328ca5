"""Compares the topic and declaration that stored data came from with those that it is to continue with.

`identity.json` records them for DATA_ROOT, `about.json` for a recovery directory. Rows of different topics, partition
counts or meanings must not be mixed, so a difference is refused before anything is written.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from feast_repo.errors import RefusedError
from feast_repo.stores import identity
from feast_repo.stores.identity import UNKNOWN, Identity, StreamIdentity
from feast_repo.stores.offline.tables import dead_letters_folder, events_folder, progress_folder
from feast_repo.stores.progress import ProgressRecord

if TYPE_CHECKING:
    from pathlib import Path

    from feast_repo.settings import StreamSettings

APART = "use another DATA_ROOT and a new recovery directory"


class OriginError(RefusedError, ValueError):
    """The stored data doesn't belong to this topic or declaration; the message names the remedy."""


def check(settings: StreamSettings, now: StreamIdentity, recovery: Path | None) -> None:
    """Compare DATA_ROOT's origin with the current topic and declaration. Nothing is written.

    Raises:
        OriginError: they differ.
        IdentityError: `identity.json` is damaged.
        OSError: DATA_ROOT can't be read.
    """
    check_topic(settings, now, recovery)
    if _holds_data(settings.data_root) and (known := identity.load(settings.data_root)) and known.declaration:
        changed_features(known.declaration, meaning(settings), settings.data_root, recovery)


def check_topic(settings: StreamSettings, now: StreamIdentity, recovery: Path | None) -> None:
    """Compare the origin of DATA_ROOT's records with the current topic; raises as `check` does."""
    if _holds_data(settings.data_root):
        known = _stream(settings, identity.load(settings.data_root), now)
        if problem := difference(known, now, settings.data_root, recovery):
            raise OriginError(problem)


def record(settings: StreamSettings, now: StreamIdentity) -> Identity:
    """Record DATA_ROOT's origin; an id that was unknown may be known now.

    Raises:
        IdentityError: `identity.json` is damaged.
        OSError: DATA_ROOT can't be written.
    """
    return _record(settings, now, meaning(settings))


def record_topic(settings: StreamSettings, now: StreamIdentity) -> Identity:
    """Record the topic that DATA_ROOT continues on; raises as `record` does."""
    return _record(settings, now, None)


def _record(settings: StreamSettings, now: StreamIdentity, declaration: dict[str, Any] | None) -> Identity:
    identity.ensure(settings.data_root)
    with identity.writing(settings.data_root):
        known = identity.load(settings.data_root)
        assert known is not None  # noqa: S101  (nobody removes it)
        streams = {**known.streams, settings.catalog.view().source.name: now}
        wanted = replace(known, streams=streams, declaration=declaration or known.declaration)
        if wanted != known:
            identity.save(settings.data_root, wanted)
    return wanted


def meaning(settings: StreamSettings) -> dict[str, Any]:
    """The view's meaning after a round trip through JSON."""
    told: dict[str, Any] = json.loads(json.dumps(settings.catalog.view().meaning))
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
            f"users have moved between partitions, and windows would miss their halves; {APART}"
        )
    return None


def changed_features(old: dict[str, Any], new: dict[str, Any], holder: Path, recovery: Path | None) -> str:
    """The features that were added or removed since the data in a folder was written; empty if none were.

    Raises:
        OriginError: something else has changed.
    """
    if {**old, "aggregates": None} != {**new, "aggregates": None}:
        message = (
            f"{holder} belongs to another declaration (its times, key or deduplication differ): go back to that "
            f"declaration, or {APART}"
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
    return ", ".join(sorted(changes))


def _holds_data(data_root: Path) -> bool:
    tables = (events_folder(data_root), dead_letters_folder(data_root), progress_folder(data_root))
    return any(next(table.rglob("*.parquet"), None) is not None for table in tables)


def _stream(settings: StreamSettings, known: Identity | None, now: StreamIdentity) -> StreamIdentity:
    """The stored data's origin. For data of older versions it is known only from the progress record."""
    if known is not None and (stream := known.streams.get(settings.catalog.view().source.name)) is not None:
        return stream
    record = ProgressRecord(progress_folder(settings.data_root)).load()
    if not record:
        return now
    topic = next(iter(record.values())).topic
    return replace(now, topic=topic, partitions=max(now.partitions, *(partition + 1 for partition in record)))
