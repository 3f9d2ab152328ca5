"""The jars of Apache Kafka, fetched once by Maven into a cache that all checkouts of a user share.

The cache is `~/.cache/ml-feature-store` (or below `XDG_CACHE_HOME`), one folder for each version of
`sandbox/kafka/pom.xml`; it can be deleted at any time while no broker starts.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from sandbox.processes import RequestError, SandboxError

LOGGER = logging.getLogger(__name__)
KAFKA_FILES = Path(__file__).resolve().parent / "kafka"
MAVEN_TIMEOUT_S = 600


def jars_folder() -> Path:
    """Where the jars are once they are fetched; the pom's content is part of the name."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ml-feature-store"
    digest = hashlib.blake2b((KAFKA_FILES / "pom.xml").read_bytes(), digest_size=6).hexdigest()
    return cache / f"kafka-{digest}"


def apache_available() -> bool:
    """Whether Apache Kafka can be started here: Java, and the jars or Maven to fetch them."""
    return shutil.which("java") is not None and (jars_folder().is_dir() or shutil.which("mvn") is not None)


def kafka_version(jars: Path) -> str:
    """The broker's version, out of its jar's name."""
    return next(path.stem.partition("-")[2] for path in jars.glob("kafka_2.13-*.jar"))


def ensure_jars() -> Path:
    """The folder with all jars; fetched first if it is not there. Any number of callers may ask at once.

    Raises:
        RequestError: Maven is not installed.
        SandboxError: Maven fails.
    """
    folder = jars_folder()
    if folder.is_dir():
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        message = "Maven fetches Apache Kafka's jars, and `mvn` is not on PATH: install it, or use embedded Kafka"
        raise RequestError(message)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one fetches, the others wait; the kernel frees it if the holder dies
        if not folder.is_dir():
            _fetch(maven, folder)
    return folder


def _fetch(maven: str, folder: Path) -> None:
    """Fetch into a temporary folder and rename it, so that a folder of the final name is always complete."""
    LOGGER.info("fetching the jars of Apache Kafka with Maven (45 MB, once)")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as temporary:
        shutil.copy(KAFKA_FILES / "pom.xml", temporary)
        command = [maven, "--batch-mode", "--quiet", "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={temporary}/jars"]
        try:
            done = subprocess.run(
                command, cwd=temporary, capture_output=True, text=True, timeout=MAVEN_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            message = f"Maven did not fetch Apache Kafka within {MAVEN_TIMEOUT_S} s; try again, or use embedded Kafka"
            raise SandboxError(message) from error
        jars = Path(temporary) / "jars"
        if done.returncode or not any(jars.glob("kafka_2.13-*.jar")):
            output = f"{done.stdout}\n{done.stderr}".splitlines()
            reason = next((line.strip() for line in output if "ERROR" in line), f"exit code {done.returncode}")
            message = f"Maven can't fetch Apache Kafka: {reason}; check the network, or use embedded Kafka"
            raise SandboxError(message)
        jars.rename(folder)
