"""History of a stream with every form of field: lines and rows are judged as messages are."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

from batch.history.importing import bring_in
from batch.history.lines import judged_lines
from batch.history.parquet import judged_rows
from batch.recompute.archive import ArchiveError
from feast_repo.clickstream import clickstream
from feast_repo.codec.decoding import Decoder
from feast_repo.declare.fields import Choice, Timestamp
from feast_repo.features import user_click_features as view
from tests.feast_repo.payments import NOW, batch, payments
from tests.feast_repo.test_field_forms import GOOD
from tests.feast_repo.test_field_forms_properties import NUMBERS, USUAL_INSTANTS, documents

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import polars as pl

    from feast_repo.declare.events import EventStream

Judged = tuple[list[dict[str, Any]], list[tuple[int, str]], int]
UNKEYED = Decoder(payments, keyed=False)


def judged(parts: Iterator[tuple[pl.DataFrame, pl.DataFrame, int]]) -> Judged:
    """Records, the number and reason of rejects, and how many were ignored."""
    records, rejects, ignored = [], [], 0
    for good, bad, others in parts:
        records += good.to_dicts()
        rejects += bad.select("number", "reason").rows()
        ignored += others
    return records, rejects, ignored


def by_stream(values: list[bytes], decoder: Decoder = UNKEYED, events: EventStream = payments) -> Judged:
    decoded = decoder.decode(batch(values, [None] * len(values)))
    rejects = [(offset + 1, reason) for offset, reason in decoded.dead_letters.select("offset", "reason").rows()]
    return decoded.records.select(*events.schema).to_dicts(), rejects, decoded.ignored


@settings(max_examples=50, deadline=None)
@given(st.lists(documents(payments), max_size=8))
def test_lines_are_judged_as_messages_are(tmp_path_factory: pytest.TempPathFactory, values: list[bytes]) -> None:
    values = [value for value in values if b"\n" not in value and not value.endswith(b"\r")]
    source = tmp_path_factory.mktemp("lines") / "history.jsonl"
    source.write_bytes(b"".join(value + b"\n" for value in values))
    assert judged(judged_lines(source, payments, NOW)) == by_stream(values)


# --- Parquet

USER = pa.struct({"id": pa.string(), "age": pa.int8()})
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "context": pa.struct({"user": USER, "ip": pa.string()}),
        "type": pa.string(),
        "created": pa.string(),
        "money": pa.struct({"amount": pa.string()}),
        "rate": pa.string(),
        "items": pa.string(),
        "plain": pa.int64(),
        "card": pa.struct({"contactless": pa.bool_(), "brand": pa.string()}),
        "card.tier": pa.string(),
    }
)


def optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.sampled_from([1, 1, 1, 1, 1, 1, 1, 0]).flatmap(lambda given: values if given else st.none())


def row_of(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({name: optional(values) for name, values in members.items()})


ROWS = row_of(
    id=st.just("p1") | st.just(""),
    context=row_of(user=row_of(id=st.just("u1"), age=st.just(5)), ip=st.just("::1")),
    type=st.sampled_from(["SALE", "payment", "BACK", "TICK", "ping", "PONG", "x"]),
    created=USUAL_INSTANTS | st.text(max_size=5),
    money=row_of(amount=NUMBERS | st.sampled_from(["19.99", "5", "-1", "1.999"])),
    rate=NUMBERS | st.just("0.5"),
    items=st.sampled_from(["3", "-1", "x", "3.0", "9" * 19, "9" * 18]),
    plain=st.integers(-(2**63), 2**63 - 1),
    card=row_of(contactless=st.booleans(), brand=st.just("visa")),
).map(lambda row: {**row, "card.tier": None if row["plain"] is None else "12x"[row["plain"] % 3]})


def parquet(path: Path, rows: list[dict[str, Any]], **types: pa.DataType) -> Path:
    """Write rows with the types of SCHEMA, some changed."""
    fields = [pa.field(one.name, types.get(one.name, one.type)) for one in SCHEMA]
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(fields)), path)
    return path


@settings(max_examples=150, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=8))
def test_rows_are_judged_as_messages_are(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    source = parquet(tmp_path_factory.mktemp("rows") / "history.parquet", rows)
    assert judged(judged_rows(source, payments, NOW)) == by_stream([json.dumps(row).encode() for row in rows])


def changed(**members: Any) -> dict[str, Any]:
    return {**GOOD, "rate": "0.1", **members}


def brought(path: Path, field: str, values: list[Any], kind: pa.DataType) -> list[Any]:
    """What becomes of the values of one column, alone in good rows: each one's value or the reason against it."""
    place = next(one.components[0] for one in payments.fields if one.name == field)
    records, rejects, _ = judged(
        judged_rows(parquet(path, [changed(**{place: value}) for value in values], **{place: kind}), payments, NOW)
    )
    reasons, good = dict(rejects), iter(records)
    return [reasons.get(row) or next(good)[field] for row in range(1, len(values) + 1)]


