"""What Redis serves wrongly is named with the command that puts it right, and that command does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import polars as pl
import pytest
from feast.infra.online_stores.helpers import _mmh3
from redis import Redis

from batch.lock import only_batch_writer
from batch.maintenance.restore_online import main as restore
from batch.parity import online as parity_online
from batch.parity.__main__ import main as parity
from batch.parity.online import compare_online
from batch.recompute.backfill import main as backfill
from feast_repo.errors import ExitCode
from feast_repo.features import user_click_features as view
from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.tables import features_folder
from feast_repo.stores.online.keys import SENTINEL
from feast_repo.stores.online.view import OnlineView
from feast_repo.stores.opening import open_store
from sandbox.checks import newest_rows
from tests.batch.archives import clicks, store, stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VIEW_COUNT = _mmh3(f"{view.name}:view_count")
TIME = f"_ts:{view.name}".encode()
WRONG = b"\x20\x6f"
"""111 as Feast has it."""


@pytest.fixture
def root(redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """The data folder of a stream that has run, late events among its clicks; Redis has its newest rows."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    folder = StreamSettings().data_root
    stream(folder, view, clicks(hours=3, events=800, partitions=2))
    assert restore([]) == 0
    capsys.readouterr()
    return folder


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


def run(capsys: pytest.CaptureFixture[str], command: Any, *arguments: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    status = command(["--json", *arguments])
    return status, json.loads(capsys.readouterr().out)


def rows_in(redis: Redis) -> dict[bytes, dict[bytes, bytes]]:
    """The users' rows, without the sentinel."""
    keys = [key for key in redis.scan_iter(_type="hash") if b"user_id" in key and SENTINEL.encode() not in key]
    return {key: cast("dict[bytes, bytes]", redis.hgetall(key)) for key in sorted(keys)}


def test_a_wrong_value_at_the_right_time_is_replaced(
    root: Path, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    assert root.is_dir()
    right = rows_in(redis)
    some = list(right)[3]
    redis.execute_command("HSET", some, VIEW_COUNT, WRONG)
    status, report = run(capsys, parity, "--online")
    assert (status, report["online"]["different"], report["online"]["examples"][0]["online"]) == (1, 1, 111)
    (remedy,) = report["online"]["remedies"]
    assert "python -m batch.restore_online --overwrite" in remedy
    assert run(capsys, restore)[1]["written"][view.name] == 0
    assert rows_in(redis) != right
    assert run(capsys, restore, "--overwrite")[1]["written"][view.name] == 1
    assert rows_in(redis) == right
    assert run(capsys, parity, "--online")[0] == 0
    assert run(capsys, restore, "--overwrite")[1]["written"][view.name] == 0


def test_a_corrected_row_is_put_right_at_its_own_time(
    root: Path, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first heal of a row stands 1 us after its window: what Redis has at either time is of that window."""
    newest = newest_rows(root, view).row(0, named=True)
    rows = pl.DataFrame([newest], schema=newest_rows(root, view).schema)
    end_ms = round(newest["event_timestamp"].timestamp() * 1000)
    healed = rows.with_columns(pl.lit("heal").alias("writer"), pl.col("view_count") + 1, created_timestamp=LATER)
    store(root, view, healed, "heal", 0, end_ms)
    assert run(capsys, restore, "--overwrite")[1]["written"][view.name] == 1
    served = compare_online(open_store(), root, view, sample=None, most_examples=5)
    assert (served.equal, served.wrong) == (served.users, 0)
    right = rows_in(redis)
    (key,) = (key for key in right if newest["user_id"].encode() in key)
    redis.execute_command("HSET", key, VIEW_COUNT, WRONG)
    assert run(capsys, restore, "--overwrite")[1]["written"][view.name] == 1
    assert rows_in(redis) == right
    for file in features_folder(root, view.name).glob("*/heal-*.parquet"):
        file.unlink()
    assert run(capsys, restore, "--overwrite")[1]["written"][view.name] == 1, "of the same window, so replaced"
    served = compare_online(open_store(), root, view, sample=None, most_examples=5)
    assert (served.equal, served.wrong) == (served.users, 0)


def test_overwriting_and_healing_exclude_each_other(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with only_batch_writer(root), pytest.raises(SystemExit) as stopped:
        restore(["--overwrite"])
    assert stopped.value.code == ExitCode.TRY_AGAIN
    assert "run this again when it is done" in capsys.readouterr().err


def test_backfill_completes_redis_too(root: Path, redis: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    right = rows_in(redis)
    for file in features_folder(root, view.name).glob("*/*.parquet"):
        pl.read_parquet(file, hive_partitioning=False).drop("view_count", "cart_rate").write_parquet(file)
    for key in right:
        redis.execute_command("HDEL", key, VIEW_COUNT, _mmh3(f"{view.name}:cart_rate"))
    assert run(capsys, parity, "--online")[0] == 0, "nothing is stored, and nothing is served"
    status, report = run(capsys, backfill)
    assert (status, report["completed_online"]) == (0, len(right))
    assert report["completed"] == report["added"] > len(right)
    assert rows_in(redis) == right
    assert run(capsys, parity, "--online")[0] == 0
    status, report = run(capsys, backfill)
    assert (status, report["completed"], report["completed_online"]) == (0, 0, None)


def test_backfill_completes_what_was_healed_by_the_truth(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, backfill, "--mode", "complete", "--heal")[1]["healed"] > 10
    for file in features_folder(root, view.name).glob("*/*.parquet"):
        pl.read_parquet(file, hive_partitioning=False).drop("view_count").write_parquet(file)
    assert run(capsys, backfill)[0] == 0
    status, report = run(capsys, parity, "--mode", "complete", "--online")
    assert (status, report["rows"]["explained"], report["rows"]["equal"]) == (0, 0, report["rows"]["recomputed"])


def test_backfill_without_redis_says_how_to_complete_it(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    for file in features_folder(root, view.name).glob("*/*.parquet"):
        pl.read_parquet(file, hive_partitioning=False).drop("view_count").write_parquet(file)
    assert backfill([]) == 0
    error = capsys.readouterr().err
    assert "python -m batch.restore_online --overwrite" in error
    assert error.strip().count("\n") == 0, "one line"


LATER = pl.col("created_timestamp") + pl.duration(hours=1)
NEXT = pl.col("event_timestamp") + pl.duration(milliseconds=view.slide_ms)


def pushed(root: Path) -> pl.DataFrame:
    """A row of the window after a user's newest, in Redis only."""
    rows = newest_rows(root, view).head(1).with_columns(NEXT.alias("event_timestamp"), LATER.alias("created_timestamp"))
    feast = open_store()
    assert OnlineView(feast, feast.get_feature_view(view.name)).write_forward(rows) == 1
    return rows.with_columns(writer=pl.lit("stream"))


def test_a_row_that_nobody_has_stored_is_wrong(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity_online, "PATIENCE_S", 0.0)
    user = pushed(root)["user_id"][0]
    status, report = run(capsys, parity, "--online")
    assert (status, report["online"]["ahead"], report["online"]["wrong"]) == (1, 1, 1)
    (remedy,) = report["online"]["remedies"]
    assert "another stream writes to this Redis" in remedy
    assert (report["online"]["examples"][0]["entity"], report["online"]["examples"][0]["feature"]) == (
        user,
        "newer online",
    )
    assert run(capsys, restore, "--overwrite")[1]["written"][view.name] == 0, "it is newer"


@pytest.mark.parametrize("stored_as_pushed", [True, False])
def test_a_row_that_the_stream_has_pushed_is_awaited_and_compared(
    root: Path, monkeypatch: pytest.MonkeyPatch, *, stored_as_pushed: bool
) -> None:
    rows = pushed(root)
    stored = rows if stored_as_pushed else rows.with_columns(pl.col("view_count") + 1)
    end_ms = rows["event_timestamp"].dt.epoch("ms")[0]
    monkeypatch.setattr(
        "batch.parity.online.time.sleep", lambda _: store(root, view, stored.drop("writer"), "stream", 0, end_ms)
    )
    found = compare_online(open_store(), root, view, sample=None, most_examples=5)
    assert (found.ahead, found.different) == (0, 0 if stored_as_pushed else 1)
    assert found.equal == found.users - found.different
