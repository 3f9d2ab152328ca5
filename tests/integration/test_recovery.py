"""The recovery directory of a run: made, lost, damaged, of something else; each ends well or in one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from feast_repo.features import user_click_features as view
from sandbox.checks import contents
from sandbox.oracle import compare

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Stack


def arguments(folder: Path) -> list[str]:
    return ["-r", str(folder), "-s", "1", "-b", "0"]


def rebuild(stack: Stack, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stream.recovery", "rebuild", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=stack.folder)


def assert_exact(stack: Stack) -> None:
    found = compare(stack.settings.data_root, view)
    assert found.none, found
    assert found.recomputed > 0


def test_a_lost_directory_is_rebuilt_and_a_damaged_one_on_demand(stack: Stack, tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    stack.produce(events=4_000, hours=1, seed=1)
    status, errors = stack.run(*arguments(folder))
    assert status == 0, errors

    shutil.rmtree(folder)
    stack.produce(events=4_000, hours=1, seed=2, hours_later=1)
    status, errors = stack.run(*arguments(folder))
    assert status == 0, errors
    assert "rebuilding it from the archive" in errors
    assert_exact(stack)

    stored = contents(stack.settings.data_root, stack.settings.redis_url)
    part = folder / "part-0.sqlite3"
    part.write_bytes(part.read_bytes()[: 3 * 4096])
    status, errors = stack.run(*arguments(folder))
    assert status == 2, errors
    assert f"python -m stream.recovery rebuild {folder}" in errors
    done = rebuild(stack, folder)
    assert done.returncode == 0, done.stderr
    stack.produce(events=4_000, hours=1, seed=3, hours_later=2)
    status, errors = stack.run(*arguments(folder))
    assert status == 0, errors
    assert_exact(stack)
    assert contents(stack.settings.data_root, stack.settings.redis_url) != stored
    assert len(list(folder.glob("replaced-*/part-0.sqlite3"))) == 1, "the damaged state is kept"


def test_one_process_then_two_then_one(stack: Stack, tmp_path: Path) -> None:
    recovery = arguments(tmp_path / "recovery")
    for round_, processes in enumerate((1, 2, 1)):
        stack.produce(events=4_000, hours=1, seed=round_, hours_later=round_)
        for status, errors in stack.run_processes(processes, *recovery):
            assert status == 0, errors
    assert_exact(stack)


class TestRefusals:
    """What the directory is for is compared with what the run is for, before anything is opened."""

    def test_state_of_something_else(self, stack: Stack, tmp_path: Path) -> None:
        folder = tmp_path / "recovery"
        stack.produce(events=2_000)
        assert stack.run(*arguments(folder))[0] == 0
        stored = contents(stack.settings.data_root, stack.settings.redis_url)
        about = folder / "about.json"
        made_for: dict[str, Any] = json.loads(about.read_text())

        def refusal(**environment: str) -> str:
            status, errors = stack.run(*arguments(folder), **environment)
            lines = [line for line in errors.splitlines() if " WARNING " not in line and " INFO " not in line]
            assert (status, len(lines)) == (2, 1), errors
            return lines[0]

        topic = {**made_for["streams"]["clickstream"], "partitions": 2}
        about.write_text(json.dumps({**made_for, "streams": {"clickstream": topic}}))
        assert "has 6 partitions, and had 2" in refusal()
        about.write_text(json.dumps({**made_for, "state": "99-0"}))
        assert "stream.recovery rebuild" in refusal()
        name, declared = made_for["declarations"].popitem()
        redefined = {**declared, "aggregates": {"click_count": ["Count", {"where": None}]}}
        about.write_text(json.dumps({**made_for, "declarations": {name: redefined}}))
        assert "another declaration of click_count" in refusal()
        about.write_text(json.dumps({**made_for, "declarations": {name: declared}}))
        (folder / "part-1.sqlite3").write_bytes(b"no database")
        assert "part-1.sqlite3" in refusal()
        (folder / "part-1.sqlite3").unlink()
        assert contents(stack.settings.data_root, stack.settings.redis_url) == stored

        elsewhere = {"DATA_ROOT": str(tmp_path / "elsewhere"), "FEAST_REGISTRY_URL": f"sqlite:///{tmp_path}/other.db"}
        assert "correct DATA_ROOT" in refusal(**elsewhere)

    def test_nothing_to_rebuild_from(self, stack: Stack, tmp_path: Path) -> None:
        done = rebuild(stack, tmp_path / "recovery")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "no progress record" in done.stderr
        assert not (tmp_path / "recovery").exists()
