"""The HTTP service as a plain ASGI application: a framework would cost more than the whole answer."""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import msgspec

from serving import metrics
from serving.access import HEADER
from serving.access_log import AccessLog
from serving.errors import NotReadyError, OnlineStoreError
from serving.http import Answer, ClientGoneError, Refusal, answer, read_body, send_answer
from serving.messages import MAX_ID_LENGTH, Alive, FeatureRows
from serving.openapi import document
from serving.services import UnknownServiceError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from serving.http import Receive, Scope, Send
    from serving.messages import Asked
    from serving.service import Service
    from serving.services import Services

    Handler = Callable[[Scope, Receive], Awaitable[Answer]]

logger = logging.getLogger(__name__)

MOST_BYTES = 1 << 19
"""A thousand ids of 64 escaped characters fit into less."""
BODY_TIMEOUT_S = 10.0
FEATURES = "/v1/features/"
INT64 = re.compile(r"-?[0-9]{1,19}")
RETRY = (b"retry-after", b"1")
ENTITIES_A_REQUEST = 32


class App:
    """The ASGI application.

    `concurrency`: requests under /v1 that are answered concurrently; more are rejected. A request with many entities
    counts as one per started `ENTITIES_A_REQUEST`, which keeps the waiting time about the same.
    """

    def __init__(self, services: Services, *, concurrency: int, body_timeout_s: float = BODY_TIMEOUT_S) -> None:
        self._services, self._concurrency, self._body_timeout_s = services, concurrency, body_timeout_s
        self._in_flight = 0
        self._access_log = AccessLog()
        self._routes: dict[str, tuple[str, Handler]] = {
            "/v1/predictions": ("POST", self._predict),
            "/v1/features": ("POST", self._features),
            FEATURES: ("GET", self._features_of_one),
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
        service, entities = await self._asked(scope, receive)
        if not service.predicts:
            raise Refusal(422, "invalid", f"{service.model_part.detail}: POST /v1/features gives them")
        return await self._bounded(service.predict(entities), len(entities))

    async def _features(self, scope: Scope, receive: Receive) -> Answer:
        service, entities = await self._asked(scope, receive)

        async def rows() -> FeatureRows:
            return FeatureRows(await service.features(entities))

        return await self._bounded(rows(), len(entities))

    async def _asked(self, scope: Scope, receive: Receive) -> tuple[Service, list[Asked]]:
        self._authorize(scope)
        body = await read_body(receive, MOST_BYTES, self._body_timeout_s)
        try:
            return self._services.asked(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, UnknownServiceError) as error:
            raise Refusal(422, "invalid", _told(error)) from None

    async def _features_of_one(self, scope: Scope, receive: Receive) -> Answer:
        del receive
        self._authorize(scope)
        try:  # in `path` the server has replaced invalid UTF-8, which would name another entity
            given = unquote_to_bytes(scope["raw_path"]).decode()[len(FEATURES) :]
        except UnicodeDecodeError:
            given = ""
        service, given = self._service_in_path(given)
        schema = service.reader.schema
        if (key := schema.only_key) is None:
            message = f"an id alone is no entity here, whose join keys are {', '.join(schema.join_keys)}"
            raise Refusal(422, "invalid", message)
        entity: Asked = given
        if schema.user_key is None:
            if not INT64.fullmatch(given) or not -(1 << 63) <= int(given) < 1 << 63:
                raise Refusal(422, "invalid", f"{key} is an integer of 64 bits")
            entity = {key: int(given)}
        elif not 0 < len(given) <= MAX_ID_LENGTH:
            raise Refusal(422, "invalid", f"{key} has 1 to {MAX_ID_LENGTH} characters of UTF-8")

        async def row() -> Any:
            return (await service.features([entity]))[0]

        return await self._bounded(row(), 1)

    def _service_in_path(self, given: str) -> tuple[Service, str]:
        """The service and what follows its name, which the path has if there are several."""
        if len(self._services.by_name) == 1:
            return self._services.named(None), given
        name, _, entity = given.partition("/")
        try:
            return self._services.named(name), entity
        except UnknownServiceError as error:
            raise Refusal(422, "invalid", str(error)) from None

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
        readiness = await self._services.readiness()
        return answer(200 if readiness.ready else 503, readiness)

    async def _metrics(self, scope: Scope, receive: Receive) -> Answer:
        del scope, receive
        return Answer(200, metrics.exposition(), metrics.CONTENT_TYPE.encode())

    async def _openapi(self, scope: Scope, receive: Receive) -> Answer:
        del scope, receive
        return answer(200, document(list(self._services.by_name.values()), keys_required=self._services.keys.required))

    def _authorize(self, scope: Scope) -> None:
        keys = self._services.keys
        if keys.required and not keys.allow(next((value for name, value in scope["headers"] if name == HEADER), None)):
            message = "a valid key is needed in the header X-API-Key"
            raise Refusal(401, "unauthorized", message, (b"www-authenticate", b"ApiKey"))

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._services.start()
                self._access_log.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._services.stop()
                self._access_log.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return


def _told(error: Exception) -> str:
    """What is wrong with a body, without quoting any of it."""
    if isinstance(error, msgspec.ValidationError | UnknownServiceError):
        return str(error)
    return f"the body is no JSON: {error}"
