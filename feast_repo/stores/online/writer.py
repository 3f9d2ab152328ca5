"""Connections that leave no pending commands behind, for writers that read, compare and then write.

A connection that broke or was abandoned may have commands in flight: in a proxy, in the server's socket, in a network
that delivers late. Their rows would replace newer ones written since. So before anything more is written, the server
kills that connection by its id; commands that it has not read by then are never executed. Commands that were executed
before are visible to the following reads.

Connections carry a name, by which the next process kills those of a killed process (`end_others`).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from redis.exceptions import NoPermissionError, ResponseError

from feast_repo.errors import FeatureStoreError
from feast_repo.stores.internals import socket_of
from feast_repo.stores.online.pipe import exchange

if TYPE_CHECKING:
    from collections.abc import Iterable, Set as AbstractSet

    from redis import Redis

NOBODY = 2**63 - 1
"""An id that no connection has."""


class CannotEndError(FeatureStoreError):
    """The server doesn't let this user kill connections, or is behind a proxy: rows need another guard."""


@dataclass(frozen=True)
class _Place:
    """A connection as the server knows it. Another server, or the same one after a restart, numbers anew."""

    server: str
    number: int


class WriteConnections:
    """The connections of a client's pool, for one writer; threads may share it.

    `name`: their name on the server, without blanks.
    """

    def __init__(self, client: Redis, name: str) -> None:
        self._pool = client.connection_pool
        self._name = name
        self._lock = threading.Lock()
        self._places: WeakKeyDictionary[Any, tuple[object, _Place]] = WeakKeyDictionary()
        self._given_up: list[_Place] = []
        self._refused: CannotEndError | None = None

    def ask(self, payloads: Iterable[tuple[bytes, int]]) -> list[Any]:
        """Like `pipe.ask`, after the server has killed any abandoned connection.

        Raises:
            CannotEndError: the server refuses to kill connections; nothing was sent.
            redis.RedisError: the server is away, too slow for the client's timeout, or refused a command.
        """
        place = None
        connection = self._pool.get_connection()
        try:
            place = self._place_of(connection)
            self._end_given_up(connection, place)
            return exchange(connection, payloads)
        except BaseException:
            connection.disconnect()
            if place is not None:
                with self._lock:
                    self._given_up.append(place)
            raise
        finally:
            self._pool.release(connection)

    def _end_given_up(self, connection: Any, place: _Place) -> None:
        with self._lock:
            while self._given_up:
                last = self._given_up[-1]
                if last.server == place.server:
                    _ask(connection, "CLIENT", "KILL", "ID", last.number)
                self._given_up.pop()

    def _place_of(self, connection: Any) -> _Place:
        socket = socket_of(connection)
        known = self._places.get(connection)
        if known is not None and known[0] is socket:
            return known[1]
        if self._refused is not None:
            raise self._refused
        try:
            place = self._introduce(connection)
        except CannotEndError as error:
            self._refused = error
            raise
        self._places[connection] = socket, place
        return place

    def _introduce(self, connection: Any) -> _Place:
        try:
            facts = bytes(_ask(connection, "INFO", "server")).decode()
            number = int(_ask(connection, "CLIENT", "ID"))
            _ask(connection, "CLIENT", "SETNAME", self._name)
            _ask(connection, "CLIENT", "KILL", "ID", NOBODY)
        except (ResponseError, NoPermissionError) as error:
            raise CannotEndError(str(error)) from error
        servers = [line.removeprefix("run_id:") for line in facts.split() if line.startswith("run_id:")]
        if not servers:
            message = "the server tells no run_id"
            raise CannotEndError(message)
        return _Place(servers[0], number)


def end_others(client: Redis, prefix: str, kept: AbstractSet[str]) -> int:
    """Kill connections with names that start with a prefix not followed by one of `kept`; returns how many.

    A server that doesn't allow this has received nothing from `WriteConnections`, so there is nothing to kill.

    Raises:
        redis.RedisError: the server is away.
    """
    try:
        listed = cast("list[dict[str, str]]", client.client_list())
        names = {one["id"]: one.get("name", "") for one in listed}
        ids = [number for number, name in names.items() if name.startswith(prefix) and name[len(prefix) :] not in kept]
        return sum(cast("int", client.client_kill_filter(_id=number)) for number in ids)
    except (ResponseError, NoPermissionError):
        return 0


def _ask(connection: Any, *command: str | int) -> Any:
    connection.send_command(*command)
    return connection.read_response()
