"""Checks in each epoch whether Redis still has what was pushed and announced.

A server that restarts from a snapshot or fails over to a lagging replica goes back to an earlier state, and nothing in
that state shows it. So each push leaves a new token, which must still be there at the next push, and Redis keeps the
offsets up to which it has all rows, which must be at least those of the progress record. Single rows are lost to `feast
teardown`, which deletes the sentinel, to eviction and to other tools, so a sample of rows is looked up.
"""

from __future__ import annotations

import random
import uuid
from typing import TYPE_CHECKING, Any, cast

import polars as pl
from redis.exceptions import NoPermissionError, ResponseError

from feast_repo.declare.rows import EVENT_TIME
from feast_repo.declare.stored import offline_columns
from feast_repo.stores.offline.files import data_files, day_folders
from feast_repo.stores.offline.parquet import despite_compaction, scan
from feast_repo.stores.offline.tables import features_folder
from feast_repo.stores.online.marker import is_filled, mark_filled, mark_lost, marker_key, read_mark
from feast_repo.stores.progress import announce, announce_missing, confirm, confirmed, confirmed_key, progress_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from redis import Redis

    from feast_repo.declare.views import WindowedView
    from feast_repo.stores.online.view import OnlineView
    from feast_repo.stores.progress import Progress, ProgressRecord

WITNESSES = 100
"""Rows that are looked up, half of them from the last push. If a tenth of all rows is gone, the other half includes one
of them 99 times out of 100."""
FILES = 20
"""How many files the first sample is taken from."""
EMPTIED = "Redis was emptied"


