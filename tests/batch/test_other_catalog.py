"""Each batch command works over a catalog with other names, several views and services, Int64 and composite keys."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from feast_repo.declare.rows import EVENT_TIME
from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.tables import features_folder
from sandbox.checks import rows_of
from tests.batch.archives import stream
from tests.batch.other_repo import CARDS, SHOPS, paid, write_repo
from tests.commands import main_of
from tests.declared import card_features, shop_features, shop_of_card_features, shop_windows

if TYPE_CHECKING:
    from pathlib import Path

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
WINDOWED = ("card_features", "shop_of_card_features", "shop_windows")


@pytest.fixture
def root(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder of a stream of payments that has run, in another feature repository."""
    monkeypatch.setenv("FEATURE_REPO", str(write_repo(tmp_path / "repo")))
    monkeypatch.setenv("REDIS_URL", redis_url)
    folder = StreamSettings().data_root
    stream(folder, card_features, paid(), beside=[shop_of_card_features])
    stream(folder, shop_windows, paid(shop_windows.source))
    return folder


def run(capsys: pytest.CaptureFixture[str], name: str, *arguments: str, status: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert main_of(name)([*arguments, "--json"]) == status
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def refused(capsys: pytest.CaptureFixture[str], name: str, *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        main_of(name)(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("name", ["batch.parity", "batch.backfill"])
def test_a_view_must_be_named(name: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del root
    line = refused(capsys, name)
    assert line.endswith(f"which windowed view? name it with --view; declared: {', '.join(WINDOWED)}")
    assert "no windowed view is named 'shop_features'" in refused(capsys, name, "--view", "shop_features")


@pytest.mark.parametrize("view", WINDOWED)
def test_parity_holds_for_each_view(
    view: str, root: Path, engine_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run(capsys, "batch.parity", "--view", view, "--engine", engine_name)
    rows = rows_of(features_folder(root, view))
    assert report["rows"]["equal"] == report["rows"]["recomputed"] == len(rows) > 50
    assert all(f"/parity-{view}-as-seen-{engine_name}-" in file for file in report["files"])


@pytest.mark.parametrize("view", [shop_windows, shop_of_card_features], ids=lambda view: view.name)
def test_backfill_adds_what_is_missing_and_heals(view: Any, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = rows_of(features_folder(root, view.name))
    for file in list(features_folder(root, view.name).rglob("*.parquet"))[::2]:
        file.unlink()
    lost = len(before) - len(rows_of(features_folder(root, view.name)))
    assert run(capsys, "batch.backfill", "--view", view.name)["added"] == lost > 0
    assert run(capsys, "batch.restore_online", "--view", view.name)["written"][view.name] > 0
    healed = run(capsys, "batch.backfill", "--view", view.name, "--mode", "complete", "--heal")
    assert healed["healed"] > 0
    report = run(capsys, "batch.parity", "--view", view.name, "--mode", "complete", "--online")
    assert report["online"]["users"] == report["online"]["equal"] > 0


def test_all_views_are_restored(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del root
    written = run(capsys, "batch.restore_online")["written"]
    assert written == {
        "card_features": CARDS,
        "shop_of_card_features": written["shop_of_card_features"],
        "shop_features": 0,
        "shop_windows": SHOPS,
    }
    assert written["shop_of_card_features"] > CARDS


def test_the_tables_of_a_stream_are_compacted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del root
    tables = {"events/payments_by_shop", "dead_letters/payments_by_shop", "late/shop_windows", "features/shop_windows"}
    assert set(run(capsys, "batch.compaction", "--stream", "payments_by_shop")["tables"]) == tables
    report = run(capsys, "batch.compaction")["tables"]
    assert set(report) > {*tables, *(f"features/{name}" for name in WINDOWED)}
    assert all(report[f"features/{name}"]["after"] < report[f"features/{name}"]["before"] for name in WINDOWED[:2])


def shops(folder: Path) -> Path:
    rows = {"shop": [*map(str, range(8)), "2.5", None, "7"], "country": ["DE"] * 11}
    pl.DataFrame({**rows, "chargebacks": ["7"] * 10 + ["many"]}).write_csv(folder / "shops.csv")
    return folder / "shops.csv"


def test_a_table_of_a_batch_view_is_gated_and_materialized(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run(capsys, "batch.quality", "gate", "--input", str(shops(tmp_path)), "--time", TODAY.isoformat())
    assert report["table"] == shop_features.name
    broken = {one["rule"]: one["broken"] for one in report["findings"] if not one["holds"]}
    assert broken == {"shop_readable": 1, "shop_present": 1, "shop_unique": 2, "chargebacks_readable": 1}
    assert report["good"] == 7
    stored = rows_of(features_folder(root, shop_features.name))
    assert stored.schema["shop"] == pl.Int64
    assert sorted(stored["shop"]) == list(range(7))
    mended = tmp_path / "mended.csv"
    run(capsys, "batch.quality", "export", str(mended), "--rule", "shop_unique")
    pl.read_csv(mended, infer_schema=False).head(1).write_csv(mended)
    assert run(capsys, "batch.quality", "replay", str(mended))["good"] == 1
    report = run(capsys, "batch.materialize")
    assert report["views"][shop_features.name]["equal"] == 8
    assert "no batch view is named 'card_features'" in refused(capsys, "batch.materialize", "--view", "card_features")


@pytest.mark.parametrize("view", WINDOWED)
def test_stored_rows_of_each_view_are_checked(view: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del root
    assert "which windowed view?" in refused(capsys, "batch.quality", "monitor")
    report = run(capsys, "batch.quality", "monitor", "--view", view)
    assert (report["table"], report["holds"]) == (view, True)
    assert any(f"/monitor-{view}-" in file for file in report["files"])


def test_what_is_printed_knows_no_shop(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batch.training.training_set.MANY", 0)
    main_of("batch.restore_online")([])
    for name, *arguments in (
        ("batch.parity", "--view", "card_features", "--online"),
        ("batch.quality", "gate", "--input", str(shops(tmp_path)), "--time", TODAY.isoformat()),
        ("batch.quality", "monitor", "--view", "card_features"),
        ("batch.materialize",),
        ("batch.training_set", "--service", "fraud"),
        ("batch.drift", "--service", "fraud", "--fail-on", "never"),
    ):
        capsys.readouterr()
        assert main_of(name)(arguments) == 0
        said = capsys.readouterr()
        lines = [line for line in (said.out + said.err).splitlines() if not line.startswith(str(root))]
        assert len(lines) > 3
        assert not [line for line in lines if re.search(r"\b(users?|clicks?|profiles?|buyers?)\b", line)]
    for file in (root / "reports").rglob("*.html"):
        if "quality" not in file.parts or file.parent.name == "quality":  # not Great Expectations' own pages
            assert not re.search(r"[> ](users|clicks|profiles)[ <.]", file.read_text()), file.name


def test_the_shops_words_are_still_understood(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del root
    report = run(capsys, "batch.quality", "clicks", "--view", "card_features")
    assert any("/monitor-card_features-" in file for file in report["files"])
    report = run(capsys, "batch.quality", "profiles", "--input", str(shops(tmp_path)), "--time", TODAY.isoformat())
    assert any("/gate-" in file for file in report["files"])
    unreadable = next(one for one in report["findings"] if one["rule"] == "shop_readable")
    assert unreadable["examples"] == ["2.5"]


def test_generated_profiles_are_of_another_view(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del root
    line = refused(capsys, "batch.profiles")
    assert "batch view 'shop_features' has the columns" in line
    assert line.endswith("publish a table of your own with `python -m batch.quality gate --input FILE`")


def test_a_training_set_has_the_declared_label(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "which service? name it with --service; declared: fraud, shops" in refused(capsys, "batch.training_set")
    assert "service 'shops' has no label" in refused(capsys, "batch.training_set", "--service", "shops")
    report = run(capsys, "batch.training_set", "--service", "fraud")
    assert report["file"] == str(root / "training" / "fraud.parquet")
    rows = pl.read_parquet(report["file"])
    assert rows.columns[:4] == ["card_id", "shop", EVENT_TIME, "large"]
    assert report["large"] == rows["large"].sum()
    payments = rows_of(root / "events" / "payments").select("card_id", "shop", "paid_at", "amount_cents")
    within = timedelta(minutes=30)
    for row in rows.head(50).iter_rows(named=True):
        of_pair = payments.filter(card_id=row["card_id"], shop=row["shop"])
        after = of_pair.filter(pl.col("paid_at") > row[EVENT_TIME], pl.col("paid_at") <= row[EVENT_TIME] + within)
        assert row["large"] == (after["amount_cents"] >= 9_000).any()


def test_a_model_is_trained_for_its_service(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "service 'shops' has no label" in refused(
        capsys, "serving.train", "--service", "shops", "--training-set", __file__
    )
    run(capsys, "batch.training_set", "--service", "fraud", "--as-created")
    main_of("serving.train")(["--service", "fraud", "--force", "--json"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["promoted"]
    assert told["model"].startswith(str(root / "models" / "fraud"))
    card = json.loads((root / "models" / "fraud" / told["version"] / "model.json").read_text())
    assert card["label"] == "large within 30 min"


def test_drift_is_of_a_service(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "which service?" in refused(capsys, "batch.drift")
    report = run(capsys, "batch.drift", "--service", "fraud", "--fail-on", "never")
    assert report["service"] == "fraud"
    names = {name for view in (card_features, shop_of_card_features, shop_features) for name in view.features}
    assert {one["feature"] for one in report["features"]} == names
    assert report["current"]["stream"]["events_per_hour"] > 0
    assert report["file"].startswith(str(root / "reports" / "drift-fraud-"))
