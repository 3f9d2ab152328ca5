"""The prediction service beside a bare ASGI application that does the same HMGET, and beside `feast serve`.

    python -m benchmarks.serving

One worker each, loopback, two views. The bare one reads the same fields and decodes them; the service also judges their
age, encodes them, runs the model, takes metrics, keeps the score and writes an access log. Rounds alternate.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from rich.progress import track

from benchmarks.http_load import closed_loop, open_loop, post
from benchmarks.options import options
from benchmarks.results import keep
from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.features import purchase_prediction, user_click_features as clicks
from feast_repo.settings import PROJECT_ROOT
from sandbox.processes import Guard, free_port
from sandbox.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

USERS, RATE, SECONDS, CONNECTIONS = 10_000, 1_000, 5, 32
READS, MANY, MANY_READS = 3_000, 100, 300
REQUESTS = {"service": 15_000, "bare": 20_000, "feast serve": 1_500}


def user(number: int) -> str:
    """An id; neighbours lie apart."""
    return f"user_{number * 7919 % USERS:06d}"


def fill(environment: dict[str, str]) -> None:
    """Registry, a row of both views for every user, and a model."""
    os.environ.update(environment)
    from batch.training.labels import label_of  # noqa: PLC0415  (after the settings)
    from feast_repo.stores.online.view import OnlineView  # noqa: PLC0415
    from feast_repo.stores.opening import ensure_applied, open_store  # noqa: PLC0415
    from serving.model import ModelFolder  # noqa: PLC0415
    from serving.settings import ServingSettings  # noqa: PLC0415
    from serving.training import split_by_time, train  # noqa: PLC0415
    from simulation.training_rows import training_rows  # noqa: PLC0415

    store = open_store()
    ensure_applied(store)
    rows = training_rows(USERS).with_columns(
        pl.Series("user_id", [user(number) for number in range(USERS)]),
        event_timestamp=pl.lit(datetime.now(UTC)).cast(UTC_MICROSECONDS),
    )
    for view in purchase_prediction.views:
        columns = ["user_id", "event_timestamp", *view.features]
        OnlineView(store, store.get_feature_view(view.name)).write_forward(rows.select(columns))
    settings = ServingSettings()
    split = split_by_time(training_rows(), label_of(settings.served)[0])
    trained = train(settings.served, split, "benchmark", 1, "benchmark")
    models = ModelFolder(settings.data_root, settings.service)
    models.save(trained.card, trained.onnx)
    models.promote("benchmark")


@contextlib.contextmanager
def server(environment: dict[str, str], arguments: Sequence[str], health: str) -> Iterator[int]:
    """A server process, ready to answer."""
    port = free_port()
    command = [one.replace("PORT", str(port)) for one in arguments]
    process = subprocess.Popen(
        command,
        cwd=PROJECT_ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 120
        while not _answers(f"http://127.0.0.1:{port}{health}"):
            if process.poll() is not None or time.monotonic() > end:
                message = f"{' '.join(command)} did not start"
                raise RuntimeError(message)
            time.sleep(0.2)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310  (loopback)
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds."""
    return {f"p{at}": float(np.percentile(seconds, at)) * 1000 for at in (50, 95, 99)}


def over_http(environment: dict[str, str], rounds: int) -> dict[str, Any]:
    """Latency at a constant rate, and the most that each can do."""
    python = str(Path(sys.executable).with_name("python"))
    uvicorn = [python, "-m", "uvicorn", "--no-access-log", "--log-level", "warning", "--port", "PORT"]
    uvicorn += ["--no-proxy-headers", "--no-server-header"]  # as the service does
    feast = [str(Path(sys.executable).with_name("feast")), "--chdir", str(PROJECT_ROOT / "feast_repo"), "serve"]
    feast += ["--port", "PORT", "--max-requests", "0", "--no-access-log"]
    requests: dict[str, Callable[[int], bytes]] = {
        "service": lambda number: post("/v1/predictions", json.dumps({"user_ids": [user(number)]}).encode()),
        "bare": lambda number: post("/", json.dumps({"user_ids": [user(number)]}).encode()),
        "feast serve": lambda number: post(
            "/get-online-features",
            json.dumps({"feature_service": "purchase_prediction", "entities": {"user_id": [user(number)]}}).encode(),
        ),
    }
    latency: dict[str, list[dict[str, float]]] = {"service": [], "bare": []}
    throughput: dict[str, list[float]] = {name: [] for name in requests}
    with contextlib.ExitStack() as stack:
        ports = {
            "service": stack.enter_context(server(environment, [python, "-m", "serving", "--port", "PORT"], "/readyz")),
            "bare": stack.enter_context(server(environment, [*uvicorn, "benchmarks.bare:app"], "/")),
            "feast serve": stack.enter_context(server(environment, feast, "/health")),
        }
        for name, request in requests.items():  # warm
            closed_loop(ports[name], request, requests=500, connections=4)
        for _ in track(range(rounds), description="over HTTP"):
            for name, found in latency.items():
                found.append(quantiles(open_loop(ports[name], requests[name], rate=RATE, seconds=SECONDS)))
            for name, rates in throughput.items():
                count = REQUESTS[name]
                rates.append(closed_loop(ports[name], requests[name], requests=count, connections=CONNECTIONS))
    return {"milliseconds": latency, "answers_per_second": throughput}


