"""One Redis connection shared by all requests of an event loop, with pipelined commands.

redis-py spends more time delivering one reply than the server spends on making it. Its connection logs in, encrypts and
selects the database according to `REDIS_URL`; from then on bytes go straight to the transport and replies through
hiredis.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from typing import TYPE_CHECKING, Any

import hiredis
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError, RedisError, TimeoutError as RedisTimeoutError

from feast_repo.stores.internals import transport_of
from feast_repo.stores.online.errors import reply_error

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

CONNECT_TIMEOUT_S = 1.0
PAUSE_S = 0.05
"""After a failed attempt to connect, requests fail at once for this long, so a starting server is not overrun."""


class _Replies(asyncio.Protocol):
    """Delivers replies in request order, and gives up when the oldest request has waited for `timeout_s`."""

    def __init__(self, transport: asyncio.Transport, timeout_s: float) -> None:
        self._transport, self._timeout_s = transport, timeout_s
        self._loop = asyncio.get_running_loop()
        self._parser = hiredis.Reader(replyError=reply_error)
        self._waiting: deque[tuple[asyncio.Future[list[Any]], int, float]] = deque()
        self._replies: list[Any] = []
        self._timer: asyncio.TimerHandle | None = (
            None  # one for all: a timer per request would cost more than parsing replies
        )
        self.lost: Exception | None = None

    def ask(self, payload: bytes, count: int) -> asyncio.Future[list[Any]]:
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        self._waiting.append((future, count, self._loop.time() + self._timeout_s))
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout_s, self._look)
        self._transport.write(payload)
        return future

    def _look(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        left = self._waiting[0][2] - self._loop.time()
        if left <= 0 and self._unread():
            left = self._timeout_s  # the server has answered, so this process is behind
        if left <= 0:
            self.fail(RedisTimeoutError(f"the server did not answer in {self._timeout_s:g} s"))
        else:
            self._timer = self._loop.call_later(left, self._look)

    def _unread(self) -> bool:
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed(data)
            while (reply := self._parser.gets()) is not False:
                self._take(reply)
        except (hiredis.HiredisError, IndexError) as error:  # not RESP, or a reply without a request
            self.fail(RedisConnectionError(f"the server's reply was not understood: {error}"))

    def _take(self, reply: Any) -> None:
        self._replies.append(reply)
        future, count, _ = self._waiting[0]
        if len(self._replies) < count:
            return
        self._waiting.popleft()
        replies, self._replies = self._replies, []
        if future.done():  # the request was abandoned
            return
        if (error := next((one for one in replies if isinstance(one, RedisError)), None)) is not None:
            future.set_exception(error)
        else:
            future.set_result(replies)

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(RedisConnectionError(f"the connection broke: {exc or 'the server closed it'}"))

    def fail(self, error: RedisError) -> None:
        """Fail all waiting requests, and accept no more."""
        self.lost = self.lost or error
        self._transport.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            future, *_ = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)


class RedisConnection:
    """Connects on first use, and reconnects after the connection broke. For one event loop.

    `timeout_s`: how long a request may wait for its replies. The connection to a slower server is closed, because later
    replies would arrive later still.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        # No retry here: a request that finds Redis away fails at once.
        self._pool = ConnectionPool.from_url(
            url, socket_connect_timeout=CONNECT_TIMEOUT_S, socket_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
        )
        self._timeout_s = timeout_s
        self._connection: AbstractConnection | None = None
        self._replies: _Replies | None = None
        self._connecting: asyncio.Task[_Replies] | None = None
        self._refused: tuple[float, RedisError] | None = None

    async def ask(self, payload: bytes, count: int) -> list[Any]:
        """Send RESP commands and return their `count` replies.

        Raises:
            redis.RedisError: the server is away, too slow, or refused a command.
        """
        replies = self._replies
        if replies is None or replies.lost is not None:
            replies = await self._connected()
        return await replies.ask(payload, count)

    async def _connected(self) -> _Replies:
        """The connection, opened by one of the waiting requests for all."""
        loop = asyncio.get_running_loop()
        if self._refused is not None and loop.time() < self._refused[0]:
            raise self._refused[1]
        if self._connecting is None:
            self._connecting = loop.create_task(self._connect())
            self._connecting.add_done_callback(self._tried)
        return await asyncio.shield(self._connecting)

    def _tried(self, task: asyncio.Task[_Replies]) -> None:
        self._connecting = None
        error = None if task.cancelled() else task.exception()
        pause_ends = asyncio.get_running_loop().time() + PAUSE_S
        self._refused = (pause_ends, error) if isinstance(error, RedisError) else None

    async def _connect(self) -> _Replies:
        await self._disconnect()
        connection = self._pool.make_connection()
        try:
            await connection.connect()
        except OSError as error:
            message = f"the connection broke: {error}"
            raise RedisConnectionError(message) from error
        transport = transport_of(connection)
        replies = _Replies(transport, self._timeout_s)
        transport.set_protocol(replies)
        self._connection, self._replies = connection, replies
        return replies

    async def _disconnect(self) -> None:
        if self._replies is not None:
            self._replies.fail(RedisConnectionError("the connection was closed"))
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)
        self._connection = self._replies = None

    async def close(self) -> None:
        """Close the connection."""
        if self._connecting is not None:
            self._connecting.cancel()
        await self._disconnect()
