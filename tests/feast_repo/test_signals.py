"""What SIGTERM and Ctrl-C do to a command, wherever its main thread is."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from feast_repo.settings import PROJECT_ROOT
from feast_repo.signals import CLEAN_UP_WITHIN_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = """
import ctypes, os, pathlib, sys, threading, time
from feast_repo.commands import Command, stop_event

def ready():
    print("ready", flush=True)

def wait():
    while True:
        time.sleep(1)

def native():
    mutex = ctypes.create_string_buffer(64)
    libc = ctypes.CDLL(None)
    libc.pthread_mutex_lock(mutex)
    ready()
    libc.pthread_mutex_lock(mutex)  # never returns, whatever signal comes

def swallowed():
    ready()
    while True:
        try:
            wait()
        except BaseException:
            pass

def reworded():
    ready()
    try:
        wait()
    except KeyboardInterrupt:
        Command("cmd", "").error("a query was interrupted")

def failed():
    ready()
    try:
        wait()
    except KeyboardInterrupt:
        raise RuntimeError("a library's own words")

def cleaned():
    file = pathlib.Path(sys.argv[2])
    file.touch()
    try:
        ready()
        wait()
    finally:
        file.unlink()

def finished():
    ready()
    try:
        wait()
    except KeyboardInterrupt:
        pass

class Destructor:
    def __del__(self):
        ready()
        wait()

def destructor():
    Destructor()

def thread():
    threading.Thread(target=wait).start()
    ready()

def in_order():
    with stop_event("two of three are not done") as stop:
        ready()
        stop.wait()

def stuck():
    with stop_event("two of three are not done") as stop:
        ready()
        wait()

globals()[sys.argv[1]]()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "cmd").mkdir()
    (tmp_path / "cmd" / "__init__.py").write_text(
        "from feast_repo.signals import end_commands_in_one_line\nend_commands_in_one_line()\n"
    )
    (tmp_path / "cmd" / "work.py").write_text(COMMAND)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # else a test run in the background passes on
    yield tmp_path  # that it ignores the signal
    signal.signal(signal.SIGINT, before)


def start(folder: Path, case: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "cmd.work", case, str(folder / "temporary")],
        cwd=folder,
        env={"PYTHONPATH": str(PROJECT_ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    "case",
    ["native", "swallowed", "reworded", "failed", "cleaned", "finished", "destructor", "thread"],
)
def test_an_interrupt_ends_a_command_in_one_line(folder: Path, case: str) -> None:
    process = start(folder, case)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=CLEAN_UP_WITHIN_S + 5)
    assert (process.returncode, errors) == (130, "cmd.work: interrupted\n")
    assert not (folder / "temporary").exists()


def test_a_second_signal_ends_it_at_once(folder: Path) -> None:
    process = start(folder, "swallowed")
    process.send_signal(signal.SIGTERM)
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    with process.stderr as errors:
        assert (process.returncode, errors.read()) == (143, "cmd.work: terminated\n")
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.parametrize(
    ("case", "code", "says"), [("in_order", 0, ""), ("stuck", 1, "cmd.work: two of three are not done\n")]
)
def test_a_service_ends_in_order_or_says_what_is_not_done(folder: Path, case: str, code: int, says: str) -> None:
    process = start(folder, case)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (code, says)
