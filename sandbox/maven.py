"""Jars that Maven fetches once into a cache shared by all of a user's checkouts.

The cache is `~/.cache/ml-feature-store` (or below `XDG_CACHE_HOME`), with one folder per pom content; it can be deleted
whenever nothing that uses it runs.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sandbox.processes import RequestError, SandboxError

LOGGER = logging.getLogger(__name__)
MAVEN_TIMEOUT_S = 600


def cache_folder() -> Path:
    """The cache folder that all checkouts share."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ml-feature-store"


@dataclass(frozen=True)
class MavenJars:
    """The dependencies of a pom.

    `name` is the prefix of the folder's name, `title` the name in messages, `main` the pattern of a jar that must be
    among them, `remedy` the advice if they can't be fetched.
    """

    name: str
    title: str
    pom: Path
    main: str
    remedy: str

    @property
    def folder(self) -> Path:
        """The folder of the fetched jars; its name depends on the pom's content."""
        digest = hashlib.blake2b(self.pom.read_bytes(), digest_size=6).hexdigest()
        return cache_folder() / f"{self.name}-{digest}"

    @property
    def available(self) -> bool:
        """Whether the jars are present, or Maven is installed to fetch them."""
        return self.folder.is_dir() or shutil.which("mvn") is not None

    def ensure(self) -> Path:
        """The folder with all jars, fetched first if needed. Safe for any number of concurrent callers.

        Raises:
            RequestError: Maven is not installed.
            SandboxError: Maven fails.
        """
        folder = self.folder
        if folder.is_dir():
            return folder
        maven = shutil.which("mvn")
        if maven is None:
            message = f"Maven fetches {self.title}'s jars, and `mvn` is not on PATH: install it, or {self.remedy}"
            raise RequestError(message)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one fetches, the others wait; the kernel frees a dead holder's lock
            if not folder.is_dir():
                self._fetch(maven, folder)
        return folder

    def _fetch(self, maven: str, folder: Path) -> None:
        """Fetch into a temporary folder and rename it, so a folder with the final name is always complete."""
        LOGGER.info("fetching the jars of %s with Maven (once)", self.title)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as temporary:
            shutil.copy(self.pom, Path(temporary) / "pom.xml")
            command = [maven, "--batch-mode", "--quiet", "dependency:copy-dependencies"]
            command += ["-DincludeScope=runtime", f"-DoutputDirectory={temporary}/jars"]
            try:
                done = subprocess.run(
                    command, cwd=temporary, capture_output=True, text=True, timeout=MAVEN_TIMEOUT_S, check=False
                )
            except subprocess.TimeoutExpired as error:
                message = f"Maven did not fetch {self.title} within {MAVEN_TIMEOUT_S} s; try again, or {self.remedy}"
                raise SandboxError(message) from error
            jars = Path(temporary) / "jars"
            if done.returncode or not any(jars.glob(self.main)):
                output = f"{done.stdout}\n{done.stderr}".splitlines()
                reason = next((line.strip() for line in output if "ERROR" in line), f"exit code {done.returncode}")
                message = f"Maven can't fetch {self.title}: {reason}; check the network, or {self.remedy}"
                raise SandboxError(message)
            jars.rename(folder)
