"""The real server, reached through connections that can break or be the last thing that a process does."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any

from redis import ConnectionPool, Redis
from redis.connection import Connection, parse_url

if TYPE_CHECKING:
    from collections.abc import Callable

    Point = Callable[[str], None]


class BreakingConnection(Connection):
    """Calls `point` before commands are sent and after the server has done them; what it raises comes out."""

    def __init__(self, *, point: Point, **options: Any) -> None:
        self._point = point
        self._is_greeted = False
        untyped: Any = super()
        untyped.__init__(**options)

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: FBT001, FBT002  (redis-py's)
        untyped: Any = super()
        if not self._is_greeted:  # no data depends on the greeting
            untyped.send_packed_command(command, check_health)
            return
        name = _name(command)
        self._point(f"send {name}")
        untyped.send_packed_command(command, check_health)
        socket: Any = self._sock
        select.select([socket], [], [])  # the server answers when it has done all that one read gave it
        try:
            self._point(f"answer to {name}")
        except BaseException:
            untyped.disconnect()
            raise

    def on_connect_check_health(self, check_health: bool = True) -> None:  # noqa: FBT001, FBT002  (redis-py's)
        untyped: Any = super()
        self._is_greeted = False
        untyped.on_connect_check_health(check_health)
        self._is_greeted = True


def _name(command: Any) -> str:
    first: bytes = command if isinstance(command, bytes) else b"".join(command)
    return first.split(b"\r\n", 3)[2].decode()


def breaking_client(url: str, point: Point, **options: Any) -> Redis:
    """A client of the server at an address, over such connections."""
    address = {**parse_url(url), **options}
    return Redis(connection_pool=ConnectionPool(connection_class=BreakingConnection, point=point, **address))
