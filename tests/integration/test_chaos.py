"""The fault drill's short form; the long one is `make chaos`."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import pytest

from sandbox.chaos.__main__ import drill, main, seeds
from sandbox.chaos.faults import FAULTS, schedule
from sandbox.chaos.results import Drill, keep
from sandbox.chaos.verdict import Verdict

if TYPE_CHECKING:
    from pathlib import Path

SEED = 20_261_124
KINDS = [
    "kill",
    "redis_crashes",
    "recovery_is_lost",
    "redis_is_emptied",
    "redis_is_emptied_in_an_epoch",
    "disk_is_full",
    "terminate_as_redis_freezes",
    "one_of_two_is_killed",
    "terminate_as_kafka_freezes",
    "kafka_and_redis_go",
]


@pytest.fixture
def kept_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a drill leave no settings behind in this process."""
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_TOPIC", "REDIS_URL", "FEAST_REGISTRY_URL", "DATA_ROOT"):
        monkeypatch.setenv(name, "")


@pytest.mark.timeout(900)  # nine faults, one after the other, on a machine that may be busy
@pytest.mark.usefixtures("kept_environment")
def test_nothing_is_lost_twice_wrong_or_behind(tmp_path: Path) -> None:
    print(f"seed {SEED}; repeat with: python -m sandbox.chaos --faults {len(KINDS)} --seeds {SEED}")  # noqa: T201  (a failure shows it)
    kinds = KINDS if _may_mount(tmp_path) else [kind for kind in KINDS if kind != "disk_is_full"]
    done = drill(tmp_path / "drill", SEED, kinds, "auto")
    assert [kind for kind, _ in done.faults] == kinds
    assert done.verdict.faultless, done.verdict
    assert done.verdict.users > 100
    assert done.copies > 100


def _may_mount(folder: Path) -> bool:
    from sandbox.chaos.faults import small_disk  # noqa: PLC0415

    with small_disk(folder / "probe") as mounted:
        return mounted


def test_every_kind_comes_up_before_any_comes_again() -> None:
    chosen = schedule(3 * len(FAULTS), 1, small_disk=True)
    assert {chosen.count(kind) for kind in FAULTS} == {3}
    assert chosen == schedule(3 * len(FAULTS), 1, small_disk=True) != schedule(3 * len(FAULTS), 2, small_disk=True)
    assert "disk_is_full" not in schedule(50, 1, small_disk=False)
    assert "topic_is_recreated" not in schedule(50, 1, small_disk=True, real_kafka=False)


@pytest.mark.parametrize(
    "wrong", [name for name in asdict(Verdict(*range(10))) if "_" in name and name != "feature_rows"]
)
def test_any_fault_of_the_stores_fails_the_drill(wrong: str) -> None:
    clean = Verdict(10, 10, 10, *[0] * 7)
    assert clean.faultless
    assert not replace(clean, **{wrong: 1}).faultless


def test_a_drill_without_results_proves_nothing() -> None:
    assert not Verdict(0, 0, 0, *[0] * 7).faultless


def test_seeds_are_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert seeds("1,2") == [1, 2]
    with pytest.raises(SystemExit):
        main(["--seeds", "one"])
    assert "'one' is no list of seeds" in capsys.readouterr().err


def test_results_of_parts_add_up(tmp_path: Path) -> None:
    def done(seed: int, kind: str) -> Drill:
        return Drill(seed, "Apache Kafka", [(kind, "went on")], 7, 60.0, Verdict(1_000, 10, 10, *[0] * 7))

    for one in (done(2, "kill"), done(1, "terminate"), done(2, "second_run")):
        keep(tmp_path, "the command", one)
    drills = json.loads((tmp_path / "chaos.json").read_text())["drills"]
    assert [(one["seed"], one["faults"][0][0]) for one in drills] == [(1, "terminate"), (2, "second_run")]
    text = (tmp_path / "chaos.md").read_text()
    assert "| all | 2 | 2.0 | 14 | 2,000 |" in text
    assert "| kill | 0 |" in text
