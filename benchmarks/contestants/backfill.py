"""Ours: `python -m batch.backfill --mode as-seen` with the engine that the argument names.

It rechecks the archived watermarks, compares with what is stored, and writes one file a window and partition. Spark's
session runs before it is ready; how long it took to start is told.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time

from batch.recompute import backfill
from benchmarks.contestants import say


def main() -> None:
    """Fill an empty store."""
    engine, start = sys.argv[1], time.perf_counter()
    if engine == "spark":
        from batch.recompute.spark_engine import SparkEngine  # noqa: PLC0415  (an extra)

        SparkEngine("", "local[*]")  # the command takes the session that is there
    say("ready")
    ready = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()) as told:
        code = backfill.main(["--mode", "as-seen", "--engine", engine, "--json"])
    if code:
        sys.exit(code)
    say("done", rows=json.loads(told.getvalue())["added"], start_seconds=ready - start)


if __name__ == "__main__":
    main()
