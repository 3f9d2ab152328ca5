"""Redis loses its data, is refilled from Parquet, and ends as if nothing had happened."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from redis import Redis

from batch import restore_online
from feast_repo.features import user_click_features as view
from feast_repo.online_marker import is_filled, marker_key
from feast_repo.store import open_store
from sandbox.checks import contents, online_equals_offline

if TYPE_CHECKING:
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
        assert is_filled(redis, key)
        redis.flushall()

        assert restore_online.main([]) == 0
        assert f"rows of {view.name}" in capsys.readouterr().out
        assert contents(settings.data_root, settings.redis_url) == full
        assert is_filled(redis, key)
        assert redis.hlen(f"ml_feature_store:progress:{view.name}") == 6
        assert restore_online.main(["--json"]) == 0
        assert f'"{view.name}": 0' in capsys.readouterr().out

        redis.flushall()
        stack.produce(events=6_000, seed=2, hours=1, hours_later=1)
        status, errors = stack.run(*recovery)
        assert status == 0, errors
        assert errors.count("Redis was emptied: refill it") == 1
        assert not is_filled(redis, key)
    assert restore_online.main([]) == 0
    assert online_equals_offline(open_store(), settings.data_root, view).holds


def test_redis_that_is_away_is_told_in_one_line(stack: Stack) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "batch.restore_online"],
        cwd=stack.folder,
        env={**stack.environment, "REDIS_URL": "redis://127.0.0.1:1/0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "check REDIS_URL" in done.stderr.splitlines()[-1]
