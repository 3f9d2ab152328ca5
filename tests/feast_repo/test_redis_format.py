from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from feast.infra.online_stores.helpers import _mmh3, _redis_key, _redis_key_prefix
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values
from feast.types import Array, Bool, FeastType, Float32, Float64, Int32, Int64, String
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, strategies as st
from redis.connection import Connection

from feast_repo.declare.entities import KEY_TYPES
from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.stores.online.format import VALUE_FORMATS, RowFormat, argument, decode_time, encode_times, encode_values
from feast_repo.stores.online.keys import TYPE_CODES, KeyFormat

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES: dict[str, tuple[FeastType, st.SearchStrategy[Any]]] = {
    "Int64": (Int64, st.integers(-(2**63), 2**63 - 1)),
    "Int32": (Int32, st.integers(-(2**31), 2**31 - 1)),
    "Bool": (Bool, st.booleans()),
    "Float64": (Float64, st.floats()),
    "Float32": (Float32, st.floats(width=32)),
    "String": (String, TEXT),
    "Array(Int64)": (Array(Int64), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=40)),
    "Array(String)": (Array(String), st.lists(TEXT, max_size=40)),
}


def test_every_known_type_is_compared() -> None:
    assert VALUES.keys() == VALUE_FORMATS.keys()


@pytest.mark.parametrize("name", VALUES)
@given(data=st.data())
def test_values_are_feasts(name: str, data: st.DataObject) -> None:
    feast_type, strategy = VALUES[name]
    values = data.draw(st.lists(st.none() | strategy, max_size=20))
    column = pl.Series(values, dtype=VALUE_FORMATS[name].dtype)
    given_to_feast = np.fromiter(values, object, len(values))
    theirs = python_values_to_proto_values(given_to_feast, feast_type.to_value_type())
    assert encode_values(column, name) == [argument(value.SerializeToString()) for value in theirs]


def test_a_column_is_written_as_the_declared_type() -> None:
    assert encode_values(pl.Series([1, 2]), "Float64") == encode_values(pl.Series([1.0, 2.0]), "Float64")
    with pytest.raises(pl.exceptions.InvalidOperationError):
        encode_values(pl.Series([1 << 40]), "Int32")


@pytest.mark.parametrize(("name", "item"), [("Array(Int64)", 1), ("Array(String)", "a")])
def test_null_items_are_refused(name: str, item: object) -> None:
    with pytest.raises(ValueError, match=r"^latest: a list has null items"):
        encode_values(pl.Series("latest", [[item], None, [item, None]]), name)


KEY_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "String": TEXT,
    "Int64": st.sampled_from([0, -1, 2**63 - 1, -(2**63)]) | st.integers(-(2**63), 2**63 - 1),
}
JOIN_KEYS = st.dictionaries(
    st.sampled_from(["user_id", "ü%d", "Z", "a", "aa", "a_b", "aB", "x" * 300]),
    st.sampled_from(sorted(KEY_VALUES)),
    min_size=1,
    max_size=4,
)
"""One or several join keys in an order that is not always Feast's."""


def feasts_key(values: dict[str, Any], types: dict[str, str]) -> bytes:
    """The key of an entity whose join keys are in the given order."""
    proto = {"String": "string_val", "Int64": "int64_val"}
    entity_values = [Value(**{proto[types[name]]: value}) for name, value in values.items()]
    entity = EntityKey(join_keys=list(values), entity_values=entity_values)
    return argument(_redis_key("100%", entity, entity_key_serialization_version=3))


def test_every_known_type_of_key_is_compared() -> None:
    assert KEY_VALUES.keys() == TYPE_CODES.keys() == set(KEY_TYPES)


@given(data=st.data(), types=JOIN_KEYS)
def test_keys_are_feasts(data: st.DataObject, types: dict[str, str]) -> None:
    one = st.fixed_dictionaries({name: KEY_VALUES[key_type] for name, key_type in types.items()})
    entities = data.draw(st.lists(one, max_size=20))
    key_format = KeyFormat("100%", types, 3)
    theirs = [feasts_key(entity, types) for entity in entities]
    schema = {name: VALUE_FORMATS[key_type].dtype for name, key_type in types.items()}
    assert key_format.keys(pl.DataFrame(entities, schema=schema)) == theirs
    assert [key_format.key(entity) for entity in entities] == theirs


@given(types=JOIN_KEYS)
def test_keys_are_in_feasts_order(types: dict[str, str]) -> None:
    assert list(KeyFormat("100%", types, 3).join_keys.items()) == sorted(types.items())


@given(data=st.data(), types=JOIN_KEYS)
def test_the_sentinel_is_no_entity_but_among_the_entitys_keys(data: st.DataObject, types: dict[str, str]) -> None:
    key_format = KeyFormat("100%", types, 3)
    ids = {"String": st.text(max_size=64), "Int64": KEY_VALUES["Int64"]}
    entity = data.draw(st.fixed_dictionaries({name: ids[key_type] for name, key_type in types.items()}))
    assert key_format.key(entity) != argument(key_format.sentinel)
    # `feast teardown` deletes by this prefix and the project's name at the end.
    assert key_format.sentinel.startswith(_redis_key_prefix(list(types)))
    assert key_format.sentinel.endswith(b"100%")


@pytest.mark.parametrize("missing", ["user_id", "shop"])
def test_a_row_without_entity_is_refused(missing: str) -> None:
    key_format = KeyFormat("project", {"user_id": "String", "shop": "Int64"}, 3)
    rows = pl.DataFrame({"user_id": ["user_000001", "user_000002"], "shop": [1, 2]})
    first = pl.int_range(pl.len()) == 0
    with pytest.raises(ValueError, match=f"1 of 2 rows have no {missing}"):
        key_format.keys(rows.with_columns(pl.when(first).then(missing).alias(missing)))


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
    row_format = RowFormat("project", view, {"user_id": "String"}, {"count": "Int64"}, 3)
    rows = pl.DataFrame({"user_id": ["a%d"], "event_timestamp": [datetime(2026, 1, 1, tzinfo=UTC)], "count": [1]})
    keys = row_format.keys(rows)
    (key,), (time,) = keys, encode_times(rows["event_timestamp"])
    hset = ["HSET", unpacked(key), f"_ts:{view}", unpacked(time), _mmh3(f"{view}:count")]
    hset.append(Value(int64_val=1).SerializeToString())
    assert list(row_format.write_commands(keys, rows)) == [(b"".join(Connection().pack_command(*hset)), 1)]
    hget = ["HGET", unpacked(key), f"_ts:{view}"]
    assert list(row_format.read_time_commands(keys)) == [(b"".join(Connection().pack_command(*hget)), 1)]
