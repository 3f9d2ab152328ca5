"""The service's OpenAPI document, generated from the messages."""

from __future__ import annotations

from typing import Any

import msgspec

from serving.messages import (
    MAX_ID_LENGTH,
    Alive,
    ErrorBody,
    PredictionRequest,
    Predictions,
    Readiness,
    UserFeatures,
)

REFERENCE = "#/components/schemas/{name}"
ERRORS = {
    "401": "The key is missing or wrong.",
    "405": "Another method is meant.",
    "408": "The body took too long.",
    "413": "The body is too long.",
    "422": "The request is not valid; the message says where.",
    "503": "Too much to do, no model, or the online store is away; try again later.",
}


def document(*, keys_required: bool) -> dict[str, Any]:
    """The document, for JSON; `keys_required`: whether /v1 requires a key."""
    messages = [PredictionRequest, Predictions, UserFeatures, ErrorBody, Alive, Readiness]
    _, schemas = msgspec.json.schema_components(messages, ref_template=REFERENCE)
    security: list[dict[str, list[str]]] = [{"key": []}] if keys_required else []
    user_id = {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH}
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
                    "summary": "Predict for 1 to 1000 users",
                    "security": security,
                    "requestBody": {"required": True, "content": _content(PredictionRequest)},
                    "responses": {"200": _answers("Predictions.", Predictions), **_errors(*ERRORS)},
                }
            },
            "/v1/features/{user_id}": {
                "get": {
                    "operationId": "features",
                    "summary": "The features of one user",
                    "security": security,
                    "parameters": [{"name": "user_id", "in": "path", "required": True, "schema": user_id}],
                    "responses": {"200": _answers("Features.", UserFeatures), **_errors("401", "405", "422", "503")},
                }
            },
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


def _content(message: type) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": REFERENCE.format(name=message.__name__)}}}


def _answers(description: str, message: type) -> dict[str, Any]:
    return {"description": description, "content": _content(message)}


def _errors(*statuses: str) -> dict[str, Any]:
    return {status: _answers(ERRORS[status], ErrorBody) for status in statuses}
