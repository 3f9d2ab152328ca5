"""SIGTERM and Ctrl-C: how a process ends when it is asked to, at whatever moment and inside whatever library.

Python runs a signal's handler in the main thread, between two instructions. A main thread that is inside native code,
or waits for a server that is frozen, may never get there. So the system wakes a thread, too (`signal.set_wakeup_fd`),
and that ends the process when its time is over.
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
"""An interrupted command removes its temporary files and ends its subprocesses; then it ends in any case."""
LAST_LINE_WITHIN_S = 0.5
LOOK_S = 0.05
SHOW_CURSOR = "\x1b[?25h"
STDERR = 2


def end(code: int, line: str = "") -> NoReturn:
    """End the process now, from any thread, with one line on stderr.

    Neither another thread that holds `sys.stderr`, nor a reader that is stuck, can hold it up.
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
    """Ends the process so many seconds after its first SIGTERM or SIGINT, unless it has ended by itself.

    Both functions are asked again and again, since their answers depend on how far the process is: `within_s` for the
    seconds, `outcome` for the exit code and the line, given the signal.
    """

    within_s: Callable[[], float]
    outcome: Callable[[int], tuple[int, str]]

    def start(self) -> None:
        """Begin to listen; for the main thread."""
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # a signal of theirs is none of ours
        before = signal.pthread_sigmask(
            signal.SIG_BLOCK, STOPS
        )  # the thread inherits it: signals are the main thread's
        threading.Thread(target=self._listen, args=(reader,), name="watchdog", daemon=True).start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def wake(self, number: int) -> None:
        """Tell it of a signal where an event loop has taken the system's message for itself."""
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

    First it unwinds, as by `KeyboardInterrupt`, so that temporary files go and subprocesses end. A library that
    swallows that, or is inside native code, has no more than `CLEAN_UP_WITHIN_S`; a second signal ends it at once.
    """

    def __init__(self) -> None:
        self._asked: int | None = None
        self._allowed: tuple[float, Callable[[int], tuple[int, str]]] = CLEAN_UP_WITHIN_S, _interrupted
        self._watchdog = Watchdog(lambda: self._allowed[0], self._outcome)

    def install(self) -> None:
        """Take the signals over; an ignored one, as that of a shell's background jobs, stays ignored."""
        sys.excepthook = self._on_uncaught
        atexit.register(self._at_exit)  # the first that is registered is the last that runs
        self._watchdog.start()
        for number in STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    def allow(self, within_s: float, outcome: Callable[[int], tuple[int, str]]) -> None:
        """Let the process end in order from now on, but no later than so many seconds after the first signal."""
        self._allowed = within_s, outcome

    def wake(self, number: int) -> None:
        """Take note of a signal that an event loop got instead of us."""
        self._watchdog.wake(number)

    def end_if_interrupted(self) -> None:
        """End here if an interrupt has come: whatever goes wrong afterwards is of no interest."""
        if self._asked is not None:
            end(*_interrupted(self._asked))

    def _at_exit(self) -> None:
        self.end_if_interrupted()
        for number in STOPS:  # all is done, so it is too late
            signal.signal(number, signal.SIG_IGN)

    def _outcome(self, number: int) -> tuple[int, str]:
        return self._allowed[1](number)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.end_if_interrupted()
        self._asked = number
        # From here on, the interrupt is all that libraries complain about.
        logging.disable()
        sys.unraisablehook = self._on_swallowed
        threading.excepthook = lambda _: None
        raise KeyboardInterrupt

    def _on_swallowed(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Python drops the exceptions of destructors and callbacks; an interrupt must not get lost in one."""
        if unraisable.exc_type is KeyboardInterrupt:
            self.end_if_interrupted()

    def _on_uncaught(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if self._asked is None and issubclass(kind, KeyboardInterrupt):  # of a library that has its own handler
            self._asked = signal.SIGINT
        if self._asked is None:
            sys.__excepthook__(kind, error, trace)


def _interrupted(number: int) -> tuple[int, str]:
    return 128 + number, f"{module()}: {'terminated' if number == signal.SIGTERM else 'interrupted'}"


def module() -> str:
    """What follows `-m` on the command line: the name of the command in what it says."""
    return next((name for option, name in pairwise(sys.orig_argv) if option == "-m"), "python")


command: CommandSignals | None = None
"""Of this process, if it runs one of our commands."""


def end_commands_in_one_line() -> None:
    """For a package of commands, as it is imported: if that is for `python -m`, the signals are taken over.

    So early, because what a command imports takes seconds, and people press Ctrl-C then, too.
    """
    global command  # noqa: PLW0603  (a process has its signals once)
    if sys.argv[:1] == ["-m"] and command is None:  # what Python says until it has found the module
        command = CommandSignals()
        command.install()
