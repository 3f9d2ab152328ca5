from __future__ import annotations

import sys
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from feast_repo.catalog import OURS, CatalogError, load
from feast_repo.clickstream import clickstream
from feast_repo.declare import Catalog, Count, EventStream, FeatureService, Integer, Text, Timestamp, WindowedView
from feast_repo.declare.catalog import ChoiceError
from feast_repo.declare.entities import Entity
from feast_repo.declare.views import deduplication_horizon_ms
from feast_repo.features import catalog, purchase_prediction, user_click_features, user_profile_features
from feast_repo.settings import StreamSettings

if TYPE_CHECKING:
    from pathlib import Path

rides = EventStream(
    name="rides",
    topic="rides-topic",
    fields=(
        Integer("rider", required=True),
        Text("city", required=True),
        Timestamp("at", earliest_ms=0, max_ahead_ms=0),
    ),
    key="rider",
    time="at",
    allowed_lateness=timedelta(seconds=30),
)
rider_in_city = WindowedView(
    name="rider_in_city",
    entity=Entity("rider_in_city", {"city": "String", "rider": "Int64"}),
    source=rides,
    push_source="rides_push",
    window=timedelta(hours=2),
    slide=timedelta(hours=1),
    ttl=timedelta(days=1),
    features={"rides": Count()},
)


class TestCatalog:
    def test_what_is_named_belongs_to_it(self) -> None:
        both = Catalog(services=(purchase_prediction,), views=(rider_in_city,), streams=(rides,))
        assert both.views == (user_click_features, user_profile_features, rider_in_city)
        assert both.streams == (clickstream, rides)
        assert [entity.name for entity in both.entities] == ["user", "rider_in_city"]
        assert both.views_of(rides) == (rider_in_city,)

    def test_a_choice_is_needed_where_there_are_several_only(self) -> None:
        both = Catalog(services=(purchase_prediction,), views=(rider_in_city,))
        assert catalog.view() == catalog.view("user_click_features") == user_click_features
        assert both.view("rider_in_city") == rider_in_city
        assert both.service() == purchase_prediction
        assert both.batch_view() == user_profile_features
        with pytest.raises(ChoiceError, match=r"which windowed view\? .*--view; declared: user_click_features, rider"):
            both.view()
        with pytest.raises(ChoiceError, match=r"no event stream is named 'x'; declared: clickstream, rides"):
            both.stream("x")
        with pytest.raises(ChoiceError, match="no service is declared"):
            Catalog(views=(rider_in_city,)).service()

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            (
                {"views": (replace(user_click_features, ttl=timedelta(hours=1)),)},
                "views are named 'user_click_features'",
            ),
            ({"streams": (replace(clickstream, topic="other"),)}, "event streams are named 'clickstream'"),
            ({"streams": (replace(rides, topic="clickstream"),)}, "topics are named 'clickstream'"),
            ({"views": (replace(rider_in_city, push_source="user_clicks_push"),)}, "push sources are named 'user_cl"),
            ({"views": (replace(rider_in_city, entity=replace(rider_in_city.entity, name="user")),)}, "entities are"),
            (
                {"services": (purchase_prediction, FeatureService(purchase_prediction.name, (user_profile_features,)))},
                "services are named 'purchase_prediction'",
            ),
        ],
    )
    def test_a_name_has_one_meaning(self, changes: dict[str, Any], says: str) -> None:
        with pytest.raises(ValueError, match=says):
            Catalog(**{"services": (purchase_prediction,), **changes})

    def test_a_join_key_has_one_type(self) -> None:
        shop = replace(
            user_profile_features, name="shops", entity=Entity("shop", {"user_id": "Int64"}), key_patterns={}
        )
        with pytest.raises(ValueError, match="join key 'user_id' has two types, String and Int64"):
            Catalog(services=(purchase_prediction,), views=(shop,))

    def test_a_deployment_has_topics_and_a_lateness_of_its_own(self) -> None:
        both = Catalog(services=(purchase_prediction,), views=(rider_in_city,))
        here = both.deployed({"rides": "r2"}, timedelta(seconds=7))
        assert {one.name: one.topic for one in here.streams} == {"clickstream": "clickstream", "rides": "r2"}
        assert {view.source.lateness_ms for view in here.windowed} == {7_000}
        assert here.services[0].views[0] == here.view("user_click_features")
        assert both.deployed({}, None) == both
        with pytest.raises(ChoiceError, match="no event stream is named 'clicks'"):
            both.deployed({"clicks": "x"}, None)


