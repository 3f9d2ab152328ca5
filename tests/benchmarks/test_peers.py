"""What contestants without Feast write, against what Feast would; and their environments."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pytest
from feast.infra.online_stores.helpers import _mmh3, _redis_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from redis import Redis

from benchmarks.contestants import environments, plain_stores
from sandbox.processes import SandboxError

if TYPE_CHECKING:
    from pathlib import Path

OLDER, NEWER = datetime(2026, 1, 1, 0, 10, tzinfo=UTC), datetime(2026, 1, 1, 0, 20, tzinfo=UTC)


def test_rows_are_stored_as_feast_does_and_redis_keeps_each_users_newest(redis_url: str, tmp_path: Path) -> None:
    stores = plain_stores.PlainStores(tmp_path, redis_url)
    counts = {"click_count": [1, 0, 300], "view_count": [0, 0, 3], "cart_count": [0, 0, 1]}
    counts |= {"purchase_count": [0, 1, 2], "revenue_cents": [0, 1 << 40, 70_000]}
    rows = {"user_id": ["user_000001", "ü€", "user_000001"], "event_timestamp": [NEWER, NEWER, OLDER], **counts}
    stores.write(pa.table(rows))
    stores.close()

    (file,) = (tmp_path / "features").rglob("*.parquet")
    stored = pl.read_parquet(file)
    assert stored["event_timestamp"].to_list() == rows["event_timestamp"]
    assert stored["cart_rate"].to_list() == [0.0, 0.0, 1 / 3]
    assert stored["conversion_rate"].to_list() == [0.0, 0.0, 2 / 3]

    time = Timestamp()
    time.FromDatetime(NEWER)
    with Redis.from_url(redis_url) as redis:
        for user, number in (("user_000001", 0), ("ü€", 1)):
            values = {name: Value(int64_val=column[number]) for name, column in counts.items()}
            values |= {name: Value(double_val=0.0) for name in ("cart_rate", "conversion_rate")}
            expected = {
                _mmh3(f"user_click_features:{name}"): value.SerializeToString() for name, value in values.items()
            }
            expected[b"_ts:user_click_features"] = time.SerializeToString()
            entity = EntityKey(join_keys=["user_id"], entity_values=[Value(string_val=user)])
            assert redis.hgetall(_redis_key("ml_feature_store", entity, entity_key_serialization_version=3)) == expected


def test_an_environment_is_made_once_and_made_again_if_it_was_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    (tmp_path / "peer.txt").write_text("# nothing\n")
    python = environments.interpreter("peer")
    made = python.parent.parent / environments.MADE
    assert python.exists()
    before = made.stat().st_mtime_ns
    assert environments.interpreter("peer") == python
    assert made.stat().st_mtime_ns == before
    made.unlink()
    environments.interpreter("peer")
    assert made.exists()


def test_an_environment_that_cannot_be_made_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    (tmp_path / "peer.txt").write_text("not a requirement\n")
    with pytest.raises(SandboxError, match="can't make the environment of peer: ERROR: Invalid requirement"):
        environments.interpreter("peer")
