"""How a run ends early: cleanly on a signal, or with one line when it is refused or can't continue.

After SIGTERM or SIGINT a run ends within `DRAIN_WITHIN_S`, whatever it waits for: exit 0 if everything it has read is
committed, else exit 1 with a line that names the rest. A run that hasn't read anything has nothing to wait for.
"""

from __future__ import annotations

import atexit
import logging
import signal
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

from feast_repo.errors import ExitCode, FeatureStoreError
from feast_repo.signals import STOPS, Watchdog, end
from stream.uncommitted import uncommitted

if TYPE_CHECKING:
    from types import TracebackType

DRAIN_WITHIN_S = 8.0
START_WITHIN_S = 2.0
RESUME = "a resume reads it again"

stop_requested = threading.Event()
"""Set by SIGTERM and SIGINT. Sources then end, everything read is stored, and the epoch commits."""


class _Run:
    """The state of the run."""

    def __init__(self) -> None:
        self.draining = False
        self.failed = False

    def on_signal(self) -> None:
        """Drain, or end at once if the run is still starting."""
        stop_requested.set()
        if not self.draining:
            logging.disable()
            sys.unraisablehook = lambda _: None
            raise SystemExit(int(ExitCode.DONE))

    def on_uncaught(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Record what ends the run; Timely panics when a process of the cluster is gone."""
        if stop_requested.is_set() and not self.draining:  # an import can turn our SystemExit into an error of its own
            end(ExitCode.DONE)
        if kind.__name__ == "PanicException" and "thread panic" in str(error):
            peer_gone()
        self.failed = True
        sys.__excepthook__(kind, error, trace)

    def on_exit(self) -> None:
        """End without the interpreter's own cleanup, which would wait for Kafka's threads."""
        sys.stdout.flush()
        end(ExitCode.FAILED if self.failed else ExitCode.DONE)


_run = _Run()


def stop_on_signals() -> None:
    """Let SIGTERM and SIGINT end the run. Call it first, because the imports take seconds."""
    for number in STOPS:
        signal.signal(number, lambda *_: _run.on_signal())
    sys.excepthook = _run.on_uncaught
    atexit.register(_run.on_exit)  # registered first, so it runs last
    Watchdog(
        lambda: DRAIN_WITHIN_S if uncommitted.begun else START_WITHIN_S,
        lambda _: outcome(f"not drained within {DRAIN_WITHIN_S:.0f} s"),
    ).start()


def drain_on_signals() -> None:
    """From now on, signals drain the dataflow instead of ending the process."""
    _run.draining = True


def outcome(reason: str) -> tuple[int, str]:
    """The exit code and the line of a stopping run that can't drain."""
    if not (left := str(uncommitted)):
        return ExitCode.DONE, ""
    return ExitCode.FAILED, f"stream.dataflow: {reason}; read and not committed: {left}; {RESUME}"


def stop_undrained(reason: str) -> NoReturn:
    """End a stopping run without waiting for what keeps it from draining."""
    end(*outcome(reason))


def peer_gone() -> NoReturn:
    """End this process because another one of the cluster has ended: none can continue alone."""
    reason = "another process of the cluster is gone"
    if stop_requested.is_set():
        stop_undrained(reason)
    fail(f"{reason}: start all of its processes again, and they resume")


def refuse(reason: str | FeatureStoreError) -> NoReturn:
    """End the process with one line that names the reason and the remedy; nothing has been written.

    The exit code is the error's, else 2.
    """
    code = reason.exit_code if isinstance(reason, FeatureStoreError) else ExitCode.REFUSED
    end(code, f"stream.dataflow: {reason}")


def fail(reason: str) -> NoReturn:
    """End the process with exit code 1 and one line; the current epoch is not committed."""
    end(ExitCode.FAILED, f"stream.dataflow: {reason}")
