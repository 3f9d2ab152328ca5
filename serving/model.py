"""Trained models on disk and in memory.

`DATA_ROOT/models/<feature service>/<version>/` holds `model.onnx` and `model.json`, the model card; `current.json`
beside the versions names the served one. A stored version never changes.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import onnxruntime

from feast_repo.errors import RefusedError
from serving.features import FeatureEncoder, InputFeature

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from serving.messages import EntityFeatures

INPUT = "features"


class ModelError(RefusedError):
    """There is no model, or it can't be used; the message names the remedy."""


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """A model's metadata: its input features, its training data, and its quality on later rows.

    `label`: what it predicts, such as `purchased within 1 h`; cards of older versions don't say. `left_out`: declared
    features without values in the training rows, as view:feature.
    """

    version: str
    service: str
    label: str = ""
    features: tuple[InputFeature, ...]
    left_out: tuple[str, ...] = ()
    trained_at: str
    training_rows: int
    training_start: str
    training_end: str
    holdout_rows: int
    holdout_start: str
    holdout_end: str
    data_hash: str
    seed: int
    metrics: dict[str, float]
    baseline: dict[str, float]


class _Pointer(msgspec.Struct):
    version: str


class Model:
    """A model that predicts. Threads may share it."""

    def __init__(self, card: ModelCard, onnx: bytes) -> None:
        self.card, self.encoder = card, FeatureEncoder(card.features)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # a row takes microseconds, threads cost more
        try:
            self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's errors share no base class
            message = f"model {card.version} can't be loaded: {error}; train again: python -m serving.train"
            raise ModelError(message) from error
        self._outputs = [self._session.get_outputs()[1].name]

    def probabilities(self, matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The probability of the label for each row [n, features] -> [n]."""
        (both,) = self._session.run(self._outputs, {INPUT: matrix})
        # A 32-bit sum may exceed 1 by its last bit. (For one row np.clip takes three times as long.)
        column: npt.NDArray[np.float32] = np.minimum(np.maximum(both[:, 1], 0.0), 1.0)
        return column

    def predict(self, rows: Sequence[EntityFeatures]) -> list[float]:
        """The probability for each user, from the reader's rows."""
        probabilities: list[float] = self.probabilities(self.encoder.served(rows)).tolist()
        return probabilities


class ModelFolder:
    """The versions of one feature service's model."""

    def __init__(self, data_root: Path, service: str) -> None:
        self.path = data_root / "models" / service

    @property
    def current(self) -> str | None:
        """The served version; None if there is none.

        Raises:
            ModelError: the pointer can't be read.
        """
        file = self.path / "current.json"
        try:
            return msgspec.json.decode(file.read_bytes(), type=_Pointer).version
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            message = f"{file} can't be read: {error}; write it again: python -m serving.train"
            raise ModelError(message) from error

    def load(self, version: str | None = None) -> Model:
        """Load a version, or the served one.

        Raises:
            ModelError: the version doesn't exist, or its files can't be read.
        """
        version = version or self.current
        if version is None:
            message = "no model has been trained: run python -m batch.training_set, then python -m serving.train"
            raise ModelError(message)
        folder = self.path / version
        try:
            card = msgspec.json.decode((folder / "model.json").read_bytes(), type=ModelCard)
            return Model(card, (folder / "model.onnx").read_bytes())
        except (OSError, msgspec.MsgspecError) as error:
            message = f"model {version} can't be read: {error}; train again: python -m serving.train"
            raise ModelError(message) from error

    def save(self, card: ModelCard, onnx: bytes) -> Path:
        """Store a version atomically; returns its folder.

        Raises:
            OSError: the folder is not writable.
        """
        folder, temporary = self.path / card.version, self.path / f".{card.version}.{os.getpid()}.tmp"
        temporary.mkdir(parents=True)
        try:
            (temporary / "model.onnx").write_bytes(onnx)
            (temporary / "model.json").write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=1) + b"\n")
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return folder

    def promote(self, version: str) -> None:
        """Serve a version from now on; services pick it up at their next check.

        Raises:
            OSError: the folder is not writable.
        """
        temporary = self.path / f".current.{os.getpid()}.tmp"
        temporary.write_bytes(msgspec.json.encode(_Pointer(version)) + b"\n")
        temporary.replace(self.path / "current.json")
