"""The jars of Apache Kafka (45 MB), listed in `sandbox/kafka/pom.xml`."""

from __future__ import annotations

import shutil
from pathlib import Path

from sandbox.maven import MavenJars

KAFKA_FILES = Path(__file__).resolve().parent / "kafka"
KAFKA_JARS = MavenJars(
    name="kafka",
    title="Apache Kafka",
    pom=KAFKA_FILES / "pom.xml",
    main="kafka_2.13-*.jar",
    remedy="use embedded Kafka",
)


def apache_available() -> bool:
    """Whether Apache Kafka can run here: it needs Java, and the jars or Maven to fetch them."""
    return shutil.which("java") is not None and KAFKA_JARS.available


def kafka_version(jars: Path) -> str:
    """The broker's version, from its jar's name."""
    return next(path.stem.partition("-")[2] for path in jars.glob(KAFKA_JARS.main))
