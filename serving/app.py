"""The HTTP service as a plain ASGI application: a framework would cost more than the whole answer."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import msgspec

from serving import metrics
from serving.access import HEADER
from serving.access_log import AccessLog
from serving.errors import NotReadyError, OnlineStoreError
from serving.http import Answer, ClientGoneError, Refusal, answer, read_body, send_answer
from serving.messages import MAX_ID_LENGTH, Alive
from serving.openapi import document

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from serving.http import Receive, Scope, Send
    from serving.service import Service

    Handler = Callable[[Scope, Receive], Awaitable[Answer]]

logger = logging.getLogger(__name__)

MOST_BYTES = 1 << 19
"""A thousand ids of 64 escaped characters fit into less."""
BODY_TIMEOUT_S = 10.0
FEATURES = "/v1/features/"
RETRY = (b"retry-after", b"1")
ENTITIES_A_REQUEST = 32


class App:
    """The ASGI application.

    `concurrency`: requests under /v1 that are answered concurrently; more are rejected. A request with many entities
    counts as one per started `ENTITIES_A_REQUEST`, which keeps the waiting time about the same.
    """

    def __init__(self, service: Service, *, concurrency: int, body_timeout_s: float = BODY_TIMEOUT_S) -> None:
        self._service, self._concurrency, self._body_timeout_s = service, concurrency, body_timeout_s
        self._in_flight = 0
        self._access_log = AccessLog()
        self._routes: dict[str, tuple[str, Handler]] = {
            "/v1/predictions": ("POST", self._predict),
            FEATURES: ("GET", self._features),
            "/healthz": ("GET", self._alive),
            "/readyz": ("GET", self._ready),
            "/metrics": ("GET", self._metrics),
            "/openapi.json": ("GET", self._openapi),
        }
        metrics.in_flight.set_function(lambda: self._in_flight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or handle the server's lifespan."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        start = time.perf_counter()
        method, path = scope["method"], scope["path"]
        route = FEATURES if path.startswith(FEATURES) else path
        try:
            one = await self._answer(route, method, scope, receive)
        except ClientGoneError:
            return
        except Refusal as refusal:
            one = refusal.answer
        except Exception:
            logger.exception("%s %s failed", method, route if route in self._routes else "?")
            one = Refusal(500, "internal", "an error of the service; its log has the details").answer
        await send_answer(send, one, head_only=method == "HEAD")
        seconds = time.perf_counter() - start
        route = route if route in self._routes else "other"
        metrics.requests.observe(seconds, route, str(one.status))
        self._access_log.write(method, route, one.status, seconds)

    async def _answer(self, route: str, method: str, scope: Scope, receive: Receive) -> Answer:
        known = self._routes.get(route)
        if known is None:
            raise Refusal(404, "not_found", "there is nothing here; /openapi.json tells what there is")
        allowed, handler = known
        if method != allowed and not (method == "HEAD" and allowed == "GET"):
            raise Refusal(405, "method_not_allowed", f"use {allowed}", (b"allow", allowed.encode()))
        return await handler(scope, receive)

    async def _predict(self, scope: Scope, receive: Receive) -> Answer:
        self._authorize(scope)
        body = await read_body(receive, MOST_BYTES, self._body_timeout_s)
        try:
            entities = self._service.requests.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Refusal(422, "invalid", _told(error)) from None
        return await self._bounded(self._service.predict(entities), len(entities))

    async def _features(self, scope: Scope, receive: Receive) -> Answer:
        del receive
        self._authorize(scope)
        schema = self._service.reader.schema
        if schema.user_key is None:
            message = f"an id alone is no entity here, whose join keys are {', '.join(schema.join_keys)}"
            raise Refusal(422, "invalid", message)
        try:  # in `path` the server has replaced invalid UTF-8, which would name another user
            user = unquote_to_bytes(scope["raw_path"]).decode()[len(FEATURES) :]
        except UnicodeDecodeError:
            user = ""
        if not 0 < len(user) <= MAX_ID_LENGTH:
            raise Refusal(422, "invalid", f"a user id has 1 to {MAX_ID_LENGTH} characters of UTF-8")
        return await self._bounded(self._one_user(user), 1)

    async def _one_user(self, user: str) -> Any:
        return (await self._service.features([user]))[0]

    async def _bounded(self, work: Awaitable[Any], entities: int) -> Answer:
        """Await a read from the online store, unless too many are running."""
        weight = -(-entities // ENTITIES_A_REQUEST)
        if self._in_flight and self._in_flight + weight > self._concurrency:
            work.close()  # type: ignore[attr-defined]  # a coroutine that never ran
            metrics.refused.inc()
            raise Refusal(503, "overloaded", "too many requests at once: try again later", RETRY)
        self._in_flight += weight
        try:
            return answer(200, await work)
        except OnlineStoreError as error:
            text = f"the online store does not answer: {error}"
            raise Refusal(503, "online_store_unavailable", text, RETRY) from error
        except NotReadyError as error:
            raise Refusal(503, "no_model", str(error), RETRY) from error
        finally:
            self._in_flight -= weight

    async def _alive(self, scope: Scope, receive: Receive) -> Answer:
        del scope, receive
        return answer(200, Alive())

    async def _ready(self, scope: Scope, receive: Receive) -> Answer:
        del scope, receive
        readiness = await self._service.readiness()
        return answer(200 if readiness.ready else 503, readiness)

    async def _metrics(self, scope: Scope, receive: Receive) -> Answer:
        del scope, receive
        return Answer(200, metrics.exposition(), metrics.CONTENT_TYPE.encode())

    async def _openapi(self, scope: Scope, receive: Receive) -> Answer:
        del scope, receive
        schema, requests = self._service.reader.schema, self._service.requests
        return answer(200, document(schema, requests, keys_required=self._service.keys.required))

    def _authorize(self, scope: Scope) -> None:
        keys = self._service.keys
        if keys.required and not keys.allow(next((value for name, value in scope["headers"] if name == HEADER), None)):
            message = "a valid key is needed in the header X-API-Key"
            raise Refusal(401, "unauthorized", message, (b"www-authenticate", b"ApiKey"))

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._service.start()
                self._access_log.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._service.stop()
                self._access_log.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return


def _told(error: Exception) -> str:
    """What is wrong with a body, without quoting any of it."""
    if isinstance(error, msgspec.ValidationError):
        return str(error)
    return f"the body is no JSON: {error}"
