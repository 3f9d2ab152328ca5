"""Redis says whose data it holds, and others are refused."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from batch.maintenance import materialize, restore_online
from feast_repo.addresses import shown
from feast_repo.settings import StoreSettings
from feast_repo.stores.identity import data_id
from feast_repo.stores.online.owner import ForeignRedisError, adopt, check, claim, claim_settings

if TYPE_CHECKING:
    from pathlib import Path

    from feast import FeatureStore
    from redis import Redis


def test_the_first_data_has_it_and_a_second_is_refused(redis: Redis, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    check(redis, "shop", first)
    assert claim(redis, "shop", first)
    assert not claim(redis, "shop", first)
    check(redis, "shop", first)
    check(redis, "shop", tmp_path / "without data")
    data_id(second)
    for refuses in (claim, check):
        with pytest.raises(ForeignRedisError, match=r"another DATA_ROOT .*stream.recovery adopt"):
            refuses(redis, "shop", second)
    assert claim(redis, "another project", second)
    adopt(redis, "shop", second)
    check(redis, "shop", second)
    with pytest.raises(ForeignRedisError):
        claim(redis, "shop", first)


def test_a_moved_folder_is_the_same_data(redis: Redis, tmp_path: Path) -> None:
    claim(redis, "shop", tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    assert not claim(redis, "shop", tmp_path / "there")
    with pytest.raises(ForeignRedisError, match=f"in {tmp_path / 'there'} on "):  # where it is now
        claim(redis, "shop", tmp_path / "another")


def test_data_that_is_gone_has_no_owner(redis: Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    claim(redis, "shop", tmp_path / "gone")
    redis.hset("shop:progress:user_click_features", "0", "{}")
    shutil.rmtree(tmp_path / "gone")
    assert claim(redis, "shop", tmp_path / "next")
    assert not redis.exists("shop:progress:user_click_features")
    assert f"was in {tmp_path / 'gone'}, which is no longer there" in caplog.text
    assert not claim(redis, "shop", tmp_path / "next")


def test_a_folder_of_another_machine_is_not_taken_for_gone(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("socket.gethostname", lambda: "elsewhere")
        claim(redis, "shop", tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone")
    with pytest.raises(ForeignRedisError, match="on elsewhere"):
        claim(redis, "shop", tmp_path / "next")


def test_the_default_address_is_nobodys(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL")
    redis.set("somebody", "else")
    with pytest.raises(ForeignRedisError, match=r"REDIS_URL is not set, and Redis at redis://127.0.0.1:6379/0 holds"):
        claim_settings(redis, "shop", StoreSettings())
    assert redis.dbsize() == 1
    redis.flushall()
    is_new, where = claim_settings(redis, "shop", StoreSettings())
    assert is_new
    assert where.startswith("writing to Redis at redis://127.0.0.1:6379/0, project shop, from ")
    claim_settings(redis, "shop", StoreSettings())


def test_an_address_is_shown_without_secrets() -> None:
    assert shown("redis://me:se%40cret@host:6380/3") == "redis://host:6380/3"
    assert shown("unix://me:secret@/tmp/redis.sock?db=2&password=x") == "unix:///tmp/redis.sock?db=2"


def test_commands_that_write_say_where_and_refuse_other_data(
    store: FeatureStore, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (restore_online.main, materialize.main):
        assert command([]) == 0
        assert f"writing to Redis at {StoreSettings().redis_url}, project {store.project}" in capsys.readouterr().err
    redis.set(f"{store.project}:identity", "0" * 32)
    before = redis.dbsize()
    for command in (restore_online.main, materialize.main):
        with pytest.raises(SystemExit) as ended:
            command([])
        assert ended.value.code == 2
        assert "another DATA_ROOT" in capsys.readouterr().err
    assert redis.dbsize() == before
