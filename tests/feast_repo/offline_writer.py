"""One of several processes that open the store and push offline at the same moment: its argument is its number."""

from __future__ import annotations

import sys

import polars as pl
from feast.data_source import PushMode

from feast_repo.stores.opening import ensure_applied, open_store
from tests.feast_repo.rows import PUSH_SOURCE, clicks

if __name__ == "__main__":
    print("ready", flush=True)  # noqa: T201  (importing Feast takes seconds; the test waits for all to be done)
    sys.stdin.read()
    store = open_store()
    ensure_applied(store)
    for push in range(5):
        users = [f"writer-{sys.argv[1]}-push-{push}-{row}" for row in range(20)]
        rows = clicks(users).with_columns(writer=pl.lit("test"))
        store.push(PUSH_SOURCE, rows.to_pandas(), to=PushMode.OFFLINE)
