"""Drift is found where it is, named as large as it is, and not found where there is none."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from batch.drift import analyze_click_count_drift
from batch.drift.__main__ import drift_of, main as drift, samples_of, verdict_of
from batch.drift.plots import plot
from batch.drift.samples import PREDICTION, Period, health_in_words, sample, stream_health
from batch.drift.statistics import LEAST_ROWS, compare, judge
from feast_repo.clickstream import clickstream
from feast_repo.features import (
    catalog,
    purchase_prediction,
    user_click_features as view,
    user_profile_features as profiles,
)
from feast_repo.settings import StreamSettings
from serving.score_log import ScoreLog
from simulation.clock import Traffic, historical
from simulation.events import simulate
from simulation.profiles import make_profiles, publish_profiles
from tests.batch.archives import NOW_MS, clicks, store, stream
from tests.browser import look_at_file, needs_chromium
from tests.feast_repo.rows import clicks as click_rows

if TYPE_CHECKING:
    from tests.stream.reference import Record

ROWS, SEED = 20_000, 7
DAY = timedelta(days=1)
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def normal(mean: float = 0.0, rows: int = ROWS, seed: int = SEED) -> pl.Series:
    return pl.Series(np.random.default_rng(seed).normal(mean, 1.0, rows) + 10)


def counts(zeros: float, seed: int = SEED) -> pl.Series:
    chance = np.random.default_rng(seed)
    return pl.Series(np.where(chance.random(ROWS) < zeros, 0, chance.poisson(3, ROWS) + 1))


def severity(reference: pl.Series, current: pl.Series) -> str:
    return judge([compare("x", reference, current)])[0].severity


def score(root: Path, at: datetime, users: int, mean: float) -> None:
    log = ScoreLog(root, purchase_prediction, catalog.services)
    chance = np.random.default_rng(users)
    names = [f"user_{number:06d}" for number in range(users)]
    log.add(at.timestamp(), names, [0.99] * users, "v1")
    log.add(at.timestamp() + 1, names, np.clip(chance.normal(mean, 0.1, users), 0, 1).tolist(), "v1")
    assert log.flush() == 2 * users


def test_predictions_are_compared_by_each_users_last_score() -> None:
    root = StreamSettings().data_root
    periods = Period(NOON - DAY, NOON), Period(NOON, NOON + DAY)
    assert PREDICTION not in samples_of(root, purchase_prediction, *periods)
    score(root, NOON - DAY, 1_000, 0.3)
    score(root, NOON - timedelta(seconds=2), 1_000, 0.3)
    score(root, NOON, 1_001, 0.3)
    like = {one.feature: one for one in drift_of(samples_of(root, purchase_prediction, *periods), 0.05)}[PREDICTION]
    assert (like.severity, like.reference_rows, like.current_rows) == ("none", 1_000, 1_001)
    score(root, NOON + timedelta(hours=1), 1_001, 0.4)
    unlike = {one.feature: one for one in drift_of(samples_of(root, purchase_prediction, *periods), 0.05)}[PREDICTION]
    assert unlike.severity == "major"


class TestKnownAnswers:
    def test_numbers_are_scipys(self) -> None:
        a, b = normal(), normal(0.5, seed=8)
        found = compare("x", a, b)
        expected = stats.ks_2samp(a.to_numpy(), b.to_numpy(), method="asymp")
        assert found.p_values == {"ks": expected.pvalue}
        assert found.p_value == expected.pvalue
        assert found.effects["ks"] == expected.statistic
        assert found.effects["wasserstein"] == pytest.approx(0.5, abs=0.05)
        edges = np.quantile(a, np.linspace(0, 1, 11)[1:-1])
        share = np.bincount(np.searchsorted(edges, b, side="right"), minlength=10) / len(b)
        assert found.effects["psi"] == pytest.approx(sum((share - 0.1) * np.log(share / 0.1)), rel=1e-3)

    def test_categories_by_hand(self) -> None:
        a, b = pl.Series(["x"] * 600 + ["y"] * 400), pl.Series(["x"] * 500 + ["y"] * 500)
        found = compare("c", a, b)
        # Both periods expect 550 and 450: four cells that are 50 off.
        square = 2 * 50**2 / 550 + 2 * 50**2 / 450
        assert found.effects["cramers_v"] == pytest.approx((square / 2000) ** 0.5)
        assert found.effects["psi"] == pytest.approx(-0.1 * np.log(5 / 6) + 0.1 * np.log(5 / 4))
        assert found.p_value == pytest.approx(stats.chi2.sf(square, 1))

    def test_shares_by_hand(self) -> None:
        found = compare("x", pl.Series([0] * 250 + [5] * 750), pl.Series([0] * 500 + [5] * 500))
        assert found.effects["zeros"] == pytest.approx(2 * np.arcsin(0.5**0.5) - 2 * np.arcsin(0.25**0.5))
        assert found.effects["wasserstein"] == 0
        table = [[250, 750], [500, 500]]
        share = stats.chi2_contingency(table, correction=False).pvalue
        assert found.p_values == {"zeros": pytest.approx(share), "ks": 1.0}
        assert found.p_value == pytest.approx(2 * share)
        assert found.says == "mean 3.75, now 2.5 (-33%); zero 25.0%, now 50.0%; median of the others 5, now 5"

    def test_nan_is_missing(self) -> None:
        whole = normal(rows=1_000)
        holes = pl.Series([float("nan"), None] * 250).extend(normal(rows=500, seed=8))
        found = compare("x", whole, holes)
        assert found.effects["missing"] == pytest.approx(2 * np.arcsin(0.5**0.5))
        assert np.isfinite(list(found.effects.values())).all()

    def test_p_values_are_corrected_for_their_number(self) -> None:
        pairs = [compare(str(number), normal(seed=number), normal(seed=number + 50)) for number in range(10)]
        judged = judge(pairs)
        raw = [one.p_value for one in pairs]
        assert [one.p_adjusted for one in judged] == list(stats.false_discovery_control(raw))


class TestPower:
    @pytest.mark.parametrize(
        ("reference", "current", "expected"),
        [
            (normal(), normal(0.5, seed=8), "major"),
            (normal(), normal(0.2, seed=8), "minor"),
            (counts(0.3), counts(0.6, seed=8), "major"),
            (counts(0.1), counts(0.2, seed=8), "major"),
            (pl.Series(["a", "b"] * 5_000), pl.Series(["a", "b"] * 4_700 + ["new"] * 600), "major"),
            (pl.Series(["a", "b"] * 4_700 + ["old"] * 600), pl.Series(["a", "b"] * 5_000), "major"),
            (normal(), normal(seed=8).extend(pl.Series([None] * ROWS, dtype=pl.Float64)), "major"),
            (pl.Series([5.0] * 1_000), pl.Series([6.0] * 1_000), "major"),
        ],
    )  # fmt: skip
    def test_drift_is_found_and_as_large_as_it_is(
        self, reference: pl.Series, current: pl.Series, expected: str
    ) -> None:
        assert severity(reference, current) == expected

    def test_new_and_gone_categories_are_named(self) -> None:
        says = compare("c", pl.Series(["a", "gone"] * 500), pl.Series(["a", "new"] * 500)).says
        assert "new: new" in says
        assert "gone: gone" in says

    def test_too_few_rows_tell_nothing(self) -> None:
        assert severity(normal(rows=LEAST_ROWS - 1), normal(3.0)) == "insufficient data"

    def test_what_is_significant_but_does_not_matter_is_no_drift(self) -> None:
        one = judge([compare("x", normal(rows=200_000), normal(0.03, rows=200_000, seed=8))])[0]
        assert one.p_adjusted < 0.001
        assert one.severity == "none"


def buyers(count: int, factor: float = 1, users: int = 3_000, rest: float | None = 0, seed: int = SEED) -> pl.Series:
    """What users paid: `count` of them bought, and all others have `rest`."""
    paid = np.random.default_rng(seed).integers(500, 1_500, count) * factor
    return pl.Series([*paid.tolist(), *[rest] * (users - count)], dtype=pl.Float64)


def mostly_missing(texts: list[str]) -> pl.Series:
    return pl.Series([*texts, *[None] * (3_000 - len(texts))], dtype=pl.String)


class TestFewOfMany:
    """Parts of a feature with few values: drift in them is found, and "none" is not said of what can't be told."""

    @pytest.mark.parametrize(
        ("reference", "current"),
        [
            (buyers(120), buyers(120, 100, seed=8)),
            (buyers(199, users=100_000), buyers(199, 100, users=100_000, seed=8)),
            (buyers(8), buyers(9, 100, seed=8)),
            (buyers(120, rest=None), buyers(150, 2, rest=None, seed=8)),
            (buyers(150), buyers(4_000, 2, users=100_000, seed=8)),
            (mostly_missing(["a", "b"] * 50), mostly_missing(["a", "c"] * 50)),
        ],
    )
    def test_drift_in_them_is_found(self, reference: pl.Series, current: pl.Series) -> None:
        assert severity(reference, current) == "major"

    @pytest.mark.parametrize(
        ("reference", "current", "says"),
        [
            (buyers(120), buyers(125, seed=8), "too few values that are not zero (120, now 125)"),
            (buyers(3_000), buyers(3_000, seed=8).head(1_000).extend(buyers(0, users=2_000)), None),
            (buyers(0), buyers(3), "too few values that are not zero (0, now 3)"),
            (buyers(120, rest=None), buyers(125, rest=None, seed=8), "too few values (120, now 125)"),
            (buyers(120, rest=None), buyers(0, rest=None, users=3_200), None),
            (mostly_missing(["a", "b"] * 50), mostly_missing(["a", "b"] * 60), "too few values (100, now 120)"),
            (mostly_missing(["a", "b"] * 2), mostly_missing([]), "too few values (4, now 0)"),
            (buyers(1, 300, rest=7), buyers(30, 300, rest=7, seed=8), "wasserstein"),
            (buyers(0), buyers(0, users=4_000), ""),
            (buyers(0, rest=5), buyers(0, rest=5, users=4_000), ""),
        ],
    )
    def test_none_is_said_of_what_was_tested_only(
        self, reference: pl.Series, current: pl.Series, says: str | None
    ) -> None:
        (found,) = judge([compare("x", reference, current)])
        if says is None:  # the share tells, though the values can't
            assert found.severity == "major"
        elif says:
            assert found.severity == "insufficient data"
            assert f"not told: {says}" in found.says
        else:
            assert (found.severity, found.untold) == ("none", ())

    def test_a_part_that_tells_nothing_lends_nothing_to_another(self) -> None:
        # Significantly fewer buy, by a little; what a few of them paid is as different as chance makes it.
        reference, current = buyers(900, users=60_000), buyers(5, users=2_000, seed=8)
        (found,) = judge([compare("x", reference, current)])
        assert found.effects["psi"] > 0.25
        assert found.severity == "minor"

    def test_p_values_of_few_are_exact(self) -> None:
        a, b = buyers(30), buyers(40, 1.2, seed=8)
        expected = stats.ks_2samp(a.head(30).to_numpy(), b.head(40).to_numpy(), method="exact").pvalue
        assert compare("x", a, b).p_values["ks"] == expected
        share = compare("x", pl.Series([1, *[0] * 299]), pl.Series([*[1] * 7, *[0] * 293]))
        assert share.p_values["zeros"] == pytest.approx(stats.fisher_exact([[1, 299], [7, 293]]).pvalue)
        few = compare("x", mostly_missing(["a"] * 3 + ["b"] * 9), mostly_missing(["a"] * 9 + ["b"] * 5))
        exact = stats.fisher_exact([[3, 9], [9, 5]]).pvalue
        assert few.p_values["cramers_v"] == pytest.approx(exact, abs=0.02)

    def test_chance_alone_is_hardly_ever_drift(self) -> None:
        print(f"seed {SEED}")  # noqa: T201  (a failure shows it)
        chance = np.random.default_rng(SEED)
        alarms = 0
        for _ in range(200):
            pairs = []
            for count in (3, 20, 150):
                sizes = chance.poisson(count, 2) + 1
                numbers = [pl.Series([*chance.lognormal(5, 2, size), *[0.0] * 1_000]) for size in sizes]
                texts = [mostly_missing(chance.choice(["a", "b", "c"], size, p=[0.8, 0.15, 0.05])) for size in sizes]
                pairs += [numbers, texts]
            found = judge([compare(str(number), *pair) for number, pair in enumerate(pairs)])
            alarms += any(one.drifted for one in found)
        assert alarms <= 15

    def test_the_verdict_says_no_more(self) -> None:
        few = compare("few", buyers(120), buyers(125, seed=8))
        same = compare("same", normal(), normal(seed=8))
        other = compare("other", normal(), normal(0.5, seed=8))
        assert verdict_of(judge([same])) == ("none", "Nothing has drifted.")
        assert verdict_of(judge([few, same])) == (
            "insufficient data",
            "Nothing has drifted, as far as there is enough data. Insufficient data: few.",
        )
        assert verdict_of(judge([few])) == ("insufficient data", "Nothing can be told. Insufficient data: few.")
        assert verdict_of(judge([few, other])) == ("major", "Drifted: other (major). Insufficient data: few.")


