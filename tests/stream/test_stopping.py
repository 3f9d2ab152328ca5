"""A stop while the run still imports: nothing was read, so it ends cleanly whatever the import makes of it."""

from __future__ import annotations

import subprocess
import sys

REWORDED = """
import os, signal
from stream.stopping import stop_on_signals
stop_on_signals()
try:
    os.kill(os.getpid(), signal.SIGTERM)
except SystemExit:
    raise TypeError("expected a message argument")  # as Python's own import does, when the signal comes inside it
"""


def test_an_import_that_rewords_a_stop() -> None:
    done = subprocess.run([sys.executable, "-c", REWORDED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
