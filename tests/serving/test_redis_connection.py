"""One connection for all requests: who is told what when the server, or this process, is slow."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import AuthenticationError, ResponseError, TimeoutError as RedisTimeoutError

from feast_repo.stores.online.format import argument
from serving.redis_connection import RedisConnection

if TYPE_CHECKING:
    from redis import Redis

    from sandbox.redis_server import RedisServer

PING, BROKEN = b"*1\r\n$4\r\nPING\r\n", b"*1\r\n$3\r\nGET\r\n"
BIG = 8 << 20
"""Bytes of a reply that takes many turns of the event loop to read."""


def get(key: str) -> bytes:
    return b"*2\r\n$3\r\nGET\r\n" + argument(key.encode())


def test_replies_come_in_order_and_an_error_harms_nobody_else(redis_server: RedisServer, redis: Redis) -> None:
    redis.mset({f"key{number}": number for number in range(100)})

    async def ask() -> None:
        connection = RedisConnection(redis_server.url, 5)
        asked = [connection.ask(get(f"key{number}") + PING, 2) for number in range(100)]
        replies = await asyncio.gather(
            *asked, connection.ask(BROKEN, 1), connection.ask(PING, 1), return_exceptions=True
        )
        assert replies[:100] == [[str(number).encode(), b"PONG"] for number in range(100)]
        assert isinstance(replies[100], ResponseError)
        assert replies[101] == [b"PONG"]
        await connection.close()

    asyncio.run(ask())


def test_a_process_that_is_behind_does_not_blame_the_server(redis_server: RedisServer, redis: Redis) -> None:
    redis.set("big", b"x" * BIG)

    async def ask() -> None:
        connection = RedisConnection(redis_server.url, 0.2)
        await connection.ask(PING, 1)

        async def work() -> None:
            await connection.ask(PING, 1)
            time.sleep(0.5)  # noqa: ASYNC251  (the event loop is to be held up)

        _, (found,) = await asyncio.gather(work(), connection.ask(get("big"), 1))
        assert len(found) == BIG
        await connection.close()

    asyncio.run(ask())


def test_a_frozen_server_is_told_and_asked_again(redis_server: RedisServer, redis: Redis) -> None:
    del redis
    process = redis_server.process
    assert process is not None

    async def ask() -> None:
        connection = RedisConnection(redis_server.url, 0.2)
        await connection.ask(PING, 1)
        os.kill(process.pid, signal.SIGSTOP)
        try:
            asked = await asyncio.gather(*(connection.ask(PING, 1) for _ in range(3)), return_exceptions=True)
            assert [type(one) for one in asked] == [RedisTimeoutError] * 3
        finally:
            os.kill(process.pid, signal.SIGCONT)
        assert await connection.ask(PING, 1) == [b"PONG"]
        await connection.close()

    asyncio.run(ask())


def test_password_and_database_of_the_address_hold(redis_server: RedisServer, redis: Redis) -> None:
    place = redis_server.url.removeprefix("redis://").removesuffix("/0")
    redis.config_set("requirepass", "s3cret")
    try:

        async def ask(url: str) -> list[bytes | None]:
            connection = RedisConnection(url, 5)
            try:
                await connection.ask(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n3\r\n", 1)
                found: list[bytes | None] = await connection.ask(get("a"), 1)
                return found
            finally:
                await connection.close()

        assert asyncio.run(ask(f"redis://:s3cret@{place}/3")) == [b"3"]
        assert redis.get("a") is None, "written to another database"
        with pytest.raises(AuthenticationError):
            asyncio.run(ask(f"redis://:wrong@{place}/3"))
    finally:
        redis.config_set("requirepass", "")
