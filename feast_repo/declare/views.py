"""Entities and feature views. The stream's and batch's computations, the Feast schema, the quality rules and the
columns monitored for drift all derive from one declaration; nothing here imports Feast.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import polars as pl

from feast_repo.declare.algebra import STATE_MARK, Aggregate, state_column
from feast_repo.declare.events import NAME, UTC_MICROSECONDS, milliseconds
from feast_repo.declare.plausible import Plausible, problem_of_pattern
from feast_repo.declare.values import POLARS_TYPES, Value, ValueType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from feast_repo.declare.algebra import Feature
    from feast_repo.declare.events import EventStream
    from feast_repo.declare.labels import Label
    from feast_repo.declare.vocabulary import Term, Vocabulary


EVENT_TIME, CREATED = "event_timestamp", "created_timestamp"
"""When a row becomes valid (for a window: its end), and when it could first have been known."""

SERVED = "served_timestamp"
"""The wall-clock time by which Redis had acknowledged the row: a fact of the run, null for rows that no stream pushed.
After a replay it may be too late, never too early."""

ROW_COLUMNS = (EVENT_TIME, CREATED, SERVED, "writer")
"""The columns of a stored row besides join keys and features."""

KEY_TYPES: tuple[ValueType, ...] = ("String", "Int64")


@dataclass(frozen=True)
class Entity:
    """What features describe, and the columns that identify it, by name, with their types (String or Int64).

    user = Entity(name="user", join_keys={"user_id": "String"})
    """

    name: str
    join_keys: Mapping[str, ValueType]
    description: str = ""

    def __post_init__(self) -> None:
        """Refuse an entity that nothing could be looked up by.

        Raises:
            ValueError: it has no join key, or one of another type.
        """
        if not self.join_keys:
            message = f"entity {self.name!r}: it needs a join key"
            raise ValueError(message)
        for name, value_type in self.join_keys.items():
            if value_type not in KEY_TYPES or name in ROW_COLUMNS:
                message = f"entity {self.name!r}: {name!r} of type {value_type} can't be a join key"
                raise ValueError(message)

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """The columns of the join keys, in declared order."""
        return {name: POLARS_TYPES[value_type] for name, value_type in self.join_keys.items()}


@dataclass(frozen=True)
class WindowedView:
    """Features over event-time windows, computed by the stream and recomputed by batch.

    A window of length `window` ends at each multiple of `slide`; the stream closes it as late as `source` allows. Rows
    carry the window's end as `event_timestamp` and are served for `ttl`. The entity's join keys are required fields of
    the source, and the message key is one of them, so all events of an entity are in one partition.
    """

    name: str
    entity: Entity
    source: EventStream
    push_source: str
    window: timedelta
    slide: timedelta
    ttl: timedelta
    features: Mapping[str, Feature]
    description: str = ""

    def __post_init__(self) -> None:
        """Refuse a declaration that could not be computed.

        Raises:
            ValueError: the window is not a multiple of the slide, a feature reads an unknown event field or compares
                one with a value that it never has, a ratio names a feature that isn't an aggregate of this view, or a
                name is taken.
        """
        if problem := self._problem_of_itself():
            message = f"view {self.name!r}: {problem}"
            raise ValueError(message)
        for name, feature in self.features.items():
            if name in {*self.join_keys, *ROW_COLUMNS} or STATE_MARK in name:
                message = f"view {self.name!r}: feature name {name!r} is reserved"
                raise ValueError(message)
            if problem := feature.problem(self.source, self.features):
                message = f"view {self.name!r}, feature {name!r}: {problem}"
                raise ValueError(message)

    def _problem_of_itself(self) -> str | None:
        if not NAME.fullmatch(self.name):
            return "a name has letters, digits, '_' and '-' only, since it names folders"
        if self.slide_ms <= 0 or self.window_ms % self.slide_ms or self.window_ms <= 0:
            return f"window {self.window} must be a positive multiple of slide {self.slide}"
        if self.source.key not in self.entity.join_keys:
            return (
                f"the message key {self.source.key!r} must be a join key of entity {self.entity.name!r}, which has "
                f"{list(self.entity.join_keys)}: events of one entity would be in several partitions"
            )
        for name, dtype in self.entity.schema.items():
            field = self.source.by_name.get(name)
            if field is None or field.dtype != dtype or not field.required:
                return (
                    f"join key {name!r} must be a required field of type {dtype} of event stream {self.source.name!r}"
                )
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
        return self.source.lateness_ms

    @property
    def join_keys(self) -> tuple[str, ...]:
        """The columns that identify an entity, in declared order."""
        return tuple(self.entity.join_keys)

    def closed_end_ms(self, watermark_ms: int | None) -> int | None:
        """The end of the last window that a watermark has closed, ms UTC; None for none, before the first record."""
        return None if watermark_ms is None else watermark_ms // self.slide_ms * self.slide_ms

    @property
    def panes_per_window(self) -> int:
        """How many panes a window is merged from."""
        return self.window_ms // self.slide_ms

    @cached_property
    def aggregates(self) -> dict[str, Aggregate]:
        """The features that hold state in panes."""
        return {name: feature for name, feature in self.features.items() if isinstance(feature, Aggregate)}

    @cached_property
    def derived(self) -> dict[str, Feature]:
        """The features without state, which are finished from the others."""
        return {name: feature for name, feature in self.features.items() if name not in self.aggregates}

    @cached_property
    def input_columns(self) -> tuple[str, ...]:
        """The event fields that the aggregates read, in declared order."""
        needed = frozenset[str]().union(*(aggregate.columns() for aggregate in self.aggregates.values()))
        return tuple(name for name in self.source.schema if name in needed)

    @property
    def value_types(self) -> dict[str, ValueType]:
        """Each feature's type, in declared order."""
        return {name: feature.value_type for name, feature in self.features.items()}

    @cached_property
    def state_types(self) -> dict[str, pl.DataType]:
        """The columns of the state of all aggregates."""
        return {
            state_column(name, part): dtype
            for name, aggregate in self.aggregates.items()
            for part, dtype in aggregate.state.items()
        }

    @cached_property
    def empty_state(self) -> dict[str, Value]:
        """The state of no events, by the columns of `state_types`."""
        return {
            state_column(name, part): aggregate.empty[part]
            for name, aggregate in self.aggregates.items()
            for part in aggregate.state
        }

    def lift(self, on: Vocabulary) -> list[Term]:
        """Events to states, inside a group by entity and pane."""
        return [
            term.alias(state_column(name, part))
            for name, aggregate in self.aggregates.items()
            for part, term in aggregate.lift(on).items()
        ]

    def merge(self, on: Vocabulary) -> list[Term]:
        """States to the state of their union, inside a group by entity."""
        return [
            term.alias(state_column(name, part))
            for name, aggregate in self.aggregates.items()
            for part, term in aggregate.merge(on, _state_columns(name, aggregate)).items()
        ]

    def finished(self, states: pl.DataFrame) -> pl.DataFrame:
        """States of windows to features, in any order; the columns that are no state stay as they are."""
        for expressions in self._finishing:
            states = states.with_columns(expressions) if expressions else states
        parts = self.state_types.keys() - self.features.keys()
        return states.drop(parts) if parts else states

    @cached_property
    def _finishing(self) -> tuple[list[pl.Expr], list[pl.Expr]]:
        """States to features, and those to derived features; a state that is the feature itself needs no expression."""
        of_states = {
            name: aggregate.finish(_state_columns(name, aggregate)) for name, aggregate in self.aggregates.items()
        }
        return (
            [
                one.alias(name)
                for name, one in of_states.items()
                if name not in self.state_types or not one.meta.is_column()
            ],
            [feature.finish({}).alias(name) for name, feature in self.derived.items()],
        )

    @cached_property
    def defaults(self) -> dict[str, Value]:
        """Each feature's value for an entity without events; serving and training use it for missing values, too."""
        nothing = {name: [value] for name, value in self.empty_state.items()}
        return self.finished(pl.DataFrame(nothing, schema=self.state_types)).select(*self.features).row(0, named=True)

    @cached_property
    def meaning(self) -> dict[str, Any]:
        """Everything that determines the meaning of stored state, for JSON: times, key, event roles and aggregates.

        Derived features are left out because they hold no state.
        """
        horizon = self.source.deduplication_horizon
        return {
            **({} if horizon is None else {"horizon_ms": milliseconds(horizon)}),
            "key": self.join_keys[0] if len(self.join_keys) == 1 else list(self.join_keys),
            "window_ms": self.window_ms,
            "slide_ms": self.slide_ms,
            "lateness_ms": self.lateness_ms,
            "deduplicate": self.source.event_id,
            "events": [self.source.name, self.source.time, self.source.kind, self.source.heartbeat],
            "aggregates": {name: aggregate.meaning for name, aggregate in self.aggregates.items()},
        }

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the meaning."""
        return hashlib.blake2b(json.dumps(self.meaning, sort_keys=True).encode(), digest_size=16).hexdigest()


def deduplication_horizon_ms(stream: EventStream, views: Sequence[WindowedView]) -> int | None:
    """How far the watermark may be past an event's time for a copy to be recognized; None if copies count.

    By default so far that no copy counts in any window: the longest window plus one slide.
    """
    if stream.event_id is None or not views:
        return None
    if stream.deduplication_horizon is not None:
        return milliseconds(stream.deduplication_horizon)
    return max(view.window_ms + view.slide_ms for view in views)


@dataclass(frozen=True)
class BatchFeature(Plausible):
    """A feature from a batch job: its type, and the default that serving and training use when it is missing."""

    value_type: ValueType
    default: Value = None
    description: str = ""


@dataclass(frozen=True)
class BatchView:
    """Features from a batch job, valid from the row's time for `ttl`.

    `key_patterns`: what the values of join keys look like as a whole, as in `Plausible`.
    """

    name: str
    entity: Entity
    ttl: timedelta
    features: Mapping[str, BatchFeature]
    key_patterns: Mapping[str, str] = field(default_factory=dict)
    description: str = ""

    def __post_init__(self) -> None:
        """Refuse a declaration that could not be stored or checked.

        Raises:
            ValueError: a name is taken or can't name a folder, or plausible values contradict a type or each other.
        """
        if not NAME.fullmatch(self.name):
            message = f"view {self.name!r}: a name has letters, digits, '_' and '-' only, since it names folders"
            raise ValueError(message)
        for name, feature in self.features.items():
            problem = (
                "the name is reserved"
                if name in {*self.join_keys, *ROW_COLUMNS}
                else feature.problem(feature.value_type)
            )
            if problem:
                message = f"view {self.name!r}, feature {name!r}: {problem}"
                raise ValueError(message)
        for name, pattern in self.key_patterns.items():
            is_text = self.entity.join_keys.get(name) == "String"
            if problem := problem_of_pattern(pattern) if is_text else "a pattern is for a join key of type String":
                message = f"view {self.name!r}, join key {name!r}: {problem}"
                raise ValueError(message)

    @property
    def join_keys(self) -> tuple[str, ...]:
        """The columns that identify an entity, in declared order."""
        return tuple(self.entity.join_keys)

    @property
    def value_types(self) -> dict[str, ValueType]:
        """Each feature's type, in declared order."""
        return {name: feature.value_type for name, feature in self.features.items()}

    @property
    def defaults(self) -> dict[str, Value]:
        """The values that serving and training use for missing ones."""
        return {name: feature.default for name, feature in self.features.items()}


