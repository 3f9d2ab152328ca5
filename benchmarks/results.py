"""Where results are kept, and how."""

from __future__ import annotations

import json
import sys
from typing import Any

from feast_repo.settings import PROJECT_ROOT
from sandbox.machine import as_markdown, facts

RESULTS = PROJECT_ROOT / "benchmarks" / "results"


def keep(name: str, command: str, title: str, result: dict[str, Any], text: str) -> None:
    """Write a result as `<name>.json` and `<name>.md`, with what it was measured on, and print the text."""
    machine = facts(command)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": machine, **result}, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(f"# {title}\n\n{as_markdown(machine)}\n\n{text}")
    sys.stdout.write(text)
