"""Sends encoded commands to Redis and reads their replies, thousands at a time.

redis-py spends more time delivering one reply than the server spends on making it, so these replies go straight through
hiredis. Connections, with their passwords, encryption and timeouts, are redis-py's.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError, RedisError, TimeoutError as RedisTimeoutError

from feast_repo.stores.internals import socket_of
from feast_repo.stores.online.errors import reply_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from redis import Redis

CHUNK_BYTES = 1 << 18
COMMANDS_PER_PAYLOAD = 2_000


def packed(commands: Iterable[tuple[Any, ...]]) -> Iterator[tuple[bytes, int]]:
    """Commands as payloads."""
    left = iter(commands)
    while part := list(islice(left, COMMANDS_PER_PAYLOAD)):
        yield b"".join(map(hiredis.pack_command, part)), len(part)


def ask(client: Redis, payloads: Iterable[tuple[bytes, int]]) -> list[Any]:
    """Send payloads of RESP commands, each with the number of its commands, and return all replies.

    A connection with unread replies is not reused.

    Raises:
        redis.RedisError: the server is away, too slow for the client's timeout, or refused a command.
    """
    pool = client.connection_pool
    connection = pool.get_connection()
    try:
        return exchange(connection, payloads)
    except BaseException:
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


def exchange(connection: Any, payloads: Iterable[tuple[bytes, int]]) -> list[Any]:
    """As `ask`, on a redis-py connection, which is unusable after an error: replies may still arrive.

    Raises:
        redis.RedisError: the server is away, too slow for the client's timeout, or refused a command.
    """
    replies: list[Any] = []
    owed = 0
    reader = hiredis.Reader(replyError=reply_error)
    for payload, commands in payloads:
        connection.send_packed_command([payload])
        # The server works on this payload while the replies to the previous one are read.
        replies += _read(connection, reader, owed)
        owed = commands
    return replies + _read(connection, reader, owed)


def _read(connection: Any, reader: hiredis.Reader, count: int) -> list[Any]:
    replies: list[Any] = []
    socket = socket_of(connection)
    try:
        while len(replies) < count:
            reply = reader.gets()
            if reply is False:  # more bytes are needed
                if not (data := socket.recv(CHUNK_BYTES)):
                    message = "the server closed the connection"
                    raise RedisConnectionError(message)
                reader.feed(data)
            elif isinstance(reply, RedisError):
                raise reply
            else:
                replies.append(reply)
    except TimeoutError as error:
        message = "the server did not answer in time"
        raise RedisTimeoutError(message) from error
    except OSError as error:
        message = f"the connection broke: {error}"
        raise RedisConnectionError(message) from error
    return replies
