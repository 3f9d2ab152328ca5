"""The errors that users are told in one line, and the exit codes of all commands."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command ends with."""

    DONE = 0
    FAILED = 1
    """A check did not hold, or the command could not go on."""
    REFUSED = 2
    """Input, settings or stored data don't fit; nothing was changed."""
    TRY_AGAIN = 75
    """The cause passes: a server that does not answer, or another job that is still writing (EX_TEMPFAIL of BSD)."""
    INTERRUPTED = 130
    """Ctrl-C, as shells have it."""


class FeatureStoreError(Exception):
    """An error of this project. Its message is one line that names the bad input and the remedy."""

    exit_code = ExitCode.FAILED


class RefusedError(FeatureStoreError):
    """Input, settings or stored data don't fit; repeating the command changes nothing."""

    exit_code = ExitCode.REFUSED


class UnavailableError(FeatureStoreError):
    """The cause passes; repeating the command later may help."""

    exit_code = ExitCode.TRY_AGAIN
