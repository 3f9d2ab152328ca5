from __future__ import annotations

import threading
from collections import Counter, defaultdict

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.testing import TestingSink, TestingSource, cluster_main

from stream.routing import key_of, key_of_worker, partition_of

PARTITIONS = range(24)


def test_keys_name_their_partition() -> None:
    assert [partition_of(key_of("some-stream", partition)) for partition in PARTITIONS] == list(PARTITIONS)
    assert len({key_of("some-stream", partition) for partition in PARTITIONS}) == len(PARTITIONS)


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 6])
def test_bytewax_gives_every_worker_the_same_number_of_partitions(workers: int) -> None:
    seen: dict[str, set[str]] = defaultdict(set)

    class Where(StatefulBatchLogic[int, int, None]):
        def on_batch(self, values: list[int]) -> tuple[list[int], bool]:
            for partition in values:
                seen[threading.current_thread().name].add(key_of("clicks", partition))
            return values, StatefulBatchLogic.RETAIN

        def snapshot(self) -> None:
            return None

    flow = Dataflow("routing")
    numbers = op.input("in", flow, TestingSource(PARTITIONS))
    keyed = op.key_on("key", numbers, lambda partition: key_of("clicks", partition))
    stateful = op.stateful_batch("where", keyed, lambda _: Where())
    op.output("out", stateful, TestingSink([]))
    cluster_main(flow, [], 0, worker_count_per_proc=workers)  # type: ignore[no-untyped-call]  # Bytewax's own gap
    shares = Counter(len(keys) for keys in seen.values())
    assert shares == {len(PARTITIONS) // workers: workers}


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_each_worker_has_a_key(workers: int) -> None:
    seen: dict[str, list[str]] = defaultdict(list)

    class Where(StatefulBatchLogic[int, int, None]):
        def on_batch(self, values: list[int]) -> tuple[list[int], bool]:
            seen[threading.current_thread().name] += map(str, values)
            return values, StatefulBatchLogic.RETAIN

        def snapshot(self) -> None:
            return None

    flow = Dataflow("routing")
    numbers = op.input("in", flow, TestingSource(range(workers)))
    keyed = op.key_on("key", numbers, lambda worker: key_of_worker(worker, workers))
    op.output("out", op.stateful_batch("where", keyed, lambda _: Where()), TestingSink([]))
    cluster_main(flow, [], 0, worker_count_per_proc=workers)  # type: ignore[no-untyped-call]  # Bytewax's own gap
    assert sorted(seen.values()) == [[str(worker)] for worker in range(workers)]
