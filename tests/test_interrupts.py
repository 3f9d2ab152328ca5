"""Ctrl-C at any moment: one line, exit code 130, and no file that is half-written, for every long command."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandbox.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMANDS = {
    "batch.backfill": ["--start", "2026-01-01", "--end", "2026-01-02"],
    "batch.compaction": [],
    "batch.drift": ["--current", "2026-01-02", "2026-01-03", "--reference", "2026-01-01", "2026-01-02"],
    "batch.maintenance.forget": ["--entity", "user_000001", "--yes"],
    "batch.materialize": [],
    "batch.parity": ["--start", "2026-01-01", "--end", "2026-01-02"],
    "batch.profiles": ["--users", "1000000"],
    "batch.quality": ["gate"],
    "batch.restore_online": [],
    "batch.training_set": [],
    "flows.serve": [],
    "sandbox": ["up"],
    "sandbox.chaos": [],
    "sandbox.demo": [],
    "serving": ["--port", "0"],
    "serving.predict": ["user_000001"],
    "serving.train": [],
    "stream.dead_letters": ["list"],
    "stream.generator": ["--rate", "10"],
    "stream.heartbeat": [],
    "stream.recovery": ["rebuild", "recovery"],
}
MOMENTS_S = (0.0, 0.7)
"""After the command has taken its signals over. All of them are imports; what comes later has tests of its own."""
WITHIN_S = 10.0
AT_ONCE = 3


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def interrupted(command: str, moment_s: float, folder: Path, silent: str) -> tuple[int, str]:
    """Exit code and output of a command that is interrupted, while all of its servers are frozen."""
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", command, *COMMANDS[command]],
        env={
            **os.environ,
            "DATA_ROOT": str(folder / "data"),
            "KAFKA_BOOTSTRAP_SERVERS": silent,
            "REDIS_URL": f"redis://{silent}/0",
            "FEAST_REGISTRY_URL": f"postgresql://someone@{silent}/registry",
            "PREFECT_API_URL": f"http://{silent}/api",
            "PREFECT_HOME": str(folder / "prefect"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert wait_until(lambda: process.poll() is not None or _takes_signals(process.pid), 60), command
    wait_until(lambda: process.poll() is not None, moment_s)
    process.send_signal(signal.SIGINT)
    try:
        said, _ = process.communicate(timeout=WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return -1, f"{command} still runs: {process.communicate()[0]}"
    return process.returncode, said


def _takes_signals(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) & (1 << (signal.SIGTERM - 1)))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc for the moment")
def test_every_command_ends_in_one_line(tmp_path: Path, silent: str) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # else a background test run hands on "ignore"
    cases = [(command, moment_s) for moment_s in MOMENTS_S for command in COMMANDS]
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            ended = pool.map(
                lambda case: interrupted(case[0], case[1], tmp_path / f"{case[0]}-{case[1]}", silent), cases
            )
            found = dict(zip(cases, ended, strict=True))
    finally:
        signal.signal(signal.SIGINT, before)
    # Its progress may stand before the line. A command that is done sooner proves nothing; at the first moment none is.
    wrong = {
        case: (code, said)
        for case, (code, said) in found.items()
        if (code, said.splitlines()[-1:], "Traceback" in said) != (130, [f"{case[0]}: interrupted"], False)
        and not (case[1] > 0.0 and code in {0, 2})
    }
    assert not wrong
    assert not list(tmp_path.rglob("*.tmp"))
