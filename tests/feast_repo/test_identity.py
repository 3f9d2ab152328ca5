"""What a DATA_ROOT is: made once, kept durably, known again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from feast_repo.clickstream import clickstream
from feast_repo.features import user_click_features
from feast_repo.stores.identity import (
    FILE,
    Identity,
    IdentityError,
    StreamIdentity,
    check_registry,
    data_id,
    folder,
    load,
    project,
    record_registry,
    save,
)
from feast_repo.stores.offline.tables import progress_folder
from feast_repo.stores.opening import ensure_applied, open_store, registry_id
from feast_repo.stores.progress import Progress, ProgressRecord

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from feast import FeatureStore

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
    code = (
        "import sys, pathlib; from feast_repo.stores.identity import data_id; print(data_id(pathlib.Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "data")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({process.communicate()[0] for process in started}) == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # each example replaces the file
@given(names=st.lists(st.text(), unique=True, max_size=3), text=st.text(), number=st.integers(0, 2**63))
def test_what_is_saved_is_read_again(tmp_path: Path, names: list[str], text: str, number: int) -> None:
    streams = {name: StreamIdentity(text, name, text, number) for name in names}
    meaning = json.loads(json.dumps(user_click_features.meaning))
    identity = Identity(data_id(tmp_path), text, (number, 1), streams, meaning, dict.fromkeys(names, text))
    save(tmp_path, identity)
    assert load(tmp_path) == identity
    save(tmp_path, replace(identity, project="other"))
    assert load(tmp_path) == replace(identity, project="other")
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


def test_data_of_an_older_version_gets_one_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    data_id(tmp_path / "new")
    assert not caplog.messages
    ProgressRecord(progress_folder(tmp_path / "old", clickstream)).save(Progress("clicks", 0, 7, None))
    data_id(tmp_path / "old")
    data_id(tmp_path / "old")
    assert [message.count("older version") for message in caplog.messages] == [1]


def commit(data_root: Path) -> None:
    ProgressRecord(progress_folder(data_root, clickstream)).save(Progress("clicks", 0, 7, None))


class TestTheRegistry:
    def test_data_belongs_to_the_first_one(self, tmp_path: Path) -> None:
        check_registry(tmp_path, "shop", "a")
        assert load(tmp_path) is None, "looking writes nothing"
        record_registry(tmp_path, "shop", "a")
        commit(tmp_path)
        check_registry(tmp_path, "shop", "a")
        with pytest.raises(IdentityError, match=r"another registry .*'shop'.* a there, and b .*adopt") as error:
            check_registry(tmp_path, "shop", "b")
        assert "\n" not in str(error.value)

    def test_a_project_is_no_other_ones_business(self, tmp_path: Path) -> None:
        commit(tmp_path)
        for registry, name in (("a", "shop"), ("b", "bank")):
            check_registry(tmp_path, name, registry)
            record_registry(tmp_path, name, registry)
        check_registry(tmp_path, "shop", "a")

    def test_data_of_an_older_version_takes_the_current_one(self, tmp_path: Path) -> None:
        commit(tmp_path)
        first = data_id(tmp_path)
        told = json.loads((tmp_path / FILE).read_text())
        del told["registries"]
        (tmp_path / FILE).write_text(json.dumps(told))
        check_registry(tmp_path, "shop", "a")
        record_registry(tmp_path, "shop", "a")
        known = load(tmp_path)
        assert known is not None
        assert (known.id, known.registries) == (first, {"shop": "a"})

    def test_a_folder_that_no_run_has_committed_to_takes_any(self, tmp_path: Path) -> None:
        record_registry(tmp_path, "shop", "a")
        check_registry(tmp_path, "shop", "b")
        record_registry(tmp_path, "shop", "b")
        commit(tmp_path)
        check_registry(tmp_path, "shop", "b")

    def test_another_one_is_refused_and_gets_nothing(
        self, opened: Callable[[], FeatureStore], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("DATA_ROOT", str(tmp_path))
        ensure_applied(first := opened())
        record_registry(tmp_path, first.project, registry_id(first))
        commit(tmp_path)
        monkeypatch.setenv("FEAST_REGISTRY_URL", f"sqlite:///{tmp_path / 'other.db'}")
        second = opened()
        with pytest.raises(IdentityError, match="another registry"):
            ensure_applied(second)
        assert second.list_feature_views() == []

    def test_one_that_was_torn_down_and_applied_again_is_the_same(
        self, opened: Callable[[], FeatureStore], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("DATA_ROOT", str(tmp_path))
        ensure_applied(store := opened())
        record_registry(tmp_path, store.project, registry_id(store))
        commit(tmp_path)
        store.registry.teardown()
        assert store.list_feature_views() == []
        ensure_applied(opened())


DAMAGED = (
    "",
    "{",
    "[]",
    "null",
    "{}",
    '{"id": "x", "project": "p", "streams": {"s": 1}}',
    '{"id": "x", "project": "p", "streams": {}, "folder": [1, 2], "declaration": {}, "registries": 1}',
    '{"id": "x", "project": "p", "streams": {}, "folder": [1, 2], "declaration": 1}',
)


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_is_told_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(IdentityError, match=r"identity\.json is damaged.*adopt") as error:
        data_id(tmp_path)
    assert "\n" not in str(error.value)


def test_the_project_is_feasts() -> None:
    assert project() == open_store().project