class TestView:
    def test_the_message_key_is_a_join_key(self) -> None:
        with pytest.raises(ValueError, match="the message key 'rider' must be a join key of entity 'city'"):
            replace(rider_in_city, entity=Entity("city", {"city": "String"}))

    @pytest.mark.parametrize(
        "keys",
        [
            {"rider": "String", "city": "String"},
            {"rider": "Int64", "town": "String"},
            {"rider": "Int64", "at": "Int64"},
        ],
    )
    def test_join_keys_are_required_fields_of_their_type(self, keys: Any) -> None:
        if "at" in keys:
            assert replace(rider_in_city, entity=Entity("e", keys)).join_keys == ("rider", "at")
            return
        with pytest.raises(ValueError, match="must be a required field of type"):
            replace(rider_in_city, entity=Entity("e", keys))

    def test_copies_are_recognized_as_long_as_they_could_count(self) -> None:
        day = replace(user_click_features, window=timedelta(days=1), slide=timedelta(hours=1))
        assert deduplication_horizon_ms(clickstream, [user_click_features]) == 70 * 60_000
        assert deduplication_horizon_ms(clickstream, [user_click_features, day]) == 25 * 3_600_000
        declared = replace(clickstream, deduplication_horizon=timedelta(minutes=1))
        assert deduplication_horizon_ms(declared, [user_click_features]) == 60_000
        assert deduplication_horizon_ms(rides, [rider_in_city]) is None


class TestLoading:
    def write(self, folder: Path, text: str, **neighbours: str) -> Path:
        folder.mkdir()
        (folder / "features.py").write_text(text)
        for name, content in neighbours.items():
            (folder / f"{name}.py").write_text(content)
        return folder

    def test_ours_is_the_module_that_everyone_imports(self) -> None:
        assert load(OURS) is catalog

    def test_two_repositories_may_have_neighbours_of_the_same_name(self, tmp_path: Path) -> None:
        def declared(name: str) -> str:
            return (
                "from dataclasses import replace\nfrom feast_repo.clickstream import clickstream\n"
                f"stream = replace(clickstream, name={name!r}, topic={name!r})\n"
            )

        features = (
            "from streams import stream\nfrom feast_repo.declare import Catalog\ncatalog = Catalog(streams=(stream,))\n"
        )
        folders = [self.write(tmp_path / name, features, streams=declared(name)) for name in ("one", "two")]
        assert [load(folder).stream().name for folder in folders] == ["one", "two"]
        assert "streams" not in sys.modules
        assert not [entry for entry in sys.path if entry.startswith(str(tmp_path))]

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("x = 1\nraise RuntimeError('no')\n", r"features\.py, line 2: RuntimeError: no"),
            ("import neighbour\n", r"neighbour\.py, line 1: NameError"),
            ("catalog = 1\n", "exports no `catalog = Catalog"),
            ("def (\n", "SyntaxError"),
            (
                "from feast_repo.declare import *\ncatalog = Catalog(views=(1,))\n",
                r"features\.py, line 2",
            ),
        ],
    )
    def test_what_is_wrong_is_told_with_its_place(self, tmp_path: Path, text: str, says: str) -> None:
        folder = self.write(tmp_path / "repo", text, neighbour="undefined\n")
        with pytest.raises(CatalogError, match=says) as caught:
            load(folder)
        assert "\n" not in str(caught.value)

    def test_a_folder_without_declarations_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(CatalogError, match=r"has no features\.py"):
            load(tmp_path)


class TestSettings:
    @pytest.fixture(autouse=True)
    def _two_streams(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path / "repo"
        folder.mkdir()
        (folder / "features.py").write_text(
            "from feast_repo.features import purchase_prediction\nfrom feast_repo.declare import Catalog\n"
            "from tests.feast_repo.test_catalog import rider_in_city\n"
            "catalog = Catalog(services=(purchase_prediction,), views=(rider_in_city,))\n"
        )
        monkeypatch.setenv("FEATURE_REPO", str(folder))

    def test_topics_are_told_by_stream(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KAFKA_TOPIC", "rides=r2, clickstream=c2")
        assert {one.name: one.topic for one in StreamSettings().catalog.streams} == {"clickstream": "c2", "rides": "r2"}
        monkeypatch.setenv("KAFKA_TOPIC", "rides=r2")
        assert [one.topic for one in StreamSettings().catalog.streams] == ["clickstream", "r2"]

    @pytest.mark.parametrize(
        ("told", "says"),
        [
            ("clicks", "which event stream"),
            ("riders=x", "no event stream is named 'riders'"),
            ("rides=clickstream", "topics are named"),
            ("rides=a,rides=b", "each stream once"),
            ("rides=a b", "letters, digits"),
        ],
    )
    def test_what_fits_no_stream_is_refused(self, told: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KAFKA_TOPIC", told)
        with pytest.raises(ValueError if "each" in says or "letters" in says else CatalogError, match=says):
            _ = StreamSettings().catalog
