"""Compares what Redis serves with the newest offline rows.

Offline rows are read first, so beside a running stream some users may already be served a newer row. Such a row must
appear in Parquet, where the stream stores it in the same epoch, and be equal; one that never appears is an error.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.console import Console

from batch.maintenance.restore_online import newest_by_day
from batch.recompute.rows import STORED
from batch.recompute.stored import bits, effective, stored_rows
from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.declare.rows import EVENT_TIME
from feast_repo.declare.stored import offline_columns
from feast_repo.declare.views import WindowedView

if TYPE_CHECKING:
    from pathlib import Path

    from feast import FeatureStore

    from feast_repo.declare.batch_views import BatchView

ENTITIES_PER_READ = 2_000
PATIENCE_S, LOOK_AGAIN_S = 30.0, 0.25
"""How long a pushed row may take to appear in Parquet: the stream writes both concurrently."""


@dataclass
class OnlineComparison:
    """Counts of users by what Redis has for them. `ahead`: a newer row that never appeared in Parquet.

    `age_seconds`: the age of the served values, from the window's end to now: median, 95th percentile, oldest.
    """

    users: int = 0
    equal: int = 0
    different: int = 0
    missing: int = 0
    behind: int = 0
    ahead: int = 0
    age_seconds: dict[str, float] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        """Users who are not served the stored row."""
        return self.different + self.missing + self.behind + self.ahead

    @property
    def remedies(self) -> list[str]:
        """The remedies, a sentence each."""
        remedies = {
            "`python -m batch.restore_online --overwrite` replaces what is different": self.different,
            "`python -m batch.restore_online` brings what is missing or behind": self.missing + self.behind,
            "rows ahead are in Redis only: start the stream if it is down; otherwise another stream writes to this "
            "Redis, or DATA_ROOT is not its stream's": self.ahead,
        }
        return [remedy for remedy, users in remedies.items() if users]


def compare_online(
    store: FeatureStore, data_root: Path, view: WindowedView | BatchView, *, sample: int | None, most_examples: int
) -> OnlineComparison:
    """Compare all users, or a sample that is the same in each run, through Feast's own reads.

    Raises:
        OSError: a file can't be read.
        redis.RedisError: Redis is away.
    """
    keys = view.join_keys
    columns = {
        name: dtype for name, dtype in offline_columns(view).items() if name in {*keys, EVENT_TIME, *view.features}
    }
    newest = [rows.select(columns.keys()) for _, _, rows in newest_by_day(data_root, view)]
    offline = pl.concat([pl.DataFrame(schema=columns), *newest])
    if sample is not None:
        offline = offline.sort(pl.struct(keys).hash(), *keys).head(sample)
    online = _online_rows(store, view, offline.select(keys).to_dicts(), columns)
    held = online.rename({name: STORED + name for name in columns if name not in keys})
    paired = offline.join(held, on=keys, how="left").with_columns(
        _floored(view, EVENT_TIME), _floored(view, STORED + EVENT_TIME)
    )
    return _counted(view, _caught_up(data_root, view, paired), most_examples)


def _caught_up(data_root: Path, view: WindowedView | BatchView, paired: pl.DataFrame) -> pl.DataFrame:
    """Replace the offline row by the one of the served time, if that is newer and has appeared."""
    keys, served = view.join_keys, STORED + EVENT_TIME
    is_ahead = pl.col(served) > pl.col(EVENT_TIME)
    if not paired.select(is_ahead.any()).item():
        return paired
    deadline = time.monotonic() + PATIENCE_S
    with Console(stderr=True).status("waiting for the stream to store what it has pushed"):
        while not (ahead := paired.filter(is_ahead)).is_empty():
            found = _stored_at(data_root, view, ahead.select(*keys, pl.col(served).alias(EVENT_TIME)))
            caught_up = ahead.drop(EVENT_TIME, *view.features).join(found, on=keys).select(paired.columns)
            paired = pl.concat([paired.join(caught_up, on=keys, how="anti"), caught_up])
            if len(caught_up) == len(ahead) or time.monotonic() > deadline:
                break
            time.sleep(LOOK_AGAIN_S)
    return paired


def _stored_at(data_root: Path, view: WindowedView | BatchView, wanted: pl.DataFrame) -> pl.DataFrame:
    """The stored rows of these users and times, as far as they exist."""
    if isinstance(view, WindowedView):
        windows = (wanted[EVENT_TIME].dt.epoch("ms") // view.slide_ms).to_list()
        rows = effective(view, stored_rows(data_root, view, min(windows), max(windows)))
    else:
        rows = pl.concat([rows for _, _, rows in newest_by_day(data_root, view)])
    return rows.join(wanted, on=wanted.columns, how="semi").select(*wanted.columns, *view.features)


def _floored(view: WindowedView | BatchView, column: str) -> pl.Expr:
    """The window's end: a healed row's time is slightly after it."""
    if not isinstance(view, WindowedView):
        return pl.col(column)
    slide_us = view.slide_ms * 1000
    return (pl.col(column).dt.epoch("us") // slide_us * slide_us).cast(UTC_MICROSECONDS)


def _counted(view: WindowedView | BatchView, paired: pl.DataFrame, most_examples: int) -> OnlineComparison:
    types = offline_columns(view)
    stored, served = pl.col(EVENT_TIME), pl.col(STORED + EVENT_TIME)
    differences = {name: bits(STORED + name, types[name]).ne_missing(bits(name, types[name])) for name in view.features}
    same_window = paired.filter(served == stored)
    unequal = same_window.filter(pl.any_horizontal(pl.lit(value=False), *differences.values()))
    missing, behind, ahead = (paired.filter(is_so) for is_so in (served.is_null(), served < stored, served > stored))
    result = OnlineComparison(
        users=len(paired),
        equal=len(same_window) - len(unequal),
        different=len(unequal),
        missing=len(missing),
        behind=len(behind),
        ahead=len(ahead),
    )
    age = (pl.lit(datetime.now(UTC)) - served).dt.total_milliseconds() / 1000
    median, p95, oldest = paired.select(
        age.median().alias("median"), age.quantile(0.95).alias("p95"), age.max().alias("oldest")
    ).row(0)
    if median is not None:
        result.age_seconds = {"median": median, "p95": p95, "oldest": oldest}
    keys = view.join_keys
    for what, rows in (("missing online", missing), ("older online", behind), ("newer online", ahead)):
        for row in rows.sort(keys).head(most_examples).iter_rows(named=True):
            online = None if row[STORED + EVENT_TIME] is None else row[STORED + EVENT_TIME].isoformat()
            result.examples.append(_example(row, keys, what, online, row[EVENT_TIME].isoformat()))
    for row in unequal.sort(keys).head(most_examples).iter_rows(named=True):
        for name in view.features:
            if row[name] != row[STORED + name]:
                result.examples.append(_example(row, keys, name, row[STORED + name], row[name]))
    del result.examples[most_examples:]
    return result


def _example(row: dict[str, Any], keys: tuple[str, ...], feature: str, online: Any, offline: Any) -> dict[str, Any]:
    return {
        "entity": ", ".join(str(row[key]) for key in keys),
        "window_end": row[EVENT_TIME].isoformat(),
        "feature": feature,
        "online": online,
        "offline": offline,
    }


def _online_rows(
    store: FeatureStore, view: WindowedView | BatchView, entities: list[dict[str, Any]], columns: dict[str, pl.DataType]
) -> pl.DataFrame:
    """The users' rows as returned by Feast; users that Redis doesn't have are left out."""
    references = [f"{view.name}:{name}" for name in view.features]
    parts = [pl.DataFrame(schema=columns)]
    for start in range(0, len(entities), ENTITIES_PER_READ):
        some = entities[start : start + ENTITIES_PER_READ]
        response = store.get_online_features(references, some)
        values: dict[str, list[Any]] = response.to_dict()
        names = list(response.proto.metadata.feature_names.val)
        times = response.proto.results[names.index(next(iter(view.features)))].event_timestamps
        rows = {
            **{key: [one[key] for one in some] for key in view.join_keys},
            EVENT_TIME: [time.ToMicroseconds() for time in times],
        }
        frame = pl.DataFrame({**rows, **{name: values[name] for name in view.features}}, schema=columns)
        parts.append(frame.filter(pl.col(EVENT_TIME).dt.epoch("us") > 0))
    return pl.concat(parts)
