"""What a batch view declares about values and publications decides what is published, whatever its keys are."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from batch.quality.__main__ import main as quality
from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.tables import features_folder
from sandbox.checks import rows_of
from tests.batch.other_repo import write_repo
from tests.commands import main_of

if TYPE_CHECKING:
    from pathlib import Path

VIEW, LEAST, MOST = "contracts", 4, 8
FEATURES = f"""
from datetime import timedelta
from feast_repo.declare import BatchFeature, BatchView, Catalog
from tests.declared import shop_of_card

catalog = Catalog(views=(BatchView(
    name="{VIEW}", entity=shop_of_card, ttl=timedelta(days=30), rows=({LEAST}, {MOST}), max_age=timedelta(hours=6),
    features={{
        "number": BatchFeature("Int64", nullable=True, unique=True),
        "iban": BatchFeature("String", nullable=True, unique=True, pattern="[A-Z]{{2}}[0-9]+"),
        "active": BatchFeature("Bool", nullable=True),
    }},
),))
"""
NOW = datetime.now(UTC).replace(microsecond=0)
BEYOND_FLOATS = 1 << 53
TABLE = pl.DataFrame(
    [
        {"shop": 1, "card_id": "a", "number": BEYOND_FLOATS, "iban": "DE1", "active": True},
        {"shop": 1, "card_id": "b", "number": BEYOND_FLOATS + 1, "iban": "DE2", "active": False},
        {"shop": 2, "card_id": "a", "number": None, "iban": None, "active": None},
        {"shop": 2, "card_id": "b", "number": None, "iban": None, "active": True},
        {"shop": -3, "card_id": "c", "number": 7, "iban": "DE3", "active": True},
        {"shop": 3, "card_id": "c", "number": 7, "iban": "DE4", "active": True},
        {"shop": 4, "card_id": "d", "number": 8, "iban": "DE5", "active": True},
        {"shop": 5, "card_id": "e", "number": 9, "iban": "DE5", "active": True},
    ]
)
GOOD = TABLE.head(4)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder of another feature repository."""
    monkeypatch.setenv("FEATURE_REPO", str(write_repo(tmp_path / "repo", FEATURES)))
    return StreamSettings().data_root


@pytest.fixture(params=["pandas", "spark"])
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "spark":
        request.getfixturevalue("spark_session")
    return str(request.param)


def run(capsys: pytest.CaptureFixture[str], action: str, *arguments: str, status: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert quality([action, *arguments, "--json"]) == status
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def failed(report: dict[str, Any]) -> dict[str, int]:
    return {one["rule"]: one["broken"] for one in report["findings"] if not one["holds"]}


def written(rows: pl.DataFrame, folder: Path, kind: str = "parquet") -> str:
    file = folder / f"table.{kind}"
    rows.write_csv(file) if kind == "csv" else rows.write_parquet(file)
    return str(file)


def published(root: Path) -> pl.DataFrame:
    return rows_of(features_folder(root, VIEW)).select(TABLE.columns)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_copies_of_a_unique_value_are_all_kept_apart(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, engine: str
) -> None:
    report = run(capsys, "profiles", "--input", written(TABLE, tmp_path, kind), "--engine", engine)
    assert failed(report) == {"number_unique": 2, "iban_unique": 2}  # no missing value is a copy of another
    assert published(root).equals(GOOD)
    quarantined = rows_of(root / "quarantine" / VIEW).sort("number", "iban")
    assert quarantined["rules"].to_list() == ["number_unique"] * 2 + ["iban_unique"] * 2
    assert quarantined["number"].to_list() == ["7", "7", "8", "9"]
    assert "number_unique (number comes once) in 2, such as " in report["verdict"]
    where = "number of contracts and iban of contracts in features.py"
    assert report["verdict"].endswith(f"If the data are right, change {where}.")


def test_what_is_no_truth_value_is_kept_apart(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], engine: str
) -> None:
    texts = ["TRUE", "False", None, "true", "1", "yes", "true ", "t"]
    rows = TABLE.with_columns(pl.Series("active", texts), number=None, iban=None)
    report = run(capsys, "profiles", "--input", written(rows, tmp_path, "csv"), "--engine", engine)
    assert failed(report) == {"active_readable": 4}
    assert published(root)["active"].to_list() == [True, False, None, True]


