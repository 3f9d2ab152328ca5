"""The service's requests and responses in JSON. The OpenAPI document is generated from these types."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType

MAX_ENTITIES = 1_000
MAX_ID_LENGTH = 64
"""Of a `user_id`: as declared for the shop's events, so a longer one can't have features."""
MAX_KEY_LENGTH = 1_024
"""Of a String in an entity, whatever its events declare."""

Status: TypeAlias = Literal["fresh", "stale", "expired", "missing"]
UserId: TypeAlias = Annotated[
    str, Meta(min_length=1, max_length=MAX_ID_LENGTH, description="Such as user_000001.", examples=["user_000001"])
]


Entity: TypeAlias = dict[str, str | int]
"""A value for each join key of the service: a String, or an Int64 as an integer."""
Asked: TypeAlias = str | Entity
"""An entity as it is asked for: a plain id, if the only join key is one String."""


class ViewRead(Struct, gc=False):
    """One view's features of one entity, and how far they can be trusted.

    `fresh`: the stored values. `stale`: also the stored values, but they are older than the freshness objective of view
    or service allows, or the progress of the stream that writes them is unknown. `expired`: the stored row is older
    than the view's time to live, so these are the declared defaults. `missing`: there is no row, so these are the
    defaults. A stored null also counts as missing, feature by feature.
    `age_seconds` is the age of the stored row: null if there is none, negative if the row's time is in the future.
    `stream_lag_seconds` is the time since the end of the last window that the stream has closed in all partitions; null
    if no stream writes the view, or its progress is unknown.
    """

    status: Status
    age_seconds: float | None
    stream_lag_seconds: float | None
    features: dict[str, Any]


class EntityFeatures(Struct, gc=False, kw_only=True):
    """An entity's features by view: named as it was asked for, by `user_id` or by `entity`."""

    user_id: str | UnsetType = UNSET
    entity: Entity | UnsetType = UNSET
    views: dict[str, ViewRead]


class FeatureRows(Struct, gc=False):
    """Features in the order of the request."""

    entities: list[EntityFeatures]


def features_of(asked: Asked, views: dict[str, ViewRead]) -> EntityFeatures:
    """An entity's features, named as it was asked for."""
    if isinstance(asked, str):
        return EntityFeatures(user_id=asked, views=views)
    return EntityFeatures(entity=asked, views=views)


class Prediction(Struct, gc=False, kw_only=True):
    """The probability that an entity has the label, and the features it is based on."""

    user_id: str | UnsetType = UNSET
    entity: Entity | UnsetType = UNSET
    probability: Annotated[float, Meta(ge=0, le=1)]
    views: dict[str, ViewRead]


def prediction_of(row: EntityFeatures, probability: float) -> Prediction:
    """A prediction from an entity's features, named like them."""
    return Prediction(user_id=row.user_id, entity=row.entity, probability=probability, views=row.views)


class Predictions(Struct, gc=False):
    """Predictions in the order of the request."""

    model_version: str
    predictions: list[Prediction]


class Problem(Struct, gc=False):
    """An error: a code for programs, a sentence for people."""

    code: str
    message: str


class ErrorBody(Struct, gc=False):
    """The body of every unsuccessful response."""

    error: Problem


class Alive(Struct, gc=False):
    """The process is running."""

    status: Literal["ok"] = "ok"


class Part(Struct, gc=False):
    """Whether a part that predictions need is available."""

    ok: bool
    detail: str


class Readiness(Struct, gc=False):
    """Whether predictions can be made, and what is missing if not.

    An unavailable registry does not make the service unready: it continues with the schema that it read before. Where
    several feature services are served, one of them with its model is enough, and the parts tell of each.
    """

    ready: bool
    redis: Part
    registry: Part
    model: Part
