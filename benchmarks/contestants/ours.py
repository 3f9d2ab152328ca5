"""Ours: `python -m bytewax.run stream.dataflow` with recovery on, which is how it is run.

Exactly once in both stores, all events archived, copies dropped, broken messages kept apart.
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile

from benchmarks.contestants import say
from feast_repo.clickstream import clickstream
from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.tables import progress_folder
from feast_repo.stores.opening import ensure_applied, open_store
from feast_repo.stores.progress import ProgressRecord
from feast_repo.stores.push import Pusher
from stream import recovery, source, stores, windows

IMPORTED = recovery, source, stores, windows
"""Now rather than when the dataflow needs them: a start that imports Feast is no part of the work."""


def main() -> None:
    """Run the dataflow to the end of the topic. Arguments go to `bytewax.run`, as `-i` and `-a` for more processes."""
    settings = StreamSettings()
    store = open_store()
    ensure_applied(store)
    Pusher(store, settings.catalog.view().push_source)
    with tempfile.TemporaryDirectory() as folder:
        directory = os.environ.get("BENCH_RECOVERY", folder)
        sys.argv[1:] = ["stream.dataflow", "-r", directory, "-s", "10", "-b", "0", *sys.argv[1:]]
        say("ready")
        runpy.run_module("bytewax.run", run_name="__main__", alter_sys=True)
    reached = ProgressRecord(progress_folder(settings.data_root, clickstream)).load()
    say("done", messages=sum(one.next_offset for one in reached.values()))


if __name__ == "__main__":
    main()
