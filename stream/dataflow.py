"""The dataflow: events in Kafka become features in Redis and Parquet.

python -m bytewax.run stream.dataflow -r recovery -s 10 -b 0       # exact resume after any crash
python -m bytewax.run stream.dataflow                              # from the topic's beginning

Kafka source -> decode -> windows -> stores
(RawBatch)     (columns)  (panes by   (Redis at once; log tables, feature files
                          partition)   and progress record at the end of the epoch)
"""

from __future__ import annotations

from stream.stopping import drain_on_signals, refuse, stop_on_signals

stop_on_signals()  # before the imports, which take seconds

# ruff: noqa: E402
import faulthandler
import logging
import signal
import sys

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from pydantic import ValidationError

from feast_repo.codec.decoding import DecodedBatch, Decoder
from feast_repo.errors import FeatureStoreError
from feast_repo.settings import StreamSettings, problem
from stream import metrics
from stream.layout import move_old_tables
from stream.lock import bytewax_arguments, lock_run
from stream.origin import check, record
from stream.pause import pause_while_held
from stream.recovery import prepare
from stream.routing import key_of
from stream.source import KafkaSource, OfStream
from stream.start_checks import look_at_topics
from stream.steps import FLOW, KAFKA, STORES, WINDOWS
from stream.stores import Stores
from stream.topic import identities
from stream.window_step import Windows


def build(settings: StreamSettings) -> Dataflow:
    """The dataflow for these settings, with its stores open; it connects to Kafka when it runs."""
    catalog = settings.catalog
    decoders = {stream.name: Decoder(stream) for stream in catalog.streams}

    def decode(batch: OfStream) -> tuple[str, tuple[str, DecodedBatch]]:
        stream, messages = batch
        return key_of(stream, messages.partition), (stream, decoders[stream].decode(messages))

    flow = Dataflow(FLOW)
    source = KafkaSource(settings)
    batches = op.input(KAFKA, flow, source)
    decoded = op.map("decode", batches, decode)
    outcomes = op.stateful_batch(WINDOWS, decoded, lambda state: Windows(catalog, state))
    op.output(STORES, outcomes, Stores(settings))
    pause_while_held(batches, source.workers)
    return flow


def ready() -> StreamSettings:
    """The settings, with the data folder locked and the recovery state of `-r` ready; refuses with one line if not."""
    try:
        settings = StreamSettings()
        process, recovery = bytewax_arguments(sys.argv)
        if not settings.catalog.streams:
            refuse(f"{settings.feature_repo / 'features.py'} declares no event stream, so there is nothing to read")
        lock_run(settings.data_root, recovery)
        move_old_tables(settings)
        streams = identities(settings)  # before Redis: a missing Kafka is refused, a missing Redis waited for
        check(settings, streams, recovery)
        if recovery is not None:
            prepare(settings, streams, recovery)
        record(settings, streams)
        look_at_topics(settings)
        metrics.serve(settings, process)
    except ValidationError as invalid:
        refuse(problem(invalid))
    except FeatureStoreError as error:
        refuse(error)
    except (ValueError, OSError) as error:
        refuse(str(error))
    return settings


logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
faulthandler.register(signal.SIGUSR1)  # prints each thread's stack
flow = build(ready())
drain_on_signals()
