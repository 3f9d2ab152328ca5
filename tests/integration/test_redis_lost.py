"""Redis loses its data, is refilled from Parquet, and ends as if nothing had happened."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from polars.testing import assert_frame_equal
from redis import Redis

from batch.maintenance import restore_online
from feast_repo.clickstream import clickstream
from feast_repo.declare.rows import SERVED
from feast_repo.errors import ExitCode
from feast_repo.features import user_click_features as view
from feast_repo.stores.offline.tables import progress_folder
from feast_repo.stores.online.marker import is_filled, marker_key, read_mark
from feast_repo.stores.opening import open_store
from feast_repo.stores.progress import ProgressRecord
from sandbox.checks import contents, online_equals_offline, rows_of
from sandbox.processes import wait_until
from tests.integration.conftest import TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from tests.integration.conftest import Stack


def test_emptied_redis_is_noticed_and_refilled(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recovery = ["-r", str(tmp_path / "recovery"), "-s", "1", "-b", "0"]
    settings = stack.settings
    stack.produce(events=6_000, hours=1)
    status, errors = stack.run(*recovery)
    assert status == 0, errors
    full = contents(settings.data_root, settings.redis_url)
    key = marker_key("ml_feature_store", view.name)
    with Redis.from_url(settings.redis_url) as redis:
        assert is_filled(read_mark(redis, key))
        redis.flushall()

        assert restore_online.main([]) == 0
        assert f"rows of {view.name}" in capsys.readouterr().out
        assert contents(settings.data_root, settings.redis_url) == full
        assert is_filled(read_mark(redis, key))
        assert redis.hlen(f"ml_feature_store:progress:{view.name}") == 6
        assert restore_online.main(["--json"]) == 0
        assert f'"{view.name}": 0' in capsys.readouterr().out

        redis.flushall()
        stack.produce(events=6_000, seed=2, hours=1, hours_later=1)
        status, errors = stack.run(*recovery)
        assert status == 0, errors
        assert errors.count("Redis was emptied: refilling it") == 1
        assert errors.count("Redis is filled again") == 1
        assert is_filled(read_mark(redis, key))
    assert online_equals_offline(open_store(), settings.data_root, view).holds


def test_emptied_and_refilled_while_the_stream_runs(stack: Stack, tmp_path: Path) -> None:
    settings = stack.settings
    log = tmp_path / "log"
    stream = stack.start("-r", str(tmp_path / "recovery"), "-s", "1", "-b", "0", stop_at_end=False, errors=log)
    produced = stack.produce(events=6_000, hours=1)
    wait_for(stream, log, lambda: stored(settings.data_root) == produced)
    with Redis.from_url(settings.redis_url) as redis:
        redis.flushall()
        assert restore_online.main([]) == 0
        produced += stack.produce(events=6_000, seed=2, hours=1, hours_later=1)
        wait_for(stream, log, lambda: stored(settings.data_root) == produced)
        stream.terminate()
        assert stream.wait(TIMEOUT_S) == 0, log.read_text()
        assert is_filled(read_mark(redis, marker_key("ml_feature_store", view.name)))
        live = contents(settings.data_root, settings.redis_url)["redis"]
        assert online_equals_offline(open_store(), settings.data_root, view).holds

        redis.flushall()
        quiet = tmp_path / "quiet"
        status, errors = stack.run(DATA_ROOT=str(quiet), FEAST_REGISTRY_URL=f"sqlite:///{quiet / 'registry.db'}")
        assert status == 0, errors
        assert contents(quiet, settings.redis_url)["redis"] == live
    for table in (f"features/{view.name}", "events/clickstream", f"late/{view.name}", "dead_letters/clickstream"):
        rows, expected = (rows_of(root / table).drop(SERVED, strict=False) for root in (settings.data_root, quiet))
        key = ["partition", "offset"] if "offset" in rows.columns else ["user_id", "event_timestamp"]
        assert_frame_equal(rows.sort(key), expected.sort(key))


def stored(data_root: Path) -> int:
    """How many messages are stored."""
    return sum(one.next_offset for one in ProgressRecord(progress_folder(data_root, clickstream)).load().values())


def wait_for(stream: subprocess.Popen[str], log: Path, holds: Callable[[], bool]) -> None:
    """Wait until something holds, as long as the stream runs."""
    assert wait_until(lambda: holds() or stream.poll() is not None, TIMEOUT_S), log.read_text()
    assert stream.poll() is None, log.read_text()


def test_redis_that_is_away_is_told_in_one_line(stack: Stack) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "batch.restore_online"],
        cwd=stack.folder,
        env={**stack.environment, "REDIS_URL": "redis://127.0.0.1:1/0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.TRY_AGAIN, done.stderr
    assert "check REDIS_URL" in done.stderr.splitlines()[-1]
