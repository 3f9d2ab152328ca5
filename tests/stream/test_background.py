from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from stream.background import Background

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def background() -> Iterator[Background]:
    one = Background("test", room=2)
    yield one
    one.close()


def test_everything_is_done_in_order_and_elsewhere(background: Background) -> None:
    done: list[tuple[int, bool]] = []
    here = threading.get_ident()
    for number in range(100):
        background.do(lambda number=number: done.append((number, threading.get_ident() == here)))  # type: ignore[misc]
    background.finish()
    assert done == [(number, False) for number in range(100)]


def test_there_is_room_for_two_and_the_third_waits(background: Background) -> None:
    go_on, third_is_in = threading.Event(), threading.Event()
    background.do(go_on.wait)
    background.do(lambda: None)

    def third() -> None:
        background.do(lambda: None)
        third_is_in.set()

    thread = threading.Thread(target=third)
    thread.start()
    assert not third_is_in.wait(0.1)
    go_on.set()
    assert third_is_in.wait(10)
    thread.join()
    background.finish()


def test_after_a_failure_nothing_is_done_and_every_call_tells(background: Background) -> None:
    done: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def fail() -> None:
        begun.set()
        go_on.wait()
        message = "no such row"
        raise LookupError(message)

    background.do(fail)
    begun.wait()
    background.do(lambda: done.append(1))  # waits behind the one that is going to fail
    go_on.set()
    for call in (background.finish, background.finish, lambda: background.do(lambda: done.append(2))):
        with pytest.raises(LookupError, match="no such row"):
            call()
    assert done == []
