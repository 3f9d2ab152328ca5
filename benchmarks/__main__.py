"""All benchmarks, one after the other.

    python -m benchmarks                    # make bench: what has a budget
    python -m benchmarks --size quick       # make bench-quick: shows that all of them work
    python -m benchmarks --size full        # make bench-full: all of them, with growth curves and all peers

Each runs in a process of its own, so that none inherits another's memory.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

from benchmarks.options import options
from feast_repo.settings import PROJECT_ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

BUDGETS = ("stream", "push", "serving", "backfill", "state")
OTHERS = ("freshness", "growth", "materialize", "join", "dropin", "deduplicate", "hostile")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all benchmarks; returns 1 if one failed."""
    chosen = options("benchmarks", "All benchmarks, one after the other.", arguments)
    failed, start = [], time.monotonic()
    for name in BUDGETS if chosen.size == "usual" else BUDGETS + OTHERS:
        sys.stdout.write(f"\n== {name}, {(time.monotonic() - start) / 60:.1f} minutes after the start\n")
        sys.stdout.flush()
        command = [sys.executable, "-m", f"benchmarks.{name}", "--size", chosen.size, "--rounds", str(chosen.rounds)]
        if subprocess.run(command, cwd=PROJECT_ROOT, check=False).returncode:
            failed.append(name)
    sys.stdout.write(f"\ntook {(time.monotonic() - start) / 60:.1f} minutes\n")
    if failed:
        sys.stderr.write(f"benchmarks: failed: {', '.join(failed)}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
