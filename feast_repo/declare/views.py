"""Windowed views: stream, batch, Feast's schema and the columns monitored for drift derive from one declaration."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from feast_repo.declare.about import Owned
from feast_repo.declare.algebra import STATE_MARK, Aggregate, state_column
from feast_repo.declare.events import NAME, milliseconds
from feast_repo.declare.freshness import problem_of_freshness
from feast_repo.declare.rows import ROW_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from feast_repo.declare.algebra import Feature
    from feast_repo.declare.entities import Entity
    from feast_repo.declare.events import EventStream
    from feast_repo.declare.values import Value, ValueType
    from feast_repo.declare.vocabulary import Term, Vocabulary


@dataclass(frozen=True)
class WindowedView(Owned):
    """Features over event-time windows, computed by the stream and recomputed by batch.

    A window of length `window` ends at each multiple of `slide`; the stream closes it as late as `source` allows. Rows
    carry the window's end as `event_timestamp` and are served for `ttl`. The entity's join keys are required fields of
    the source, and the message key is one of them, so all events of an entity are in one partition.

    `freshness`: how long ago the last closed window may have ended when a value is read. It means nothing for state.
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
    freshness: timedelta | None = None

    def __post_init__(self) -> None:
        """Refuse a declaration that could not be computed.

        Raises:
            ValueError: the window is not a multiple of the slide, a feature reads an unknown event field or compares
                one with a value that it never has, a ratio names a feature that isn't an aggregate of this view, a
                name is taken, or `freshness` could never be met.
        """
        if problem := self._problem_of_itself():
            message = f"view {self.name!r}: {problem}"
            raise ValueError(message)
        bound = {name: feature.bound(self.source) for name, feature in self.features.items()}
        object.__setattr__(self, "features", bound)
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
        return problem_of_freshness(self.freshness, self.least_freshness)

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
    def least_freshness(self) -> timedelta:
        """The least age that values have just before the next window closes."""
        return self.slide + self.source.allowed_lateness

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


def _state_columns(name: str, aggregate: Aggregate) -> dict[str, str]:
    return {part: state_column(name, part) for part in aggregate.state}
