"""Which service is served: the only one, the setting's, or the option's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from feast_repo.commands import Command
from serving.settings import add_service, settings_of
from tests.batch.other_repo import write_repo

if TYPE_CHECKING:
    from pathlib import Path


def chosen(*arguments: str) -> str:
    command = Command("python -m serving", "")
    add_service(command)
    return settings_of(command, command.parse_args(arguments)).service


def test_the_only_service_needs_no_name() -> None:
    assert chosen() == "purchase_prediction"


def test_one_of_several_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEATURE_REPO", str(write_repo(tmp_path / "repo")))
    with pytest.raises(SystemExit, match="2"):
        chosen()
    assert "which service? name it with --service; declared: fraud, shops" in capsys.readouterr().err
    monkeypatch.setenv("SERVING_SERVICE", "shops")
    assert chosen() == "shops"
    assert chosen("--service", "fraud") == "fraud"
    with pytest.raises(SystemExit, match="2"):
        chosen("--service", "sales")
    assert "no service is named 'sales'; declared: fraud, shops" in capsys.readouterr().err
