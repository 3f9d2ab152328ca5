# The project's own services, as two images: stream, heartbeat, registry and serving; and, with the target "worker",
# the Prefect server and worker. compose.yaml says which command runs.

FROM python:3.12.12-slim-bookworm AS build
COPY requirements/core.lock /tmp/core.lock
# Wheels only: a package that would have to be compiled fails here and not in production.
RUN python -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --only-binary :all: --no-deps --require-hashes --requirement /tmp/core.lock

FROM build AS build-worker
COPY requirements/worker.lock /tmp/worker.lock
RUN /opt/venv/bin/pip install --no-cache-dir --only-binary :all: --no-deps --require-hashes --requirement /tmp/worker.lock

FROM python:3.12.12-slim-bookworm AS base
# The volumes are mounted where these folders are and take over their owner.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin app \
 && mkdir /data /recovery \
 && chown app:app /data /recovery
COPY batch /app/batch
COPY feast_repo /app/feast_repo
COPY serving /app/serving
COPY simulation /app/simulation
COPY stream /app/stream
# The code runs where it lies, since `feast apply` works in the folder feast_repo/.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
WORKDIR /app
USER app

# What the flows run, without Spark: it needs Java, and Polars does the same on one machine.
FROM base AS worker
COPY --from=build-worker /opt/venv /opt/venv
COPY flows /app/flows
COPY prefect.yaml /app/prefect.yaml

FROM base AS services
COPY --from=build /opt/venv /opt/venv
