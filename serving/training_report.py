"""The result of a training as one self-contained HTML page."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feast_repo.pages import render

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

BINS = 10
TEMPLATE = Path(__file__).with_name("training_report.html")


def page(
    card: Any,
    columns: Mapping[str, Mapping[str, float]],
    verdict: str,
    truth: npt.NDArray[np.bool_],
    probability: npt.NDArray[Any],
    *,
    good_enough: bool,
) -> str:
    """The page. `columns` are the metrics by model; `truth` and `probability` [rows] are of the holdout rows."""
    plot = _calibration(truth, probability)
    return render(TEMPLATE, card=card, columns=columns, verdict=verdict, good_enough=good_enough, plot=plot)


def _calibration(truth: npt.NDArray[np.bool_], probability: npt.NDArray[Any]) -> str:
    from matplotlib.figure import Figure  # noqa: PLC0415  (an extra, and slow to import)

    order = np.argsort(probability, kind="stable")
    bins = [part for part in np.array_split(order, BINS) if len(part)]
    predicted = [float(probability[part].mean()) for part in bins]
    observed = [float(truth[part].mean()) for part in bins]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    most = min(1.0, max(*predicted, *observed, 0.01) * 1.1)
    left.plot([0, most], [0, most], linestyle=":", color="#888")
    left.plot(predicted, observed, marker="o", color="#1f6feb")
    left.set_xlabel("predicted")
    left.set_ylabel("observed share")
    right.hist(probability, bins=40, color="#1f6feb")
    right.set_xlabel("predicted probability")
    right.set_ylabel("rows")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return base64.b64encode(buffer.getvalue()).decode()
