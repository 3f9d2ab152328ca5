"""Feature view declarations. The stream's and batch's computations, the Feast schema, the quality rules and the columns
monitored for drift all derive from one declaration; nothing here imports Feast.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from feast_repo.declare.algebra import POLARS_TYPES, Aggregate, Count, Feature, Ratio, ValueType
from feast_repo.declare.events import UTC_MICROSECONDS
from feast_repo.declare.fields import Choice

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    import polars as pl

    from feast_repo.declare.events import EventDeclaration


@dataclass(frozen=True)
class Entity:
    """What features describe, and the column that identifies it."""

    name: str
    join_key: str
    description: str = ""


def milliseconds(duration: timedelta) -> int:
    """A duration as whole milliseconds."""
    return round(duration.total_seconds() * 1000)


@dataclass(frozen=True)
class WindowedView:
    """Features over event-time windows, computed by the stream and recomputed by batch.

    A window of length `window` ends at each multiple of `slide`; the stream closes it `allowed_lateness` of event time
    after its end. Rows carry the window's end as `event_timestamp` and are served for `ttl`. With `deduplicate`, a
    redelivered event (same id, time and partition) counts once; this costs 16 bytes of state per event.
    """

    name: str
    entity: Entity
    events: EventDeclaration
    push_source: str
    window: timedelta
    slide: timedelta
    allowed_lateness: timedelta
    ttl: timedelta
    features: Mapping[str, Feature]
    deduplicate: bool = False
    description: str = ""

    def __post_init__(self) -> None:
        """Refuse a declaration that could not be computed.

        Raises:
            ValueError: the window is not a multiple of the slide, a feature reads an unknown event field or compares
                one with a value that it never has, a ratio names a feature that isn't an aggregate of this view, or a
                name is taken.
        """
        if self.slide_ms <= 0 or self.window_ms % self.slide_ms or self.window_ms <= 0:
            message = f"view {self.name!r}: window {self.window} must be a positive multiple of slide {self.slide}"
            raise ValueError(message)
        if milliseconds(self.allowed_lateness) < 0:
            message = f"view {self.name!r}: allowed_lateness must not be negative"
            raise ValueError(message)
        if self.entity.join_key != self.events.key:
            message = f"view {self.name!r}: join key {self.entity.join_key!r} must be the event key {self.events.key!r}"
            raise ValueError(message)
        for name, feature in self.features.items():
            if name in {self.entity.join_key, *ROW_COLUMNS}:
                message = f"view {self.name!r}: feature name {name!r} is reserved"
                raise ValueError(message)
            problem = self._problem_of_ratio(feature) if isinstance(feature, Ratio) else self._problem_of(feature)
            if problem:
                message = f"view {self.name!r}, feature {name!r}: {problem}"
                raise ValueError(message)

    def _problem_of_ratio(self, ratio: Ratio) -> str | None:
        if unknown := {ratio.numerator, ratio.denominator} - self.aggregates.keys():
            return f"unknown aggregates {sorted(unknown)}; a ratio names two aggregates of the same view"
        return None

    def _problem_of(self, aggregate: Aggregate) -> str | None:
        schema = self.events.schema
        if unknown := aggregate.columns() - schema.keys():
            return f"unknown event fields {sorted(unknown)}; declared are {sorted(schema)}"
        if not isinstance(aggregate, Count) and not schema[aggregate.column].is_integer():
            return f"{type(aggregate).__name__} needs an integer field, and {aggregate.column!r} is none"
        for comparison in () if aggregate.where is None else aggregate.where.comparisons():
            if schema[comparison.column].is_integer() != isinstance(comparison.value, int):
                return f"{comparison}: the field is of type {schema[comparison.column]}"
            declared = self.events.by_name[comparison.column]
            if isinstance(declared, Choice) and comparison.value not in declared.values:
                return f"{comparison}: {comparison.column!r} never has that value; declared are {list(declared.values)}"
        return None

    @property
    def window_ms(self) -> int:
        """Length of a window."""
        return milliseconds(self.window)

    @property
    def slide_ms(self) -> int:
        """Distance between window ends, which is the length of a pane."""
        return milliseconds(self.slide)

    @property
    def lateness_ms(self) -> int:
        """How far the watermark lags behind the greatest event time."""
        return milliseconds(self.allowed_lateness)

    @property
    def panes_per_window(self) -> int:
        """How many panes a window is merged from."""
        return self.window_ms // self.slide_ms

    @cached_property
    def aggregates(self) -> dict[str, Aggregate]:
        """The features that hold state in panes."""
        return {name: feature for name, feature in self.features.items() if not isinstance(feature, Ratio)}

    @cached_property
    def ratios(self) -> dict[str, Ratio]:
        """The features derived from others when a window closes."""
        return {name: feature for name, feature in self.features.items() if isinstance(feature, Ratio)}

    @cached_property
    def input_columns(self) -> tuple[str, ...]:
        """The event fields that the aggregates read, in declared order."""
        needed = frozenset[str]().union(*(aggregate.columns() for aggregate in self.aggregates.values()))
        return tuple(name for name in self.events.schema if name in needed)

    @property
    def value_types(self) -> dict[str, ValueType]:
        """Each feature's type, in declared order."""
        return {name: feature.value_type for name, feature in self.features.items()}

    @property
    def defaults(self) -> dict[str, int | float | str | None]:
        """Each feature's value for a user without events; serving and training also use it for missing values."""
        return {name: feature.empty for name, feature in self.features.items()}

    def pane_expressions(self) -> list[pl.Expr]:
        """Events to panes, inside a group by user and pane."""
        return [aggregate.pane().alias(name) for name, aggregate in self.aggregates.items()]

    def merge_expressions(self) -> list[pl.Expr]:
        """Panes to a window (or to a larger pane), inside a group by user."""
        return [aggregate.merge(name).alias(name) for name, aggregate in self.aggregates.items()]

    def final_expressions(self) -> list[pl.Expr]:
        """Merged aggregates of a window to the features derived from them."""
        return [ratio.final().alias(name) for name, ratio in self.ratios.items()]

    @cached_property
    def meaning(self) -> dict[str, Any]:
        """Everything that determines the meaning of stored state, for JSON: times, key, event roles and aggregates.

        Ratios are left out because they hold no state.
        """
        return {
            "key": self.entity.join_key,
            "window_ms": self.window_ms,
            "slide_ms": self.slide_ms,
            "lateness_ms": self.lateness_ms,
            "deduplicate": self.events.event_id if self.deduplicate else None,
            "events": [self.events.name, self.events.time, self.events.kind, self.events.heartbeat],
            "aggregates": {
                name: [type(aggregate).__name__, asdict(aggregate)] for name, aggregate in self.aggregates.items()
            },
        }

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the meaning."""
        return hashlib.blake2b(json.dumps(self.meaning, sort_keys=True).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class BatchFeature:
    """A feature from a batch job: its type, and the default that serving and training use when it is missing."""

    value_type: ValueType
    default: int | float | str | None = None
    description: str = ""


@dataclass(frozen=True)
class BatchView:
    """Features from a batch job, valid from the row's time for `ttl`."""

    name: str
    entity: Entity
    ttl: timedelta
    features: Mapping[str, BatchFeature]
    description: str = ""

    @property
    def value_types(self) -> dict[str, ValueType]:
        """Each feature's type, in declared order."""
        return {name: feature.value_type for name, feature in self.features.items()}

    @property
    def defaults(self) -> dict[str, int | float | str | None]:
        """The values that serving and training use for missing ones."""
        return {name: feature.default for name, feature in self.features.items()}


