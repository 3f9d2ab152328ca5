"""The whole pipeline on one machine, shown and verified: `make demo`.

    python -m sandbox.demo

It starts the sandbox with fresh data in data/demo, writes profiles, produces clicks, runs the dataflow through
`bytewax.run`, and then checks the stores. Exits with 0 only if every check passed. The sandbox stays up for further use
of its data; `python -m sandbox down` stops it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from confluent_kafka import Consumer, TopicPartition
from rich.console import Console
from rich.table import Table

from feast_repo.errors import FeatureStoreError
from feast_repo.features import purchase_prediction, user_profile_features
from feast_repo.settings import PROJECT_ROOT, StreamSettings
from feast_repo.stores.offline.tables import dead_letters_folder, events_folder, features_folder, late_folder
from sandbox.checks import Check, contents, newest_rows, online_equals_offline, online_rows, rows_of
from sandbox.oracle import compare
from sandbox.processes import SandboxError
from sandbox.topics import check_retention
from stream.kafka import KafkaUnavailableError, client_config, topic_partitions

if TYPE_CHECKING:
    from feast import FeatureStore

    from feast_repo.declare.batch_views import BatchView
    from feast_repo.declare.views import WindowedView

DEMO_ROOT = PROJECT_ROOT / "data" / "demo"
USERS = 10_000
EVENTS = 300_000
HOURS = 4
SHOWN_USERS = ["user_000001", "user_000010"]
READS = 2_000
DATAFLOW = [sys.executable, "-m", "bytewax.run", "stream.dataflow"]

console = Console()


class CommandFailedError(FeatureStoreError):
    """A command of the demo did not exit with 0."""


def run(arguments: list[str], *, quiet: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one of the project's commands as a user would, and show it with its duration.

    `quiet`: don't show it while it runs, because something else is shown meanwhile.
    """
    shown = " ".join(["python", *arguments[1:]] if arguments[0] == sys.executable else arguments)
    prefix = "".join(f"{name}={value} " for name, value in environment.items())
    start = time.perf_counter()
    with contextlib.nullcontext() if quiet else console.status(f"{prefix}{shown}"):
        done = subprocess.run(
            arguments,
            cwd=PROJECT_ROOT,
            env={**os.environ, "COLUMNS": str(console.width), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
    seconds = time.perf_counter() - start
    console.print(f"[dim]{seconds:5.1f} s[/]  {prefix}{shown}", highlight=False)
    if done.returncode != 0:
        console.print(done.stdout + done.stderr, style="red", markup=False)
        message = f"`{shown}` ended with exit code {done.returncode}"
        raise CommandFailedError(message)
    return done


def python(module: str, *arguments: str, quiet: bool = False) -> subprocess.CompletedProcess[str]:
    """Run `python -m module`."""
    return run([sys.executable, "-m", module, *arguments], quiet=quiet)


def start_sandbox() -> None:
    """A fresh sandbox with fresh data."""
    python("sandbox", "down")
    if DEMO_ROOT.exists():
        shutil.rmtree(DEMO_ROOT)
    os.environ["DATA_ROOT"] = str(DEMO_ROOT)
    if "KAFKA_BOOTSTRAP_SERVERS" in os.environ:  # your own broker: leave its topics alone
        os.environ["KAFKA_TOPIC"] = f"clickstream-demo-{datetime.now(UTC):%Y%m%d%H%M%S}"
    console.print(python("sandbox", "up").stdout.rstrip(), markup=False, highlight=False)


def log_length(settings: StreamSettings) -> int:
    """How many messages the topic holds."""
    consumer = Consumer({"group.id": "ml-feature-store-demo", **client_config(settings)})
    try:
        ends = [
            consumer.get_watermark_offsets(TopicPartition(settings.catalog.stream().topic, partition), timeout=10)
            for partition in topic_partitions(settings, settings.catalog.stream().topic)
        ]
    finally:
        consumer.close()
    return sum(high - low for low, high in ends)


def show_counts(settings: StreamSettings, sent: dict[str, Any]) -> list[Check]:
    """Show tables of what was read and written, and check that every message is in exactly one place."""
    view, root = settings.catalog.view(), settings.data_root
    events, letters = rows_of(events_folder(root, view.source)), rows_of(dead_letters_folder(root, view.source))
    features, late = rows_of(features_folder(root, view.name)), rows_of(late_folder(root, view))
    messages = log_length(settings)

    table = Table(title="What the dataflow did", show_header=False)
    table.add_row("messages read", f"{messages:,}")
    table.add_row("feature rows written", f"{len(features):,}")
    table.add_row("windows written", f"{features['event_timestamp'].n_unique():,} ends, all partitions")
    table.add_row("late records (missed 1 to 6 windows)", f"{len(late):,}")
    table.add_row("dead letters", f"{len(letters):,}")
    console.print(table)

    reasons = dict(sorted(letters["reason"].value_counts().iter_rows())) if len(letters) else {}
    table = Table("reason", "dead letters", "sent on purpose", title="Dead letters by reason")
    for reason in sorted({*reasons, *sent["malformed"]}):
        table.add_row(reason, f"{reasons.get(reason, 0):,}", f"{sent['malformed'].get(reason, 0):,}")
    console.print(table)

    days = features.group_by(pl.col("event_timestamp").dt.date().alias("day")).len().sort("day")
    table = Table("day", "feature rows", title="Rows a day in Parquet")
    for day, rows in days.iter_rows():
        table.add_row(str(day), f"{rows:,}")
    console.print(table)

    positions = pl.concat([events.select("partition", "offset"), letters.select("partition", "offset")])
    return [
        Check(
            "every message is an event or a dead letter, once",
            holds=positions.n_unique() == len(positions) == messages,
            figures=f"{messages:,} = {len(events):,} + {len(letters):,}",
        ),
        Check(
            "dead letters have the reasons they were made for",
            holds=reasons == sent["malformed"],
            figures=f"{len(letters):,} letters, {len(reasons)} reasons",
        ),
    ]


def check_recomputation(settings: StreamSettings) -> Check:
    """Compare the stream's rows with SQL over the archive."""
    with console.status("recomputing every window in SQL"):
        found = compare(settings.data_root, settings.catalog.view())
    return Check(
        "an independent recomputation gives the same rows",
        holds=found.none and found.recomputed > 0,
        figures=f"{found.recomputed:,} rows, {found.different:,} different, {found.only_stored:,} only stored, "
        f"{found.only_recomputed:,} only recomputed, {found.stored_twice:,} twice",
    )


def check_second_run(settings: StreamSettings) -> Check:
    """Read the whole topic again without recovery state: nothing may change."""
    before = contents(settings.data_root, settings.redis_url)
    run(DATAFLOW, STREAM_STOP_AT_END="1")
    after = contents(settings.data_root, settings.redis_url)
    changed = sorted(name for name in before if before[name] != after[name])
    return Check(
        "a second run from the beginning changes nothing",
        holds=not changed,
        figures=f"changed: {', '.join(changed)}" if changed else "Parquet and Redis are the same, row for row",
    )


def materialize_profiles(store: FeatureStore) -> None:
    """Materialize profiles to the online store with Feast's own method (without its output)."""
    now = datetime.now(UTC)
    with (
        console.status("materializing profiles"),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(action="ignore", category=DeprecationWarning),
    ):
        store.materialize(now - timedelta(days=7), now, feature_views=[user_profile_features.name])


def show_users(store: FeatureStore, views: tuple[WindowedView | BatchView, ...], data_root: Any) -> Check:
    """Show two users' features from Feast's `get_online_features`."""
    table = Table("feature", *SHOWN_USERS, title="Features, read with get_online_features")
    seen = True
    for view in views:
        (key,) = view.join_keys
        rows = online_rows(store, view, pl.DataFrame({key: SHOWN_USERS}))
        for name in view.features:
            table.add_row(name, *(str(value) for value in rows[name].to_list()))
        known = set(newest_rows(data_root, view)[key].to_list())
        seen = seen and known.issuperset(SHOWN_USERS)
    console.print(table)
    return Check("both users have features in both views", holds=seen, figures=", ".join(SHOWN_USERS))


def check_gate() -> Check:
    """Pass the profiles through the quality gate, which publishes the good rows."""
    report = json.loads(python("batch.quality", "gate", "--json", quiet=True).stdout)
    return Check(
        "all profiles pass the quality gate",
        holds=report["holds"] and report["good"] == USERS and report["quarantined"] == 0,
        figures=report["verdict"],
    )


def learn() -> Check:
    """Build the training set and the model, and check that the model beats always predicting the mean."""
    # Hours of clicks were streamed in seconds, so no features were served at the pairs' times.
    python("batch.training_set", "--as-created", "--json", quiet=True)
    trained = json.loads(python("serving.train", "--json", quiet=True).stdout)
    metrics = trained["metrics"]
    return Check(
        "the model is better than its baseline",
        holds=trained["promoted"] and metrics["the model"]["log_loss"] < metrics["baseline"]["log_loss"],
        figures=trained["verdict"],
    )


def show_latency(store: FeatureStore) -> None:
    """Show the latency of one user's read through Feast's SDK."""
    service = store.get_feature_service(purchase_prediction.name)
    rows = [[{"user_id": f"user_{number % USERS + 1:06d}"}] for number in range(READS)]
    milliseconds = []
    with console.status(f"reading {READS:,} users one by one"):
        for row in [*rows[:200], *rows]:  # the first ones warm up
            start = time.perf_counter()
            store.get_online_features(service, row)
            milliseconds.append((time.perf_counter() - start) * 1000)
    p50, p95, p99 = np.percentile(milliseconds[200:], [50, 95, 99])
    console.print(f"read latency of one user, both views, Feast SDK: p50 {p50:.2f}, p95 {p95:.2f}, p99 {p99:.2f} ms")


def demo() -> list[Check]:
    """Run everything; returns the checks."""
    # Importing Feast takes seconds, so it happens while the first commands run.
    importing = threading.Thread(target=importlib.import_module, args=["feast_repo.stores.opening"])
    importing.start()
    start_sandbox()
    # Profiles from before the first click: training rows have only what existed at their time.
    before = datetime.now(UTC) - timedelta(days=1)
    python("batch.profiles", "--users", str(USERS), "--seed", "7", "--time", f"{before:%Y-%m-%dT00:00:00Z}")
    shares = ["--disorder-seconds", "60", "--late-share", "0.01", "--malformed-share", "0.002"]
    traffic = ["--events", str(EVENTS), "--hours", str(HOURS), "--users", str(USERS), "--seed", "7", *shares]
    sent = json.loads(python("stream.generator", *traffic, "--json").stdout)
    console.print(
        f"        {sent['events']:,} events at {sent['events_per_second']:,}/s: {sent['late']:,} late, "
        f"{sum(sent['malformed'].values()):,} malformed, {sent['heartbeats']} heartbeats",
        highlight=False,
    )
    settings = StreamSettings()
    check_retention(settings.kafka_bootstrap_servers, settings.catalog.stream().topic)
    log = run(DATAFLOW, STREAM_STOP_AT_END="1").stderr
    console.print(f"        {log.splitlines()[-1].partition(': ')[2]}", highlight=False)
    checks = show_counts(settings, sent)

    importing.join()
    from feast_repo.stores.opening import open_store  # noqa: PLC0415

    store = open_store()
    checks.append(check_gate())
    materialize_profiles(store)
    views = purchase_prediction.views
    checks.append(show_users(store, views, settings.data_root))
    with ThreadPoolExecutor(1) as beside:  # only reads what the checks examine
        learning = beside.submit(learn)
        checks.append(check_recomputation(settings))
        checks += [online_equals_offline(store, settings.data_root, view) for view in views]
        checks.append(check_second_run(settings))
        checks.append(learning.result())
    show_latency(store)
    console.print(python("serving.predict", "--users", *SHOWN_USERS).stdout.rstrip(), markup=False, highlight=False)
    return checks


def main() -> int:
    """Run the demo; returns 0 if every check passed, else 1."""
    argparse.ArgumentParser(prog="python -m sandbox.demo", description=__doc__.splitlines()[0]).parse_args()
    start = time.perf_counter()
    try:
        checks = demo()
    except (CommandFailedError, SandboxError, KafkaUnavailableError) as error:
        console.print(f"[red]{error}[/]")
        return 1
    table = Table("check", "held", "figures", title="Checks")
    for check in checks:
        table.add_row(check.name, "[green]yes[/]" if check.holds else "[red]NO[/]", check.figures)
    console.print(table)
    failed = sum(not check.holds for check in checks)
    console.print(f"{len(checks) - failed} of {len(checks)} checks held, {time.perf_counter() - start:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
