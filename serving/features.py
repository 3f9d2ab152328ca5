"""Encodes features for a model: float32 [rows, features], identical for served rows and training sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from feast_repo.declare.batch_views import BatchView
    from feast_repo.declare.views import WindowedView
    from serving.messages import EntityFeatures
    from serving.schema import ServedSchema

UNKNOWN_CATEGORY = -1.0
MISSING = float("nan")


class InputFeature(Struct, frozen=True):
    """One column of the matrix. `categories` of a String feature are numbered in this order."""

    view: str
    name: str
    type: str
    categories: tuple[str, ...] | None = None


def input_features(views: Iterable[WindowedView | BatchView], rows: pl.DataFrame) -> tuple[InputFeature, ...]:
    """The declared features with values in a training set, with their categories, most common first."""
    return tuple(
        InputFeature(view.name, name, value_type, _categories(rows[name]) if value_type == "String" else None)
        for view in views
        for name, value_type in view.value_types.items()
        if rows[name].null_count() < len(rows)
    )


def _categories(column: pl.Series) -> tuple[str, ...]:
    counts = column.drop_nulls().value_counts().sort("count", column.name, descending=[True, False])
    return tuple(counts[column.name])


class FeatureEncoder:
    """Encodes rows as matrices. A category that training did not see is -1, null is NaN."""

    def __init__(self, features: Sequence[InputFeature]) -> None:
        self.features = tuple(features)
        self._columns = [
            (one.view, one.name, None if one.categories is None else {name: i for i, name in enumerate(one.categories)})
            for one in self.features
        ]

    def served(self, rows: Iterable[EntityFeatures]) -> npt.NDArray[np.float32]:
        """Encode rows from the reader."""
        flat: list[Any] = []
        for row in rows:
            views = row.views
            for view, name, numbers in self._columns:
                value = views[view].features[name]
                if value is None:
                    value = MISSING
                elif numbers is not None:
                    value = numbers.get(value, UNKNOWN_CATEGORY)
                flat.append(value)
        return np.array(flat, np.float32).reshape(-1, len(self._columns))

    def trained(self, rows: pl.DataFrame) -> npt.NDArray[np.float32]:
        """Encode rows of a training set."""
        matrix = np.empty((len(rows), len(self._columns)), np.float32)
        for place, (_, name, numbers) in enumerate(self._columns):
            column = rows[name]
            if numbers is not None:
                known = pl.Series(list(numbers), dtype=pl.String), pl.Series(list(numbers.values()), dtype=pl.Float64)
                unknown = pl.when(column.is_null()).then(None).otherwise(UNKNOWN_CATEGORY)
                column = rows.select(pl.col(name).replace_strict(*known, default=unknown))[name]
            matrix[:, place] = column.cast(pl.Float64).fill_null(MISSING).to_numpy()
        return matrix


def misfit(features: Iterable[InputFeature], schema: ServedSchema) -> str | None:
    """Why the registry's schema doesn't provide these features; None if it does."""
    types = {(view.name, name): value_type for view in schema.views for name, value_type in view.types.items()}
    for one in features:
        served = types.get((one.view, one.name))
        if served is None:
            return f"the model reads {one.view}:{one.name}, which feature service {schema.service!r} does not have"
        if served != one.type:
            return f"the model reads {one.view}:{one.name} as {one.type}, and the registry has {served}"
    return None
