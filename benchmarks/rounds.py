"""Rounds in which all contestants run in turn, so that a slow minute of the machine meets all of them."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, TypeVar

from rich.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Result = TypeVar("Result")


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of some measurements."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of at least one value."""
        known = sorted(values)
        return cls(median(known), known[0], known[-1])

    def text(self, form: str = ",.0f") -> str:
        """For people: `median (least to most)`."""
        return f"{self.median:{form}} ({self.least:{form}} to {self.most:{form}})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours over theirs, round by round."""
    return Spread.of(mine / other for mine, other in zip(ours, theirs, strict=True))


def in_turn(ways: Mapping[str, Callable[[], Result]], rounds: int, title: str) -> dict[str, list[Result]]:
    """Run each way once a round; every other round goes the other way about. Shows progress on standard error."""
    found: dict[str, list[Result]] = {name: [] for name in ways}
    with Progress(transient=True) as progress:
        task = progress.add_task(title, total=rounds * len(ways))
        for number in range(rounds):
            for name in list(ways)[:: -1 if number % 2 else 1]:
                progress.update(task, description=f"{title}: {name}, round {number + 1} of {rounds}")
                found[name].append(ways[name]())
                progress.advance(task)
    return found