class RedisWatch:
    """Compares what one part of the stores has pushed and announced with Redis. For one thread at a time."""

    def __init__(self, redis: Redis, online: OnlineView, project: str, view: WindowedView, part: str) -> None:
        self._redis, self._online, self._view = redis, online, view
        self._marker_key = marker_key(project, view.name)
        self._progress_key = progress_key(project, view.name)
        self._confirmed_key = confirmed_key(project, view.name)
        self._token_key = f"{project}:pushed:{view.name}:{part}"
        self._evicted_key = f"{project}:evicted:{view.name}:{part}"
        self._mark: bytes | None = None
        self._token: bytes | None = None
        self._forgot_push = False
        self._confirmed: dict[int, int] = {}
        self._witnesses = _none(view)

    def begin(self, record: ProgressRecord, stored: Mapping[int, Progress], data_root: Path) -> None:
        """Record what Redis must have: nothing if no row is stored yet, as of a view that was just declared.

        If Redis has it all, progress is announced that a killed run recorded but did not announce.

        Raises:
            redis.RedisError: Redis is away; it can be repeated.
        """
        if not stored:
            mark_filled(self._redis, self._marker_key)
            self._online.set_sentinel()
            return
        self._confirmed = {partition: one.next_offset for partition, one in stored.items()}
        if read_mark(self._redis, self._marker_key) is None and not _has_rows(data_root, self._view):
            confirm(self._redis, self._confirmed_key, stored.values())
            self._online.set_sentinel()
            mark_filled(self._redis, self._marker_key)
        self._witnesses = _some_pushed(data_root, self._view)
        self._mark = read_mark(self._redis, self._marker_key)
        if is_filled(self._mark) and self._behind() is None:
            announce_missing(self._redis, self._progress_key, record, self._view)

    def pushed(self, token: bytes, rows: pl.DataFrame) -> None:
        """Leave a token after a push; the previous token must still be there.

        Raises:
            redis.RedisError: Redis is away; retry with the same token.
        """
        before = cast("bytes | None", self._redis.getset(self._token_key, token))
        if self._token is not None and before not in {self._token, token}:
            mark = read_mark(self._redis, self._marker_key)
            if self._is_restored(mark):
                self._mark = mark
                self._forget_pushes()
            else:
                self._forgot_push = True
        self._token = token
        pushed = rows.select(self._witnesses.columns)
        both = pl.concat([_some(self._witnesses, WITNESSES // 2), _some(pushed, WITNESSES // 2)])
        self._witnesses = both.sort(EVENT_TIME).unique(self._view.join_keys, keep="last")

    def confirm(self, progress: Sequence[Progress]) -> None:
        """Record in Redis how far its rows go, before the progress record says so.

        Raises:
            redis.RedisError: Redis is away; it can be repeated.
        """
        confirm(self._redis, self._confirmed_key, progress)
        self._confirmed |= {one.partition: one.next_offset for one in progress}

    def announce(self, progress: Sequence[Progress]) -> None:
        """Announce the stream's progress to readers.

        Raises:
            redis.RedisError: Redis is away; it can be repeated.
        """
        announce(self._redis, self._progress_key, progress, self._view)

    def look(self) -> tuple[bytes | None, str | None]:
        """The mark, and what was lost since the last call, if anything. A loss is marked in Redis for readers.

        Raises:
            redis.RedisError: Redis is away; it can be repeated.
        """
        mark = read_mark(self._redis, self._marker_key)
        if self._is_restored(mark):
            self._forget_pushes()
            if not self._has_token():
                self._token = None
        self._mark = mark
        if (loss := self._loss(mark)) is None:
            return mark, None
        if mark is not None and read_mark(self._redis, self._marker_key) is None:  # lost during this call
            mark, loss = None, EMPTIED
        mark_lost(self._redis, self._marker_key, mark, [self._progress_key, self._confirmed_key])
        self._forgot_push, self._token = False, None
        self._forget_pushes()
        self._evicted()  # rows evicted until now are refilled, too
        self._mark = read_mark(self._redis, self._marker_key)
        return self._mark, loss

    def _is_restored(self, mark: bytes | None) -> bool:
        """Whether Redis was refilled since the last call, which makes up for what it had lost before."""
        return is_filled(mark) and mark != self._mark

    def _forget_pushes(self) -> None:
        """Look up none of the rows that were pushed until now.

        A restore can't read the newest of them, which are not in files yet. That is no new loss: the caller pushes them
        again.
        """
        self._witnesses = self._witnesses.clear()

    def _has_token(self) -> bool:
        return self._token in {None, self._redis.get(self._token_key)}

    def _loss(self, mark: bytes | None) -> str | None:
        if mark is None:
            return EMPTIED
        if self._forgot_push or not self._has_token():
            return "Redis went back to an earlier state: it has forgotten rows that it had acknowledged"
        if not is_filled(mark):  # rows are known to be missing, and the restore sets the rest
            return None
        return self._behind() or self._deleted()

    def _behind(self) -> str | None:
        held = confirmed(self._redis, self._confirmed_key)
        for partition, offset in sorted(self._confirmed.items()):
            if (has := held.get(partition, 0)) < offset:
                return (
                    f"Redis went back to an earlier state: it has the rows up to offset {has:,} of partition "
                    f"{partition}, and {offset:,} is stored"
                )
        return None

    def _deleted(self) -> str | None:
        if not self._online.has_sentinel():
            return "Redis has lost rows: its sentinel was deleted, as `feast teardown` does"
        if evicted := self._evicted():
            return f"Redis has evicted {evicted:,} keys, since it is full: give it more memory"
        if len(self._witnesses) and (gone := self._online.behind(self._witnesses)):
            return f"Redis has lost rows: {gone} of {len(self._witnesses)} that were looked up are gone or older"
        return None

    def _evicted(self) -> int:
        """How many keys the server has evicted since the last call, which may be an earlier run's."""
        try:
            facts = cast("dict[str, Any]", self._redis.info())
        except (ResponseError, NoPermissionError):
            return 0
        if str(facts.get("maxmemory_policy")).startswith("volatile-"):  # our keys never expire
            return 0
        server, count = facts.get("run_id", ""), int(facts.get("evicted_keys", 0))
        told = cast("bytes | None", self._redis.getset(self._evicted_key, f"{server} {count}"))
        before = f"{server} {count}".split(" ") if told is None else told.decode().split(" ")
        return count - int(before[1]) if before[0] == server else count


def new_token() -> bytes:
    """A token that no push has left before."""
    return uuid.uuid4().hex.encode()


def _has_rows(data_root: Path, view: WindowedView) -> bool:
    return any(data_files(folder) for folder in day_folders(features_folder(data_root, view.name)))


def _some_pushed(data_root: Path, view: WindowedView) -> pl.DataFrame:
    """A sample of rows of the last two days, which Redis had acknowledged before they were written."""
    columns = [*view.join_keys, EVENT_TIME]

    def read() -> list[pl.DataFrame]:
        folders = day_folders(features_folder(data_root, view.name))[-2:]
        files = [file for folder in folders for file in data_files(folder)]
        own = [scan(file).filter(pl.col("writer") == "stream") for file in random.sample(files, min(FILES, len(files)))]
        return [_some(rows.select(columns).collect(), WITNESSES // FILES) for rows in own]

    return pl.concat([_none(view), *despite_compaction(read)])


def _none(view: WindowedView) -> pl.DataFrame:
    columns = offline_columns(view)
    return pl.DataFrame(schema={name: columns[name] for name in (*view.join_keys, EVENT_TIME)})


def _some(rows: pl.DataFrame, count: int) -> pl.DataFrame:
    return rows.sample(min(count, len(rows)))
