"""Trains a model from a point-in-time training set and evaluates it on later rows.

The split is by time: the last part of the rows is held out, and rows with a label that reaches into it are left out of
both parts, because they would leak information. The classifier is scikit-learn's histogram gradient boosting, which
handles missing values; it is exported to ONNX and must give the same probabilities there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from batch.training.labels import label_of
from feast_repo.declare.rows import EVENT_TIME
from feast_repo.errors import RefusedError
from serving.features import FeatureEncoder, input_features
from serving.model import INPUT, Model, ModelCard

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from feast_repo.declare.labels import Label
    from feast_repo.declare.services import FeatureService

CHECKED_ON = {"scikit-learn": "1.9.1"}
"""The version whose private tree structures are used here."""
HOLDOUT = 0.2
LEAST_ROWS = 200
SAME = 1e-4
"""How far ONNX, which sums in 32 bits, may deviate from the classifier."""


class TrainingError(RefusedError):
    """The rows are not fit for training; the message says why."""


@dataclass(frozen=True)
class Split:
    """The training rows and the holdout rows, in time order."""

    train: pl.DataFrame
    holdout: pl.DataFrame


@dataclass(frozen=True)
class Trained:
    """A model that is not stored yet."""

    card: ModelCard
    onnx: bytes
    model: Model


def split_by_time(rows: pl.DataFrame, label: Label) -> Split:
    """Hold out the last fifth.

    Raises:
        TrainingError: too few rows, or only one label, on one side.
    """
    rows = rows.sort(EVENT_TIME)
    if len(rows) < LEAST_ROWS:
        message = f"{len(rows)} rows are too few to train from: let the stream run longer"
        raise TrainingError(message)
    first = rows[EVENT_TIME][int(len(rows) * (1 - HOLDOUT))]
    split = Split(rows.filter(pl.col(EVENT_TIME) < first - label.within), rows.filter(pl.col(EVENT_TIME) >= first))
    for name, part in (("to train from", split.train), ("held out", split.holdout)):
        if part[label.name].n_unique() < 2:  # noqa: PLR2004  (both labels)
            message = (
                f"of the rows {name} ({len(part)}, split at {first.isoformat()}) none is labelled differently from "
                "the others: take a training set over a longer time"
            )
            raise TrainingError(message)
    return split


def train(service: FeatureService, split: Split, data_hash: str, seed: int, version: str) -> Trained:
    """Fit, export, and evaluate on the holdout rows.

    A feature without values in the training rows is left out: nothing can be learned from it.

    Raises:
        NoLabelError: the service declares no label.
        TrainingError: no feature has a value, or the exported model gives other probabilities than the classifier.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415  (an extra, and slow to import)

    label, _ = label_of(service)
    features = input_features(service.views, split.train)
    if not features:
        message = f"none of the {len(split.train)} rows to train from has a value of any feature"
        raise TrainingError(message)
    read = {(one.view, one.name) for one in features}
    encoder = FeatureEncoder(features)
    matrix = encoder.trained(split.train)
    # scikit-learn refuses a column without values, such as a new feature; a constant column carries as little.
    matrix[:, np.isnan(matrix).all(axis=0)] = 0.0
    # Smaller steps than the usual 0.1, which overfit a few thousand rows and were worse than predicting the mean.
    classifier = HistGradientBoostingClassifier(
        learning_rate=0.05, max_iter=100, max_leaf_nodes=15, min_samples_leaf=50, random_state=seed
    )
    classifier.fit(matrix, split.train[label.name].cast(pl.Int8).to_numpy())
    _round_thresholds_down(classifier)
    onnx = _exported(classifier, len(features))
    held = encoder.trained(split.holdout)
    truth = split.holdout[label.name].to_numpy()
    base_rate = float(split.train[label.name].mean())  # type: ignore[arg-type]  # Boolean and not empty
    card = ModelCard(
        version=version,
        service=service.name,
        label=str(label),
        features=features,
        left_out=tuple(
            f"{view.name}:{name}" for view in service.views for name in view.features if (view.name, name) not in read
        ),
        trained_at=datetime.now(UTC).isoformat(timespec="seconds"),
        training_rows=len(split.train),
        training_start=split.train[EVENT_TIME][0].isoformat(),
        training_end=split.train[EVENT_TIME][-1].isoformat(),
        holdout_rows=len(split.holdout),
        holdout_start=split.holdout[EVENT_TIME][0].isoformat(),
        holdout_end=split.holdout[EVENT_TIME][-1].isoformat(),
        data_hash=data_hash,
        seed=seed,
        metrics=metrics(truth, classifier.predict_proba(held)[:, 1]),
        baseline=metrics(truth, np.full(len(truth), base_rate)),
    )
    model = Model(card, onnx)
    if (gap := np.abs(model.probabilities(held) - classifier.predict_proba(held)[:, 1]).max()) > SAME:
        message = f"the exported model differs from the classifier by {gap:.2g}: it is not stored"
        raise TrainingError(message)
    return Trained(card, onnx, model)


