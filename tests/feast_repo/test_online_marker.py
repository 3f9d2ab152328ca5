"""The mark says that Redis is filled, and tells one filling from the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feast_repo.stores.online.marker import (
    begin_filling,
    end_filling,
    is_filled,
    mark_filled,
    mark_lost,
    marker_key,
    read_mark,
)

if TYPE_CHECKING:
    from redis import Redis

KEY = marker_key("shop", "clicks")


def test_an_empty_server_has_no_mark(redis: Redis) -> None:
    assert KEY == "shop:online:clicks"
    assert read_mark(redis, KEY) is None
    assert not is_filled(None)


def test_a_restore_of_an_emptied_server_leaves_another_mark(redis: Redis) -> None:
    mark_filled(redis, KEY)
    first = read_mark(redis, KEY)
    assert is_filled(first)
    redis.flushall()
    mine = begin_filling(redis, KEY)
    assert read_mark(redis, KEY) == mine
    assert not is_filled(mine)
    assert end_filling(redis, KEY, mine)
    assert is_filled(second := read_mark(redis, KEY))
    assert second != first


def test_a_restore_of_a_full_server_leaves_the_mark_as_it_is(redis: Redis) -> None:
    mark_filled(redis, KEY)
    mark = read_mark(redis, KEY)
    mine = begin_filling(redis, KEY)
    assert read_mark(redis, KEY) == mark
    assert end_filling(redis, KEY, mine)
    assert read_mark(redis, KEY) == mark


def test_a_server_that_is_emptied_meanwhile_is_not_marked(redis: Redis) -> None:
    for prepare in (redis.flushall, lambda: mark_filled(redis, KEY)):
        prepare()
        mine = begin_filling(redis, KEY)
        redis.flushall()
        assert not end_filling(redis, KEY, mine)
        assert read_mark(redis, KEY) is None


def test_of_two_restores_the_one_that_is_done_first_sets_the_mark(redis: Redis) -> None:
    first, second = begin_filling(redis, KEY), begin_filling(redis, KEY)
    assert end_filling(redis, KEY, first)
    assert is_filled(mark := read_mark(redis, KEY))
    assert end_filling(redis, KEY, second)
    assert read_mark(redis, KEY) == mark


def test_a_loss_makes_restores_begin_anew(redis: Redis) -> None:
    announcements = "shop:progress:clicks"
    for prepare in (redis.flushall, lambda: mark_filled(redis, KEY)):
        prepare()
        mine = begin_filling(redis, KEY)
        redis.hset(announcements, "0", "{}")
        mark_lost(redis, KEY, mine, [announcements])
        assert not redis.exists(announcements)
        assert not end_filling(redis, KEY, mine)
        lost = read_mark(redis, KEY)
        assert not is_filled(lost)
        mark_lost(redis, KEY, mine, [announcements])
        assert read_mark(redis, KEY) == lost, "someone else has seen the loss, too"
        assert end_filling(redis, KEY, begin_filling(redis, KEY))
