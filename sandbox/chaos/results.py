"""The drills' results as files: JSON for programs, Markdown for people."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console

from sandbox.machine import as_markdown, facts

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

    from sandbox.chaos.__main__ import Drill


def write(folder: Path, command: str, drills: list[Drill], table: Table) -> None:
    """Write `chaos.json` and `chaos.md` with what they were measured on."""
    folder.mkdir(parents=True, exist_ok=True)
    machine = facts(command)
    result = {"machine": machine, "drills": [asdict(drill) for drill in drills]}
    (folder / "chaos.json").write_text(json.dumps(result, indent=1) + "\n")
    console = Console(width=100)
    faults = "\n".join(
        f"\n## Seed {drill.seed}, {drill.broker}\n\n"
        + "\n".join(f"{number}. `{kind}`: {seen}" for number, (kind, seen) in enumerate(drill.faults, start=1))
        for drill in drills
    )
    with console.capture() as shown:
        console.print(table)
    text = f"# Fault drill\n\n{as_markdown(machine)}\n\n```\n{shown.get()}```\n{faults}\n"
    (folder / "chaos.md").write_text(text)
