"""Feature services: what a model reads, and what it predicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from feast_repo.declare.about import Owned
from feast_repo.declare.events import NAME
from feast_repo.declare.freshness import problem_of_freshness
from feast_repo.declare.rows import ROW_COLUMNS
from feast_repo.declare.views import WindowedView

if TYPE_CHECKING:
    from datetime import timedelta

    import polars as pl

    from feast_repo.declare.events import EventStream
    from feast_repo.declare.labels import Label
    from feast_repo.declare.stored import View


@dataclass(frozen=True)
class FeatureService(Owned):
    """The views that one model reads, and what it predicts.

    Training rows have one column per feature, so names are unique in a service. Without a label nothing can be learned:
    the service only serves features. `freshness`: how old a value of any of the views may be when it is read.
    """

    name: str
    views: tuple[View, ...]
    label: Label | None = None
    description: str = ""
    freshness: timedelta | None = None

    def __post_init__(self) -> None:
        """Refuse views whose columns would collide in a training row, and a label that has no events.

        Raises:
            ValueError: the name can't name a folder, two views have a feature of the same name, a feature is named
                like a join key, the label does not fit the views, or `freshness` could never be met by one of them.
        """
        for view in self.views:
            if problem := problem_of_freshness(self.freshness, view.least_freshness):
                message = f"service {self.name!r}, view {view.name!r}: {problem}"
                raise ValueError(message)
        if not NAME.fullmatch(self.name):
            message = f"service {self.name!r}: a name has letters, digits, '_' and '-' only, since it names folders"
            raise ValueError(message)
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