def test_a_table_is_published_and_materialized_by_all_its_keys(
    root: Path, tmp_path: Path, redis_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    run(capsys, "profiles", "--input", written(GOOD, tmp_path))
    capsys.readouterr()
    assert main_of("batch.materialize")(["--json"]) == 0
    told = json.loads(capsys.readouterr().out)["views"][VIEW]
    assert (told["written"], told["equal"], told["different"]) == (len(GOOD), len(GOOD), 0)
    assert len(published(root)) == len(GOOD)


@pytest.mark.parametrize(("count", "found"), [(LEAST - 1, 3), (MOST + 1, 9)])
def test_too_few_and_too_many_rows_are_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], engine: str, count: int, found: int
) -> None:
    rows = pl.DataFrame({"shop": range(count), "card_id": "a", "number": None, "iban": None, "active": None})
    report = run(capsys, "profiles", "--input", written(rows, tmp_path), "--engine", engine, status=1)
    assert report["verdict"] == (
        f"Nothing is published, since a rule of the table does not hold: row_count (4 to 8 good rows, not {found}). "
        "If the data are right, change rows of contracts in features.py."
    )
    assert not features_folder(root, VIEW).exists()
    assert not (root / "quarantine").exists()


def test_as_many_rows_as_declared_are_published_whatever_was_published_before(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = pl.DataFrame({"shop": range(MOST), "card_id": "a", "number": None, "iban": None, "active": None})
    run(capsys, "profiles", "--input", written(rows, tmp_path), "--time", (NOW - timedelta(hours=1)).isoformat())
    run(capsys, "profiles", "--input", written(rows.head(LEAST), tmp_path), "--time", NOW.isoformat())
    report = run(capsys, "profiles", "--input", written(rows.head(1), tmp_path), "--least-rows", "1")
    assert report["good"] == 1  # a person has said so
    assert len(published(root)) == MOST + LEAST + 1


@pytest.mark.parametrize(("hours", "holds"), [(5, True), (7, False), (-1, False)])
def test_a_publication_that_is_too_old_is_refused(
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    hours: int,
    holds: bool,  # noqa: FBT001
) -> None:
    time = NOW - timedelta(hours=hours)
    rows = GOOD.with_columns(event_timestamp=pl.lit(time))  # the file itself says of when it is
    report = run(capsys, "profiles", "--input", written(rows, tmp_path), status=0 if holds else 1)
    assert failed(report) == ({} if holds else {"publication_age": 1})
    if not holds:
        assert "publication_age (the rows are at most 6 hours old, not " in report["verdict"]
        assert report["verdict"].endswith("If the data are right, change max_age of contracts in features.py.")
    assert features_folder(root, VIEW).exists() is holds


def test_an_older_publication_needs_a_person(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    time = (NOW - timedelta(days=3)).isoformat()
    run(capsys, "profiles", "--input", written(GOOD, tmp_path), "--time", time, "--most-days-old", "4")
    assert published(root).equals(GOOD)


class TestReplay:
    def publish(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run(capsys, "profiles", "--input", written(TABLE, tmp_path), "--time", NOW.isoformat())

    def replay(self, rows: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str], status: int) -> Any:
        mended = rows.with_columns(event_timestamp=pl.lit(NOW))
        return run(capsys, "replay", written(mended, tmp_path), status=status)

    def test_the_published_rows_count_for_the_number_of_rows(
        self, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.publish(tmp_path, capsys)
        more = pl.DataFrame({"shop": range(10, 15), "card_id": "a", "number": None, "iban": None, "active": None})
        report = self.replay(more, tmp_path, capsys, 1)
        assert failed(report) == {"row_count": 1}
        assert report["verdict"].startswith("Nothing is published, since a rule of the table does not hold: row_count")
        self.replay(more.head(1), tmp_path, capsys, 0)
        assert len(published(root)) == len(GOOD) + 1

    def test_what_was_published_with_fewer_rows_can_be_mended(
        self, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        table = written(TABLE.tail(3), tmp_path)
        run(capsys, "profiles", "--input", table, "--time", NOW.isoformat(), "--least-rows", "1", status=1)
        report = self.replay(GOOD.head(1), tmp_path, capsys, 1)
        assert failed(report) == {"row_count": 1}, "nothing is published at this time"
        table = written(GOOD.head(2), tmp_path)
        run(capsys, "profiles", "--input", table, "--time", NOW.isoformat(), "--least-rows", "1")
        self.replay(TABLE.tail(1), tmp_path, capsys, 0)
        assert len(published(root)) == LEAST - 1

    def test_a_mended_row_has_no_unique_value_of_a_published_one(
        self, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.publish(tmp_path, capsys)
        mended = TABLE.tail(2).with_columns(number=pl.Series([BEYOND_FLOATS + 1, BEYOND_FLOATS + 2]), iban=None)
        report = self.replay(mended, tmp_path, capsys, 1)
        assert failed(report) == {"number_not_published": 1}
        assert report["verdict"].startswith("Nothing is published: 1 of 2 rows are still broken.")
        assert published(root).equals(GOOD)

    def test_a_mended_row_keeps_its_own_unique_value(
        self, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.publish(tmp_path, capsys)
        assert self.replay(GOOD.head(1), tmp_path, capsys, 0)["good"] == 1
        assert published(root).sort("shop", "card_id").equals(GOOD)