def test_no_false_alarms() -> None:
    print(f"seed {SEED}")  # noqa: T201  (a failure shows it)
    chance = np.random.default_rng(SEED)
    alarms = 0
    for _ in range(200):
        values = [pl.Series(np.where(chance.random(50_000) < 0.4, 0, chance.poisson(2, 50_000) + 1)) for _ in range(2)]
        texts = [pl.Series(chance.choice(["a", "b", "c"], 50_000, p=[0.5, 0.3, 0.2])) for _ in range(2)]
        found = judge([compare("n", *values), compare("c", *texts)])
        alarms += any(one.drifted for one in found)
    assert alarms <= 10


class TestSamples:
    def test_one_active_window_a_user_that_overlaps_no_other(self) -> None:
        root = StreamSettings().data_root
        for number in range(12):
            end = NOON + number * view.slide
            rows = click_rows(["a", "b", "quiet"], end, view_count=number).with_columns(
                pl.when(pl.col("user_id") == "quiet").then(0).otherwise(pl.col(name)).alias(name)
                for name in ("click_count", "view_count", "revenue_cents")
            )
            store(root, view, rows, "stream", 0, round(end.timestamp() * 1000))
        found = sample(root, view, Period(NOON - DAY, NOON + DAY))
        assert len(found) == 2
        assert set(found["view_count"]) <= {0, 6}
        assert sample(root, view, Period(NOON + timedelta(minutes=1), NOON + timedelta(minutes=55))).is_empty()

    def test_profiles_as_they_held_at_the_end(self) -> None:
        root = StreamSettings().data_root
        publish_profiles(make_profiles(30, 1), NOON, root)
        publish_profiles(make_profiles(30, 2), NOON + 2 * DAY, root)
        first = sample(root, profiles, Period(NOON, NOON + DAY))
        assert first.equals(make_profiles(30, 1).select(list(profiles.features)))
        assert sample(root, profiles, Period(NOON - DAY, NOON)).is_empty()

    def test_health_counts_what_came(self) -> None:
        root = StreamSettings().data_root
        log = clicks(hours=3, events=900, partitions=2)
        stream(root, view, log)
        arrivals = [
            record["kafka_timestamp"]
            for records in log.values()
            for record in records
            if record["event_type"] != clickstream.heartbeat
        ]
        assert len(arrivals) == 900
        end = datetime.fromtimestamp(NOW_MS / 1000, tz=UTC) + DAY
        found = stream_health(root, [view], Period(end - 10 * DAY, end))
        assert found["events_per_hour"] == len(arrivals) / 240
        assert 0 < found["late_share"] < 0.2
        assert found["dead_letter_share"] == 0
        assert stream_health(root, [view], Period(end, end + DAY)) == dict.fromkeys(found, 0)

    def test_health_in_words(self) -> None:
        before = {"events_per_hour": 1000.0, "late_share": 0.01, "dead_letter_share": 0.0}
        now = {"events_per_hour": 1500.0, "late_share": 0.025, "dead_letter_share": 0.004}
        assert health_in_words(before, now) == [
            "events per hour 1,000, now 1,500 (+50%)",
            "late share 1.00%, now 2.50%",
            "dead letter share 0.00%, now 0.40%",
        ]


