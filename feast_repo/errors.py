"""The errors that are reported to users in one line, and the exit codes of all commands."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of commands."""

    DONE = 0
    FAILED = 1
    """A check failed, or the command could not continue."""
    REFUSED = 2
    """Input, settings or stored data don't fit; nothing was changed."""
    TRY_AGAIN = 75
    """A transient cause: a server that does not answer, or another job that is still writing (BSD's EX_TEMPFAIL)."""
    INTERRUPTED = 130
    """Ctrl-C, as in shells."""


class FeatureStoreError(Exception):
    """An error of this project. Its message is one line that names the bad input and the remedy."""

    exit_code = ExitCode.FAILED


class RefusedError(FeatureStoreError):
    """Input, settings or stored data don't fit; repeating the command changes nothing."""

    exit_code = ExitCode.REFUSED


class UnavailableError(FeatureStoreError):
    """The cause is transient; repeating the command later may help."""

    exit_code = ExitCode.TRY_AGAIN
