"""A hundred thousand hostile messages: each gets the right reason, and every good one between them is accepted."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from feast_repo.clickstream import clickstream
from feast_repo.codec.decoding import Decoder, RawBatch
from simulation.hostile import Corpus
from tests.stream.reference import judge

if TYPE_CHECKING:
    from simulation.hostile import Sent

MESSAGES = 100_000
SEED = 3


def raw(messages: list[Sent]) -> RawBatch:
    return RawBatch(
        partition=0,
        values=[one.value for one in messages],
        keys=[one.key for one in messages],
        kafka_timestamps=[one.kafka_timestamp for one in messages],
        offsets=list(range(len(messages))),
    )


def test_each_message_is_judged_as_if_it_were_alone() -> None:
    messages = list(Corpus(SEED).messages(MESSAGES))
    decoder = Decoder(clickstream)
    reasons: Counter[str] = Counter()
    for start in range(0, MESSAGES, 10_000):
        part = messages[start : start + 10_000]
        decoded = decoder.decode(raw(part))
        found = dict(decoded.dead_letters.select("offset", "reason").iter_rows())
        accepted = {row["offset"]: row for row in decoded.records.iter_rows(named=True)}
        for offset, one in enumerate(part):
            expected = judge(clickstream, one.value, one.key, one.kafka_timestamp)
            if isinstance(expected, str):
                assert found.pop(offset) == expected, one.value[:300]
                reasons[expected] += 1
            else:
                row = accepted.pop(offset)
                assert {name: row[name] for name in expected} == expected, one.value[:300]
                reasons["accepted"] += 1
        assert not found
        assert not accepted
    assert reasons["accepted"] > MESSAGES // 2
    assert len(reasons) > 20, reasons