def days(root: Path, factor: int) -> None:
    """Two days of 300 users; on the second one they view `factor` times as much."""
    chance = np.random.default_rng(SEED)
    users = [f"user_{number:06d}" for number in range(300)]
    for number in range(2):
        for hour in range(3):
            end = NOON + number * DAY + timedelta(hours=hour)
            views = chance.poisson(8, len(users)) * (factor if number else 1) + 1
            rows = click_rows(users, end).with_columns(
                pl.Series("view_count", views), pl.Series("click_count", chance.poisson(3, len(users)))
            )
            rows = rows.with_columns(revenue_cents=pl.lit(100), cart_rate=pl.lit(0.5), conversion_rate=pl.lit(0.5))
            store(root, view, rows, "stream", 0, round(end.timestamp() * 1000))
    publish_profiles(make_profiles(300, 1), NOON - DAY, root)


@pytest.mark.parametrize(("factor", "drifted"), [(1, []), (3, ["view_count"])])
def test_the_command_names_exactly_what_has_drifted(
    capsys: pytest.CaptureFixture[str], factor: int, drifted: list[str]
) -> None:
    root = StreamSettings().data_root
    days(root, factor)
    midnight = NOON.replace(hour=0)
    current = [(midnight + DAY).isoformat(), (midnight + 2 * DAY).isoformat()]
    arguments = ["--current", *current]
    status = drift([*arguments, "--json"])
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [one["feature"] for one in report["features"] if one["severity"] in {"minor", "major"}] == drifted
    assert status == (1 if drifted else 0)
    assert [day["end"][:10] for day in report["history"]] == ["2026-01-06", "2026-01-07"]
    of_days = [[name for name, one in day["severities"].items() if one != "none"] for day in report["history"]]
    assert of_days == [[], drifted]
    assert report["history"][1]["levels"].keys() == {one["feature"] for one in report["features"]}
    with open(report["file"], encoding="utf-8") as file:  # noqa: PTH123
        page = file.read()
    assert page.count("<img") == len(view.features) + len(profiles.features)
    assert "http" not in page
    assert drift([*arguments, "--fail-on", "never"]) == 0
    assert ("Drifted: view_count (major)." if drifted else "Nothing has drifted.") in capsys.readouterr().out


