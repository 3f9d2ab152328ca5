"""What a DATA_ROOT is: made once, kept durably, known again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from feast_repo.features import user_click_features
from feast_repo.identity import (
    FILE,
    Identity,
    IdentityError,
    StreamIdentity,
    data_id,
    folder,
    load,
    project,
    save,
)
from feast_repo.progress import Progress, ProgressRecord
from feast_repo.store import open_store
from feast_repo.tables import progress_folder

if TYPE_CHECKING:
    from pathlib import Path

STREAM = StreamIdentity(topic="clicks", cluster_id="c", topic_id="t", partitions=6)


def test_an_id_is_made_once_and_kept(tmp_path: Path) -> None:
    root = tmp_path / "not" / "there"
    assert load(root) is None
    first = data_id(root)
    assert len(bytes.fromhex(first)) == 16
    assert data_id(root) == first
    assert load(root) == Identity(first, project(), folder(root))
    assert data_id(tmp_path) != first


def test_a_moved_folder_is_known_again(tmp_path: Path) -> None:
    first = data_id(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    moved = load(tmp_path / "there")
    assert moved is not None
    assert (moved.id, moved.folder) == (first, folder(tmp_path / "there"))
    shutil.copytree(tmp_path / "there", tmp_path / "copy")
    copy = load(tmp_path / "copy")
    assert copy is not None
    assert copy.folder != folder(tmp_path / "copy")


def test_processes_that_start_together_make_one(tmp_path: Path) -> None:
    code = "import sys, pathlib; from feast_repo.identity import data_id; print(data_id(pathlib.Path(sys.argv[1])))"
    command = [sys.executable, "-c", code, str(tmp_path / "data")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({process.communicate()[0] for process in started}) == 1


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    meaning = json.loads(json.dumps(user_click_features.meaning))
    identity = Identity(data_id(tmp_path), project(), folder(tmp_path), {"clickstream": STREAM}, meaning)
    save(tmp_path, identity)
    assert load(tmp_path) == identity
    save(tmp_path, replace(identity, project="other"))
    assert load(tmp_path) == replace(identity, project="other")
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


def test_data_of_an_older_version_gets_one_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    data_id(tmp_path / "new")
    assert not caplog.messages
    ProgressRecord(progress_folder(tmp_path / "old")).save(Progress("clicks", 0, 7, None, None))
    data_id(tmp_path / "old")
    data_id(tmp_path / "old")
    assert [message.count("older version") for message in caplog.messages] == [1]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"id": "x", "project": "p", "streams": {"s": 1}}'])
def test_a_damaged_file_is_told_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(IdentityError, match=r"identity\.json is damaged.*adopt") as error:
        data_id(tmp_path)
    assert "\n" not in str(error.value)


def test_the_project_is_feasts() -> None:
    assert project() == open_store().project
