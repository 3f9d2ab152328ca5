from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

import feast_repo.settings
from feast_repo.settings import StoreSettings
from sandbox.state import (
    StackPart,
    State,
    forget,
    load,
    quoted,
    save,
    settings_root,
    shown,
    state_file,
    without_password,
)

PART = StackPart("redis", "valkey", "redis://127.0.0.1:1/0", "a server", pid=1, started="x:1", log="/log")


@pytest.fixture(autouse=True)
def sandbox_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "sandbox.env"
    monkeypatch.setattr(feast_repo.settings, "SANDBOX_ENV", path)
    return path


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    state = State((PART,), {"DATA_ROOT": str(tmp_path)})
    save(tmp_path, state)
    assert load(tmp_path) == state
    assert settings_root() == tmp_path


def test_only_the_owner_can_read_what_may_hold_a_password(tmp_path: Path, sandbox_env: Path) -> None:
    save(tmp_path, State((PART,), {}))
    for path in (state_file(tmp_path), sandbox_env):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", '{"parts": []}', '{"parts": [{"role": "kafka"}], "environment": {}}'])
def test_a_file_that_is_no_state_is_no_sandbox(tmp_path: Path, text: str) -> None:
    state_file(tmp_path).parent.mkdir()
    state_file(tmp_path).write_text(text)
    assert load(tmp_path) is None


def test_forgetting_leaves_the_settings_of_another_sandbox(tmp_path: Path, sandbox_env: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    save(mine, State((PART,), {"DATA_ROOT": str(mine)}))
    save(other, State((PART,), {"DATA_ROOT": str(other)}))
    forget(mine)
    assert load(mine) is None
    assert sandbox_env.exists()
    forget(other)
    assert not sandbox_env.exists()
    forget(other)  # harmless twice


@given(st.text(" '\"#\\=$:/@aé", max_size=20))
def test_the_settings_read_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    path = tmp_path_factory.getbasetemp() / "quoting.env"
    url = f"sqlite:///{name}"
    path.write_text(f"FEAST_REGISTRY_URL={quoted(url)}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FEAST_REGISTRY_URL", raising=False)
        assert StoreSettings(_env_file=path).feast_registry_url == url  # type: ignore[call-arg]  # mypy knows the fields only


def test_a_password_is_never_shown() -> None:
    assert without_password("redis://user:secret@host:6379/0") == "redis://***@host:6379/0"
    assert without_password("rediss://:p@ss@host/0") == "rediss://***@host/0"
    assert without_password("127.0.0.1:9092") == "127.0.0.1:9092"
    assert "secret" not in str(shown({"FEAST_REGISTRY_URL": "postgresql+psycopg://feast:secret@host/feast"}))


def test_a_part_of_the_users_own_has_no_process() -> None:
    assert StackPart("kafka", "yours", "host:9092", "theirs").process is None
    process = PART.process
    assert process is not None
    assert not process.alive  # pid 1 did not start at "x:1"


def test_a_path_with_a_space_is_quoted() -> None:
    assert quoted(str(Path("/a b"))) == "'/a b'"
    assert quoted("/data/x-1_y.db") == "/data/x-1_y.db"