@pytest.mark.parametrize("kind", [pa.decimal128(12, 6), pa.decimal256(50, 6), pa.decimal128(38, 10)], ids=str)
def test_a_column_of_decimals_is_exact(kind: pa.DataType, tmp_path: Path) -> None:
    values = [Decimal("0.1"), Decimal("-2.5000"), Decimal("0.00001"), Decimal("0.000001"), None]
    expected = [1000, -25_000, "precision:rate", "precision:rate", None]
    assert brought(tmp_path / "a.parquet", "rate", values, kind) == expected


def test_decimals_beyond_64_bits_are_of_a_wrong_type(tmp_path: Path) -> None:
    most = Decimal(2**63 - 1) / 10**4
    found = brought(tmp_path / "a.parquet", "rate", [most, most + 1, Decimal(10**25)], pa.decimal256(60, 8))
    assert found == [2**63 - 1, "type:rate", "type:rate"]


@pytest.mark.parametrize("kind", [pa.int16(), pa.int64(), pa.uint64()], ids=str)
def test_a_column_of_integers_is_whole_numbers(kind: pa.DataType, tmp_path: Path) -> None:
    assert brought(tmp_path / "a.parquet", "rate", [5, None, 0], kind) == [50_000, None, 0]
    assert brought(tmp_path / "b.parquet", "items", [5, None, 0], kind) == [5, None, 0]


def test_integers_beyond_64_bits_are_of_a_wrong_type(tmp_path: Path) -> None:
    for field in ("rate", "items", "plain"):
        assert brought(tmp_path / "a.parquet", field, [2**64 - 1, 1], pa.uint64())[0] == f"type:{field}"
    assert brought(tmp_path / "a.parquet", "rate", [2**62, 1], pa.int64()) == ["type:rate", 10_000]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Kolkata", "-03:00"])
def test_a_timestamp_is_an_instant_where_text_is_declared(unit: str, zone: str | None, tmp_path: Path) -> None:
    at = datetime.fromtimestamp(NOW / 1000, UTC)
    values = [at if zone else at.replace(tzinfo=None), at.replace(year=1999)]
    found = brought(tmp_path / "a.parquet", "paid_at", values, pa.timestamp(unit, zone))
    assert found == [NOW, "timestamp_range"]


@pytest.mark.parametrize(("unit", "ticks"), [("us", 1_000), ("ns", 1_000_000)])
def test_what_is_less_than_a_millisecond_is_cut_off_only_where_json_could_write_it(
    unit: str, ticks: int, tmp_path: Path
) -> None:
    values = [NOW * ticks + ticks - 1, NOW * ticks]
    assert brought(tmp_path / "a.parquet", "paid_at", values, pa.timestamp(unit, "UTC")) == [NOW, NOW]
    for written in ("s", "ms", "us"):
        rows = [changed(created=value) for value in values]
        source = parquet(tmp_path / "b.parquet", rows, created=pa.timestamp(unit))
        records, rejects, _ = judged(judged_rows(source, with_times_in(written), NOW))
        assert [row["paid_at"] for row in records] == [NOW, NOW][: 2 if written == "us" else 1]
        assert rejects == ([] if written == "us" else [(1, "type:paid_at")])


def with_times_in(unit: Any) -> EventStream:
    fields = (replace(one, format=unit) if isinstance(one, Timestamp) else one for one in payments.fields)
    return replace(payments, fields=tuple(fields))