@needs_chromium
def test_a_person_sees_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    root = StreamSettings().data_root
    days(root, 3)
    score(root, NOON, 1_000, 0.3)
    drift(
        ["--current", (NOON.replace(hour=0) + DAY).isoformat(), (NOON.replace(hour=0) + 2 * DAY).isoformat(), "--json"]
    )
    report = json.loads(capsys.readouterr().out)
    seen = look_at_file(Path(report["file"]))
    assert seen.console == []
    features = len(view.features) + len(profiles.features)  # and too few predictions for a picture
    assert f'<p id="pictures">{features}, 0</p>' in seen.dom
    assert seen.dom.index("view_count") < seen.dom.index("click_count")  # what has drifted comes first
    assert 'class="major">view_count' in seen.dom.replace("\n", "")
    assert PREDICTION in seen.dom


@pytest.mark.parametrize(
    ("habit", "expected"),
    [
        ("none", set()),
        ("prices", {"revenue_cents"}),
        ("buying", {"purchase_count", "revenue_cents", "conversion_rate"}),
        ("visits", set(view.features)),  # who looks at more buys more
    ],
)
def test_other_habits_of_generated_shoppers_are_found(habit: str, expected: set[str]) -> None:
    root = StreamSettings().data_root
    log: list[Record] = []
    for number, drift_of_day in enumerate(("none", habit)):
        simulation = historical(
            view.source,
            [view],
            Traffic(users=3_000, seed=SEED + number, drift=drift_of_day),  # other clicks of other shoppers
            events=24_000,
            hours=3,
            now_ms=round((NOON + (number + 1) * DAY).timestamp() * 1000),
            partitions=(0,),
        )
        records = pl.concat(list(simulate(simulation)))
        log += records.select(pl.col("arrival_ms").alias("kafka_timestamp"), *clickstream.schema).to_dicts()
    stream(root, view, {0: log})
    frames = [sample(root, view, Period(NOON + number * DAY, NOON + (number + 1) * DAY)) for number in range(2)]
    assert min(map(len, frames)) > 1_000
    assert not frames[0].equals(frames[1])
    found = judge([compare(name, frames[0][name], frames[1][name]) for name in view.features])
    assert {one.feature for one in found if one.drifted} == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("none", {}),
        ("older", {"age": "major"}),
        ("new-country", {"country": "major"}),
        ("no-premium", {"subscription_tier": "major"}),
    ],
)
def test_another_population_is_found(change: str, expected: dict[str, str]) -> None:
    frames = [make_profiles(5_000, 1), make_profiles(5_000, 2, change)]
    found = judge([compare(name, frames[0][name], frames[1][name]) for name in profiles.features])
    assert {one.feature: one.severity for one in found if one.drifted} == expected


