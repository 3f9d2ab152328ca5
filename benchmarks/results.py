"""Where results are kept, and how."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from feast_repo.settings import PROJECT_ROOT
from sandbox.machine import as_markdown, facts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.figure import Figure

    from benchmarks.options import Options, Size

RESULTS = PROJECT_ROOT / "benchmarks" / "results"
FOLDERS: dict[Size, Path] = {
    "quick": PROJECT_ROOT / ".cache" / "benchmarks",
    "usual": RESULTS,
    "full": RESULTS / "full",
}
"""By the size of the run, since one must not take the place of another; those of quick runs are not for keeping."""


def keep(
    name: str,
    chosen: Options,
    title: str,
    result: dict[str, Any],
    text: str,
    *,
    plots: Mapping[str, Figure] | None = None,
) -> None:
    """Write a result as `<name>.json` and `<name>.md`, with what it was measured on and its plots; print the text.

    `plots`: by what they show; each becomes an SVG beside the others.
    """
    machine = facts(chosen.command)
    folder = FOLDERS[chosen.size]
    folder.mkdir(parents=True, exist_ok=True)
    pictures = ""
    for number, (shows, figure) in enumerate((plots or {}).items()):
        file = f"{name}-{number + 1}.svg"
        figure.savefig(folder / file, metadata={"Date": None}, bbox_inches="tight")
        pictures += f"\n![{shows}]({file})\n"
    (folder / f"{name}.json").write_text(json.dumps({"machine": machine, **result}, indent=1) + "\n")
    (folder / f"{name}.md").write_text(f"# {title}\n\n{as_markdown(machine)}\n\n{text}{pictures}")
    sys.stdout.write(f"\n{text}\nkept in {folder.relative_to(PROJECT_ROOT)}/{name}.md\n")
