"""The dataflow's only output: makes the results of each batch durable in the one safe order.

    write_batch    starts writing log rows, Redis rows and then their feature files (`stream/sinks.py`)
    snapshot       the epoch is committed, step by step (`stream/commit.py`), before Bytewax commits it

Threads beside the dataflow do all writing. The dataflow waits only for room, which bounds memory, and for everything at
the epoch's end.

Guarantee: when an epoch commits, all of its rows are durable, and the progress record never runs ahead of them. After a
crash the epoch is replayed, which leaves stored rows unchanged. Nothing is deleted.

It is one sink rather than one per store, because the guarantee depends on the order between the stores, and Bytewax
promises none between sinks.
"""

from __future__ import annotations

import atexit
import gc
import logging
from typing import TYPE_CHECKING

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from feast_repo.errors import FeatureStoreError
from feast_repo.stores.identity import data_id, record_registry
from feast_repo.stores.offline.tables import progress_folder
from feast_repo.stores.online.owner import ForeignRedisError, claim_settings
from feast_repo.stores.online.writer import end_others
from feast_repo.stores.progress import ProgressRecord, confirm_announced
from stream import metrics
from stream.availability import Emptied, hold_for_redis
from stream.commit import Commit
from stream.epoch import Epoch, Outcome
from stream.lock import TOKEN, live_tokens
from stream.redis_watch import RedisWatch
from stream.refill import Refill
from stream.routing import partition_of
from stream.run_report import RunReport
from stream.sinks import FeatureFiles, Logs, Online, OnlineViews
from stream.start_checks import look_at_redis
from stream.steps import parts
from stream.stopping import refuse

if TYPE_CHECKING:
    from pathlib import Path

    from redis import Redis

    from feast_repo.declare.events import EventStream
    from feast_repo.settings import StreamSettings
    from feast_repo.stores.push import Pusher
    from stream.view_windows import ClosedWindow

logger = logging.getLogger(__name__)

COLLECT_AFTER = 100_000
"""Net allocations of objects before the garbage collector looks for cycles."""


