"""Runs the project's commands from flows: their output is the result, and their exit code decides about retries.

Exit codes 0 and 1 are results: 1 means that a check failed. Any other code is a failure. Exit code 75 marks a transient
cause, which is retried: a store that does not answer, or another batch job that is still writing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from feast_repo.errors import ExitCode, FeatureStoreError
from feast_repo.settings import PROJECT_ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prefect.client.schemas.objects import State, TaskRun

RETRIES = 3
FIRST_WAIT_S = 15
TIMEOUT_MINUTES = 60


class CommandError(FeatureStoreError):
    """A command failed and gave the reason in one line."""


class CommandUnavailableError(CommandError):
    """A command failed for a transient cause."""

    exit_code = ExitCode.TRY_AGAIN


def _cause_passes(task: Any, run: TaskRun, state: State[Any]) -> bool:
    del task, run
    return isinstance(state.data, CommandUnavailableError)


@task(
    name="command",
    task_run_name="{module}",
    cache_policy=NO_CACHE,
    retries=RETRIES,
    retry_delay_seconds=exponential_backoff(backoff_factor=FIRST_WAIT_S),
    retry_jitter_factor=0.5,
    retry_condition_fn=_cause_passes,
)
def run_command(
    module: str,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    timeout_minutes: float = TIMEOUT_MINUTES,
) -> dict[str, Any]:
    """Run `python -m module --json arguments`; returns its JSON object, with the exit code (0 or 1) as `status`.

    Raises:
        CommandError: the command failed, or took too long and was ended.
        CommandUnavailableError: it failed for a transient cause; it is retried first.
    """
    logger = get_run_logger()
    logger.info("python -m %s %s", module, " ".join(arguments))
    # A subcommand precedes its options.
    words = [*arguments, "--json"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            cwd=PROJECT_ROOT,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=timeout_minutes * 60,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        message = f"{module} took longer than {timeout_minutes:g} minutes and was ended"
        raise CommandError(message) from error
    for line in filter(str.strip, done.stderr.splitlines()):
        logger.info("%s", line)
    report = _report(done.stdout) if done.returncode in {0, 1} else None
    if report is None:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        message = f"{module} failed with exit code {done.returncode}: {reason}"
        raise (CommandUnavailableError if done.returncode == ExitCode.TRY_AGAIN else CommandError)(message)
    return {**report, "status": done.returncode}


def choice(**names: str | None) -> list[str]:
    """The options that choose from the catalog, such as `--view NAME`; none for a name that is left to it."""
    return [word for kind, name in names.items() if name is not None for word in (f"--{kind}", name)]


def _report(output: str) -> dict[str, Any] | None:
    """The JSON object in the last line; None for a command that was interrupted."""
    try:
        found = json.loads(output.strip().rpartition("\n")[2])
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None
