"""The rows of any view as the offline store has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from feast_repo.declare.batch_views import BatchView
from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.declare.rows import CREATED, EVENT_TIME, SERVED
from feast_repo.declare.values import POLARS_TYPES
from feast_repo.declare.views import WindowedView

if TYPE_CHECKING:
    import polars as pl

View: TypeAlias = WindowedView | BatchView


def offline_columns(view: View) -> dict[str, pl.DataType]:
    """Columns of the view's rows in the offline store, in stored order."""
    return {
        **view.entity.schema,
        EVENT_TIME: UTC_MICROSECONDS,
        CREATED: UTC_MICROSECONDS,
        SERVED: UTC_MICROSECONDS,
        "writer": POLARS_TYPES["String"],
        **{name: POLARS_TYPES[value_type] for name, value_type in view.value_types.items()},
    }