@pytest.mark.parametrize(("unit", "values"), [("s", [NOW // 1000, 2**62]), ("us", [NOW * 1000 + 999, 5])])
def test_integers_are_times_in_the_declared_unit(unit: Any, values: list[int], tmp_path: Path) -> None:
    events = with_times_in(unit)
    rows = [changed(created=value) for value in values]
    source = parquet(tmp_path / "a.parquet", rows, created=pa.int64())
    lines = [json.dumps(row).encode() for row in rows]
    assert judged(judged_rows(source, events, NOW)) == by_stream(lines, Decoder(events, keyed=False), events)


@pytest.mark.parametrize(
    ("column", "kind", "said"),
    [
        ("rate", pa.float64(), "'rate' is double, but the declaration wants a decimal, integer or string column"),
        ("rate", pa.bool_(), "'rate' is bool"),
        ("plain", pa.string(), "'plain' is string, but the declaration wants an integer column"),
        ("plain", pa.decimal128(9, 0), r"'plain' is decimal128\(9, 0\)"),
        ("items", pa.float64(), "'items' is double, but the declaration wants an integer or string column"),
        ("created", pa.int64(), "'created' is int64, but the declaration wants a string or timestamp column"),
        ("card", pa.struct({"contactless": pa.int8()}), "'card.contactless' is int8, but .* a boolean column"),
        ("card", pa.string(), "the column 'card' is string, but the declaration wants 'card.contactless' in it"),
        ("context", pa.struct({"user": pa.list_(USER)}), r"'context.user' is list.*wants 'context.user.id' in it"),
        ("context", pa.struct({"user": pa.struct({"name": pa.string()})}), "lacks the column 'context.user.id'"),
        ("context", pa.struct({"ip": pa.string()}), "lacks the column 'context.user.id'"),
    ],
)
def test_a_column_of_another_type_is_refused(column: str, kind: pa.DataType, said: str, tmp_path: Path) -> None:
    source = parquet(tmp_path / "history.parquet", [changed(**{column: None})], **{column: kind})
    with pytest.raises(ArchiveError, match=said):
        list(judged_rows(source, payments, NOW))


def test_absent_and_empty_columns(tmp_path: Path) -> None:
    row = changed(card=None, items=None, rate=None)
    whole = pa.Table.from_pylist([row], SCHEMA)
    pq.write_table(whole.drop_columns(["card", "items", "rate", "card.tier"]), tmp_path / "a.parquet")
    nothing = pa.nulls(1)
    for name in ("card", "items", "rate", "plain"):
        whole = whole.set_column(whole.schema.get_field_index(name), name, nothing)
    pq.write_table(whole, tmp_path / "b.parquet")
    (good,), rejects, ignored = judged(judged_rows(tmp_path / "a.parquet", payments, NOW))
    assert (good["brand"], good["items"], good["tier"], good["plain"], rejects, ignored) == (None, None, None, 4, [], 0)
    (good,), rejects, ignored = judged(judged_rows(tmp_path / "b.parquet", payments, NOW))
    assert (good["brand"], good["contactless"], good["tier"], good["plain"]) == (None, None, "1", None)


def test_a_reject_is_a_row_as_the_file_has_it(tmp_path: Path) -> None:
    source = parquet(tmp_path / "a.parquet", [changed(rate="x", card={"brand": "visa"}), changed(type="ping")])
    ((_, rejects, ignored),) = judged_rows(source, payments, NOW)
    (value,) = rejects["value"]
    assert (rejects["reason"].to_list(), ignored) == (["type:rate"], 1)
    assert json.loads(value) == {
        "id": "p1",
        "context": {"user": {"id": "u1"}},
        "type": "SALE",
        "created": "2026-03-01T12:00:00.123456Z",
        "money": {"amount": "19.99"},
        "rate": "x",
        "items": "3",
        "plain": 4,
        "card": {"contactless": None, "brand": "visa"},
        "card.tier": "1",
    }


# --- The import


def test_what_is_ignored_is_counted(tmp_path: Path) -> None:
    fields = [replace(one, ignore=("ping",)) if isinstance(one, Choice) else one for one in clickstream.fields]
    pings = replace(view, source=replace(clickstream, fields=tuple(fields)))
    good = {"event_id": "e", "user_id": "u1", "event_type": "view", "event_timestamp": NOW - 10**10}
    rows = [good, {"event_type": "ping"}, {**good, "event_type": "ping"}, {**good, "event_type": "pong"}]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist([good, *rows]), tmp_path / "in" / "b.parquet")
    history = bring_in(pings, tmp_path / "in", 4, tmp_path / "out", tmp_path / "rejects")
    assert (history.events, history.ignored, history.reasons) == (3, 4, {"unknown_event_type": 2})
