"""Requests for predictions, checked against the join keys of the service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from serving.messages import MAX_ENTITIES, MAX_KEY_LENGTH, UserId

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from serving.messages import Entity
    from serving.schema import ServedSchema

VALUES: Mapping[str, Any] = {
    "String": Annotated[str, Meta(max_length=MAX_KEY_LENGTH)],
    "Int64": Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)],
}
SEVERAL = Meta(min_length=1, max_length=MAX_ENTITIES)


class RequestFormat:
    """Decodes bodies: `{"entities": [{join key: value, ...}, ...]}`, or `{"user_ids": [...]}` for one String key."""

    def __init__(self, schema: ServedSchema) -> None:
        self._names, self._by_user = tuple(schema.join_keys), schema.user_key is not None
        # A join key's name may be anything, so the fields of the message have others.
        fields = {f"key_{number}": VALUES[kind] for number, kind in enumerate(schema.join_keys.values())}
        entity = msgspec.defstruct(
            "Entity",
            list(fields.items()),
            rename=dict(zip(fields, self._names, strict=True)),
            forbid_unknown_fields=True,
            gc=False,
        )
        entities: Any = Annotated[list[entity], SEVERAL]  # type: ignore[valid-type]
        users: Any = Annotated[list[UserId], SEVERAL]
        by_user = _message("UserRequest", ("user_ids", users))
        by_entity = _message("EntityRequest", ("entities", entities))
        self.forms: tuple[type, ...] = (by_user, by_entity) if self._by_user else (by_entity,)
        """The messages that a body may be."""
        # To decode one or the other, both are fields of one.
        either = _message(
            "PredictionRequest", ("user_ids", users | UnsetType, UNSET), ("entities", entities | UnsetType, UNSET)
        )
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(either if self._by_user else by_entity).decode

    def decode(self, body: bytes) -> list[str] | list[Entity]:
        """The entities of a body, as the reader takes them.

        Raises:
            msgspec.MsgspecError: the body is no such request; the message names the place, and quotes no value.
            UnicodeDecodeError: it is no UTF-8.
        """
        try:
            request = self._decode(body)
        except msgspec.ValidationError as error:
            if self._by_user or "`user_ids`" not in str(error):
                raise
            message = (
                f"`user_ids` is for one String join key, and here they are {', '.join(self._names)}: use `entities`"
            )
            raise msgspec.ValidationError(message) from None
        if self._by_user and (request.user_ids is UNSET) == (request.entities is UNSET):
            message = "Object needs one of the fields `user_ids` and `entities`"
            raise msgspec.ValidationError(message)
        if self._by_user and request.user_ids is not UNSET:
            users: list[str] = request.user_ids
            return users
        return [dict(zip(self._names, msgspec.structs.astuple(one), strict=True)) for one in request.entities]


def _message(name: str, *fields: Any) -> type:
    return msgspec.defstruct(name, fields, forbid_unknown_fields=True)
