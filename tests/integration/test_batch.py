"""What the real dataflow stored is what batch computes from what it archived."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import Stack

SPARK = pytest.mark.skipif(find_spec("pyspark") is None or shutil.which("java") is None, reason="Spark is not here")


def command(stack: Stack, module: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", module, "--json", *arguments],
        cwd=stack.folder,
        env={**os.environ, **stack.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_stream_equals_batch_before_and_after_healing(stack: Stack) -> None:
    stack.produce(drain=True)
    status, errors = stack.run()
    assert status == 0, errors

    status, report = command(stack, "batch.parity", "--online")
    assert status == 0, report
    assert report["rows"]["equal"] == report["rows"]["recomputed"] > 1_000
    assert report["online"]["equal"] == report["online"]["users"] > 100

    status, report = command(stack, "batch.parity", "--mode", "complete")
    assert status == 0, report
    late = report["rows"]["explained"]
    assert late > 0
    status, healed = command(stack, "batch.backfill", "--mode", "complete", "--heal")
    assert (status, healed["healed"]) == (0, late)
    status, report = command(stack, "batch.parity", "--mode", "complete", "--online")
    assert status == 0, report
    assert report["rows"]["equal"] == report["rows"]["recomputed"]
    assert report["online"]["equal"] == report["online"]["users"]
    status, report = command(stack, "batch.parity")
    assert status == 0, report


@SPARK
def test_stream_equals_spark(stack: Stack) -> None:
    stack.produce()
    status, errors = stack.run()
    assert status == 0, errors
    status, report = command(stack, "batch.parity", "--engine", "spark")
    assert status == 0, report
    assert report["rows"]["equal"] == report["rows"]["recomputed"] > 1_000
