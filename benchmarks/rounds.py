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
        """For people: `median (least to most)`, or the value if there is but one."""
        if self.least == self.most:
            return f"{self.median:{form}}"
        return f"{self.median:{form}} ({self.least:{form}} to {self.most:{form}})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours over theirs, round by round."""
    return Spread.of(mine / other for mine, other in zip(ours, theirs, strict=True))


def in_turn(
    ways: Mapping[str, Callable[[], Result]], rounds: int | Mapping[str, int], title: str
) -> dict[str, list[Result]]:
    """Run each way once a round; every other round goes the other way about. Shows progress on standard error.

    With rounds by way, those with fewer than the most take part in the first ones.
    """
    wanted = rounds if not isinstance(rounds, int) else dict.fromkeys(ways, rounds)
    found: dict[str, list[Result]] = {name: [] for name in ways}
    with Progress(transient=True) as progress:
        task = progress.add_task(title, total=sum(wanted.values()))
        for number in range(max(wanted.values())):
            taking_part = [name for name in ways if number < wanted[name]]
            for name in taking_part[:: -1 if number % 2 else 1]:
                progress.update(task, description=f"{title}: {name}, round {number + 1} of {wanted[name]}")
                found[name].append(ways[name]())
                progress.advance(task)
    return found
