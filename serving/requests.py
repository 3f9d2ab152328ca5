"""Requests for features and predictions, checked against the join keys of the service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from serving.messages import MAX_ENTITIES, MAX_KEY_LENGTH, UserId

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from serving.messages import Asked
    from serving.schema import ServedSchema

VALUES: Mapping[str, Any] = {
    "String": Annotated[str, Meta(max_length=MAX_KEY_LENGTH)],
    "Int64": Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)],
}
SEVERAL = Meta(min_length=1, max_length=MAX_ENTITIES)


class RequestFormat:
    """Decodes bodies: `{"entities": [{join key: value, ...}, ...]}`, or `{"user_ids": [...]}` for one String key.

    Each may name its `service`; `beside_others`: it has to.
    """

    def __init__(self, schema: ServedSchema, *, beside_others: bool = False) -> None:
        self._names, self._by_user = tuple(schema.join_keys), schema.user_key is not None
        end = f"_{schema.service}" if beside_others else ""  # the messages of all services are in one document
        # A join key's name may be anything, so the fields of the message have others.
        fields = {f"key_{number}": VALUES[kind] for number, kind in enumerate(schema.join_keys.values())}
        entity = msgspec.defstruct(
            f"Entity{end}",
            list(fields.items()),
            rename=dict(zip(fields, self._names, strict=True)),
            forbid_unknown_fields=True,
            gc=False,
        )
        name = Literal[schema.service]  # type: ignore[name-defined]
        service: tuple[Any, ...] = ("service", name) if beside_others else ("service", name | UnsetType, UNSET)
        entities: Any = Annotated[list[entity], SEVERAL]  # type: ignore[valid-type]
        users: Any = Annotated[list[UserId], SEVERAL]
        by_user = _message(f"UserRequest{end}", ("user_ids", users), service)
        by_entity = _message(f"EntityRequest{end}", ("entities", entities), service)
        self.forms: tuple[type, ...] = (by_user, by_entity) if self._by_user else (by_entity,)
        """The messages that a body may be."""
        # To decode one or the other, both are fields of one.
        either = _message(
            "Request", ("user_ids", users | UnsetType, UNSET), ("entities", entities | UnsetType, UNSET), service
        )
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(either if self._by_user else by_entity).decode

    def decode(self, body: bytes) -> list[Asked]:
        """The entities of a body, as the reader takes them.

        Raises:
            msgspec.MsgspecError: the body is no such request; the message names the place, and quotes no value.
            UnicodeDecodeError: it is no UTF-8.
        """
        try:
            request = self._decode(body)
        except msgspec.ValidationError as error:
            if "`$.service`" in str(error):
                message = "there is no such service here - at `$.service`"
            elif not self._by_user and "`user_ids`" in str(error):
                names = ", ".join(self._names)
                message = f"`user_ids` is for one String join key, and here they are {names}: use `entities`"
            else:
                raise
            raise msgspec.ValidationError(message) from None
        if self._by_user and (request.user_ids is UNSET) == (request.entities is UNSET):
            message = "Object needs one of the fields `user_ids` and `entities`"
            raise msgspec.ValidationError(message)
        if self._by_user and request.user_ids is not UNSET:
            users: list[Asked] = request.user_ids
            return users
        return [dict(zip(self._names, msgspec.structs.astuple(one), strict=True)) for one in request.entities]


def _message(name: str, *fields: Any) -> type:
    return msgspec.defstruct(name, sorted(fields, key=len), forbid_unknown_fields=True)  # optional ones last
