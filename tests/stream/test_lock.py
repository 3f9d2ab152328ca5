"""Who holds a data folder, as others see it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from feast_repo.settings import PROJECT_ROOT
from stream.lock import TOKEN, live_tokens, lock_run

if TYPE_CHECKING:
    from pathlib import Path

HOLDS = """
import sys
from pathlib import Path
from stream.lock import TOKEN, lock_run
lock_run(Path(sys.argv[1]), None)
print(TOKEN, flush=True)
sys.stdin.read()
"""


def test_a_process_that_ends_is_no_longer_among_the_live_ones(tmp_path: Path) -> None:
    assert live_tokens(tmp_path) == set()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)],
        cwd=PROJECT_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        token = process.stdout.readline().strip()
        assert live_tokens(tmp_path) == {token}
        process.kill()
        process.wait()
        assert live_tokens(tmp_path) == set()
    lock_run(tmp_path, None)
    lock_run(tmp_path, None)
    assert live_tokens(tmp_path) == {TOKEN} != {token}
