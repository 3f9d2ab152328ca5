"""Training and serving give a model the same numbers; a model that is not good enough is not served."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, strategies as st

from batch.training.labels import label_of
from feast_repo.declare.rows import EVENT_TIME
from feast_repo.features import purchase_prediction
from serving.features import FeatureEncoder, input_features, misfit
from serving.messages import EntityFeatures, ViewRead
from serving.model import Model, ModelError, ModelFolder
from serving.schema import ServedSchema, ServedView
from serving.settings import ServingSettings
from serving.train import main
from serving.training import TrainingError, judged, split_by_time, train
from simulation.training_rows import training_rows

if TYPE_CHECKING:
    from serving.training import Trained

VIEWS = purchase_prediction.views
LABEL, _ = label_of(purchase_prediction)
HORIZON = LABEL.within
ROWS = training_rows(500)


def as_served(row: dict[str, Any]) -> EntityFeatures:
    return EntityFeatures(
        user_id="user",
        views={view.name: ViewRead("fresh", 1.0, None, {name: row[name] for name in view.features}) for view in VIEWS},
    )


values = {
    "Int64": st.none() | st.integers(-(1 << 63), (1 << 63) - 1),
    "Float64": st.none() | st.floats(allow_nan=False, width=32),
    "String": st.none() | st.sampled_from(["DE", "US", "free", "unseen", ""]),
}


@given(
    st.lists(
        st.fixed_dictionaries({name: values[kind] for view in VIEWS for name, kind in view.value_types.items()}),
        min_size=1,
        max_size=20,
    )
)
def test_training_and_serving_make_the_same_matrix(rows: list[dict[str, Any]]) -> None:
    encoder = FeatureEncoder(input_features(VIEWS, ROWS))
    schema = {name: ROWS.schema[name] for view in VIEWS for name in view.features}
    served, trained = encoder.served(map(as_served, rows)), encoder.trained(pl.DataFrame(rows, schema))
    assert served.dtype == trained.dtype == np.float32
    np.testing.assert_array_equal(served, trained)


def test_known_matrix() -> None:
    encoder = FeatureEncoder(input_features(VIEWS, ROWS))
    row = ROWS.row(0, named=True) | {"country": "XX", "age": None, "subscription_tier": None, "view_count": 3}
    (numbers,) = encoder.served([as_served(row)]).tolist()
    named = dict(zip((one.name for one in encoder.features), numbers, strict=True))
    assert (named["country"], named["view_count"]) == (-1, 3)
    assert np.isnan([named["age"], named["subscription_tier"]]).all()
    (country,) = (one for one in encoder.features if one.name == "country")
    assert country.categories is not None
    assert country.categories[0] == "DE", "the most common one comes first"


class TestSplit:
    def test_is_by_time_and_leaves_out_what_knows_of_the_holdout(self) -> None:
        rows = training_rows(4_000)
        split = split_by_time(rows.sample(fraction=1, shuffle=True, seed=1), LABEL)
        first = split.holdout[EVENT_TIME][0]
        assert len(split.holdout) == 800
        assert split.train[EVENT_TIME].max() < first - HORIZON
        left_out = rows.filter(pl.col(EVENT_TIME).is_between(first - HORIZON, first, closed="left"))
        assert len(split.train) + len(left_out) + 800 == 4_000

    @pytest.mark.parametrize(
        ("rows", "says"),
        [(ROWS.head(100), "too few"), (ROWS.with_columns(pl.lit(value=False).alias(LABEL.name)), "differently")],
    )
    def test_refuses_rows_that_teach_nothing(self, rows: pl.DataFrame, says: str) -> None:
        with pytest.raises(TrainingError, match=says):
            split_by_time(rows, LABEL)


class TestModel:
    def test_is_better_than_always_saying_the_mean(self, trained: Trained) -> None:
        assert trained.card.metrics["log_loss"] < trained.card.baseline["log_loss"] - 0.02
        assert trained.card.metrics["roc_auc"] > 0.65
        assert judged(trained.model, LABEL, split_by_time(training_rows(), LABEL).holdout) == pytest.approx(
            trained.card.metrics, abs=1e-4
        )

    def test_a_feature_without_a_value_in_training_counts_for_nothing(self) -> None:
        split = split_by_time(training_rows(2_000), LABEL)
        new = pl.lit(None, pl.Int64).alias("age"), pl.lit(None, pl.String).alias("country")
        trained = train(purchase_prediction, replace(split, train=split.train.with_columns(new)), "hash", 1, "1")
        held = trained.model.encoder.trained(split.holdout)
        without = trained.model.encoder.trained(split.holdout.with_columns(new))
        np.testing.assert_array_equal(trained.model.probabilities(held), trained.model.probabilities(without))

    def test_one_row_and_many_give_the_same(self, trained: Trained) -> None:
        matrix = trained.model.encoder.trained(ROWS)
        one_by_one = [trained.model.probabilities(matrix[number : number + 1])[0] for number in range(50)]
        np.testing.assert_allclose(trained.model.probabilities(matrix)[:50], one_by_one, atol=1e-6)

    def test_leaves_out_what_no_row_has_and_tells(self, trained: Trained) -> None:
        rows = training_rows()
        lacking = ["age", "country"]
        without = rows.with_columns(pl.lit(None).cast(rows.schema[name]).alias(name) for name in lacking)
        found = train(purchase_prediction, split_by_time(without, LABEL), "hash", 1, "v2")
        assert found.card.left_out == ("user_profile_features:age", "user_profile_features:country")
        assert {one.name for one in trained.card.features} - {one.name for one in found.card.features} == set(lacking)
        served = [as_served(row) for row in rows.head(5).iter_rows(named=True)]
        assert found.model.predict(served) == pytest.approx(
            found.model.probabilities(found.model.encoder.trained(rows.head(5)))
        )

    def test_values_that_32_bits_hardly_tell_apart_go_the_same_way(self) -> None:
        rows = training_rows()
        chance = np.random.default_rng(1)
        steps = chance.integers(0, 8, len(rows))
        close = rows.with_columns(
            pl.Series("revenue_cents", 20_000_000 + 2 * steps),
            pl.Series("cart_rate", 0.1 + steps * 2.0**-27),
            pl.Series(LABEL.name, chance.random(len(rows)) < steps / 10),
        )
        found = train(
            purchase_prediction, split_by_time(close, LABEL), "hash", 1, "v2"
        )  # compares the export with the original
        assert found.card.metrics["roc_auc"] > 0.7

    def test_refuses_rows_without_any_feature(self) -> None:
        rows = training_rows()
        names = [name for view in VIEWS for name in view.features]
        empty = rows.with_columns(pl.lit(None).cast(rows.schema[name]).alias(name) for name in names)
        with pytest.raises(TrainingError, match="none of the"):
            train(purchase_prediction, split_by_time(empty, LABEL), "hash", 1, "v2")

    def test_survives_the_disk(self, trained: Trained, tmp_path: Path) -> None:
        models = ModelFolder(tmp_path, "service")
        models.save(trained.card, trained.onnx)
        with pytest.raises(ModelError, match="no model has been trained"):
            models.load()
        models.promote("v1")
        assert models.load().card == trained.card
        assert [path.name for path in models.path.iterdir() if path.name.startswith(".")] == []

    def test_damaged_files_are_told(self, trained: Trained, tmp_path: Path) -> None:
        models = ModelFolder(tmp_path, "service")
        folder = models.save(trained.card, b"no model")
        models.promote("v1")
        with pytest.raises(ModelError, match="train again"):
            models.load()
        (folder / "model.json").write_text("{")
        with pytest.raises(ModelError, match="train again"):
            models.load()
        (models.path / "current.json").write_text("[]")
        with pytest.raises(ModelError, match="can't be read"):
            models.load()


def test_misfit_names_the_feature(trained: Trained) -> None:
    views = tuple(
        ServedView(view.name, dict(view.entity.join_keys), dict(view.value_types), None, None, {}) for view in VIEWS
    )
    schema = ServedSchema("project", "service", views)
    assert misfit(trained.card.features, schema) is None
    first, rest = views[0], views[1:]
    types = dict(first.types)
    types.pop("view_count")
    without = replace(schema, views=(replace(first, types=types), *rest))
    assert "user_click_features:view_count" in str(misfit(trained.card.features, without))
    other = replace(schema, views=(replace(first, types=first.types | {"view_count": "String"}), *rest))
    assert "as Int64, and the registry has String" in str(misfit(trained.card.features, other))


class TestCommand:
    @pytest.fixture
    def source(self) -> Path:
        file = ServingSettings().data_root / "training" / "purchase_prediction.parquet"
        file.parent.mkdir(parents=True)
        training_rows().write_parquet(file)
        return file

    def run(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        status = main(["--json", *arguments])
        return status, json.loads(capsys.readouterr().out)

    def test_trains_promotes_and_reports(self, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
        status, told = self.run(capsys)
        root = ServingSettings().data_root
        models = ModelFolder(root, "purchase_prediction")
        assert (status, told["promoted"], models.current) == (0, True, told["version"])
        card = msgspec.to_builtins(models.load().card)
        assert card["training_rows"] + card["holdout_rows"] == 4_000 - HORIZON // timedelta(seconds=10)
        assert len(card["data_hash"]) == 16
        report = (root / "reports" / f"training-{told['version']}.html").read_text()
        assert "<img" in report
        assert "http" not in report.replace("http://www.w3.org", "")
        assert source.exists()

    def test_the_same_again_is_not_worse(self, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert source.exists()
        _, first = self.run(capsys)
        status, second = self.run(capsys)
        assert (status, second["promoted"]) == (0, True)
        assert second["metrics"]["the model"] == first["metrics"]["the model"]

    def test_a_worse_one_is_stored_and_not_served(self, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
        _, good = self.run(capsys)
        rows = pl.read_parquet(source)
        split = split_by_time(rows, LABEL)
        noise = split.train.with_columns(pl.col(LABEL.name).shuffle(seed=1))
        pl.concat([noise, split.holdout]).write_parquet(source)
        status, bad = self.run(capsys)
        models = ModelFolder(ServingSettings().data_root, "purchase_prediction")
        assert (status, bad["worse"], bad["promoted"], models.current) == (1, True, False, good["version"])
        assert isinstance(models.load(bad["version"]), Model)
        status, bad = self.run(capsys, "--promote", "always")
        assert (status, models.current) == (1, bad["version"])

    def test_one_that_does_not_beat_its_baseline_is_not_served_unless_forced(
        self, source: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows = pl.read_parquet(source)
        rows.with_columns(pl.col(LABEL.name).shuffle(seed=1)).write_parquet(source)  # nothing to learn
        models = ModelFolder(ServingSettings().data_root, "purchase_prediction")
        status, told = self.run(capsys)
        metrics = told["metrics"]
        assert metrics["the model"]["log_loss"] > metrics["baseline"]["log_loss"]
        assert (status, told["promoted"], models.current) == (1, False, None)
        assert "no better than always predicting the mean" in told["verdict"]
        assert told["verdict"].endswith(
            "serve it all the same: python -m serving.train --service purchase_prediction --force"
        )
        assert '<p class="verdict bad">' in Path(told["report"]).read_text()
        status, told = self.run(capsys, "--force")
        assert (status, told["promoted"], models.current) == (1, True, told["version"])
        assert "It is served from now on all the same, as asked." in told["verdict"]

    def test_a_later_one_must_beat_its_own_baseline_too(self, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
        rows = pl.read_parquet(source)
        split = split_by_time(rows, LABEL)
        upside_down = pl.concat([split.train.with_columns(~pl.col(LABEL.name)), split.holdout])
        upside_down.write_parquet(source)
        _, bad = self.run(capsys, "--force")
        rows.with_columns(pl.col(LABEL.name).shuffle(seed=1)).write_parquet(source)
        status, told = self.run(capsys)
        assert (status, told["worse"], told["beats_baseline"], told["promoted"]) == (1, False, False, False)
        assert f"not served: {bad['version']} is still served" in told["verdict"]

    def test_people_see_what_decides(self, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([]) == 0
        assert "It is served from now on." in " ".join(capsys.readouterr().out.split())
        pl.read_parquet(source).with_columns(pl.col(LABEL.name).shuffle(seed=1)).write_parquet(source)
        assert main([]) == 1
        assert "no better than always predicting the mean" in " ".join(capsys.readouterr().out.split())

    def test_without_a_training_set_it_says_what_to_do(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="2"):
            main([])
        assert "run python -m batch.training_set first" in capsys.readouterr().err

    def test_lacking_columns_are_named(self, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
        pl.read_parquet(source).drop("age").write_parquet(source)
        with pytest.raises(SystemExit, match="2"):
            main([])
        assert "lacks age" in capsys.readouterr().err
