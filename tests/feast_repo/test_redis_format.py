from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from feast.infra.online_stores.helpers import _mmh3, _redis_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values
from feast.types import Bool, Float32, Float64, Int32, Int64, PrimitiveFeastType, String
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, strategies as st
from redis.connection import Connection

from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.stores.online.format import VALUE_FORMATS, RowFormat, argument, decode_time, encode_times, encode_values

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES: dict[str, tuple[PrimitiveFeastType, st.SearchStrategy[Any]]] = {
    "Int64": (Int64, st.integers(-(2**63), 2**63 - 1)),
    "Int32": (Int32, st.integers(-(2**31), 2**31 - 1)),
    "Bool": (Bool, st.booleans()),
    "Float64": (Float64, st.floats()),
    "Float32": (Float32, st.floats(width=32)),
    "String": (String, TEXT),
}


def test_every_known_type_is_compared() -> None:
    assert VALUES.keys() == VALUE_FORMATS.keys()


@pytest.mark.parametrize("name", VALUES)
@given(data=st.data())
def test_values_are_feasts(name: str, data: st.DataObject) -> None:
    feast_type, strategy = VALUES[name]
    values = data.draw(st.lists(st.none() | strategy, max_size=20))
    column = pl.Series(values, dtype=VALUE_FORMATS[name].dtype)
    theirs = python_values_to_proto_values(np.array(values, dtype=object), feast_type.to_value_type())
    assert encode_values(column, name) == [argument(value.SerializeToString()) for value in theirs]


def test_a_column_is_written_as_the_declared_type() -> None:
    assert encode_values(pl.Series([1, 2]), "Float64") == encode_values(pl.Series([1.0, 2.0]), "Float64")
    with pytest.raises(pl.exceptions.InvalidOperationError):
        encode_values(pl.Series([1 << 40]), "Int32")


@given(st.lists(TEXT, max_size=20), st.sampled_from(["user_id", "ü%d"]))
def test_keys_are_feasts(users: list[str], join_key: str) -> None:
    row_format = RowFormat("100%", "view", join_key, {"count": "Int64"}, 3)
    keys = [EntityKey(join_keys=[join_key], entity_values=[Value(string_val=user)]) for user in users]
    theirs = [argument(_redis_key("100%", key, entity_key_serialization_version=3)) for key in keys]
    assert row_format.keys(pl.Series(users, dtype=pl.String)) == theirs


def test_a_row_without_entity_is_refused() -> None:
    row_format = RowFormat("project", "view", "user_id", {"count": "Int64"}, 3)
    with pytest.raises(ValueError, match="1 of 2 rows have no user_id"):
        row_format.keys(pl.Series("user_id", ["user_000001", None]))


@given(st.lists(st.datetimes(datetime(1, 1, 1), datetime(2262, 1, 1), timezones=st.just(UTC))))  # noqa: DTZ001  (hypothesis takes naive bounds)
def test_times_are_protobufs(times: list[datetime]) -> None:
    encoded = encode_times(pl.Series(times, dtype=UTC_MICROSECONDS))
    for time, data in zip(times, encoded, strict=True):
        timestamp = Timestamp()
        timestamp.FromDatetime(time)
        assert data == argument(timestamp.SerializeToString())
        assert decode_time(timestamp.SerializeToString()) == timestamp.ToNanoseconds()


def unpacked(one_argument: bytes) -> bytes:
    return one_argument.partition(b"\r\n")[2].removesuffix(b"\r\n")


@pytest.mark.parametrize("view", ["view", "100%", "%s%d%b"])
def test_commands_are_redis_pys(view: str) -> None:
    row_format = RowFormat("project", view, "user_id", {"count": "Int64"}, 3)
    rows = pl.DataFrame({"user_id": ["a%d"], "event_timestamp": [datetime(2026, 1, 1, tzinfo=UTC)], "count": [1]})
    keys = row_format.keys(rows["user_id"])
    (key,), (time,) = keys, encode_times(rows["event_timestamp"])
    hset = ["HSET", unpacked(key), f"_ts:{view}", unpacked(time), _mmh3(f"{view}:count")]
    hset.append(Value(int64_val=1).SerializeToString())
    assert list(row_format.write_commands(keys, rows)) == [(b"".join(Connection().pack_command(*hset)), 1)]
    hget = ["HGET", unpacked(key), f"_ts:{view}"]
    assert list(row_format.read_time_commands(keys)) == [(b"".join(Connection().pack_command(*hget)), 1)]