def in_process(environment: dict[str, str], rounds: int) -> dict[str, Any]:
    """The reader beside a bare HMGET with decoding, one user and a hundred."""
    from redis import Redis  # noqa: PLC0415

    from benchmarks import bare  # noqa: PLC0415  (after the settings)
    from feast_repo.stores.opening import open_store  # noqa: PLC0415
    from serving.reader import open_reader  # noqa: PLC0415
    from serving.settings import ServingSettings  # noqa: PLC0415

    reader = open_reader(open_store(), ServingSettings())
    redis = Redis.from_url(environment["REDIS_URL"])

    def bare_one(users: Sequence[str]) -> Any:
        return bare.row(redis.execute_command("HMGET", bare.quick_key(users[0]), *bare.FIELDS))

    def bare_many(users: Sequence[str]) -> Any:
        pipeline = redis.pipeline(transaction=False)
        for one in users:
            pipeline.execute_command("HMGET", bare.quick_key(one), *bare.FIELDS)
        return [bare.row(reply) for reply in pipeline.execute()]

    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for name, size, reads, theirs in (("one user", 1, READS, bare_one), (f"{MANY} users", MANY, MANY_READS, bare_many)):
        batches = [[user(number * size + more) for more in range(size)] for number in range(reads)]
        ways: dict[str, Callable[[Sequence[str]], Any]] = {"reader": reader.read, "bare": theirs}
        found[name] = {way: [] for way in ways}
        for _ in track(range(rounds), description=f"in process, {name}"):
            for way, read in ways.items():
                taken = []
                for batch in batches:
                    start = time.perf_counter()
                    read(batch)
                    taken.append(time.perf_counter() - start)
                found[name][way].append(quantiles(taken))
    return found


def _middle(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: round(median(run[name] for run in runs), 4) for name in runs[0]}


def _ratios(runs: dict[str, list[dict[str, float]]], ours: str, theirs: str) -> dict[str, str]:
    """The median of the ratios of each round, and their spread."""
    told = {}
    for name in runs[ours][0]:
        each = [mine[name] / other[name] for mine, other in zip(runs[ours], runs[theirs], strict=True)]
        told[name] = f"{median(each):.2f} ({min(each):.2f} to {max(each):.2f})"
    return told


def _table(title: str, runs: dict[str, list[dict[str, float]]], ours: str, theirs: str) -> str:
    names = list(runs[ours][0])
    lines = [f"| {title} | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for way, found in runs.items():
        middle = _middle(found)
        lines.append(f"| {way}, ms | {' | '.join(f'{middle[name]:.3f}' for name in names)} |")
    ratios = _ratios(runs, ours, theirs)
    lines.append(f"| **{ours} / {theirs}** | {' | '.join(ratios[name] for name in names)} |")
    return "\n".join(lines) + "\n"


def _text(rounds: int, http: dict[str, Any], reads: dict[str, Any]) -> str:
    rates = http["answers_per_second"]
    over = {
        name: [mine / other for mine, other in zip(rates["service"], rates[name], strict=True)]
        for name in ("bare", "feast serve")
    }
    parts = [
        f"Medians of {rounds} alternating rounds; ratios are of each round, with their spread.\n",
        _table(f"HTTP, one user, open loop, {RATE:,} requests/s", http["milliseconds"], "service", "bare"),
        "| most answers/s, one worker | median | from ... to | service is so many times as fast |\n|---|---|---|---|",
    ]
    for name, found in rates.items():
        ratio = (
            "" if name == "service" else f"{median(over[name]):.2f} ({min(over[name]):.2f} to {max(over[name]):.2f})"
        )
        parts.append(f"| {name} | {median(found):,.0f} | {min(found):,.0f} to {max(found):,.0f} | {ratio} |")
    parts.append("")
    parts += [_table(f"in process, {name}", runs, "reader", "bare") for name, runs in reads.items()]
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    chosen = options("benchmarks.serving", "The prediction service beside bare ASGI and feast serve.", arguments)
    with tempfile.TemporaryDirectory() as folder:
        guard = Guard()
        redis = RedisServer(Path(folder) / "redis", free_port(), guard)
        redis.start()
        environment = {
            "REDIS_URL": redis.url,
            "DATA_ROOT": str(Path(folder) / "data"),
            "FEAST_REGISTRY_URL": f"sqlite:///{folder}/registry.db",
        }
        try:
            fill(environment)
            http = over_http(environment, chosen.rounds)
            reads = in_process(environment, chosen.rounds)
        finally:
            redis.close()
            guard.close()
    text = _text(chosen.rounds, http, reads)
    result = {"http": http, "in_process": reads, "views": [clicks.name, purchase_prediction.views[1].name]}
    keep("serving", chosen, "Serving", result, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
