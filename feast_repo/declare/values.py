"""The types of values: of features, join keys and state."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import polars as pl

ValueType: TypeAlias = Literal["Int64", "Float64", "String", "Bool", "List(Int64)", "List(String)"]
"""By the names that Polars and Feast share; Feast's `List(Int64)` is `Array(Int64)`, Polars' `Bool` is `Boolean`."""

Value: TypeAlias = Any
"""A plain value of one of these types, or None."""

POLARS_TYPES: dict[ValueType, pl.DataType] = {
    "Int64": pl.Int64(),
    "Float64": pl.Float64(),
    "String": pl.String(),
    "Bool": pl.Boolean(),
    "List(Int64)": pl.List(pl.Int64()),
    "List(String)": pl.List(pl.String()),
}
