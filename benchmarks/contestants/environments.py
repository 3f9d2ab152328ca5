"""Environments of their own for contestants whose requirements clash with this project's.

`requirements/peers/<contestant>.txt` pins everything in it; it is made once, below the cache that all checkouts share
(see `sandbox/maven.py`), and can be deleted at any time while the contestant doesn't run.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import shutil
import subprocess
import sys
from pathlib import Path

from sandbox.maven import cache_folder
from sandbox.processes import SandboxError

LOGGER = logging.getLogger(__name__)
REQUIREMENTS = Path(__file__).resolve().parent.parent.parent / "requirements" / "peers"
MADE = "made"
TIMEOUT_S = 1_800


def interpreter(contestant: str) -> Path:
    """The Python that runs a contestant: of its own environment, made first if it isn't there, or else this one.

    Raises:
        SandboxError: the environment can't be made; one line with what failed.
    """
    requirements = REQUIREMENTS / f"{contestant}.txt"
    if not requirements.exists():
        return Path(sys.executable)
    digest = hashlib.blake2b(f"{sys.version}\n{requirements.read_text()}".encode(), digest_size=6).hexdigest()
    folder = cache_folder() / f"peer-{contestant}-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one makes it, the others wait; the kernel frees it if the holder dies
        python = folder / "bin" / "python"
        if not (folder / MADE).exists():  # an environment knows its own path, so it can't be renamed when it is done
            LOGGER.info("installing the environment of %s (once)", contestant)
            shutil.rmtree(folder, ignore_errors=True)
            _run(contestant, [sys.executable, "-m", "venv", str(folder)])
            _run(contestant, [str(python), "-m", "pip", "install", "--quiet", "--requirement", str(requirements)])
            (folder / MADE).touch()
    return python


def _run(contestant: str, command: list[str]) -> None:
    """Run one step.

    Raises:
        SandboxError: it fails, or takes longer than half an hour.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        message = f"the environment of {contestant} was not made within {TIMEOUT_S} s; try again, or leave it out"
        raise SandboxError(message) from error
    if done.returncode:
        lines = f"{done.stdout}\n{done.stderr}".strip().splitlines()
        reason = next((line.strip() for line in lines if "error" in line.lower()), f"exit code {done.returncode}")
        message = f"can't make the environment of {contestant}: {reason}; check the network, or leave it out"
        raise SandboxError(message)
