"""Train the purchase model, and serve it if it is not worse than the one that is served.

    python -m batch.training_set && python -m serving.train

Both models are judged by the same rows: the last of the training set, which the new one has not seen. Exit 1 if the new
model is worse; it is stored all the same.
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

from batch.labels import LABEL, TIME
from batch.report_files import write_report
from feast_repo.commands import Command, integer
from serving.model import Model, ModelError, ModelFolder
from serving.settings import ServingSettings
from serving.training import TrainingError, file_hash, judged, split_by_time, train

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serving.training import Trained

DECIDES = "log_loss"
PROMOTE = ("if-not-worse", "always", "never")


def _served_before(models: ModelFolder, columns: Sequence[str]) -> tuple[Model | None, str | None]:
    """The model that is served, if it can be judged by rows with these columns; else why not."""
    try:
        if models.current is None:
            return None, None
        model = models.load()
    except ModelError as error:
        return None, str(error)
    if lacking := [one.name for one in model.card.features if one.name not in columns]:
        return None, f"the served model {model.card.version} reads {', '.join(lacking)}, which the training set lacks"
    return model, None


def train_and_promote(settings: ServingSettings, source: Path, seed: int, promote: str) -> dict[str, Any]:
    """All of it; returns what is told.

    Raises:
        TrainingError: the rows are not fit to train from.
        OSError: a file can't be read or written.
    """
    start = time.monotonic()
    rows, data_hash = pl.read_parquet(source), file_hash(source)
    declared = {name for view in settings.views for name in view.features}
    if lacking := sorted({LABEL, TIME, *declared} - set(rows.columns)):
        message = f"{source} lacks {', '.join(lacking)}: make it again, python -m batch.training_set"
        raise TrainingError(message)
    split = split_by_time(rows)
    models = ModelFolder(settings.data_root, settings.service)
    version = f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
    trained = train(settings.views, settings.service, split, data_hash, seed, version)
    before, unfit = _served_before(models, rows.columns)
    columns = {"the model": trained.card.metrics, "baseline": trained.card.baseline}
    if before is not None:
        columns[f"served before ({before.card.version})"] = before_metrics = judged(before, split.holdout)
    worse = before is not None and trained.card.metrics[DECIDES] > before_metrics[DECIDES]
    promoted = promote == "always" or (promote == "if-not-worse" and not worse)
    folder = models.save(trained.card, trained.onnx)
    if promoted:
        models.promote(version)
    verdict = _verdict(trained, before, worse=worse, promoted=promoted) + (f" ({unfit}.)" if unfit else "")
    return {
        "version": version,
        "promoted": promoted,
        "worse": worse,
        "verdict": verdict,
        "metrics": columns,
        "model": str(folder),
        "report": str(_report(settings, trained, columns, verdict, split.holdout)),
        "seconds": round(time.monotonic() - start, 3),
    }


def _verdict(trained: Trained, before: Model | None, *, worse: bool, promoted: bool) -> str:
    metrics, baseline = trained.card.metrics, trained.card.baseline
    text = f"Log loss {metrics[DECIDES]:.4f}, baseline {baseline[DECIDES]:.4f}"
    if metrics[DECIDES] >= baseline[DECIDES]:
        text += ": no better than always saying the mean"
    if before is not None:
        text += f"; {'worse' if worse else 'not worse'} than the model served before"
    if trained.card.left_out:
        text += f". Without {', '.join(trained.card.left_out)}, of which no row to train from has a value"
    return f"{text}. {'It is served from now on.' if promoted else 'It is stored and not served.'}"


def _report(
    settings: ServingSettings,
    trained: Trained,
    columns: dict[str, dict[str, float]],
    verdict: str,
    holdout: pl.DataFrame,
) -> Path:
    from serving.training_report import page  # noqa: PLC0415  (plots take a second to import)

    probability = trained.model.probabilities(trained.model.encoder.trained(holdout))
    text = page(trained.card, columns, verdict, holdout[LABEL].to_numpy(), probability)
    report = {"verdict": verdict, "metrics": columns, "card": msgspec.to_builtins(trained.card)}
    *_, file = write_report(settings.data_root / "reports", f"training-{trained.card.version}", report, text)
    return file


def _print(told: dict[str, Any]) -> None:
    table = Table("on the rows held out", *told["metrics"], title=f"model {told['version']}")
    for name in told["metrics"]["the model"]:
        table.add_row(name.replace("_", " "), *(f"{one[name]:.4f}" for one in told["metrics"].values()))
    console = Console()
    console.print(table)
    console.print(told["verdict"], style="red" if told["worse"] else "green", highlight=False)
    for name in ("model", "report"):
        console.print(told[name], soft_wrap=True, highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    command = Command("python -m serving.train", "Train the purchase model from the point-in-time training set.")
    command.add_argument("--training-set", type=Path, help="Parquet (default: as batch.training_set writes it)")
    command.add_argument("--seed", type=integer(0, 2**31 - 1), default=1, help="of the classifier (%(default)s)")
    command.add_argument("--promote", choices=PROMOTE, default=PROMOTE[0], help="serve the model (%(default)s)")
    command.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = command.parse_args(arguments)
    settings = command.settings(ServingSettings)
    source = options.training_set or settings.data_root / "training" / f"{settings.service}.parquet"
    if not source.exists():
        command.error(f"{source} is not there: run python -m batch.training_set first")
    try:
        with Console(stderr=True).status("training"):
            told = train_and_promote(settings, source, options.seed, options.promote)
    except (TrainingError, OSError) as error:
        command.error(str(error))
    except pl.exceptions.PolarsError as error:
        command.error(f"{source} can't be read: {error}")
    except ImportError as error:
        command.error(f"{error.name} is not installed: pip install -e '.[train]'")
    if options.json:
        sys.stdout.write(json.dumps(told) + "\n")
    else:
        _print(told)
    return int(told["worse"])


if __name__ == "__main__":
    sys.exit(main())
