"""The parity report for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from batch.recompute.recomputation import complaint

if TYPE_CHECKING:
    from rich.console import Console

    from batch.recompute.archive import Timeline


def show(report: dict[str, Any], timeline: Timeline, console: Console) -> None:
    """Print a report."""
    _features(report, console)
    _rows(report, console)
    if report["watermarks"]["mismatched"]:
        console.print(complaint(timeline))
    if entities := report["in_two_partitions"]:
        some = "; ".join(entities[:10])
        console.print(f"{len(entities):,} entities have events in two partitions (use one partitioner): {some}")
    if report["online"]:
        _online(report["online"], console)


def _features(report: dict[str, Any], console: Console) -> None:
    table = Table(
        title=f"{report['view']}, {report['mode']}: {report['rows']['recomputed']:,} rows by {report['engine']}"
    )
    table.add_column("feature", no_wrap=True)
    for column in ("compared", "equal", "different", "explained", "largest"):
        table.add_column(column, justify="right")
    for name, count in report["features"].items():
        cells = (f"{count[column]:,}" for column in ("compared", "equal", "different", "explained"))
        table.add_row(name, *cells, f"{count['largest_difference']:,g}")
    console.print(table)


def _rows(report: dict[str, Any], console: Console) -> None:
    rows = report["rows"]
    console.print(f"only in stream: {rows['only_in_stream']:,}, only in batch: {rows['only_in_batch']:,} rows")
    undeclared = [name for name, count in report["features"].items() if count["undeclared"]]
    if undeclared:
        console.print(
            f"stored before declared: {', '.join(undeclared)}; `python -m batch.backfill "
            f"--view {report['view']}` adds what is lacking"
        )
    if rows["backfilled"]:
        console.print(f"{rows['backfilled']:,} rows are of windows that a backfill stored")
    if rows["not_compared"]:
        console.print(f"{rows['not_compared']:,} backfilled rows are not compared: this mode has no events for them")
    for example in report["examples"]:
        why = "late events explain it" if example["explained"] else "unexplained"
        written = f" of {example['writer']}" if example["writer"] in {"heal", "backfill"} else ""
        values = (
            ""
            if example["stream"] is example["batch"] is None
            else f": stream {example['stream']}, batch {example['batch']}"
        )
        console.print(
            f"  {example['entity']} {example['window_end']} {example['feature']}{written}{values} ({why})",
            highlight=False,
            soft_wrap=True,
        )


def _online(online: dict[str, Any], console: Console) -> None:
    counts = ", ".join(f"{online[name]:,} {name}" for name in ("equal", "different", "missing", "behind", "ahead"))
    ages = ", ".join(f"{name} {seconds:,.0f} s" for name, seconds in online["age_seconds"].items())
    console.print(f"online: {online['users']:,} entities: {counts}; age of values: {ages or 'none'}")
    for example in online["examples"]:
        console.print(
            f"  {example['entity']} {example['window_end']} {example['feature']}: "
            f"online {example['online']}, offline {example['offline']}",
            highlight=False,
            soft_wrap=True,
        )
    for remedy in online["remedies"]:
        console.print(f"  {remedy}", highlight=False, soft_wrap=True)
