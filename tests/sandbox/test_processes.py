from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sandbox.processes import (
    FIRST_PORT,
    HOME,
    LOOPBACK,
    Guard,
    Process,
    SandboxError,
    free_port,
    port_is_free,
    started_at,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IGNORES_SIGTERM = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
)
PARENT = """
import sys
from pathlib import Path
from sandbox.processes import Guard, Process

guard = Guard()
process = Process.start(["sleep", "600"], log=Path(sys.argv[1]), guard=guard)
if sys.argv[2] == "release":
    guard.release()
print(process.pid, process.started, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Process]:
    process = Process.start(["sleep", "600"], log=tmp_path / "log")
    yield process
    process.kill()


def test_a_process_is_alive_until_it_is_stopped(sleeper: Process) -> None:
    states = [sleeper.alive]
    sleeper.stop()
    states.append(sleeper.alive)
    sleeper.stop()  # harmless twice
    assert states == [True, False]


def test_a_paused_process_is_alive_and_can_be_stopped(sleeper: Process) -> None:
    sleeper.signal(signal.SIGSTOP)
    states = [sleeper.alive]
    sleeper.stop()
    states.append(sleeper.alive)
    assert states == [True, False]


def test_what_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.processes.STOP_TIMEOUT_S", 0.5)
    log = tmp_path / "log"
    stubborn = Process.start([sys.executable, "-c", IGNORES_SIGTERM], log=log)
    assert wait_until(lambda: "ready" in log.read_text(), 20)
    stubborn.stop()
    assert not stubborn.alive


def test_another_holder_of_the_pid_is_never_signalled(sleeper: Process) -> None:
    recycled = Process(sleeper.pid, "another boot:1")
    assert not recycled.alive
    recycled.stop()
    recycled.kill()
    assert sleeper.alive


def test_a_process_known_by_pid_and_start_only_is_followed_to_its_end(sleeper: Process) -> None:
    adopted = Process(sleeper.pid, sleeper.started)
    assert adopted.alive
    os.kill(sleeper.pid, signal.SIGKILL)
    assert wait_until(lambda: not adopted.alive, 10)


def test_no_process_has_no_start() -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    assert started_at(ended.pid) is None


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="can't run /no/such/program: there is no such program"):
        Process.start(["/no/such/program"], log=tmp_path / "log")


@pytest.mark.parametrize("word", ["keep", "release"])
def test_the_guard_ends_what_a_killed_parent_leaves_unless_it_was_released(tmp_path: Path, word: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log"), word],
        cwd=HOME,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid, _, started = parent.stdout.readline().strip().partition(" ")
        child = Process(int(pid), started)
        assert child.alive
        parent.kill()
    if word == "release":
        assert child.alive
        child.kill()
    else:
        assert wait_until(lambda: not child.alive, 20)


def test_a_closed_guard_ends_what_was_started_with_it(tmp_path: Path, sleeper: Process) -> None:
    guard = Guard()
    watched = Process.start(["sleep", "600"], log=tmp_path / "watched.log", guard=guard)
    guard.close()
    assert wait_until(lambda: not watched.alive, 10)
    assert sleeper.alive
    guard.close()  # harmless twice


def test_a_guarded_program_gets_its_arguments_unchanged_and_no_input(tmp_path: Path) -> None:
    guard = Guard()
    log = tmp_path / "log"
    program = "import sys; print(sys.argv[1:], repr(sys.stdin.read()))"
    process = Process.start([sys.executable, "-c", program, "a b", "$HOME", "'"], log=log, guard=guard)
    assert wait_until(lambda: not process.alive, 20)
    guard.close()
    assert log.read_text() == f"{['a b', '$HOME', chr(39)]} ''\n"


def test_ports_are_free_and_the_preferred_one_is_taken_only_if_it_is() -> None:
    with socket.create_server((LOOPBACK, 0)) as holder:
        taken = holder.getsockname()[1]
        assert not port_is_free(taken)
        other = free_port(taken)
        assert other != taken
        assert FIRST_PORT <= other < 32_768
    assert free_port(other) == other