class Stores(FixedPartitionedSink[Outcome, None]):
    """Redis, Parquet, log tables and progress record, for outcomes keyed by stream and Kafka partition."""

    def __init__(self, settings: StreamSettings) -> None:
        """Open registry and Redis; one that doesn't answer or doesn't match is reported before the first message."""
        self._settings = settings
        catalog = settings.catalog
        self._pushers = _open_pushers(settings)
        for pusher in self._pushers.values():
            hold_for_redis(pusher.settle)
        _spare_the_collector()
        self._reports = {stream.name: RunReport(stream, catalog.views_of(stream)) for stream in catalog.streams}
        self._emptied = Emptied()
        metrics.serve_freshness(catalog)

    def list_parts(self) -> list[str]:
        """A fixed number of parts, whatever the number of workers or Kafka partitions."""
        return parts()

    def part_fn(self, item_key: str) -> int:
        """A Kafka partition always belongs to the same part."""
        return partition_of(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> StorePart:
        """Open one part; the stores themselves hold the position, so there is no state to resume."""
        del step_id, resume_state
        refill = Refill() if for_part == parts()[0] else None
        return StorePart(
            {
                stream.name: StreamStores(
                    self._settings,
                    stream,
                    self._pushers,
                    self._reports[stream.name],
                    self._emptied,
                    part=for_part,
                    refill=refill,
                )
                for stream in self._settings.catalog.streams
            }
        )


def _open_pushers(settings: StreamSettings) -> dict[str, Pusher]:
    """The push of each windowed view, by the view's name."""
    from feast_repo.stores.opening import (  # noqa: PLC0415
        despite_others,
        ensure_applied,
        open_store,
        registry_id,
    )
    from feast_repo.stores.push import Pusher  # noqa: PLC0415  (Feast takes seconds to import)

    pushers: dict[str, Pusher] = {}
    try:
        store = open_store()
        ensure_applied(store)
        record_registry(settings.data_root, store.project, registry_id(store))
        names = f"stream:{data_id(settings.data_root)}:"

        def open_all() -> None:
            for view in settings.catalog.windowed:
                pushers[view.name] = Pusher(store, view.push_source, writer=names + TOKEN)

        despite_others(open_all)
    except FeatureStoreError as error:
        refuse(error)
    except (LookupError, ValueError, OSError) as error:
        refuse(str(error))
    for pusher in pushers.values():
        if (redis := pusher.redis) is not None:
            _prepare_redis(redis, names, pushers, settings)
            break  # all views are in one online store
    return pushers


def _prepare_redis(redis: Redis, names: str, pushers: dict[str, Pusher], settings: StreamSettings) -> None:
    look_at_redis(redis)
    # A killed process may have rows in flight that are older than the next ones.
    live = live_tokens(settings.data_root) | {TOKEN}
    hold_for_redis(lambda: end_others(redis, names, live))
    try:
        hold_for_redis(lambda: _claim(redis, pushers, settings))
    except ForeignRedisError as error:
        refuse(error)


def _claim(redis: Redis, pushers: dict[str, Pusher], settings: StreamSettings) -> None:
    project = next(iter(pushers.values())).project
    is_new, where = claim_settings(redis, project, settings)
    logger.info("%s", where)
    for name, pusher in pushers.items():
        if is_new and confirm_announced(redis, project, name):
            for view in pusher.online:
                view.set_sentinel()
            logger.info("Redis comes from an older version and had no identity: it holds this DATA_ROOT's data now")


def _spare_the_collector() -> None:
    """Keep the garbage collector from scanning Feast's million objects, and each poll, again and again.

    A poll creates thousands of tracked message objects, none of them part of a cycle.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    atexit.register(gc.unfreeze)  # otherwise libraries report the frozen objects as leaks


class StorePart(StatefulSinkPartition[Outcome, None]):
    """The stores for some Kafka partitions of all streams."""

    def __init__(self, streams: dict[str, StreamStores]) -> None:
        self._streams = streams

    def write_batch(self, values: list[Outcome]) -> None:
        """Start writing the outcomes."""
        for stream in dict.fromkeys(outcome.stream for outcome in values):
            self._streams[stream].write([outcome for outcome in values if outcome.stream == stream])

    def snapshot(self) -> None:
        """Commit the epoch."""
        for stream in self._streams.values():
            stream.commit()

    def close(self) -> None:
        """End the writing threads; the last part reports what the run has stored."""
        for stream in self._streams.values():
            stream.close()


class StreamStores:
    """The stores of one stream in one part. The part with `refill` restores what Redis has lost."""

    def __init__(
        self,
        settings: StreamSettings,
        stream: EventStream,
        pushers: dict[str, Pusher],
        report: RunReport,
        emptied: Emptied,
        *,
        part: str = "",
        refill: Refill | None = None,
    ) -> None:
        views, root = settings.catalog.views_of(stream), settings.data_root
        record = ProgressRecord(progress_folder(root, stream))
        self._stream, self._views = stream, views
        online = {}
        for view in views:
            pusher, watch = pushers[view.name], None
            if pusher.redis is not None:
                watch = RedisWatch(pusher.redis, pusher.online[0], pusher.project, view, part)
                _begin(watch, record, root)
            online[view.name] = Online(view, pusher, watch, emptied, refill)
        self._online = OnlineViews(online)
        self._logs = Logs(root, stream, views)
        self._features = FeatureFiles(pushers)
        self._commit = Commit(views, record, self._logs, self._features, self._online)
        self._epoch = Epoch({view.name: view.panes_per_window for view in views})
        self._report = report
        report.open_part()

    def write(self, outcomes: list[Outcome]) -> None:
        """Start writing the outcomes."""
        self._report.received()
        closed: list[tuple[int, ClosedWindow]] = []
        for outcome in outcomes:
            windows = self._commit.new_windows(outcome)
            self._epoch.take(outcome, windows)
            self._logs.append(outcome)
            closed += [(outcome.progress.partition, window) for window in windows]
        self._online.push(closed, self._features.write)

    def commit(self) -> None:
        """Commit the epoch."""
        advanced = self._commit.commit(self._epoch)
        self._report.stored(self._epoch, advanced)
        metrics.count(self._stream.name, self._views, self._epoch, advanced)
        self._epoch = Epoch(self._epoch.windows_per_record)

    def close(self) -> None:
        """End the writing threads; the last part reports what the run has stored."""
        self._features.close()
        self._online.close()
        self._logs.close()
        self._report.close_part()


def _begin(watch: RedisWatch, record: ProgressRecord, data_root: Path) -> None:
    stored = record.load()
    hold_for_redis(lambda: watch.begin(record, stored, data_root))
