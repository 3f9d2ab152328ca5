"""The catalog: all event streams, entities, views and services of a feature repository.

Every command works over it. What a view or service names is part of it, so nothing is listed twice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from feast_repo.declare.batch_views import BatchView
from feast_repo.declare.freshness import stale_after_ms
from feast_repo.declare.views import WindowedView
from feast_repo.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import timedelta

    from feast_repo.declare.about import Owned
    from feast_repo.declare.entities import Entity
    from feast_repo.declare.events import EventStream
    from feast_repo.declare.labels import Label
    from feast_repo.declare.services import FeatureService
    from feast_repo.declare.stored import View

T = TypeVar("T")


class ChoiceError(RefusedError, LookupError):
    """A name is not in the catalog, or has to be given since there are several; the message lists them."""


@dataclass(frozen=True)
class Catalog:
    """All declarations. Views of services, sources of views and streams of labels belong to it without being listed.

    catalog = Catalog(services=(purchase_prediction,), views=(user_click_features_v2,))
    """

    services: tuple[FeatureService, ...] = ()
    views: tuple[View, ...] = ()
    streams: tuple[EventStream, ...] = ()

    def __post_init__(self) -> None:
        """Complete the views and streams, and refuse names that two declarations share.

        Raises:
            ValueError: two declarations of a kind have the same name, two streams the same topic, or a tag has a name
                that is derived.
        """
        views = _distinct([*(view for service in self.services for view in service.views), *self.views])
        windowed = [view for view in views if isinstance(view, WindowedView)]
        object.__setattr__(self, "views", tuple(views))
        labels = [service.label for service in self.services if service.label is not None]
        named = [label.stream for label in labels if label.stream is not None]
        streams = _distinct([*(view.source for view in windowed), *named, *self.streams])
        object.__setattr__(self, "streams", tuple(streams))
        for kind, names in {
            "services": [service.name for service in self.services],
            "views": [view.name for view in self.views],
            "entities": [entity.name for entity in self.entities],
            "event streams": [stream.name for stream in self.streams],
            "push sources": [view.push_source for view in windowed],
            "topics": [stream.topic for stream in self.streams],
        }.items():
            if twice := [name for name, count in Counter(names).items() if count > 1]:
                message = f"catalog: two different {kind} are named {twice[0]!r}"
                raise ValueError(message)

        for kind, declared in self._described():
            if problem := declared.problem_of_tags():
                message = f"catalog: {kind}: {problem}"
                raise ValueError(message)

        types: dict[str, str] = {}
        for entity in self.entities:
            for key, value_type in entity.join_keys.items():
                if types.setdefault(key, value_type) != value_type:
                    message = f"catalog: join key {key!r} has two types, {types[key]} and {value_type}"
                    raise ValueError(message)

    def _described(self) -> Iterator[tuple[str, Owned]]:
        """All declarations that may have tags, each with what it is called."""
        for view in self.views:
            yield f"view {view.name!r}", view
            yield from ((f"view {view.name!r}, feature {name!r}", one) for name, one in view.features.items())
        yield from ((f"entity {one.name!r}", one) for one in self.entities)
        yield from ((f"event stream {one.name!r}", one) for one in self.streams)
        yield from ((f"service {one.name!r}", one) for one in self.services)

    @cached_property
    def entities(self) -> tuple[Entity, ...]:
        """The views' entities."""
        return tuple(_distinct([view.entity for view in self.views]))

    @cached_property
    def windowed(self) -> tuple[WindowedView, ...]:
        """The views over windows of events."""
        return tuple(view for view in self.views if isinstance(view, WindowedView))

    @cached_property
    def batch(self) -> tuple[BatchView, ...]:
        """The views from batch jobs."""
        return tuple(view for view in self.views if isinstance(view, BatchView))

    def stream(self, name: str | None = None) -> EventStream:
        """The event stream of this name, or the only one.

        Raises:
            ChoiceError: there is none of this name, or several and no name.
        """
        return _chosen("event stream", "--stream", {one.name: one for one in self.streams}, name)

    def view(self, name: str | None = None) -> WindowedView:
        """The windowed view of this name, or the only one.

        Raises:
            ChoiceError: there is none of this name, or several and no name.
        """
        return _chosen("windowed view", "--view", {one.name: one for one in self.windowed}, name)

    def batch_view(self, name: str | None = None) -> BatchView:
        """The batch view of this name, or the only one.

        Raises:
            ChoiceError: there is none of this name, or several and no name.
        """
        return _chosen("batch view", "--view", {one.name: one for one in self.batch}, name)

    def some_views(self, name: str | None = None) -> tuple[View, ...]:
        """The view of this name, of any kind, or all views.

        Raises:
            ChoiceError: there is none of this name.
        """
        return self.views if name is None else (_chosen("view", "--view", {one.name: one for one in self.views}, name),)

    def service(self, name: str | None = None) -> FeatureService:
        """The service of this name, or the only one.

        Raises:
            ChoiceError: there is none of this name, or several and no name.
        """
        return _chosen("service", "--service", {one.name: one for one in self.services}, name)

    def views_of(self, stream: EventStream) -> tuple[WindowedView, ...]:
        """The views that read an event stream."""
        return tuple(view for view in self.windowed if view.source.name == stream.name)

    def stale_after_ms(self, view: View) -> int | None:
        """The age from which on a view's values are stale for some reader of it, in ms; None if they never are."""
        readers = [one for one in self.services if view.name in {read.name for read in one.views}]
        objectives = [one.freshness for one in readers if one.freshness is not None]
        return stale_after_ms(view, min(objectives, default=None))

    def deployed(self, topics: Mapping[str, str], allowed_lateness: timedelta | None) -> Catalog:
        """The catalog of a deployment: topics by the stream's name, and a lateness of all streams.

        Raises:
            ChoiceError: a topic is given for a stream that isn't declared.
            ValueError: two streams would have the same topic.
        """
        for name in topics:
            self.stream(name)
        streams = {
            one.name: replace(
                one,
                topic=topics.get(one.name, one.topic),
                allowed_lateness=one.allowed_lateness if allowed_lateness is None else allowed_lateness,
            )
            for one in self.streams
        }

        def moved(view: View) -> View:
            return replace(view, source=streams[view.source.name]) if isinstance(view, WindowedView) else view

        def labelled(label: Label | None) -> Label | None:
            named = None if label is None else label.stream
            return label if label is None or named is None else replace(label, stream=streams[named.name])

        services = tuple(
            replace(one, views=tuple(map(moved, one.views)), label=labelled(one.label)) for one in self.services
        )
        return Catalog(services, tuple(moved(view) for view in self.views), tuple(streams.values()))


def _distinct(declared: Iterable[T]) -> list[T]:
    """Equal declarations once, in order; they are not hashable."""
    kept: list[T] = []
    for one in declared:
        if one not in kept:
            kept.append(one)
    return kept


def _chosen(kind: str, option: str, named: Mapping[str, T], name: str | None) -> T:
    if name is None and len(named) == 1:
        return next(iter(named.values()))
    if name is not None and name in named:
        return named[name]
    if not named:
        message = f"no {kind} is declared"
        raise ChoiceError(message)
    problem = f"no {kind} is named {name!r}" if name is not None else f"which {kind}? name it with {option}"
    message = f"{problem}; declared: {', '.join(named)}"
    raise ChoiceError(message)
