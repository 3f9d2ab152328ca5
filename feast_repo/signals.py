"""SIGTERM and Ctrl-C: how a process ends on request, at any moment and inside any library.

Python runs signal handlers in the main thread, between two instructions. A main thread that is inside native code or
waits for a frozen server may never get there. So the signal also wakes a thread (`signal.set_wakeup_fd`), which ends
the process when its time is up.
"""

from __future__ import annotations

import atexit
import logging
import os
import select
import signal
import sys
import threading
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

STOPS = (signal.SIGINT, signal.SIGTERM)
CLEAN_UP_WITHIN_S = 3.0
"""Time for an interrupted command to remove temporary files and end subprocesses; then it is ended in any case."""
LAST_LINE_WITHIN_S = 0.5
LOOK_S = 0.05
SHOW_CURSOR = "\x1b[?25h"
STDERR = 2


def end(code: int, line: str = "") -> NoReturn:
    """End the process now, from any thread, with one line on stderr.

    Neither a thread that holds `sys.stderr` nor a stuck reader can delay it.
    """
    if line:
        poll = select.poll()
        poll.register(STDERR, select.POLLOUT)
        if poll.poll(LAST_LINE_WITHIN_S * 1000):
            cursor = SHOW_CURSOR if os.isatty(STDERR) else ""  # a progress bar may have hidden it
            os.write(STDERR, f"{cursor}{line}\n".encode())
    os._exit(code)


@dataclass
class Watchdog:
    """Ends the process a given time after its first SIGTERM or SIGINT, unless it ends by itself.

    Both functions are called repeatedly, because their results depend on the state of the process: `within_s` returns
    the seconds, and `outcome` the exit code and the line for a signal.
    """

    within_s: Callable[[], float]
    outcome: Callable[[int], tuple[int, str]]

    def start(self) -> None:
        """Start to listen; call it in the main thread."""
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # a child's signals are its own
        before = signal.pthread_sigmask(
            signal.SIG_BLOCK, STOPS
        )  # inherited by the thread: the main thread handles signals
        threading.Thread(target=self._listen, args=(reader,), name="watchdog", daemon=True).start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def wake(self, number: int) -> None:
        """Report a signal when an event loop has claimed the wake-up file descriptor."""
        os.write(self._writer, bytes([number]))

    def _listen(self, reader: int) -> None:
        while (number := os.read(reader, 1)[0]) not in STOPS:
            pass
        asked = time.monotonic()
        while time.monotonic() - asked < self.within_s():
            time.sleep(LOOK_S)
        end(*self.outcome(number))


class CommandSignals:
    """SIGTERM and Ctrl-C end a command with one line and exit code 143 or 130, and no traceback.

    The command first unwinds as by `KeyboardInterrupt`, which removes temporary files and ends subprocesses. If a
    library swallows that or is inside native code, the process ends after `CLEAN_UP_WITHIN_S`. A second signal ends it
    at once.
    """

    def __init__(self) -> None:
        self._asked: int | None = None
        self._ends = False
        self._allowed: tuple[float, Callable[[int], tuple[int, str]]] = CLEAN_UP_WITHIN_S, _interrupted
        self._watchdog = Watchdog(lambda: self._allowed[0], self._outcome)

    def install(self) -> None:
        """Install the handlers; a signal that is ignored, as in a shell's background jobs, stays ignored."""
        sys.excepthook = self._on_uncaught
        atexit.register(self._at_exit)  # registered first, so it runs last
        self._watchdog.start()
        for number in STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    def allow(self, within_s: float, outcome: Callable[[int], tuple[int, str]]) -> None:
        """From now on, let the process end in order, but no later than `within_s` after the first signal."""
        self._allowed = within_s, outcome

    def wake(self, number: int) -> None:
        """Record a signal that an event loop received instead of us."""
        self._watchdog.wake(number)

    def end_if_interrupted(self) -> None:
        """End here if an interrupt has arrived: later errors don't matter."""
        if self._asked is not None:
            self._ends = True
            end(*_interrupted(self._asked))

    def _at_exit(self) -> None:
        self.end_if_interrupted()
        for number in STOPS:  # everything is done, so an interrupt comes too late
            signal.signal(number, signal.SIG_IGN)

    def _outcome(self, number: int) -> tuple[int, str]:
        return self._allowed[1](number)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._ends:  # this signal has come in the middle of that
            return
        self.end_if_interrupted()
        self._asked = number
        # From here on, libraries would only complain about the interrupt.
        logging.disable()
        sys.unraisablehook = self._on_swallowed
        threading.excepthook = lambda _: None
        raise KeyboardInterrupt

    def _on_swallowed(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Keep an interrupt that Python would drop in a destructor or callback."""
        if unraisable.exc_type is KeyboardInterrupt:
            self.end_if_interrupted()

    def _on_uncaught(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if self._asked is None and issubclass(kind, KeyboardInterrupt):  # from a library with its own handler
            self._asked = signal.SIGINT
        if self._asked is None:
            sys.__excepthook__(kind, error, trace)


def _interrupted(number: int) -> tuple[int, str]:
    return 128 + number, f"{module()}: {'terminated' if number == signal.SIGTERM else 'interrupted'}"


def module() -> str:
    """The argument of `-m` on the command line, which names the command in its messages."""
    return next((name for option, name in pairwise(sys.orig_argv) if option == "-m"), "python")


command: CommandSignals | None = None
"""The handlers of this process, if it runs one of our commands."""


def end_commands_in_one_line() -> None:
    """Install the signal handlers when a package of commands is imported by `python -m`.

    This early because a command's imports take seconds, and Ctrl-C must work during them too.
    """
    global command  # noqa: PLW0603  (a process has its signals once)
    if sys.argv[:1] == ["-m"] and command is None:  # Python's value until it has found the module
        command = CommandSignals()
        command.install()
