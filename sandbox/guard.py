"""The guard process (see `sandbox.processes.Guard`): kills what it watches when its standard input ends.

It runs as `python -m sandbox.guard` and reads lines: a pid, or `release` to forget the previous ones.
"""

from __future__ import annotations

import sys

from sandbox.processes import Process, started_at


def main() -> None:
    """Read until the other end closes, then kill every watched process that still runs."""
    watched: list[Process] = []
    for line in sys.stdin:
        if line == "release\n":
            watched.clear()
        elif started := started_at(int(line)):
            watched.append(Process(int(line), started))
    for process in watched:
        process.kill()


if __name__ == "__main__":
    main()
