"""Ours in two processes of one cluster, which share the topic's partitions: `-i` and `-a` of `bytewax.run`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

from benchmarks.contestants import say
from sandbox.processes import free_port

PROCESSES = 2


def main() -> None:
    """Run both to the end of the topic."""
    addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(PROCESSES))
    command = [sys.executable, "-m", "benchmarks.contestants.ours", "-a", addresses, "-i"]
    with tempfile.TemporaryDirectory() as recovery:
        environment = {**os.environ, "BENCH_RECOVERY": recovery}
        running = [
            subprocess.Popen([*command, str(number)], env=environment, stdout=subprocess.PIPE, text=True)
            for number in range(PROCESSES)
        ]
        for process in running:
            (process.stdout or sys.stdin).readline()  # ready
        say("ready")
        told = [process.communicate()[0] for process in running]
        if any(process.returncode for process in running):
            sys.exit(1)
    say("done", messages=json.loads(told[0])["messages"])


if __name__ == "__main__":
    main()
