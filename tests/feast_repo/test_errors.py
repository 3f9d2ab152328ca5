"""One base for what users are told, and what commands end with."""

from __future__ import annotations

import ast
import errno
import os
from typing import TYPE_CHECKING

import pytest

from feast_repo.commands import Command
from feast_repo.errors import ExitCode, FeatureStoreError, RefusedError, UnavailableError
from tests.test_imports import modules

if TYPE_CHECKING:
    from pathlib import Path

NEVER_TOLD = {"ClientGoneError", "ClusterNodeError", "NotJsonError"}
"""Steer the code that catches them; the second one is a RedisError, as its callers expect."""


def test_every_error_has_the_base() -> None:
    classes = {
        node.name: {getattr(base, "id", "") for base in node.bases}
        for module, file in modules().items()
        if not module.startswith("benchmarks.")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error")
    }
    told = {"FeatureStoreError", "RefusedError", "UnavailableError"}
    while more := {name for name, bases in classes.items() if bases & told} - told:
        told |= more
    assert set(classes) - told == NEVER_TOLD


def test_codes_are_those_of_the_system() -> None:
    assert [int(code) for code in ExitCode] == [0, 1, 2, os.EX_TEMPFAIL, 130]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FeatureStoreError("it differs"), 1),
        (RefusedError("no such\nfolder"), 2),
        (UnavailableError("Redis does not answer"), 75),
        (PermissionError("not yours"), 2),
        (OSError(errno.ENOSPC, "No space left on device"), 1),
    ],
)
def test_a_command_tells_one_line_and_ends_with_its_code(
    error: Exception, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = Command("python -m batch.parity", "")
    with pytest.raises(SystemExit) as ended, command.telling(tmp_path):
        raise error
    assert ended.value.code == code
    assert capsys.readouterr().err == f"batch.parity: {' '.join(str(error).splitlines())}\n"
