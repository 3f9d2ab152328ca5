"""Predictions for a few entities, with their features and the time of each step.

python -m serving.predict --users user_000001 user_000010
"""

from __future__ import annotations

import json
import sys
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from feast_repo.commands import Command
from feast_repo.errors import FeatureStoreError, UnavailableError
from serving.errors import OnlineStoreError
from serving.features import misfit
from serving.messages import MAX_ENTITIES, MAX_ID_LENGTH, prediction_of
from serving.model import Model, ModelFolder
from serving.requests import RequestFormat
from serving.settings import add_service, settings_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from serving.messages import Asked, Prediction
    from serving.model import ModelCard
    from serving.reader import Reader

REPEATS = 200
"""Repetitions of each step, because a single time well under a millisecond says little."""
SHOWN_AT_ONCE = 8


def _timed(
    reader: Reader, model: Model, entities: Sequence[Asked]
) -> tuple[list[Prediction], dict[str, dict[str, float]]]:
    steps: dict[str, list[float]] = {"read features": [], "features to matrix": [], "model": [], "all": []}
    for _ in range(REPEATS):
        times = [time.perf_counter()]
        rows = reader.read(entities)
        times.append(time.perf_counter())
        matrix = model.encoder.served(rows)
        times.append(time.perf_counter())
        probabilities = model.probabilities(matrix).tolist()
        times.append(time.perf_counter())
        spans = [(later - earlier) * 1000 for earlier, later in pairwise(times)]
        for taken, span in zip(steps.values(), [*spans, sum(spans)], strict=True):
            taken.append(span)
    quantiles = {
        name: {f"p{at}": round(float(np.percentile(taken, at)), 4) for at in (50, 95)} for name, taken in steps.items()
    }
    pairs = zip(rows, probabilities, strict=True)
    return [prediction_of(row, probability) for row, probability in pairs], quantiles


def _features_table(predictions: Sequence[Prediction], card: ModelCard) -> Table:
    title = ", ".join(filter(None, (escape(card.label), f"model {card.version}")))
    table = Table("", *(escape(_name(one)) for one in predictions), title=title)
    for view in predictions[0].views:
        reads = [one.views[view] for one in predictions]
        table.add_row(f"[bold]{view}[/]", *(f"{read.status}{_age(read.age_seconds)}" for read in reads))
        for name in reads[0].features:
            table.add_row(f"  {name}", *(_shown(read.features[name]) for read in reads))
        table.add_section()
    table.add_row("[bold]probability[/]", *(f"[bold]{one.probability:.1%}[/]" for one in predictions))
    return table


def _name(one: Prediction) -> str:
    if isinstance(one.entity, dict):
        return ", ".join(map(str, one.entity.values()))
    return str(one.user_id)


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else escape(str(value))


def _age(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f", {seconds / length:.0f} {unit} old"
    return f", {seconds:.0f} s old"


def _print(predictions: Sequence[Prediction], card: ModelCard, quantiles: dict[str, dict[str, float]]) -> None:
    console = Console()
    for start in range(0, len(predictions), SHOWN_AT_ONCE):
        console.print(_features_table(predictions[start : start + SHOWN_AT_ONCE], card))
    table = Table("step", "p50", "p95", title=f"{REPEATS} times, entities at once: {len(predictions)}")
    for name, taken in quantiles.items():
        table.add_row(name, *(f"{value:.3f} ms" for value in taken.values()))
    console.print(table)


def _body(options: argparse.Namespace) -> str:
    """The request that the service would get."""
    if options.users:
        return json.dumps({"user_ids": options.users})
    return f'{{"entities": [{", ".join(options.entities)}]}}'


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command("python -m serving.predict", "Predict for a few entities, and time each step.")
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("--users", nargs="+", metavar="USER", help="such as user_000001")
    example = '{"card_id": "c1", "shop": 7}'
    which.add_argument("--entities", nargs="+", metavar="JSON", help=f"all join keys of each, such as '{example}'")
    add_service(command)
    command.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    options = command.parse_args(arguments)
    if len(options.users or options.entities) > MAX_ENTITIES:
        command.error(f"at most {MAX_ENTITIES} at once")
    if wrong := next((user for user in options.users or () if not 0 < len(user) <= MAX_ID_LENGTH), None):
        command.error(f"{wrong[:80]!r} is no user id: 1 to {MAX_ID_LENGTH} characters")
    settings = settings_of(command, options)
    try:
        model = ModelFolder(settings.data_root, settings.service).load()
        from serving.reader import open_reader  # noqa: PLC0415  (needs Feast, which takes seconds to import)

        try:
            reader = open_reader(command.feature_store(), settings)
        except SQLAlchemyError as error:
            command.fail(UnavailableError(str(error)))
        if problem := misfit(model.card.features, reader.schema):
            command.error(f"{problem}: train again, python -m serving.train")
        try:
            entities = RequestFormat(reader.schema).decode(_body(options).encode())
        except msgspec.MsgspecError as error:
            command.error(f"no entities of {settings.service!r}: {error}")
        predictions, quantiles = _timed(reader, model, entities)
    except OnlineStoreError as error:
        command.fail(OnlineStoreError(f"the online store does not answer ({error}): check REDIS_URL"))
    except FeatureStoreError as error:
        command.fail(error)
    if options.json:
        told = {
            "model_version": model.card.version,
            "predictions": msgspec.to_builtins(predictions),
            "milliseconds": quantiles,
        }
        sys.stdout.write(json.dumps(told) + "\n")
    else:
        _print(predictions, model.card, quantiles)
    return 0


if __name__ == "__main__":
    sys.exit(main())
