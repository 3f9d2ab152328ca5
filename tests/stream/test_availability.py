"""Waiting for Redis and the disk: what is said, what is counted, and when it ends."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from prometheus_client import REGISTRY
from redis.exceptions import ConnectionError as RedisConnectionError

from feast_repo.stores.online.errors import reply_error
from stream import availability
from stream.availability import Availability, hold_for_disk, hold_for_redis

if TYPE_CHECKING:
    from collections.abc import Callable


def failing(times: int, error: Exception) -> Callable[[], object]:
    left = iter(range(times))

    def operation() -> None:
        if next(left, None) is not None:
            raise error

    return operation


def away(part: str) -> float | None:
    return REGISTRY.get_sample_value("stream_away", {"part": part})


def test_each_change_is_told_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability, "LONGEST_WAIT_S", 0.01)
    hold_for_redis(failing(4, RedisConnectionError("refused")))
    assert [record.message for record in caplog.records] == [
        "Redis is away (refused), holding the epoch until it is back",
        "Redis is back",
    ]
    assert away("Redis") == 0


def test_away_while_anyone_misses_it(caplog: pytest.LogCaptureFixture) -> None:
    part = Availability("the mill")
    part.is_away(1, "flood", "waiting")
    part.is_away(2, "flood", "waiting")
    part.is_back(1)
    assert away("the mill") == 1
    part.is_back(3)
    part.is_back(2)
    assert away("the mill") == 0
    assert len(caplog.records) == 2


def test_what_was_under_way_is_no_proof_that_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    part = Availability("the ferry")
    part.is_away(1, "fog", "waiting")
    part.is_back_for_all()
    assert part.away
    monkeypatch.setattr(availability, "UNDER_WAY_S", 0.0)
    part.is_back_for_all()
    assert not part.away


def test_other_errors_are_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        hold_for_disk(failing(1, ZeroDivisionError()))


ENDS = """
import errno, sys
from stream.availability import hold_for_disk, hold_for_redis
from stream.stopping import stop_requested
from stream.uncommitted import uncommitted
from redis.exceptions import AuthenticationError, ConnectionError
def fails(error):
    def operation():
        raise error
    return operation
if sys.argv[1] == "full":
    hold_for_disk(fails(OSError(errno.ENOSPC, "No space left on device")))
elif sys.argv[1] == "password":
    hold_for_redis(fails(AuthenticationError("invalid password")))
else:
    stop_requested.set()
    uncommitted.open('clicks/00003', 100)
    uncommitted.read('clicks/00003', 120 if sys.argv[1] == "stopped" else 100)
    hold_for_redis(fails(ConnectionError("refused")))
"""


@pytest.mark.parametrize(
    ("case", "code", "says"),
    [
        ("full", 1, ["make room", "the epoch is not committed, so a resume is exact"]),
        ("password", 1, ["correct REDIS_URL", "the epoch is not committed, so a resume is exact"]),
        ("stopped", 1, ["Redis is away", "not committed: partition 3 of clicks from offset 100 to 120; a resume"]),
        ("stopped with all committed", 0, []),
    ],
)
def test_it_ends_in_one_line_where_waiting_does_not_help(case: str, code: int, says: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", ENDS, case], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    last = done.stderr.splitlines()[-1]
    assert [text for text in says if text not in last] == []


def test_every_answer_that_can_pass_holds_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability, "LONGEST_WAIT_S", 0.01)
    for text in ("NOREPLICAS Not enough good replicas to write.", "MISCONF Redis is unable to persist to disk."):
        hold_for_redis(failing(2, reply_error(text)))
