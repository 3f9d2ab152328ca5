"""What recovery state was made for, against what it is wanted for."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from feast_repo.declare.algebra import Count, Max, Ratio, field
from feast_repo.features import user_click_features as view
from feast_repo.stores.identity import UNKNOWN, StreamIdentity
from stream.origin import OriginError, changed_features, difference
from stream.recovery_store import About, RecoveryError, RecoveryStore
from stream.windows import WindowEngine
from tests.declared import on_stream

if TYPE_CHECKING:
    from feast_repo.declare.algebra import Feature
    from feast_repo.declare.views import WindowedView

DIRECTORY = Path("recovery")
NOW = StreamIdentity("clicks", "cluster", "id", 6)


def meaning(*views: WindowedView) -> dict[str, dict[str, Any]]:
    told: dict[str, dict[str, Any]] = json.loads(json.dumps({one.name: one.meaning for one in views or (view,)}))
    return told


def about(*, partitions: int = 6) -> About:
    return About("2-x", "data", {"clickstream": replace(NOW, partitions=partitions)}, meaning())


def with_features(**features: Feature | None) -> WindowedView:
    kept = {name: feature for name, feature in {**view.features, **features}.items() if feature is not None}
    return replace(view, features=kept)


@pytest.mark.parametrize(
    ("now", "changes"),
    [
        (view, ""),
        (with_features(dearest=Max("price_cents")), "+dearest"),
        (with_features(click_count=None), "-click_count"),
        (with_features(click_count=None, clicks=view.features["click_count"]), "+clicks, -click_count"),
        (with_features(click_rate=Ratio("click_count", "view_count")), ""),
    ],
)
def test_added_removed_and_renamed_features_are_told(now: WindowedView, changes: str) -> None:
    assert changed_features(meaning(), meaning(now), DIRECTORY, DIRECTORY) == changes


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (with_features(click_count=Count(where=field("event_type") == "view")), "click_count: give the new"),
        (on_stream(view, allowed_lateness=timedelta(seconds=1)), "another declaration"),
        (replace(view, slide=timedelta(minutes=5)), "another declaration"),
        (on_stream(view, event_id=None), "another declaration"),
    ],
)
def test_what_changes_the_meaning_of_rows_is_refused(now: WindowedView, says: str) -> None:
    with pytest.raises(OriginError, match=says):
        changed_features(meaning(), meaning(now), DIRECTORY, DIRECTORY)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"topic": "other"}, "KAFKA_TOPIC"),
        ({"cluster_id": "other"}, "KAFKA_BOOTSTRAP_SERVERS"),
        ({"cluster_id": UNKNOWN, "topic_id": UNKNOWN}, "this is cluster unknown"),
        ({"topic_id": "other"}, "this is another topic, or it was recreated"),
        ({"topic_id": UNKNOWN}, "its id is unknown now"),
        ({"partitions": 7}, "has 7 partitions, and had 6"),
        ({"partitions": 5}, "keys have moved"),
    ],
)
def test_another_topic_is_refused_with_the_remedy(changed: dict[str, Any], says: str) -> None:
    problem = difference(NOW, replace(NOW, **changed), DIRECTORY, DIRECTORY)
    assert problem is not None
    assert says in problem
    assert "\n" not in problem
    assert ("stream.recovery adopt recovery" in problem) == ("partitions" not in changed)


def test_added_and_removed_views_are_told() -> None:
    second = replace(view, name="second", window=2 * view.window)
    assert changed_features(meaning(), meaning(view, second), DIRECTORY, DIRECTORY) == "+second"
    assert changed_features(meaning(view, second), meaning(), DIRECTORY, DIRECTORY) == "-second"
    with pytest.raises(OriginError, match=r"view 'second'.*under another name"):
        changed_features(
            meaning(view, second), meaning(view, replace(second, window=view.window)), DIRECTORY, DIRECTORY
        )


def test_an_older_version_recorded_one_view_without_its_name() -> None:
    old = {UNKNOWN: meaning()[view.name]}
    assert changed_features(old, meaning(), DIRECTORY, DIRECTORY) == ""
    assert changed_features(old, meaning(with_features(dearest=Max("price_cents"))), DIRECTORY, None) == "+dearest"


def test_what_was_unknown_may_be_known() -> None:
    unknown = replace(NOW, cluster_id=UNKNOWN, topic_id=UNKNOWN)
    assert difference(unknown, NOW, DIRECTORY, None) is None
    assert difference(unknown, unknown, DIRECTORY, None) is None
    assert difference(NOW, NOW, DIRECTORY, None) is None


def test_a_rename_leaves_the_old_state_unusable_as_it_is() -> None:
    """So it has to be rebuilt, which the dataflow does: the engine itself would not take it."""
    renamed = with_features(click_count=None, clicks=view.features["click_count"])
    with pytest.raises(ValueError, match="another declaration"):
        WindowEngine.restore(renamed.source, [renamed], WindowEngine(view.source, [view]).snapshot())


class TestStore:
    def test_installing_keeps_what_was_there(self, tmp_path: Path) -> None:
        store = RecoveryStore(tmp_path)
        assert not store.exists()
        assert store.install(store.new(), about()) is None
        assert store.check() is False
        first = (tmp_path / "part-0.sqlite3").read_bytes()
        kept = store.install(store.new(), about(partitions=7))
        assert kept is not None
        assert (kept / "part-0.sqlite3").read_bytes() == first
        assert json.loads((kept / "about.json").read_text())["streams"]["clickstream"]["partitions"] == 6
        found = store.about()
        assert found is not None
        assert found.streams["clickstream"].partitions == 7
        assert not list(tmp_path.glob(".new-*"))

    def test_unreadable_files_are_named(self, tmp_path: Path) -> None:
        store = RecoveryStore(tmp_path)
        store.install(store.new(), about())
        (tmp_path / "part-0.sqlite3").write_bytes(b"x" * 5000)
        with pytest.raises(RecoveryError, match=r"part-0\.sqlite3"):
            store.check()
        (tmp_path / "about.json").write_text("{")
        with pytest.raises(RecoveryError, match=r"about\.json"):
            store.about()
