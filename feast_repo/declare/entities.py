"""Entities: what features describe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from feast_repo.declare.about import Owned
from feast_repo.declare.rows import ROW_COLUMNS
from feast_repo.declare.values import POLARS_TYPES, ValueType

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

KEY_TYPES: tuple[ValueType, ...] = ("String", "Int64")


@dataclass(frozen=True)
class Entity(Owned):
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