def test_bad_periods_are_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        ([], "has no progress record"),
        (["--current", "2026-01-02", "2026-01-01"], "--current: the start must be before the end"),
    ):
        with pytest.raises(SystemExit) as stopped:
            drift(arguments)
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


class TestLibraryUse:
    def test_result_by_attribute_and_by_key(self) -> None:
        yesterday, today = counts(0.3).to_frame("click_count"), counts(0.6, seed=8).to_frame("click_count")
        result = analyze_click_count_drift(yesterday, today, feature_column="click_count", p_threshold=0.05)
        assert result.is_drift_detected is result["is_drift_detected"] is True
        assert not analyze_click_count_drift(yesterday, yesterday)["is_drift_detected"]
        with pytest.raises(KeyError):
            result["nothing"]

    def test_pandas_and_the_other_name(self) -> None:
        yesterday, today = (one.to_frame("click_count").to_pandas() for one in (counts(0.3), counts(0.6, seed=8)))
        assert analyze_click_count_drift(yesterday, today, feature_column="click_count_1h").severity == "major"
        with pytest.raises(ValueError, match="no column 'clicks'; the columns are click_count"):
            analyze_click_count_drift(yesterday, today, feature_column="clicks")


def test_a_feature_that_no_day_has_a_verdict_on_is_drawn() -> None:
    days = [{"end": "2026-01-06T00:00:00+00:00", "levels": {}, "severities": {}}]
    assert plot("age", normal(rows=50), normal(rows=50), days)
