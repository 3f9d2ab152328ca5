"""The options that all benchmarks share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from feast_repo.commands import Command, integer

if TYPE_CHECKING:
    from collections.abc import Sequence

Size = Literal["quick", "usual", "full"]
ROUNDS = 5
QUICK_ROUNDS = 1


@dataclass(frozen=True)
class Options:
    """How large a run is: `quick` shows that it works, `usual` is for the budgets, `full` has growth and all peers."""

    size: Size
    rounds: int
    command: str

    @property
    def quick(self) -> bool:
        """Whether the figures are only to be looked at."""
        return self.size == "quick"


def options(module: str, about: str, arguments: Sequence[str] | None) -> Options:
    """Read the command line of a benchmark; bad input ends it with exit code 2."""
    command = Command(f"python -m {module}", about)
    command.add_argument("--size", choices=get_args(Size), default="usual", help="how much to run (%(default)s)")
    command.add_argument("--rounds", type=integer(1, 100), help=f"runs of each ({ROUNDS}; quick: {QUICK_ROUNDS})")
    found = command.parse_args(arguments)
    rounds = found.rounds or (QUICK_ROUNDS if found.size == "quick" else ROUNDS)
    return Options(found.size, rounds, f"python -m {module} --size {found.size} --rounds {rounds}")
