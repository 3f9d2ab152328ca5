"""Work that goes on beside the dataflow: in order, a bounded amount of it, and nothing more once some of it failed."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Background:
    """One thread that does what it is given, one after the other.

        background = Background("redis", room=2)
        background.do(operation)     # waits while two others are under way
        background.finish()          # all is done when it returns

    After an operation failed, no later one is begun, so what was done is always a beginning of what was asked for; and
    from then on every call raises the error. For one calling thread.
    """

    def __init__(self, name: str, room: int) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._room = room
        self._under_way: deque[Future[None]] = deque()
        self._error: BaseException | None = None

    def do(self, operation: Callable[[], object]) -> None:
        """Have it done after what came before."""
        while len(self._under_way) >= self._room:
            self._wait()
        self._tell()
        self._under_way.append(self._thread.submit(self._run, operation))

    def finish(self) -> None:
        """Wait until all is done."""
        while self._under_way:
            self._wait()
        self._tell()

    def close(self) -> None:
        """End the thread, after what it was given."""
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
