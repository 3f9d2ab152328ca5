"""How a run ends early: cleanly on a signal, or with one line when it is refused or can't go on."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import NoReturn

FAILED, REFUSED = 1, 2

stop_requested = threading.Event()
"""Set by SIGTERM and SIGINT: sources then end, so that all that was read is stored and the epoch commits."""


def stop_on_signals() -> None:
    """Let SIGTERM and SIGINT drain the dataflow instead of ending it at once."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop_requested.set())


def refuse(reason: str) -> NoReturn:
    """End the process with exit code 2 and one line that names the reason and the remedy; nothing has been written."""
    _end(reason, REFUSED)


def fail(reason: str) -> NoReturn:
    """End the process with exit code 1 and one line, in the middle of an epoch that is then not committed."""
    _end(reason, FAILED)


def _end(reason: str, code: int) -> NoReturn:
    # Bytewax turns exceptions of sources and sinks, even SystemExit, into a stack trace with exit code 1.
    print(f"stream.dataflow: {reason}", file=sys.stderr, flush=True)  # noqa: T201  (the command's one line)
    os._exit(code)
