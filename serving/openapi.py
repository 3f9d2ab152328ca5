"""The service's OpenAPI document, generated from the messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from serving.messages import (
    MAX_ID_LENGTH,
    Alive,
    EntityFeatures,
    ErrorBody,
    Predictions,
    Readiness,
)

if TYPE_CHECKING:
    from serving.requests import RequestFormat
    from serving.schema import ServedSchema

REFERENCE = "#/components/schemas/{name}"
ERRORS = {
    "401": "The key is missing or wrong.",
    "405": "Another method is meant.",
    "408": "The body took too long.",
    "413": "The body is too long.",
    "422": "The request is not valid; the message says where.",
    "503": "Too much to do, no model, or the online store is away; try again later.",
}


def document(schema: ServedSchema, requests: RequestFormat, *, keys_required: bool) -> dict[str, Any]:
    """The document, for JSON; `keys_required`: whether /v1 requires a key."""
    messages = [*requests.forms, Predictions, EntityFeatures, ErrorBody, Alive, Readiness]
    _, schemas = msgspec.json.schema_components(messages, ref_template=REFERENCE)
    security: list[dict[str, list[str]]] = [{"key": []}] if keys_required else []
    user_id = {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH}
    features = {
        "/v1/features/{user_id}": {
            "get": {
                "operationId": "features",
                "summary": "The features of one user",
                "security": security,
                "parameters": [{"name": "user_id", "in": "path", "required": True, "schema": user_id}],
                "responses": {"200": _answers("Features.", EntityFeatures), **_errors("401", "405", "422", "503")},
            }
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ML Feature Store: purchase predictions",
            "version": "1",
            "description": "How likely users buy within the next hour, from their features in the online store.",
        },
        "paths": {
            "/v1/predictions": {
                "post": {
                    "operationId": "predict",
                    "summary": "Predict for 1 to 1000 entities",
                    "security": security,
                    "requestBody": {"required": True, "content": _content(*requests.forms)},
                    "responses": {"200": _answers("Predictions.", Predictions), **_errors(*ERRORS)},
                }
            },
            **({} if schema.user_key is None else features),
            "/healthz": {
                "get": {
                    "operationId": "alive",
                    "summary": "Whether the process answers",
                    "responses": {"200": _answers("It does.", Alive), **_errors("405")},
                }
            },
            "/readyz": {
                "get": {
                    "operationId": "ready",
                    "summary": "Whether predictions can be made",
                    "responses": {
                        "200": _answers("They can.", Readiness),
                        "503": _answers("They can't.", Readiness),
                        **_errors("405"),
                    },
                }
            },
            "/metrics": {
                "get": {
                    "operationId": "metrics",
                    "summary": "Figures for Prometheus",
                    "responses": {
                        "200": {"description": "Figures.", "content": {"text/plain": {"schema": {"type": "string"}}}},
                        **_errors("405"),
                    },
                }
            },
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}},
        },
    }


def _content(*messages: type) -> dict[str, Any]:
    schemas = [{"$ref": REFERENCE.format(name=message.__name__)} for message in messages]
    return {"application/json": {"schema": schemas[0] if len(schemas) == 1 else {"oneOf": schemas}}}


def _answers(description: str, message: type) -> dict[str, Any]:
    return {"description": description, "content": _content(message)}


def _errors(*statuses: str) -> dict[str, Any]:
    return {status: _answers(ERRORS[status], ErrorBody) for status in statuses}
