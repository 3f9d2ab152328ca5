"""Train the model of a feature service, and serve it if it is good enough.

    python -m batch.training_set && python -m serving.train

A model is good enough if its log loss is below the baseline's, which always predicts the mean, and not above the served
model's. All are evaluated on the same rows: the last of the training set, which the new model has not seen. A model
that is not good enough is stored, the exit code is 1, and only `--force` serves it.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl
from rich.console import Console
from rich.table import Table

from batch.report_files import write_report
from batch.training.labels import label_of
from feast_repo.commands import Command, integer
from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.declare.rows import EVENT_TIME
from feast_repo.declare.stored import offline_columns
from feast_repo.stores.offline.foreign import read_foreign
from serving.model import ModelError, ModelFolder
from serving.settings import ServingSettings, add_service, settings_of
from serving.training import TrainingError, file_hash, judged, split_by_time, train

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feast_repo.declare.labels import Label
    from serving.model import Model, ModelCard
    from serving.training import Trained

DECIDES = "log_loss"
PROMOTE = ("if-not-worse", "always", "never")


def _served_before(models: ModelFolder, columns: Sequence[str]) -> tuple[Model | None, str | None]:
    """The served model, if it can be evaluated on rows with these columns; else the reason why not."""
    try:
        if models.current is None:
            return None, None
        model = models.load()
    except ModelError as error:
        return None, str(error)
    if lacking := [one.name for one in model.card.features if one.name not in columns]:
        return None, f"the served model {model.card.version} reads {', '.join(lacking)}, which the training set lacks"
    return model, None


def _training_rows(settings: ServingSettings, source: Path) -> pl.DataFrame:
    """The training set with the columns and types of `batch.training_set`; another tool may have written it."""
    label, _ = label_of(settings.served)
    columns = {label.name: pl.Boolean(), EVENT_TIME: UTC_MICROSECONDS}
    for view in settings.views:
        columns |= {name: dtype for name, dtype in offline_columns(view).items() if name in view.features}
    rows = read_foreign(source, columns)
    rows = rows.cast({name: columns[name] for name, held in rows.schema.items() if held == pl.Null})
    again = "correct the file, or make it again: python -m batch.training_set"
    if lacking := sorted(columns.keys() - set(rows.columns)):
        message = f"{source} lacks {', '.join(lacking)}: {again}"
        raise TrainingError(message)
    if rows.schema[EVENT_TIME] == pl.Datetime:  # own rows keep the unit and the zone of their times
        rows = rows.with_columns(pl.col(EVENT_TIME).dt.replace_time_zone("UTC").dt.cast_time_unit("us"))
    types = rows.schema.items()
    if wrong := [f"{name} is {held}, not {columns[name]}" for name, held in types if held != columns[name]]:
        message = f"{source}: {', '.join(wrong)}: {again}"
        raise TrainingError(message)
    for name in (label.name, EVENT_TIME):
        if nulls := rows[name].null_count():
            message = f"{source}: {nulls:,} rows have no {name}: leave them out"
            raise TrainingError(message)
    return rows


def train_and_promote(settings: ServingSettings, source: Path, seed: int, promote: str) -> dict[str, Any]:
    """Train, evaluate, store and promote; returns the report.

    Raises:
        NoLabelError: the service declares no label.
        TrainingError: the rows are not fit to train from.
        ForeignFileError, OSError: a file can't be read or written.
    """
    start = time.monotonic()
    rows, data_hash = _training_rows(settings, source), file_hash(source)
    label, _ = label_of(settings.served)
    split = split_by_time(rows, label)
    models = ModelFolder(settings.data_root, settings.service)
    version = f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
    trained = train(settings.served, split, data_hash, seed, version)
    before, unfit = _served_before(models, rows.columns)
    columns = {"the model": trained.card.metrics, "baseline": trained.card.baseline}
    beats_baseline, worse = trained.card.metrics[DECIDES] < trained.card.baseline[DECIDES], False
    if before is not None:
        columns[f"served before ({before.card.version})"] = before_metrics = judged(before, label, split.holdout)
        worse = trained.card.metrics[DECIDES] > before_metrics[DECIDES]
    good_enough = beats_baseline and not worse
    promoted = promote == "always" or (promote == "if-not-worse" and good_enough)
    folder = models.save(trained.card, trained.onnx)
    if promoted:
        models.promote(version)
    verdict = _verdict(trained.card, before, beats_baseline=beats_baseline, worse=worse, promoted=promoted)
    verdict += f" ({unfit}.)" if unfit else ""
    return {
        "version": version,
        "promoted": promoted,
        "good_enough": good_enough,
        "beats_baseline": beats_baseline,
        "worse": worse,
        "verdict": verdict,
        "metrics": columns,
        "model": str(folder),
        "report": str(_report(settings, trained, columns, verdict, split.holdout, label, good_enough=good_enough)),
        "seconds": round(time.monotonic() - start, 3),
    }


def _verdict(card: ModelCard, before: Model | None, *, beats_baseline: bool, worse: bool, promoted: bool) -> str:
    text = f"Log loss {card.metrics[DECIDES]:.4f}, baseline {card.baseline[DECIDES]:.4f}"
    if not beats_baseline:
        text += ": no better than always predicting the mean"
    if before is not None:
        text += f"; {'worse' if worse else 'not worse'} than the model served before"
    if card.left_out:
        text += f". Without {', '.join(card.left_out)}, of which no row to train from has a value"
    if beats_baseline and not worse:
        return f"{text}. {'It is served from now on.' if promoted else 'It is stored and not served, as asked.'}"
    if promoted:
        return f"{text}. It is served from now on all the same, as asked."
    still = "no model is served" if before is None else f"{before.card.version} is still served"
    again = f"python -m serving.train --service {card.service} --force"
    return f"{text}. It is stored and not served: {still}. To serve it all the same: {again}"


def _report(
    settings: ServingSettings,
    trained: Trained,
    columns: dict[str, dict[str, float]],
    verdict: str,
    holdout: pl.DataFrame,
    label: Label,
    *,
    good_enough: bool,
) -> Path:
    from serving.training_report import page  # noqa: PLC0415  (plots take a second to import)

    probability = trained.model.probabilities(trained.model.encoder.trained(holdout))
    truth = holdout[label.name].to_numpy()
    text = page(trained.card, columns, verdict, truth, probability, good_enough=good_enough)
    report = {"verdict": verdict, "metrics": columns, "card": msgspec.to_builtins(trained.card)}
    *_, file = write_report(settings.data_root / "reports", f"training-{trained.card.version}", report, text)
    return file


def _print(told: dict[str, Any]) -> None:
    table = Table("on the rows held out", *told["metrics"], title=f"model {told['version']}")
    for name in told["metrics"]["the model"]:
        table.add_row(name.replace("_", " "), *(f"{one[name]:.4f}" for one in told["metrics"].values()))
    console = Console()
    console.print(table)
    console.print(told["verdict"], style="green" if told["good_enough"] else "red", highlight=False, markup=False)
    for name in ("model", "report"):
        sys.stdout.write(f"{told[name]}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command("python -m serving.train", "Train the model of a feature service from its training set.")
    command.add_argument("--training-set", type=Path, help="Parquet (default: as batch.training_set writes it)")
    command.add_argument("--seed", type=integer(0, 2**31 - 1), default=1, help="seed of the classifier (%(default)s)")
    command.add_argument("--promote", choices=PROMOTE, default=PROMOTE[0], help="when to serve the model (%(default)s)")
    command.add_argument(
        "--force",
        action="store_const",
        dest="promote",
        const="always",
        help="serve the model even if it is not good enough",
    )
    add_service(command)
    command.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = command.parse_args(arguments)
    settings = settings_of(command, options)
    source = options.training_set or settings.data_root / "training" / f"{settings.service}.parquet"
    if not source.exists():
        command.error(f"{source} is not there: run python -m batch.training_set first")
    with command.telling(settings.data_root):
        try:
            with Console(stderr=True).status("training"):
                told = train_and_promote(settings, source, options.seed, options.promote)
        except pl.exceptions.PolarsError as error:
            command.error(f"{source} can't be read: {error}")
        except ImportError as error:
            command.error(f"{error.name} is not installed: pip install -e '.[train]'")
    if options.json:
        sys.stdout.write(json.dumps(told) + "\n")
    else:
        _print(told)
    return int(not told["good_enough"])


if __name__ == "__main__":
    sys.exit(main())
