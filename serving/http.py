"""The HTTP parts that the service needs on top of ASGI: bounded request bodies, and answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from serving.messages import ErrorBody, Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Scope = Mapping[str, Any]
    Receive = Callable[[], Awaitable[Mapping[str, Any]]]
    Send = Callable[[dict[str, Any]], Awaitable[None]]

JSON = b"application/json"
_encode = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """A response."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Refusal(Exception):  # noqa: N818  (an answer, not always an error of ours)
    """Ends a request with an error response."""

    def __init__(self, status: int, code: str, message: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(message)
        self.answer = Answer(status, _encode(ErrorBody(Problem(code, message))), JSON, headers)


class ClientGoneError(Exception):
    """The client has disconnected."""


def answer(status: int, body: Any) -> Answer:
    """A JSON response."""
    return Answer(status, _encode(body))


async def read_body(receive: Receive, most_bytes: int, timeout_s: float) -> bytes:
    """The whole body.

    Raises:
        Refusal: it is longer than `most_bytes`, or does not arrive in time.
        ClientGoneError: the client disconnected meanwhile.
    """
    parts, size = [], 0
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                part = message.get("body", b"")
                size += len(part)
                if size > most_bytes:
                    text = f"the body is longer than {most_bytes} bytes"
                    raise Refusal(413, "too_large", text, (b"connection", b"close"))
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        text = f"the body did not arrive within {timeout_s:g} s"
        raise Refusal(408, "too_slow", text, (b"connection", b"close")) from None


async def send_answer(send: Send, one: Answer, *, head_only: bool) -> None:
    """Send a response; for HEAD only its headers."""
    headers = [
        (b"content-type", one.content_type),
        (b"content-length", b"%d" % len(one.body)),
        (b"cache-control", b"no-store"),
        *one.headers,
    ]
    await send({"type": "http.response.start", "status": one.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head_only else one.body})
