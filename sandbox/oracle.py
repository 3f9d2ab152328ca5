"""An independent oracle: the windows recomputed in SQL from the archived records.

It shares no code with the window engine: each record is copied into its windows instead of panes, and DuckDB's window
functions replace running state. The demo and the tests compare its rows with the stream's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb

from feast_repo.declare.algebra import Count, Max, Min, Ratio, Sum
from feast_repo.declare.conditions import Absent, Both, Comparison, Either, Not, OneOf
from feast_repo.stores.offline.files import data_files, day_folders
from feast_repo.stores.offline.tables import events_folder, features_folder

if TYPE_CHECKING:
    from pathlib import Path

    from feast_repo.declare.algebra import Aggregate, Feature
    from feast_repo.declare.conditions import Condition, Scalar
    from feast_repo.declare.views import WindowedView


DAY_MS = 86_400_000


@dataclass(frozen=True)
class Differences:
    """Differences between stored and recomputed rows, by entity and window end."""

    recomputed: int
    equal: int
    different: int
    only_stored: int
    only_recomputed: int
    stored_twice: int

    @property
    def none(self) -> bool:
        """Whether every row exists once, with equal values in every column."""
        return self.equal == self.recomputed and not (
            self.different or self.only_stored or self.only_recomputed or self.stored_twice
        )


def compare(data_root: Path, view: WindowedView, *, archive_root: Path | None = None) -> Differences:
    """Recompute all rows of the stream from `events/` and compare them with `features/<view>/`.

    With `archive_root`, `events/` is taken from there.
    """
    columns = ["event_timestamp", "created_timestamp", *view.features]
    same = " and ".join(f"s.{name} is not distinct from r.{name}" for name in columns)
    identity = [f'"{name}"' for name in (*view.join_keys, "event_timestamp")]
    with duckdb.connect() as database:
        database.execute("set timezone = 'UTC'")
        database.execute(f"create table recomputed as {recomputation(archive_root or data_root, view)}")
        database.execute(
            f"create table stored as select * from read_parquet({_files(features_folder(data_root, view.name))}, "
            "hive_partitioning = false) where writer = 'stream'"
        )
        row = database.execute(
            f"""
            select (select count(*) from recomputed),
                   count(*) filter (s.event_timestamp is not null and r.event_timestamp is not null and {same}),
                   count(*) filter (s.event_timestamp is not null and r.event_timestamp is not null and not ({same})),
                   count(*) filter (r.event_timestamp is null),
                   count(*) filter (s.event_timestamp is null),
                   (select count(*) - count(distinct ({", ".join(identity)})) from stored)
            from stored s full outer join recomputed r on {" and ".join(f"s.{name} = r.{name}" for name in identity)}
            """
        ).fetchone()
    assert row is not None  # noqa: S101  (an aggregate without groups has exactly one row)
    return Differences(*row)


def recomputation(data_root: Path, view: WindowedView) -> str:
    """The rule of `docs/semantics.md` as one SQL query over the archive.

    Raises:
        TypeError: a feature is none of those that are written in SQL here.
    """
    events, names = view.source, [f'"{name}"' for name in view.join_keys]
    keys, same_entity = ", ".join(names), " and ".join(f"n.{name} = c.{name}" for name in names)
    slide, lateness = view.slide_ms, view.lateness_ms
    aggregates = ", ".join(f"{_aggregate(aggregate)} as {name}" for name, aggregate in view.aggregates.items())
    empty = ", ".join(
        f"{'null' if isinstance(aggregate, Min | Max) else 0}::bigint" for aggregate in view.aggregates.values()
    )
    ratios = "".join(f", {_ratio(feature)} as {name}" for name, feature in view.derived.items())
    return f"""
    with log as (
        select * replace (epoch_ms({events.time}) as {events.time}, epoch_ms(kafka_timestamp) as kafka_timestamp)
        from (
            -- an older version's files don't say whose time a message has
            select null::boolean as create_time where false union all by name
            select * from read_parquet(
                {_files(events_folder(data_root, view.source))}, hive_partitioning = false, union_by_name = true
            )
        )
    ), seen as (
        select *,
            max({events.time}) over before - {lateness} as watermark_before,
            max({events.time}) over upto - {lateness} as watermark_after,
            case when create_time then least(kafka_timestamp, max({events.time}) over upto + {DAY_MS})
                 else kafka_timestamp end as arrival,
            row_number() over copies = 1 as is_first
        from log
        window before as (partition by "partition" order by "offset"
                          rows between unbounded preceding and 1 preceding),
               upto as (partition by "partition" order by "offset"),
               copies as (partition by "partition", {events.event_id or '"offset"'}, {events.time} order by "offset")
    ), reached as (
        select "partition", max(watermark_after) as final_watermark from seen group by "partition"
    ), counted as (
        select "partition", {keys}, window_end, {aggregates}
        from (
            select seen.*, unnest(generate_series(1, {view.panes_per_window})) * {slide}
                + {events.time} // {slide} * {slide} as window_end
            from seen where "{events.key}" is not null and is_first
        ) join reached using ("partition")
        where (watermark_before is null or window_end > watermark_before) and window_end <= final_watermark
        group by all
    ), expired as (
        select "partition", {keys}, window_end + {slide} as window_end, {empty}
        from counted c join reached using ("partition")
        where window_end + {slide} <= final_watermark and not exists (
            select 1 from counted n
            where n."partition" = c."partition" and {same_entity} and n.window_end = c.window_end + {slide}
        )
    ), closings as (
        select "partition", watermark_after, min(latest_arrival) as created from (
            select *, max(arrival) over (partition by "partition" order by "offset") as latest_arrival from seen
        ) group by "partition", watermark_after
    )
    select {keys}, make_timestamptz(window_end * 1000) as event_timestamp,
           make_timestamptz(created * 1000) as created_timestamp, {", ".join(view.aggregates)}{ratios}
    from (select * from counted union all select * from expired) as emitted
    asof join closings on emitted."partition" = closings."partition" and emitted.window_end <= closings.watermark_after
    """


def _aggregate(aggregate: Aggregate) -> str:
    where = "true" if aggregate.where is None else _condition(aggregate.where)
    if isinstance(aggregate, Count):
        return f"count(*) filter ({where})"
    if isinstance(aggregate, Min | Max):
        return f"{type(aggregate).__name__.lower()}({aggregate.column}) filter ({where})"
    if not isinstance(aggregate, Sum):
        raise TypeError(aggregate)
    # A wider sum, wrapped to 64 bits.
    total = f"coalesce(sum({aggregate.column}) filter ({where}), 0)::hugeint"
    return f"((({total} + {2**63}) % {2**64} + {2**64}) % {2**64} - {2**63})::bigint"


def _ratio(feature: Feature) -> str:
    if not isinstance(feature, Ratio):
        raise TypeError(feature)
    above, below = f"{feature.numerator}::double", f"{feature.denominator}::double"
    return f"case when coalesce({below}, 0) = 0 then 0.0::double else coalesce({above} / {below}, 0.0) end"


def _condition(where: Condition) -> str:
    match where:
        case Both(left, right):
            return f"({_condition(left)} and {_condition(right)})"
        case Either(one, other):
            return f"({_condition(one)} or {_condition(other)})"
        case Not(negated):
            return f"(not {_condition(negated)})"
        case Absent(column):
            return f"({column} is null)"
        case OneOf(column, values):
            return f"coalesce({column} in ({', '.join(map(_constant, values))}), false)"
        case Comparison(column, symbol, value):
            return f"coalesce({column} {symbol.replace('==', '=')} {_constant(value)}, false)"
    raise TypeError(where)


def _constant(value: Scalar) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)


def _files(folder: Path) -> str:
    """The table's files as an SQL list, because DuckDB takes a file's path literally, but not a pattern's."""
    files = [str(file).replace("'", "''") for day in day_folders(folder) for file in data_files(day)]
    return "[" + ", ".join(f"'{file}'" for file in files) + "]"
