"""How time and memory grow with one dimension: exponents, a table and a plot.

The exponent e is that of `y = c * x**e` through all points (least squares of the logarithms); that of the last step is
of the last two points alone, which shows a bend. Points are medians over the rounds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.rounds import Spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

TOLERANCE = 0.1
"""An exponent within this of a linear one is told as linear: caches and hash tables cost that much by themselves."""


@dataclass(frozen=True)
class Point:
    """Rounds at a place: microseconds of CPU an event; bytes and milliseconds by what takes them."""

    at: float
    microseconds: Sequence[float]
    memory: Mapping[str, Sequence[float]]
    milliseconds: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Dimension:
    """Points in order. `linear_time` is the exponent of the time of one event when all work is linear.

    It is 1 where the same log is read and each event means more work, and 0 where there are more events in proportion.
    """

    name: str
    unit: str
    points: Sequence[Point]
    linear_time: int
    bound: str

    def exponents(self, *, last_step: bool = False) -> dict[str, float]:
        """Of the time of one event, of each kind of memory, and of what takes milliseconds."""
        points = self.points[-2:] if last_step else self.points
        series = {"time": [Spread.of(point.microseconds).median for point in points]}
        series |= {f"{kind}, MB": [Spread.of(point.memory[kind]).median for point in points] for kind in self._kinds}
        series |= {
            f"{task}, ms": [Spread.of(point.milliseconds[task]).median for point in points] for task in self._tasks
        }
        at = [point.at for point in points]
        return {name: _exponent(at, values) for name, values in series.items()}

    @property
    def _kinds(self) -> list[str]:
        return list(self.points[0].memory)

    @property
    def _tasks(self) -> list[str]:
        return list(self.points[0].milliseconds)

    @property
    def worse_than_linear(self) -> list[str]:
        """What grows more than linearly over all points or over the last step."""
        both = [self.exponents(), self.exponents(last_step=True)]
        allowed = {**dict.fromkeys(both[0], 1), "time": self.linear_time}
        return [what for what, most in allowed.items() if any(found[what] > most + TOLERANCE for found in both)]

    @property
    def verdict(self) -> str:
        """One line for people."""
        worse = self.worse_than_linear
        return f"**worse than linear: {', '.join(worse)}**" if worse else "nothing worse than linear"

    def text(self) -> str:
        """The exponents, the points and what bounds them, as Markdown."""
        over, last = self.exponents(), self.exponents(last_step=True)
        others = [name for name in over if name != "time"]
        lines = [
            f"## {self.name.capitalize()}: {self.verdict}",
            "",
            f"| exponent of | {' | '.join(['time an event', *others])} |",
            f"|---|{'---|' * len(over)}",
            f"| all points | {' | '.join(f'{over[name]:.2f}' for name in ['time', *others])} |",
            f"| the last step | {' | '.join(f'{last[name]:.2f}' for name in ['time', *others])} |",
            f"| linear work | {' | '.join(map(str, [self.linear_time, *[1] * len(others)]))} |",
            "",
            f"| {self.unit} | CPU time an event, us | events a CPU second | {' | '.join(others)} |",
            f"|---|---|---|{'---|' * len(others)}",
        ]
        for point in self.points:
            taken = Spread.of(point.microseconds)
            medians = [Spread.of(point.memory[kind]).median / 1e6 for kind in self._kinds]
            medians += [Spread.of(point.milliseconds[task]).median for task in self._tasks]
            rest = " | ".join(f"{value:,.1f}" for value in medians)
            lines.append(f"| {point.at:,.0f} | {taken.text('.2f')} | {1e6 / taken.median:,.0f} | {rest} |")
        return "\n".join([*lines, "", self.bound, ""])

    def plot(self) -> Figure:
        """Time of one event and memory against the dimension, both logarithmic; dashed: linear work."""
        from matplotlib.figure import Figure  # noqa: PLC0415  (takes a second)
        from matplotlib.ticker import LogLocator, StrMethodFormatter  # noqa: PLC0415

        figure = Figure(figsize=(10, 4), layout="constrained")
        time, memory = figure.subplots(1, 2)
        at = [point.at for point in self.points]
        self._curve(time, "measured", [point.microseconds for point in self.points], self.linear_time)
        for kind in self._kinds:
            bytes_held = [[value / 1e6 for value in point.memory[kind]] for point in self.points]
            self._curve(memory, kind, bytes_held, None if kind != self._kinds[0] else 1)
        for axes, what in ((time, "CPU time of an event (us)"), (memory, "memory (MB)")):
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xticks(at, [f"{value:,.0f}" for value in at])
            low, high = axes.get_ylim()
            axes.set_ylim(low / 2, high * 2)  # a few percent should not look like a cliff
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
            axes.minorticks_off()
            axes.set_xlabel(self.unit)
            axes.set_ylabel(what)
            axes.grid(alpha=0.3)
            axes.legend(fontsize=8, frameon=False)
        figure.suptitle(f"{self.name.capitalize()}: {self.verdict.replace('*', '')}", fontsize=11)
        return figure

    def _curve(self, axes: Any, label: str, rounds: Sequence[Sequence[float]], linear: int | None) -> None:
        """Medians with their spread, and a dashed line from the first of them with the exponent of linear work."""
        at, spreads = [point.at for point in self.points], [Spread.of(values) for values in rounds]
        medians = np.array([spread.median for spread in spreads])
        below = [spread.median - spread.least for spread in spreads]
        above = [spread.most - spread.median for spread in spreads]
        axes.errorbar(at, medians, yerr=[below, above], marker="o", capsize=3, label=label)
        if linear is not None:
            line = medians[0] * (np.array(at) / at[0]) ** linear
            axes.plot(at, line, linestyle="--", color="#888", label="linear")


def _exponent(at: Sequence[float], values: Sequence[float]) -> float:
    """The exponent of the power law nearest to the points."""
    return float(np.polyfit(np.log(at), np.log(values), 1)[0])