View: TypeAlias = WindowedView | BatchView


def _state_columns(name: str, aggregate: Aggregate) -> dict[str, str]:
    return {part: state_column(name, part) for part in aggregate.state}


@dataclass(frozen=True)
class FeatureService:
    """The views that one model reads, and what it predicts.

    Training rows have one column per feature, so names are unique in a service. Without a label nothing can be learned:
    the service only serves features.
    """

    name: str
    views: tuple[View, ...]
    label: Label | None = None
    description: str = ""

    def __post_init__(self) -> None:
        """Refuse views whose columns would collide in a training row, and a label that has no events.

        Raises:
            ValueError: two views have a feature of the same name, a feature is named like a join key, or the label
                does not fit the views.
        """
        if self.label is not None and (problem := self._problem_of_label(self.label)):
            message = f"service {self.name!r}, label {self.label.name!r}: {problem}"
            raise ValueError(message)
        owner = {key: f"the join key of entity {view.entity.name!r}" for view in self.views for key in view.join_keys}
        for view in self.views:
            for name in view.value_types:
                if name in owner:
                    message = (
                        f"service {self.name!r}: feature {name!r} of view {view.name!r} has the name of {owner[name]}: "
                        "rename one of them"
                    )
                    raise ValueError(message)
            owner |= dict.fromkeys(view.value_types, f"a feature of view {view.name!r}")

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """The columns of the views' join keys."""
        return {name: dtype for view in self.views for name, dtype in view.entity.schema.items()}

    @property
    def windowed(self) -> tuple[WindowedView, ...]:
        """The views over windows of events."""
        return tuple(view for view in self.views if isinstance(view, WindowedView))

    @property
    def streams(self) -> tuple[EventStream, ...]:
        """The event streams that the views read."""
        return tuple({view.source.name: view.source for view in self.windowed}.values())

    @property
    def label_stream(self) -> EventStream | None:
        """The stream with the events that the label is about; None if it can't be told which."""
        if self.label is not None and self.label.stream is not None:
            return self.label.stream
        return self.streams[0] if len(self.streams) == 1 else None

    def _problem_of_label(self, label: Label) -> str | None:
        if (stream := self.label_stream) is None:
            return "name the event stream that it is about, with stream=..."
        if label.name in {*self.schema, *ROW_COLUMNS, *(name for view in self.views for name in view.value_types)}:
            return "a column has this name"
        if lacking := {name: dtype for name, dtype in self.schema.items() if stream.schema.get(name) != dtype}:
            return f"event stream {stream.name!r} has no fields for the join keys {list(lacking)}"
        return label.problem(stream)


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
