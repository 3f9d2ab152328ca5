"""The limit: the same windows by one query of DuckDB, written for this one view.

It drops copies of events and leaves late ones out where the stream did, by the archived watermark, and makes the expiry
rows. It believes the archive, knows nothing of stored rows or of when a window closed, and writes one unsorted file.
"""

from __future__ import annotations

import duckdb

from benchmarks.contestants import say
from feast_repo.clickstream import clickstream
from feast_repo.features import user_click_features as view
from feast_repo.settings import StoreSettings
from feast_repo.stores.offline.tables import events_folder, features_folder, progress_folder

MEMORY = "8GB"
"""Beyond it, DuckDB spills to disk."""
QUERY = """
copy (
  with once as (
    select distinct on (partition, event_id, event_timestamp)
      partition, user_id, event_type, price_cents,
      epoch_ms(event_timestamp) // {slide} as pane, epoch_ms(watermark) // {slide} as closed
    from read_parquet('{events}', hive_partitioning = false)
    where event_type <> '{heartbeat}'
    order by partition, event_id, event_timestamp, "offset"),
  panes as (
    select partition, user_id, pane, greatest(coalesce(closed, pane), pane) as after,
      count(*) filter (event_type = 'click') as click_count,
      count(*) filter (event_type = 'view') as view_count,
      count(*) filter (event_type = 'add_to_cart') as cart_count,
      count(*) filter (event_type = 'purchase') as purchase_count,
      coalesce(sum(price_cents) filter (event_type = 'purchase'), 0) as revenue_cents
    from once where coalesce(closed, pane) < pane + {panes} group by all),
  spread as (
    select *, unnest(range(after + 1, pane + {panes} + 2)) as closing from panes),
  counted as (
    select user_id, closing,
      sum(click_count) filter (closing <= pane + {panes}) as click_count,
      sum(view_count) filter (closing <= pane + {panes}) as view_count,
      sum(cart_count) filter (closing <= pane + {panes}) as cart_count,
      sum(purchase_count) filter (closing <= pane + {panes}) as purchase_count,
      sum(revenue_cents) filter (closing <= pane + {panes}) as revenue_cents
    from spread join read_parquet('{progress}') using (partition)
    where closing * {slide} <= epoch_ms(last_closed_end)
    group by all)
  select user_id, make_timestamptz((closing * {slide} * 1000)::bigint) as event_timestamp,
    coalesce(click_count, 0)::bigint as click_count, coalesce(view_count, 0)::bigint as view_count,
    coalesce(cart_count, 0)::bigint as cart_count, coalesce(purchase_count, 0)::bigint as purchase_count,
    coalesce(revenue_cents, 0)::bigint as revenue_cents,
    case when coalesce(view_count, 0) = 0 then 0.0 else cart_count / view_count end::double as cart_rate,
    case when coalesce(view_count, 0) = 0 then 0.0 else purchase_count / view_count end::double as conversion_rate
  from counted
) to '{to}' (format parquet, compression zstd)
"""


def main() -> None:
    """Write the rows of all closed windows."""
    root = StoreSettings().data_root
    folder = features_folder(root, view.name) / "dt=all"
    folder.mkdir(parents=True)
    query = QUERY.format(
        slide=view.slide_ms,
        panes=view.panes_per_window,
        heartbeat=view.source.heartbeat,
        events=events_folder(root, clickstream) / "*" / "*.parquet",
        progress=progress_folder(root, clickstream) / "*.parquet",
        to=folder / "all.parquet",
    )
    with duckdb.connect() as database:
        database.execute("set preserve_insertion_order = false")
        database.execute(f"set memory_limit = '{MEMORY}'")
        database.execute(f"set temp_directory = '{root / 'spilled'}'")
        say("ready")
        (rows,) = database.execute(query).fetchone() or (0,)
    say("done", rows=rows)


if __name__ == "__main__":
    main()
