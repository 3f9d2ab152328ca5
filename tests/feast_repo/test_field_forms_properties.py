"""Any values at any paths: a batch equals its messages one by one, equals the reference, and nothing raises.

The reference reads one value at a time with json, decimal and datetime. What a whole column converts at once must be
what one value alone becomes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl
from hypothesis import given, settings, strategies as st

from feast_repo.codec.faults import Fault
from feast_repo.codec.instants import all_instants, instant
from feast_repo.codec.numbers import all_integers, all_scaled, integer, scaled
from feast_repo.declare.fields import Decimal, Integer, Timestamp
from tests.feast_repo.payments import NOW, clocks, payments
from tests.feast_repo.test_decoding_properties import VALUES, Message, decoded, judged, one_by_one
from tests.feast_repo.written import FaultError, worth

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import DrawFn, SearchStrategy

    from feast_repo.declare.events import EventStream
    from feast_repo.declare.fields import EventField

EXAMPLES = 200

# --- Texts that are nearly times and numbers


def two_digits(least: int, most: int) -> SearchStrategy[str]:
    return st.integers(least, most).map(lambda number: f"{number:02}")


DATES = st.builds(
    "{}-{}-{}".format,
    st.sampled_from(["0000", "0001", "1600", "1900", "1969", "1970", "2000", "2024", "2026", "2026", "2100", "9999"]),
    two_digits(0, 13),
    two_digits(0, 32),
)
FRACTIONS = st.just("") | st.text("0123456789", max_size=10).map(lambda digits: f".{digits}")
CLOCKS = st.builds("{}:{}:{}{}".format, two_digits(0, 24), two_digits(0, 60), two_digits(0, 60), FRACTIONS)
ZONES = st.sampled_from(
    ["Z", "Z", "Z", "z", "", "+00:00", "-00:00", "+05:30", "-0330", "+14", "+23:59", "-24:00", "+01:60"]
)
INSTANTS = st.builds("{}{}{}{}".format, DATES, st.sampled_from("TTTt _"), CLOCKS, ZONES)
USUAL_INSTANTS = st.builds("2026-03-01T11:{}:{}{}{}".format, two_digits(0, 59), two_digits(0, 59), FRACTIONS, ZONES)
DIGITS = st.integers(0, 10**21).map(str) | st.integers(0, 300).map(str) | st.sampled_from(["007", "", "٣"])
PARTS = st.just("") | st.text("0123456789", max_size=22).map(lambda digits: f".{digits}") | st.just("." + "0" * 60)
EXPONENTS = st.sampled_from(
    ["", "", "", "e2", "E+1", "e-1", "e-20", "e18", "e400", "e-400", "e9999999999", "e-9999999999"]
)
NUMBERS = st.builds("{}{}{}{}".format, st.sampled_from(["", "", "", "-", "+"]), DIGITS, PARTS, EXPONENTS)


@st.composite
def spoiled(draw: DrawFn, texts: SearchStrategy[str]) -> str:
    """Make a text and perhaps change one of its characters."""
    text = draw(texts)
    if not text or draw(st.integers(0, 3)):
        return text
    at = draw(st.integers(0, len(text) - 1))
    other: str = draw(st.sampled_from([*"0+-:.TZ eE/;é\n\0", ""]))
    return text[:at] + other + text[at + 1 :]


TEXTS = st.none() | spoiled(INSTANTS) | spoiled(USUAL_INSTANTS) | spoiled(NUMBERS) | st.text(max_size=30)


def expected(field: EventField, text: str) -> Any:
    try:
        return worth(field, {"field": text})
    except FaultError as fault:
        return Fault(str(fault))


def check(
    texts: list[str | None], field: EventField, one: Callable[[str], Any], together: Callable[[pl.Series], pl.Series]
) -> None:
    """Compare a column read at once with its values alone, and those with the reference."""
    column = together(pl.Series("field", texts, dtype=pl.String))
    assert (column.name, column.dtype) == ("field", pl.Int64())
    for text, value in zip(texts, column, strict=True):
        alone = None if text is None else one(text)
        assert alone == (None if text is None else expected(field, text))
        assert value is None or value == alone


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(TEXTS, max_size=30))
def test_times_of_a_column_are_those_of_its_values(texts: list[str | None]) -> None:
    check(texts, Timestamp("field", earliest_ms=0, max_ahead_ms=0, format="iso8601"), instant, all_instants)
    found = all_instants(pl.Series(texts, dtype=pl.String)).to_list()
    alone = [None if text is None else instant(text) for text in texts]
    assert found == [None if isinstance(value, Fault) else value for value in alone]


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(TEXTS, max_size=30), st.integers(0, 18))
def test_numbers_of_a_column_are_those_of_its_values(texts: list[str | None], scale: int) -> None:
    check(texts, Integer("field", from_string=True), integer, all_integers)
    decimal = Decimal("field", scale=scale)
    check(texts, decimal, lambda text: scaled(text, scale), lambda column: all_scaled(column, scale))


def test_one_other_character_anywhere_is_seen_in_a_column_too() -> None:
    zones = ("Z", "+01:30", "-0130", "+01")
    usual = [f"2026-03-01T12:00:00{fraction}{zone}" for fraction in ("", ".5", ".123456789") for zone in zones]
    texts = [
        text[:at] + other + text[at + 1 :] for text in usual for at in range(len(text)) for other in "039:;.,/+-TtzZ "
    ]
    alone = [instant(text) for text in texts]
    assert all_instants(pl.Series(texts)).to_list() == [None if isinstance(one, Fault) else one for one in alone]
    assert 0 < sum(isinstance(one, Fault) for one in alone) < len(texts)


def test_usual_texts_are_read_at_once() -> None:
    times = pl.Series(["2026-03-01T12:00:00Z", "2026-03-01T12:00:00.5+01:00", "2026-03-01T12:00:00.123456-0130"])
    assert all_instants(times).null_count() == 0
    assert all_scaled(pl.Series(["19.99", "5", "-0.5", "1.5000"]), 2).null_count() == 0
    assert all_integers(pl.Series(["5", "-17"])).null_count() == 0


# --- Whole messages

ANY = st.one_of(VALUES, TEXTS.map(json.dumps), NUMBERS, st.sampled_from(['"ping"', '"SALE"', '"TICK"', '{"id":"u1"}']))
USUAL: dict[str, SearchStrategy[str]] = {
    "payment_id": st.sampled_from(['"u1"', '"x"']),
    "user_id": st.sampled_from(['"u1"', '"u1"', '"x"']),
    "kind": st.sampled_from(['"SALE"', '"payment"', '"BACK"', '"TICK"', '"ping"', '"PONG"', '"a"', '"b"', "null"]),
    "paid_at": USUAL_INSTANTS.map(json.dumps),
    "amount": NUMBERS | NUMBERS.map(json.dumps) | st.just('"19.99"'),
    "rate": NUMBERS,
    "items": st.integers(-1, 9).map(str) | st.integers(-1, 9).map(lambda number: f'"{number}"'),
    "plain": st.integers(-1, 9).map(str),
    "contactless": st.sampled_from(["true", "false"]),
    "tier": st.sampled_from(['"1"', '"2"']),
    "seconds": st.sampled_from([NOW // 1000, 0, 2**63 - 1, -(2**63), 9_223_372_036_854_776]).map(str),
    "microseconds": st.integers(-(2**63), 2**63).map(str) | st.integers(-3000, 3000).map(str),
    "text": USUAL_INSTANTS.map(json.dumps),
    "number": st.integers(-9, 9).map(str) | NUMBERS,
    "flag": st.sampled_from(["true", "false"]),
    "key": st.just('"u1"'),
}


@st.composite
def documents(draw: DrawFn, events: EventStream) -> bytes:
    """Make objects within objects that are nearly good: a member may be anything, absent, or given twice."""
    paths = {field.components: USUAL.get(field.name, st.just('"x"')) for field in events.fields}
    return draw(objects(paths)).encode()


@st.composite
def objects(draw: DrawFn, paths: dict[tuple[str, ...], SearchStrategy[str]]) -> str:
    """Make an object with values at some paths."""
    below: dict[str, dict[tuple[str, ...], SearchStrategy[str]]] = {}
    for (name, *rest), values in paths.items():
        below.setdefault(name, {})[tuple(rest)] = values
    members = []
    for name, inner in below.items():
        usual = inner[()] if () in inner else objects(inner)
        for _ in range(draw(st.sampled_from([0, 1, 1, 1, 1, 1, 1, 1, 1, 2]))):
            value = draw(ANY if draw(st.integers(0, 15)) == 0 else usual)
            members.append(f"{json.dumps(name)}:{value}")
    if draw(st.integers(0, 3)) == 0:
        members = draw(st.permutations(members))
    return "{" + ",".join(members) + "}"


def batches(events: EventStream) -> SearchStrategy[list[Message]]:
    keys = st.sampled_from([b"u1", b"u1", b"u1", None, b"x"])
    times = st.sampled_from([NOW, NOW, NOW - 3_600_000, 2**62])
    return st.lists(st.tuples(documents(events), keys, times), max_size=8)


@settings(max_examples=EXAMPLES, deadline=None)
@given(batches(payments))
def test_any_batch_of_payments_equals_the_reference(messages: list[Message]) -> None:
    assert decoded(payments, messages) == judged(payments, messages)


@settings(max_examples=EXAMPLES, deadline=None)
@given(batches(clocks))
def test_any_batch_of_values_that_are_read_twice_equals_the_reference(messages: list[Message]) -> None:
    assert decoded(clocks, messages) == judged(clocks, messages)


@settings(max_examples=EXAMPLES // 4, deadline=None)
@given(batches(payments))
def test_any_batch_of_payments_equals_its_messages_one_by_one(messages: list[Message]) -> None:
    assert decoded(payments, messages) == one_by_one(payments, messages)
