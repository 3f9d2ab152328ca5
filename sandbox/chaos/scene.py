"""The environment of faults: the stack, the dataflow's processes, and a random generator."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis import Redis

from feast_repo import features
from feast_repo.settings import PROJECT_ROOT
from feast_repo.stores.identity import project
from feast_repo.stores.online.marker import is_filled, marker_key, read_mark
from sandbox.chaos.runs import PATIENCE_S, DrillError
from sandbox.processes import wait_until

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from sandbox.chaos.runs import Runs
    from sandbox.stack import Sandbox

AWAY, BACK = "{} is away", "{} is back"
LOST, FILLED = "refilling it from Parquet", "Redis is filled again"
"""The log texts of any loss; which one is noticed first is random."""


@dataclass
class Scene:
    """The environment of faults."""

    sandbox: Sandbox
    runs: Runs
    data_root: Path
    environment: dict[str, str]
    chance: random.Random

    def pause(self, longest_s: float) -> None:
        """Wait a random time, so faults hit arbitrary moments."""
        threading.Event().wait(self.chance.uniform(0, longest_s))

    def wait_until_back(self) -> None:
        """Wait until nothing is away any more: the next fault could not tell that it has taken effect.

        Raises:
            DrillError: something stays away, or a process ends.
        """
        for name in ("Kafka", "Redis"):
            self.runs.wait_until_back(AWAY.format(name), BACK.format(name))

    def start(self, redis_url: str | None = None) -> str:
        """Restart the dataflow with one or two processes. `redis_url` overrides the usual one."""
        processes = self.chance.choice([1, 1, 2])
        self.runs.start(processes, redis_url)
        return f"{processes} process{'es' * (processes > 1)} after it"

    def wait_until_filled(self) -> None:
        """Wait until Redis holds all rows again and the dataflow has said so: another loss would not be told before.

        Raises:
            DrillError: it doesn't in time.
        """

        def filled() -> bool:
            said = self.runs.said()
            return said.count(LOST) <= said.count(FILLED) and is_filled(read_mark(redis, key))

        key = marker_key(project(), features.user_click_features.name)
        with Redis.from_url(self.sandbox.redis_url) as redis:
            if not wait_until(filled, PATIENCE_S):
                message = f"Redis was not filled within {PATIENCE_S:.0f} s: {self.runs.said()[-2000:]}"
                raise DrillError(message)

    def command(self, *arguments: str) -> str:
        """Run one of the project's commands; returns its output.

        Raises:
            DrillError: it fails.
        """
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=PROJECT_ROOT,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        if done.returncode != 0:
            message = f"python -m {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}"
            raise DrillError(message)
        return done.stdout.strip()
