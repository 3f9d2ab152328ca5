"""A process of `python -m tests.crash`: it opens a bench with its first seeds and keeps it for the next ones."""

from __future__ import annotations

import logging
import tempfile
from contextlib import ExitStack
from functools import cache
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.processes import Guard
from tests.crash.bench import enter, opened
from tests.crash.simulation import failing_seeds

if TYPE_CHECKING:
    from tests.crash.world import Bench

_until_the_end = ExitStack()


def run(first: int, count: int) -> dict[int, str]:
    """Go through consecutive seeds; gives those that went wrong, with the reason."""
    return failing_seeds(_bench(), range(first, first + count))


@cache
def _bench() -> Bench:
    logging.disable(logging.CRITICAL)
    Finalize(None, _until_the_end.close, exitpriority=0)  # such a process does not run what `atexit` knows
    folder = Path(_until_the_end.enter_context(tempfile.TemporaryDirectory(prefix="crash-")))
    guard = Guard()
    _until_the_end.callback(guard.close)
    bench, environment = _until_the_end.enter_context(opened(folder, guard))
    enter(environment)
    return bench
