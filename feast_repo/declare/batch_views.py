"""Views from batch jobs: the Feast schema, the quality rules and the columns monitored for drift derive from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from feast_repo.declare.about import Owned
from feast_repo.declare.events import NAME
from feast_repo.declare.freshness import problem_of_freshness
from feast_repo.declare.plausible import Plausible, problem_of_pattern, problem_of_publication
from feast_repo.declare.rows import ROW_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from feast_repo.declare.entities import Entity
    from feast_repo.declare.values import Value, ValueType


@dataclass(frozen=True)
class BatchFeature(Plausible, Owned):
    """A feature from a batch job: its type, and the default that serving and training use when it is missing."""

    value_type: ValueType
    default: Value = None
    description: str = ""


@dataclass(frozen=True)
class BatchView(Owned):
    """Features from a batch job, valid from the row's time for `ttl`.

    `key_patterns`: what the values of join keys look like as a whole, as in `Plausible`. `rows`: how many rows a
    publication has, at least and at most; None for no limit. `max_age`: how long ago its rows may have become valid
    when it is published. `freshness`: the same when a row is read.
    """

    name: str
    entity: Entity
    ttl: timedelta
    features: Mapping[str, BatchFeature]
    key_patterns: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    rows: tuple[int | None, int | None] = (None, None)
    max_age: timedelta | None = None
    freshness: timedelta | None = None

    def __post_init__(self) -> None:
        """Refuse a declaration that could not be stored or checked.

        Raises:
            ValueError: a name is taken or can't name a folder, plausible values contradict a type or each other, no
                publication could have so many `rows`, or `max_age` or `freshness` is not positive.
        """
        problem = problem_of_freshness(self.freshness, self.least_freshness)
        if problem := problem or problem_of_publication(self.rows, self.max_age):
            message = f"view {self.name!r}: {problem}"
            raise ValueError(message)
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
    def least_freshness(self) -> None:
        """No age of values follows from the declaration: a batch job runs whenever it does."""
        return

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