@dataclass(frozen=True)
class FeatureServiceDeclaration:
    """The views that one model reads. Training rows have one column per feature, so names are unique in a service."""

    name: str
    views: tuple[WindowedView | BatchView, ...]
    description: str = ""

    def __post_init__(self) -> None:
        """Refuse views whose columns would collide in a training row.

        Raises:
            ValueError: two views have a feature of the same name, or a feature is named like a join key.
        """
        owner = {view.entity.join_key: f"the join key of entity {view.entity.name!r}" for view in self.views}
        for view in self.views:
            for name in view.value_types:
                if name in owner:
                    message = (
                        f"service {self.name!r}: feature {name!r} of view {view.name!r} has the name of {owner[name]}: "
                        "rename one of them"
                    )
                    raise ValueError(message)
            owner |= dict.fromkeys(view.value_types, f"a feature of view {view.name!r}")


EVENT_TIME, CREATED = "event_timestamp", "created_timestamp"
"""When a row becomes valid (for a window: its end), and when it could first have been known."""

SERVED = "served_timestamp"
"""The wall-clock time by which Redis had acknowledged the row: a fact of the run, null for rows that no stream pushed.
After a replay it may be too late, never too early."""

ROW_COLUMNS = (EVENT_TIME, CREATED, SERVED, "writer")
"""The columns of a stored row besides join key and features."""


def offline_columns(view: WindowedView | BatchView) -> dict[str, pl.DataType]:
    """Columns of the view's rows in the offline store, in stored order."""
    return {
        view.entity.join_key: POLARS_TYPES["String"],
        EVENT_TIME: UTC_MICROSECONDS,
        CREATED: UTC_MICROSECONDS,
        SERVED: UTC_MICROSECONDS,
        "writer": POLARS_TYPES["String"],
        **{name: POLARS_TYPES[value_type] for name, value_type in view.value_types.items()},
    }
