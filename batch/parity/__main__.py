"""Parity of stream and batch: stored rows are recomputed from the archive and compared value by value.

    python -m batch.parity --engine spark                   # as-seen: the stream's own rows, with zero tolerance
    python -m batch.parity --mode complete                  # the effective rows, against the truth with late events
    python -m batch.parity --online --sample 1000           # also Redis, against the newest stored rows

Exits with 1 on any difference that late events don't explain (in `as-seen`, on any), and names the first rows. It may
run beside the stream: it compares up to the progress record.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from batch.lock import carrying_rows
from batch.parity.comparison import DEFAULT_EXAMPLES, ParityComparison
from batch.parity.explanation import Truth
from batch.parity.report import page
from batch.parity.table import show
from batch.recompute.reaches import Reaches
from batch.recompute.recomputation import add_arguments, opened, parsed, recompute, scope_of, track
from batch.recompute.stored import stored_rows
from batch.report_files import stem, write_report
from feast_repo.commands import Command, as_it_is, integer
from feast_repo.settings import StreamSettings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from batch.parity.online import OnlineComparison
    from batch.recompute.recomputation import Recomputation
    from feast_repo.declare.views import WindowedView

MOST_USERS = 1_000_000_000
MOST_EXAMPLES = 100_000


def compare(recomputation: Recomputation, settings: StreamSettings, comparison: ParityComparison) -> ParityComparison:
    """Compare all stored rows of the recomputation's scope.

    Raises:
        OSError: a file can't be read.
    """
    scope = recomputation.scope
    last = max(scope.reach["last"].to_list()) if scope.last is None else scope.last
    chunks, reaches = recomputation.chunks(), Reaches(settings.data_root, scope.view).load()
    # Between chunks the archive has no events, so no rows should be stored.
    starts = [scope.first or 0, *(chunk.last + 1 for chunk in chunks[:-1])]
    ends = [*(chunk.last for chunk in chunks[:-1]), last]
    for chunk, first, end in zip(track(recomputation, "parity"), starts, ends, strict=True):
        stored = stored_rows(settings.data_root, scope.view, first, end, reach=scope.reach)
        comparison.add(Truth(recomputation, chunk, reaches), stored)
    return comparison


def _compare_online(
    options: argparse.Namespace, command: Command, view: WindowedView, settings: StreamSettings
) -> OnlineComparison:
    from batch.parity.online import compare_online  # noqa: PLC0415  (Feast takes seconds to import)

    store = command.feature_store()
    command.check_redis(store, settings)
    return compare_online(store, settings.data_root, view, sample=options.sample, most_examples=options.examples)


def as_report(
    options: argparse.Namespace,
    recomputation: Recomputation,
    comparison: ParityComparison,
    online: OnlineComparison | None,
) -> dict[str, Any]:
    """All findings, for JSON."""
    rows = (
        "recomputed",
        "equal",
        "different",
        "only_in_stream",
        "only_in_batch",
        "explained",
        "backfilled",
        "not_compared",
        "unexplained",
    )
    timeline = recomputation.timeline
    features = {
        name: {**asdict(count), "only_in_stream": comparison.only_in_stream, "only_in_batch": comparison.only_in_batch}
        for name, count in comparison.features.items()
    }
    return {
        "view": recomputation.scope.view.name,
        "engine": options.engine,
        "mode": comparison.mode,
        "start": None if options.start is None else options.start.isoformat(),
        "end": None if options.end is None else options.end.isoformat(),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "holds": not (comparison.unexplained or timeline.mismatched or (online is not None and online.wrong)),
        "rows": {name: getattr(comparison, name) for name in rows},
        "features": features,
        "examples": comparison.examples,
        "watermarks": {"mismatched": timeline.mismatched, "examples": timeline.mismatches.to_dicts()},
        "in_two_partitions": comparison.in_two_partitions,
        "online": None if online is None else {**asdict(online), "wrong": online.wrong, "remedies": online.remedies},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command("python -m batch.parity", "Recompute the stream's stored rows and compare them.")
    add_arguments(command)
    command.add_argument("--online", action="store_true", help="also compare Redis with the newest stored rows")
    command.add_argument("--sample", type=integer(1, MOST_USERS), help="number of entities for --online (default: all)")
    command.add_argument(
        "--examples", type=integer(0, MOST_EXAMPLES), default=DEFAULT_EXAMPLES, help="rows to name (%(default)s)"
    )
    options = parsed(command, arguments)
    if options.sample is not None and not options.online:
        command.error("--sample says how many entities --online compares: add --online")
    settings = command.settings(StreamSettings)
    with command.telling(settings.data_root), carrying_rows(settings.data_root):
        view = settings.catalog.view(options.view)
        comparison = ParityComparison(view, options.mode or "as-seen", options.examples)
        scope = scope_of(settings.data_root, view, options.start, options.end)
        if scope.reach.is_empty():
            command.error(f"{settings.data_root} has no progress record: run the stream first, or correct DATA_ROOT")
        with opened(options.engine, settings.data_root, view, master=options.master, archive=options.archive) as engine:
            recomputation = recompute(engine, scope)
            compare(recomputation, settings, comparison)
        online = _compare_online(options, command, view, settings) if options.online else None
        report = as_report(options, recomputation, comparison, online)
        what = stem("parity", view, settings.catalog.windowed)
        name = f"{what}-{report['mode']}-{report['engine']}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        files = write_report(settings.data_root / "reports", name, report, page(comparison, report))
    if options.json:
        sys.stdout.write(json.dumps({**report, "files": [str(file) for file in files]}) + "\n")
    else:
        show(report, recomputation.timeline, as_it_is())
        for file in files:
            sys.stdout.write(f"{file}\n")
    return 0 if report["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
