"""What the service takes and gives, as JSON has it. The OpenAPI document is made from these types."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct

MAX_USERS = 1_000
MAX_ID_LENGTH = 64
"""As the events declare it: a longer id can have no features."""

Status: TypeAlias = Literal["fresh", "stale", "expired", "missing"]
UserId: TypeAlias = Annotated[
    str, Meta(min_length=1, max_length=MAX_ID_LENGTH, description="Such as user_000001.", examples=["user_000001"])
]


class PredictionRequest(Struct, forbid_unknown_fields=True):
    """Whom to predict for."""

    user_ids: Annotated[list[UserId], Meta(min_length=1, max_length=MAX_USERS)]


class ViewRead(Struct, gc=False):
    """One view's features of one user, and how far they can be trusted.

    `fresh`: the stored values. `stale`: the stored values too, but the stream that makes them is behind, or it is not
    known how far it is. `expired`: the stored row is older than the view's time to live, so these are the declared
    defaults. `missing`: there is no row; the defaults. A stored null counts as missing too, feature by feature.
    `age_seconds` is the age of the stored row, null if there is none; it is negative when the row's time lies ahead.
    `stream_lag_seconds` tells how long ago the last window ended that the stream has closed in all its partitions;
    null where no stream writes the view, or nothing is known of it.
    """

    status: Status
    age_seconds: float | None
    stream_lag_seconds: float | None
    features: dict[str, Any]


class UserFeatures(Struct, gc=False):
    """A user's features by view."""

    user_id: str
    views: dict[str, ViewRead]


class Prediction(Struct, gc=False):
    """The probability that a user buys within the next hour, and the features that it comes from."""

    user_id: str
    probability: Annotated[float, Meta(ge=0, le=1)]
    views: dict[str, ViewRead]


class Predictions(Struct, gc=False):
    """Predictions in the order of the request."""

    model_version: str
    predictions: list[Prediction]


class Problem(Struct, gc=False):
    """What went wrong: a code for programs, a sentence for people."""

    code: str
    message: str


class ErrorBody(Struct, gc=False):
    """Every answer that is not a success."""

    error: Problem


class Alive(Struct, gc=False):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Part(Struct, gc=False):
    """Whether a part that predictions need is there."""

    ok: bool
    detail: str


class Readiness(Struct, gc=False):
    """Whether predictions can be made, and what is missing if not.

    A registry that is away does not make the service unready: it goes on with the schema that it has read before.
    """

    ready: bool
    redis: Part
    registry: Part
    model: Part