def _exported(classifier: Any, features: int) -> bytes:
    from skl2onnx import convert_sklearn  # noqa: PLC0415  (an extra, and slow to import)
    from skl2onnx.common._registration import get_converter, get_shape_calculator  # noqa: PLC0415
    from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415

    kind = type(classifier)
    name = f"Sklearn{kind.__name__}"

    def convert(scope: Any, operator: Any, container: Any) -> None:
        # skl2onnx 1.20 writes False for an ONNX number, which protobuf refuses as of version 7.34.
        add_node = container.add_node

        def add_numbers(*arguments: Any, **attributes: Any) -> None:
            for key in attributes.keys() & {"nodes_missing_value_tracks_true"}:
                attributes[key] = list(map(int, attributes[key]))
            add_node(*arguments, **attributes)

        container.add_node = add_numbers
        get_converter(name)(scope, operator, container)
        container.add_node = add_node

    exported: bytes = convert_sklearn(
        classifier,
        initial_types=[(INPUT, FloatTensorType([None, features]))],
        options={"zipmap": False},
        custom_conversion_functions={kind: convert},
        custom_shape_calculators={kind: get_shape_calculator(name)},
    ).SerializeToString()
    return exported


def _round_thresholds_down(classifier: Any) -> None:
    """Round the thresholds to 32-bit numbers, as in ONNX, that split 32-bit values as before.

    A threshold lies between two values. The nearest 32-bit number, which the export would use, can be the upper value,
    which would then go the wrong way.
    """
    for (tree,) in classifier._predictors:  # noqa: SLF001  (where the export finds them)
        exact = tree.nodes["num_threshold"]
        near = exact.astype(np.float32)
        tree.nodes["num_threshold"] = np.where(near > exact, np.nextafter(near, np.float32(-np.inf)), near)


def judged(model: Model, label: Label, holdout: pl.DataFrame) -> dict[str, float]:
    """A model's metrics on rows; a previously served model is evaluated on the same rows as its successor."""
    return metrics(holdout[label.name].to_numpy(), model.probabilities(model.encoder.trained(holdout)))


def metrics(truth: npt.NDArray[np.bool_], probability: npt.NDArray[Any]) -> dict[str, float]:
    """`log_loss` and `brier` (lower is better), `roc_auc` (0.5: no better than chance), and both means."""
    from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score  # noqa: PLC0415  (an extra, slow to import)

    scores = {
        "log_loss": log_loss(truth, probability),
        "brier": brier_score_loss(truth, probability),
        "roc_auc": roc_auc_score(truth, probability),
        "mean_predicted": probability.mean(),
        "mean_observed": truth.mean(),
    }
    return {name: round(float(score), 6) for name, score in scores.items()}


def file_hash(path: Path) -> str:
    """A hash of a file's content, as 16 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
