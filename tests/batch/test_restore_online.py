"""Which rows a restore takes from Parquet."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from rich.console import Console

from batch.maintenance.restore_online import OvertakenError, newest_by_day, restore
from feast_repo.features import user_click_features as view
from feast_repo.stores.offline.parquet import day_folder, publish
from feast_repo.stores.offline.tables import features_folder
from feast_repo.stores.online.marker import is_filled, marker_key, read_mark
from feast_repo.stores.online.view import OnlineView
from feast_repo.stores.opening import ensure_applied, open_store
from sandbox.processes import free_port
from sandbox.redis_server import RedisServer
from tests.feast_repo.rows import NEW_YEAR, clicks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from sandbox.processes import Guard

DAY = timedelta(days=1)
US = timedelta(microseconds=1)


def stored(root: Path, name: str, users: list[str], time: datetime, count: int, healed_hours_later: int = 0) -> None:
    rows = clicks(users, time, click_count=count).with_columns(
        pl.col("created_timestamp") + pl.duration(hours=healed_hours_later),
        writer=pl.lit("heal" if healed_hours_later else "stream"),
    )
    publish(day_folder(features_folder(root, view.name), f"{time:%Y-%m-%d}") / f"{name}.parquet", rows)


def taken(root: Path) -> dict[str, tuple[datetime, int]]:
    rows = pl.concat([rows for _, _, rows in newest_by_day(root, view)])
    assert rows["user_id"].is_unique().all()
    return {row["user_id"]: (row["event_timestamp"], row["click_count"]) for row in rows.iter_rows(named=True)}


def test_newest_row_of_each_user_over_all_days(tmp_path: Path) -> None:
    stored(tmp_path, "old", ["a", "b", "c"], NEW_YEAR - 400 * DAY, 1)
    stored(tmp_path, "one", ["a", "b"], NEW_YEAR, 2)
    stored(tmp_path, "two", ["a"], NEW_YEAR + view.slide, 3)
    stored(tmp_path, "next", ["d"], NEW_YEAR + DAY, 4)
    assert taken(tmp_path) == {
        "a": (NEW_YEAR + view.slide, 3),
        "b": (NEW_YEAR, 2),
        "c": (NEW_YEAR - 400 * DAY, 1),
        "d": (NEW_YEAR + DAY, 4),
    }


def test_nth_correction_stands_n_microseconds_later(tmp_path: Path) -> None:
    stored(tmp_path, "stream", ["a", "b", "c", "d"], NEW_YEAR, 1)
    stored(tmp_path, "heal-1", ["a", "b", "c"], NEW_YEAR, 2, healed_hours_later=1)
    stored(tmp_path, "heal-2", ["b", "c"], NEW_YEAR, 3, healed_hours_later=2)
    stored(tmp_path, "after", ["c"], NEW_YEAR + view.slide, 4)
    assert taken(tmp_path) == {
        "a": (NEW_YEAR + US, 2),
        "b": (NEW_YEAR + 2 * US, 3),
        "c": (NEW_YEAR + view.slide, 4),
        "d": (NEW_YEAR, 1),
    }


def test_files_in_the_making_and_empty_days_are_no_rows(tmp_path: Path) -> None:
    stored(tmp_path, "one", ["a"], NEW_YEAR, 1)
    empty = day_folder(features_folder(tmp_path, view.name), "2026-01-02")
    empty.mkdir()
    (empty / ".half.tmp").write_bytes(b"PAR1")
    assert taken(tmp_path) == {"a": (NEW_YEAR, 1)}
    assert list(newest_by_day(tmp_path / "nothing", view)) == []


def test_a_server_that_takes_over_in_the_middle_is_filled_anew(
    tmp_path: Path, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    begin  |  day 2 written   day 1 written  end
    replica|  lags ---------- takes over
    """
    server = RedisServer(tmp_path / "redis", free_port(), guard)
    replica = server.beside("replica")
    monkeypatch.setenv("REDIS_URL", server.url)
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    stored(tmp_path, "one", ["a"], NEW_YEAR, 1)
    stored(tmp_path, "next", ["b"], NEW_YEAR + DAY, 2)
    for one in (server, replica):
        one.start()
    ensure_applied(store := open_store())
    online = OnlineView(store, store.get_feature_view(view.name))

    def failing_over(*arguments: Any) -> Iterator[tuple[int, int, pl.DataFrame]]:
        replica.follow(server)
        replica.lose_primary()
        days = newest_by_day(*arguments)
        yield next(days)
        server.fail_over(replica)
        yield from days

    def restored() -> int:
        return restore(tmp_path, view, online, store.project, Console(quiet=True))

    def filled() -> bool:
        return is_filled(read_mark(online.redis, marker_key(store.project, view.name)))

    with monkeypatch.context() as patch:
        patch.setattr("batch.maintenance.restore_online.newest_by_day", failing_over)
        with pytest.raises(OvertakenError, match="failed over"):
            restored()
    assert not filled()
    assert restored() == 1, "of the day that the replica had not heard of"
    assert filled()
    assert restored() == 0
    server.close()


def test_rows_from_before_a_feature_was_declared_have_null(tmp_path: Path) -> None:
    rows = clicks(["a"]).drop("cart_rate").with_columns(writer=pl.lit("stream"), gone=pl.lit(1))
    publish(day_folder(features_folder(tmp_path, view.name), "2026-01-01") / "one.parquet", rows)
    ((_, _, found),) = newest_by_day(tmp_path, view)
    assert found["cart_rate"].to_list() == [None]
    assert "gone" not in found.columns
