"""Work in a thread beside the dataflow: in order, with bounded room, and stopped by the first failure."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Background:
    """One thread that runs operations one after the other.

        background = Background("redis", room=2)
        background.do(operation)     # waits while two others are pending
        background.finish()          # returns when all are done

    After a failure no later operation starts, so the completed ones are always a prefix of those requested, and every
    later call raises the error. For one calling thread.
    """

    def __init__(self, name: str, room: int) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._room = room
        self._under_way: deque[Future[None]] = deque()
        self._error: BaseException | None = None

    def do(self, operation: Callable[[], object]) -> None:
        """Run it after all earlier operations."""
        while len(self._under_way) >= self._room:
            self._wait()
        self._tell()
        self._under_way.append(self._thread.submit(self._run, operation))

    def finish(self) -> None:
        """Wait until all operations are done."""
        while self._under_way:
            self._wait()
        self._tell()

    def close(self) -> None:
        """End the thread after the operations that it was given."""
        self._thread.shutdown()

    def _wait(self) -> None:
        self._under_way.popleft().result()

    def _tell(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self, operation: Callable[[], object]) -> None:
        if self._error is None:
            try:
                operation()
            except BaseException as error:  # noqa: BLE001  (told by the next call)
                self._error = error
