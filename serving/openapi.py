"""The service's OpenAPI document, generated from the messages and the declared feature services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from serving.messages import (
    MAX_ID_LENGTH,
    Alive,
    EntityFeatures,
    ErrorBody,
    FeatureRows,
    Predictions,
    Readiness,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serving.service import Service

REFERENCE = "#/components/schemas/{name}"
ERRORS = {
    "401": "The key is missing or wrong.",
    "405": "Another method is meant.",
    "408": "The body took too long.",
    "413": "The body is too long.",
    "422": "The request is not valid; the message says where.",
    "503": "Too much to do, no model, or the online store is away; try again later.",
}
IDS: dict[str, dict[str, Any]] = {
    "String": {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH},
    "Int64": {"type": "integer", "format": "int64", "minimum": -(1 << 63), "maximum": (1 << 63) - 1},
}


def document(services: Sequence[Service], *, keys_required: bool) -> dict[str, Any]:
    """The document, for JSON; `keys_required`: whether /v1 requires a key."""
    forms = [form for service in services for form in service.requests.forms]
    predicting = [form for service in services if service.predicts for form in service.requests.forms]
    messages = [*forms, Predictions, FeatureRows, EntityFeatures, ErrorBody, Alive, Readiness]
    _, schemas = msgspec.json.schema_components(messages, ref_template=REFERENCE)
    security: list[dict[str, list[str]]] = [{"key": []}] if keys_required else []

    def post(operation: str, summary: str, asked: Sequence[type], answers: dict[str, Any]) -> dict[str, Any]:
        body = {"required": True, "content": _content(*asked)}
        about = {"operationId": operation, "summary": summary, "security": security, "requestBody": body}
        return {"post": {**about, "responses": {"200": answers, **_errors(*ERRORS)}}}

    predictions = post("predict", "Predict for 1 to 1000 entities", predicting, _answers("Predictions.", Predictions))
    features = post("features", "The features of 1 to 1000 entities", forms, _answers("Features.", FeatureRows))
    return {
        "openapi": "3.1.0",
        "info": {"title": _title(services), "version": "1", "description": "\n".join(map(_about, services))},
        "paths": {
            **({"/v1/predictions": predictions} if predicting else {}),
            "/v1/features": features,
            **_features_of_one(services, security),
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


def _title(services: Sequence[Service]) -> str:
    return f"ML Feature Store: {', '.join(service.name for service in services)}"


def _about(service: Service) -> str:
    declared = service.declared
    predicts = "no predictions" if declared.label is None else f"predicts {declared.label}"
    return (
        f"{service.name}: {predicts}, by {', '.join(service.reader.schema.join_keys)}. {declared.description}".strip()
    )


def _features_of_one(services: Sequence[Service], security: list[dict[str, list[str]]]) -> dict[str, Any]:
    """A path for one entity of each service with one join key; the service's name is in it if there are several."""
    paths: dict[str, Any] = {}
    for service in services:
        schema = service.reader.schema
        if (key := schema.only_key) is None:
            continue
        place = f"{service.name}/" if len(services) > 1 else ""
        paths[f"/v1/features/{place}{{{key}}}"] = {
            "get": {
                "operationId": f"featuresOfOne_{service.name}",
                "summary": "The features of one entity",
                "security": security,
                "parameters": [{"name": key, "in": "path", "required": True, "schema": IDS[schema.join_keys[key]]}],
                "responses": {"200": _answers("Features.", EntityFeatures), **_errors("401", "405", "422", "503")},
            }
        }
    return paths


def _content(*messages: type) -> dict[str, Any]:
    schemas = [{"$ref": REFERENCE.format(name=message.__name__)} for message in messages]
    return {"application/json": {"schema": schemas[0] if len(schemas) == 1 else {"oneOf": schemas}}}


def _answers(description: str, message: type) -> dict[str, Any]:
    return {"description": description, "content": _content(message)}


def _errors(*statuses: str) -> dict[str, Any]:
    return {status: _answers(ERRORS[status], ErrorBody) for status in statuses}
