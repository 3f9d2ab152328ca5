"""The drills' results as files, JSON for programs and Markdown for people, with one part per seed."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sandbox.chaos.faults import FAULTS
from sandbox.machine import as_markdown, facts

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.chaos.verdict import Verdict

AMOUNTS = ("messages", "feature_rows", "users")


@dataclass(frozen=True)
class Drill:
    """The actions and findings of a drill."""

    seed: int
    broker: str
    faults: list[tuple[str, str]]
    copies: int
    seconds: float
    verdict: Verdict


def keep(folder: Path, command: str, drill: Drill) -> None:
    """Add a drill to `chaos.json` and `chaos.md`, or replace the drill of its seed, with its machine's facts."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "chaos.json"
    kept = json.loads(file.read_text())["drills"] if file.exists() else []
    new = {**asdict(drill), "machine": facts(command)}
    drills = sorted([one for one in kept if one["seed"] != drill.seed] + [new], key=lambda one: int(one["seed"]))
    file.write_text(json.dumps({"drills": drills}, indent=1) + "\n")
    (folder / "chaos.md").write_text(_as_markdown(drills))


def _as_markdown(drills: list[dict[str, Any]]) -> str:
    wrong = [name for name in drills[0]["verdict"] if name not in AMOUNTS]
    columns = ["seed", "faults", "minutes", "copies", *AMOUNTS, *wrong]
    rows = [
        [one["seed"], len(one["faults"]), round(one["seconds"] / 60, 1), one["copies"], *one["verdict"].values()]
        for one in drills
    ]
    kinds = Counter(kind for one in drills for kind, _ in one["faults"])
    lines = [
        "# Fault drill",
        "",
        "The last drill ran on:",
        "",
        as_markdown(max((one["machine"] for one in drills), key=lambda machine: str(machine["date"]))),
        "",
        _line([name.replace("_", " ") for name in columns]),
        _line(["---"] * len(columns)),
        *(_line([f"{value:,}" for value in row]) for row in rows),
        _line(["all", *(f"{round(sum(column), 1):,}" for column in list(zip(*rows, strict=True))[1:])]),
        "",
        "| fault | times |",
        "|---|---|",
        *(f"| {kind.replace('_', ' ')} | {kinds[kind]} |" for kind in FAULTS),
    ]
    for one in drills:
        lines += ["", f"## Seed {one['seed']}, {one['broker']}", ""]
        lines += [f"{number}. `{kind}`: {seen}" for number, (kind, seen) in enumerate(one["faults"], start=1)]
    return "\n".join(lines) + "\n"


def _line(cells: list[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
