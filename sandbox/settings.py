"""Settings of the sandbox, in addition to those of its parts."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field

from feast_repo.settings import StreamSettings

KafkaChoice: TypeAlias = Literal["embedded", "apache", "auto"]


class SandboxSettings(StreamSettings):
    """The stream's settings, and which Kafka to start if none is named."""

    sandbox_kafka: KafkaChoice = Field(
        default="embedded",
        description="embedded (in librdkafka), apache (the real one: Java 17, Maven), auto (apache if it can).",
    )
