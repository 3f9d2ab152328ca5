"""An entity that is forgotten is in no place any more, does not come back, and takes nothing of others with it."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from redis import Redis

from batch.lock import BatchRunningError, carrying_rows, only_batch_writer
from batch.maintenance.compaction import merge
from batch.maintenance.forget import main as forget
from batch.maintenance.materialize import main as materialize
from batch.maintenance.restore_online import main as restore
from batch.parity.__main__ import main as parity
from batch.quality.quarantine import keep
from batch.training.training_set import main as training_set
from feast_repo.clickstream import clickstream
from feast_repo.features import purchase_prediction, user_click_features as view, user_profile_features as profiles
from feast_repo.settings import StreamSettings
from feast_repo.stores.offline.files import data_files, day_folders
from feast_repo.stores.offline.parquet import day_folder, publish
from feast_repo.stores.offline.tables import (
    DEAD_LETTER_COLUMNS,
    FORGOTTEN,
    dead_letters_folder,
    event_columns,
    events_folder,
    features_folder,
    late_columns,
    late_folder,
    prediction_columns,
    predictions_folder,
    progress_folder,
    rejects_folder,
)
from feast_repo.stores.online.found_keys import keys_with
from feast_repo.stores.online.keys import SENTINEL
from feast_repo.stores.online.owner import identity_key
from feast_repo.stores.progress import ProgressRecord
from simulation.profiles import make_profiles, publish_profiles
from stream import lock
from stream.archive_tail import ArchiveTail
from stream.log_table import LogTable
from stream.windows import WindowEngine
from tests.batch.archives import clicks, stream
from tests.batch.other_repo import paid, write_repo
from tests.declared import card_features, shop_of_card_features, shop_windows
from tests.feast_repo.rows import NEW_YEAR
from tests.stream.reference import records_frame

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from feast_repo.declare.views import WindowedView
    from tests.stream.reference import Record

    Logs = dict[int, list[Record]]

HERE_BEFORE = NEW_YEAR - timedelta(days=30)
NEVER_NAMED = "user_000999"
STAYS_IN_LOG = ["partition", "offset", "kafka_timestamp", "create_time", "watermark", "event_timestamp"]


@pytest.fixture(scope="module")
def logs() -> Logs:
    """Two partitions that end in the middle of windows, each with an event of a user."""
    made = clicks(hours=4, events=1_500, partitions=2)
    cut = {}
    for partition, log in made.items():
        upto = max(number for number, record in enumerate(log[: len(log) * 3 // 4]) if record["user_id"])
        cut[partition] = log[: upto + 1]
    return cut


@pytest.fixture(scope="module")
def user(logs: Logs) -> str:
    """Whose event is the last of its partition and day: what a log table tells a replay by."""
    name: str = logs[0][-1]["user_id"]
    assert sum(record["user_id"] == name for record in logs[0]) > 10
    return name


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def root(
    logs: Logs, user: str, redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Path:
    """The data folder of a deployment that has the user in every place."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    folder = StreamSettings().data_root
    stream(folder, view, logs)
    write_letters(folder, user)
    publish_profiles(make_profiles(40, 1), HERE_BEFORE, folder)
    scores = [(NEW_YEAR, name, 0.25, "1") for name in (user, NEVER_NAMED)]
    rows = pl.DataFrame(scores, schema=prediction_columns(purchase_prediction), orient="row")
    publish(
        day_folder(predictions_folder(folder, purchase_prediction, [purchase_prediction]), "2026-01-01")
        / "one.parquet",
        rows,
    )
    pairs = pl.DataFrame({"user_id": [user, NEVER_NAMED], "purchased": [True, False]})
    publish(folder / "training" / "purchase_prediction.parquet", pairs)
    broken = pl.DataFrame({"user_id": [user, NEVER_NAMED], "age": ["7", "many"], "rules": ["age_readable"] * 2})
    keep(folder, profiles, NEW_YEAR, broken)
    rejects = rejects_folder(folder) / "history-1.jsonl"
    rejects.parent.mkdir()
    values = ({"user_id": name, "event_type": "veiw"} for name in (user, NEVER_NAMED))
    lines = ({"file": "h", "line": 1, "reason": "unknown_event_type", "value": json.dumps(one)} for one in values)
    rejects.write_text("".join(json.dumps(line) + "\n" for line in lines) + "no line of ours\n")
    (folder / "reports").mkdir()
    for name, entity in (("parity-1", user), ("parity-2", NEVER_NAMED)):
        (folder / "reports" / f"{name}.json").write_text(json.dumps({"examples": [{"entity": entity}]}))
        (folder / "reports" / f"{name}.html").write_text(f"<p>{entity}</p>")
    (day_folder(events_folder(folder, clickstream), "2026-01-01")).mkdir(exist_ok=True)
    (events_folder(folder, clickstream) / ".p00000.killed.tmp").write_text(user)
    assert restore([]) == 0
    capsys.readouterr()
    return folder


@pytest.fixture
def recovery(tmp_path: Path) -> Path:
    """A recovery directory whose windows hold the user, also those that a rebuild has replaced."""
    folder = tmp_path / "recovery"
    (folder / "replaced-1").mkdir(parents=True)
    for name in ("part-0.sqlite3", "part-0.sqlite3-wal", "about.json", "replaced-1/part-0.sqlite3", "mine.txt"):
        (folder / name).write_text("windows")
    return folder


def letters_of(user: str) -> list[tuple[bytes | None, bytes]]:
    """Messages that name the user, each in another way."""
    return [
        (user.encode(), b"\xff"),
        (None, json.dumps({"user_id": user, "event_type": "veiw"}).encode()),
        (None, json.dumps([{"user": {"name": user}}]).encode()),
        (None, f'{{"user_id": "{user}", "user_id": "other"}}'.encode()),
        (None, f'{{"user_id": "{user}", "eve'.encode()),
    ]


OTHER_LETTERS: list[tuple[bytes | None, bytes]] = [(b"someone", b""), (None, b'{"user_id": "user_00000"}'), (None, b"")]


def write_letters(root: Path, user: str) -> None:
    messages = [*OTHER_LETTERS, *letters_of(user)]
    table = LogTable(dead_letters_folder(root, clickstream), DEAD_LETTER_COLUMNS)
    table.append(0, letters_frame(messages))
    table.flush()


def letters_frame(messages: Sequence[tuple[bytes | None, bytes]]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "offset": range(len(messages)),
            "kafka_timestamp": [round(NEW_YEAR.timestamp() * 1000)] * len(messages),
            "key": [key for key, _ in messages],
            "value": [value for _, value in messages],
            "reason": ["not_json"] * len(messages),
        },
        schema_overrides={"key": pl.Binary, "value": pl.Binary},
    )


def run(
    capsys: pytest.CaptureFixture[str], user: str, *arguments: str | Path, status: int = 0
) -> dict[str, dict[str, int]]:
    capsys.readouterr()
    assert forget(["--entity", user, "--json", *map(str, arguments)]) == status
    places: dict[str, dict[str, int]] = json.loads(capsys.readouterr().out)["places"]
    return places


def refused(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 2) -> str:
    with pytest.raises(SystemExit) as stopped:
        forget([*map(str, arguments)])
    assert stopped.value.code == status
    return capsys.readouterr().err.splitlines()[-1]


def tables(root: Path) -> dict[Path, pl.DataFrame]:
    return {file: pl.read_parquet(file, hive_partitioning=False) for file in sorted(root.rglob("*.parquet"))}


def snapshot(root: Path, redis: Redis) -> tuple[dict[Path, str], list[Any]]:
    """Everything there is, but for locks, identity and registry."""
    files = [file for file in sorted(root.rglob("*")) if file.is_file() and file.parent != root]
    keys: Any = sorted(redis.scan_iter(_type="hash"))
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}, [redis.hgetall(key) for key in keys]


def naming(root: Path, redis: Redis, user: str) -> list[Any]:
    """Where the user is still named, found in another way than the command's."""
    found: list[Any] = [key for key in redis.scan_iter() if user.encode() in key]
    for file in root.rglob("*"):
        if file.suffix == ".parquet":
            text = str(pl.read_parquet(file, hive_partitioning=False).to_dicts()).encode()
        else:
            text = file.read_bytes() if file.is_file() else b""
        found += [file] if user.encode() in text else []
    return found


def of(table: pl.DataFrame, user: str) -> pl.Expr:
    return (pl.col("user_id") == user).fill_null(value=False) if "user_id" in table.columns else pl.lit(value=False)


def test_nothing_is_left_and_nothing_else_is_changed(
    root: Path, recovery: Path, redis: Redis, user: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tables(root)
    places = run(capsys, user, "--yes", "--recovery", recovery)
    assert {one["left"] for one in places.values()} == {0}
    gone = {name for name, one in places.items() if one["found"]}
    assert gone == {
        "Redis",
        str(recovery),
        "dead_letters/clickstream",
        "events/clickstream",
        f"features/{view.name}",
        f"features/{profiles.name}",
        f"late/{view.name}",
        "predictions",
        "profiles",
        f"quarantine/{profiles.name}",
        "rejects",
        "reports",
        "training",
    }
    assert naming(root, redis, user) == []
    after = tables(root)
    assert after.keys() == before.keys()
    for file, was in before.items():
        kept = after[file]
        assert kept.schema == was.schema
        if file.is_relative_to(root / "dead_letters"):
            continue
        if file.is_relative_to(root / "events") or file.is_relative_to(root / "late"):
            rows = was.select(of(was, user)).to_series()
            assert_frame_equal(kept.filter(~rows), was.filter(~rows))
            staying = [*STAYS_IN_LOG, *(name for name in ("missed_windows",) if name in was.columns)]
            assert_frame_equal(kept.filter(rows).select(staying), was.filter(rows).select(staying))
            assert kept.filter(rows).drop(staying).null_count().sum_horizontal().sum() == rows.sum() * (
                len(was.columns) - len(staying)
            )
        else:
            assert_frame_equal(kept, was.filter(~of(was, user)))
    assert [path.name for path in sorted(recovery.iterdir())] == [".stream-0.lock", "mine.txt"]


def test_files_of_text_keep_the_other_lines(
    root: Path, recovery: Path, user: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rejects = rejects_folder(root) / "history-1.jsonl"
    csv = root / "profiles" / "profiles.csv"
    csv.write_text('user_id,words\n"a ""b"", c","two\nlines"\n' + user + ',"two\nlines"\n' + user + "1,x\n")
    others = rejects.read_text().splitlines(keepends=True)[1:]
    run(capsys, user, "--yes", "--recovery", recovery)
    assert rejects.read_text() == "".join(others)
    assert csv.read_text() == 'user_id,words\n"a ""b"", c","two\nlines"\n' + user + "1,x\n"
    assert sorted(file.name for file in (root / "reports").iterdir()) == ["parity-2.html", "parity-2.json"]


def test_dead_letters_keep_their_place(
    root: Path, recovery: Path, user: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, user, "--yes", "--recovery", recovery)
    (file,) = dead_letters_folder(root, clickstream).rglob("*.parquet")
    rows = pl.read_parquet(file, hive_partitioning=False)
    assert rows["offset"].to_list() == list(range(len(OTHER_LETTERS) + len(letters_of(user))))
    others = len(OTHER_LETTERS)
    assert rows[:others].select("key", "value").rows() == OTHER_LETTERS
    assert set(rows[others:].select("key", "value", "reason").rows()) == {(None, b"", FORGOTTEN)}
    assert set(rows[:others]["reason"]) == {"not_json"}


@pytest.mark.parametrize("mode", ["as-seen", "complete"])
def test_parity_holds_for_all_others(
    mode: str, root: Path, recovery: Path, user: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def recomputed() -> dict[str, Any]:
        capsys.readouterr()
        assert parity(["--json", "--mode", mode, "--online"]) == 0
        report: dict[str, Any] = json.loads(capsys.readouterr().out)
        return report

    def rows() -> list[pl.DataFrame]:
        return [table for file, table in tables(root).items() if file.is_relative_to(features_folder(root, view.name))]

    before, own = recomputed(), sum(table.select(of(table, user).sum()).item() for table in rows())
    run(capsys, user, "--yes", "--recovery", recovery)
    after = recomputed()
    assert after["rows"]["recomputed"] == before["rows"]["recomputed"] - own
    assert after["online"]["users"] == before["online"]["users"] - 1
    assert own > 10


def test_a_replay_adds_nothing(
    root: Path, recovery: Path, logs: Logs, user: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, user, "--yes", "--recovery", recovery)
    before = tables(root)
    events = LogTable(events_folder(root, clickstream), event_columns(clickstream))
    late = LogTable(late_folder(root, view), late_columns(clickstream))
    letters = LogTable(dead_letters_folder(root, clickstream), DEAD_LETTER_COLUMNS)
    for partition, log in logs.items():
        processed = WindowEngine(clickstream, [view]).process(records_frame(clickstream, log))
        events.append(partition, processed.records)
        late.append(partition, processed.late(view.name))
    letters.append(0, letters_frame([*OTHER_LETTERS, *letters_of(user)]))
    for table in (events, late, letters):
        table.flush()
    assert tables(root).keys() == before.keys()


def test_rebuilt_windows_are_those_of_the_others(
    root: Path, recovery: Path, logs: Logs, user: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def coming() -> pl.DataFrame:
        """What the windows hold that are open at the progress record."""
        rows = []
        for partition, progress in ProgressRecord(progress_folder(root, clickstream)).load().items():
            engine = ArchiveTail(root, clickstream, [view], progress).engine()
            last = logs[partition][-1]
            beat = dict.fromkeys(last) | {"event_timestamp": last["event_timestamp"] + 10 * 3_600_000}
            beat["kafka_timestamp"] = beat["event_timestamp"]
            rows += [window.rows for window in engine.process(records_frame(clickstream, [beat])).windows]
        return pl.concat(rows).sort("user_id", "event_timestamp")

    before = coming()
    run(capsys, user, "--yes", "--recovery", recovery)
    assert_frame_equal(coming(), before.filter(pl.col("user_id") != user))
    assert user in before["user_id"]


@pytest.mark.parametrize("after", [0, 1, 4, 9])
def test_an_interrupted_run_is_continued(
    after: int,
    root: Path,
    recovery: Path,
    redis: Redis,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    left = iter(range(after))

    def interrupted(*arguments: Any) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        publish(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("batch.maintenance.erasure.publish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(capsys, user, "--yes", "--recovery", recovery)
    assert naming(root, redis, user)
    assert not list(root.rglob("*.tmp"))
    run(capsys, user, "--yes", "--recovery", recovery)
    assert naming(root, redis, user) == []
    again = run(capsys, user, "--yes", "--recovery", recovery)
    assert {one["found"] for one in again.values()} == {0}


def test_merged_files_of_an_interrupted_compaction(
    root: Path, recovery: Path, redis: Redis, user: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def rows() -> pl.DataFrame:
        files = features_folder(root, view.name).rglob("*.parquet")
        return pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in files])

    before = rows()
    for day in day_folders(features_folder(root, view.name)):
        merge(day, data_files(day), ["event_timestamp", "user_id"])  # and then it was killed
    assert len(rows()) == 2 * len(before)
    run(capsys, user, "--yes", "--recovery", recovery)
    order = ["event_timestamp", "user_id"]
    assert_frame_equal(rows().sort(order), before.filter(pl.col("user_id") != user).sort(order))
    assert naming(root, redis, user) == []


def test_a_dry_run_changes_nothing(
    root: Path, recovery: Path, redis: Redis, user: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(root, redis)
    places = run(capsys, user, "--dry-run")
    assert places["Redis"] == {"found": 1}
    assert snapshot(root, redis) == before
    assert forget(["--entity", user, "--dry-run", "--recovery", str(recovery)]) == 0
    output = capsys.readouterr().out
    assert f"would be removed of user_id={user}" in output
    assert "Kafka keeps the records of clickstream" in output
    assert (recovery / "part-0.sqlite3").exists()


def test_whoever_is_not_there_is_not_found(
    root: Path, recovery: Path, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    (events_folder(root, clickstream) / ".p00000.killed.tmp").unlink()
    before = snapshot(root, redis)
    for path in recovery.glob("part-*"):
        path.unlink()
    places = run(capsys, "user_00000", "--yes", "--recovery", recovery)
    assert {name for name, one in places.items() if one["found"]} == {str(recovery), "dead_letters/clickstream"}
    changed = [file for file, digest in snapshot(root, redis)[0].items() if before[0][file] != digest]
    assert [file.parent.parent.name for file in changed] == ["clickstream"]
    assert snapshot(root, redis)[1] == before[1]


def test_it_asks_before_it_removes(
    root: Path,
    recovery: Path,
    redis: Redis,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--entity", user, "--recovery", recovery]
    assert "--yes is needed" in refused(capsys, *arguments)
    for answer in ("\n", "no\n"):
        monkeypatch.setattr("sys.stdin", terminal(answer))
        assert refused(capsys, *arguments).endswith("nothing was removed")
    assert user in str(naming(root, redis, user)[0])
    monkeypatch.setattr("sys.stdin", terminal("y\n"))
    assert run(capsys, user, "--recovery", recovery)["Redis"] == {"found": 1, "left": 0}


def terminal(answer: str) -> io.StringIO:
    stdin = io.StringIO(answer)
    stdin.isatty = lambda: True  # type: ignore[method-assign]
    return stdin


def test_refused_while_others_write(
    root: Path, recovery: Path, redis: Redis, user: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(root, redis)
    arguments = ["--entity", user, "--yes", "--recovery", recovery]
    for folder in (root, recovery):
        lock.lock_run(folder, None)
        assert refused(capsys, *arguments).endswith(f"the stream writes to {folder}: stop it, then run this again")
        lock._held.pop(folder.resolve() / ".stream-0.lock").close()  # noqa: SLF001
    with (root / ".stream-3.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "stop it" in refused(capsys, *arguments)
    for job in (only_batch_writer, carrying_rows):
        with job(root):
            refused(capsys, *arguments, status=75)
    assert snapshot(root, redis) == before


def test_a_redis_with_other_data_is_refused(
    root: Path, recovery: Path, redis: Redis, user: str, capsys: pytest.CaptureFixture[str]
) -> None:
    redis.set(identity_key("ml_feature_store"), "other\nelsewhere\n/data")
    before = snapshot(root, redis)
    for how in ("--yes", "--dry-run"):
        line = refused(capsys, "--entity", user, "--recovery", recovery, how)
        assert "Redis holds project 'ml_feature_store' of another DATA_ROOT" in line
    assert snapshot(root, redis) == before


def test_others_are_refused_meanwhile(
    root: Path, recovery: Path, user: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    removed: list[Path] = []

    def beside(directory: Path) -> None:
        for folder in (root, directory):
            with pytest.raises(lock.AlreadyRunningError):
                lock.lock_run(folder, None)
        for job in (only_batch_writer, carrying_rows):
            with pytest.raises(BatchRunningError), job(root):
                pass
        for command in (restore, materialize, training_set, parity):
            with pytest.raises(SystemExit, match="75"):
                command([])
        removed.append(directory)

    with monkeypatch.context() as patch:
        patch.setattr("batch.maintenance.forget.remove_state", beside)
        run(capsys, user, "--yes", "--recovery", recovery, status=1)
    assert removed == [recovery]


def test_what_must_be_told_of_the_stream(root: Path, user: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--recovery" in refused(capsys, "--entity", user, "--yes")
    assert "does not exist" in refused(capsys, "--entity", user, "--yes", "--recovery", root / "nowhere")


def test_a_data_folder_that_is_not_there_is_no_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "typo"))
    assert "does not exist" in refused(capsys, "--entity", "user_000001", "--yes")


def test_uncommitted_records_would_be_read_again(
    root: Path, recovery: Path, redis: Redis, logs: Logs, user: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record = ProgressRecord(progress_folder(root, clickstream))
    one = record.load()[0]
    record.save(type(one)(one.topic, 0, len(logs[0]) - 1, one.watermark_ms))
    before = snapshot(root, redis)
    assert "has not committed" in refused(capsys, "--entity", user, "--yes", "--recovery", recovery)
    assert snapshot(root, redis)[1] == before[1]


def test_a_file_of_somebody_else_is_named_and_stays(
    root: Path, recovery: Path, user: str, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = root / "notes" / "mine.txt"
    notes.parent.mkdir()
    notes.write_text(f"ask {user}!\n")
    assert forget(["--entity", user, "--yes", "--recovery", str(recovery)]) == 1
    assert f"left: {notes}" in capsys.readouterr().out
    assert notes.exists()
    notes.unlink()
    assert forget(["--entity", user, "--yes", "--recovery", str(recovery)]) == 0


def test_keys_are_found_by_what_they_say(root: Path, redis: Redis, user: str) -> None:
    assert root.is_dir()
    project = "ml_feature_store"
    (key,) = keys_with(redis, project, {"user_id": user})
    for other in (f"progress of {user} in {project}".encode(), key.replace(b"user_id", b"USER_ID"), key + b"2"):
        redis.execute_command("HSET", other, "a", "b")
    assert keys_with(redis, project, {"user_id": user}) == [key]
    assert keys_with(redis, project, {"user_id": user[:-1]}) == []
    assert keys_with(redis, project, {"user_id": "*"}) == []
    assert len(keys_with(redis, project, {"user_id": SENTINEL})) == 1
    odd = "[a]?" + user[4:]
    redis.execute_command("HSET", key.replace(user.encode(), odd.encode()), "a", "b")
    assert len(keys_with(redis, project, {"user_id": odd})) == 1, "its characters are no pattern"


@pytest.fixture
def payments(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder of two streams of payments: by card, and by shop (Int64)."""
    monkeypatch.setenv("FEATURE_REPO", str(write_repo(tmp_path / "repo")))
    monkeypatch.setenv("REDIS_URL", redis_url)
    folder = StreamSettings().data_root
    stream(folder, card_features, paid(), beside=[shop_of_card_features])
    stream(folder, shop_windows, paid(shop_windows.source))
    letters = [
        (b"3", b"{}"),
        (b"c3", b'{"card_id": "c3", "shop": 3, "amount_cents": "many"}'),
        (b"c3", b'{"card_id": "c3", "shop": 4, "amount_cents": 3}'),
        (b"c33", b'{"card_id": "c33", "shop": "3'),
    ]
    for name in ("payments", "payments_by_shop"):
        table = LogTable(folder / "dead_letters" / name, DEAD_LETTER_COLUMNS)
        table.append(0, letters_frame(letters))
        table.flush()
    assert restore([]) == 0
    return folder


def entities(root: Path, view: WindowedView) -> set[tuple[Any, ...]]:
    rows = [
        pl.read_parquet(file, hive_partitioning=False) for file in features_folder(root, view.name).rglob("*.parquet")
    ]
    return set(pl.concat(rows).select(view.join_keys).rows())


@pytest.mark.parametrize(
    ("entity", "values", "letters"),
    [
        ("shop=3,card_id=c3", {"shop": 3, "card_id": "c3"}, {"payments": [1], "payments_by_shop": [1]}),
        ("shop=3", {"shop": 3}, {"payments": [1, 3], "payments_by_shop": [0, 1, 3]}),
        ("card_id=c3", {"card_id": "c3"}, {"payments": [1, 2], "payments_by_shop": [1, 2]}),
    ],
    ids=["pair", "Int64", "one of several keys"],
)
def test_entities_of_other_kinds(
    payments: Path,
    tmp_path: Path,
    redis: Redis,
    capsys: pytest.CaptureFixture[str],
    entity: str,
    values: dict[str, Any],
    letters: dict[str, list[int]],
) -> None:
    (tmp_path / "recovery").mkdir()
    views = (card_features, shop_of_card_features, shop_windows)

    def is_own(key: tuple[Any, ...], of_view: WindowedView) -> bool:
        return values.items() <= dict(zip(of_view.join_keys, key, strict=True)).items()

    before = {one.name: entities(payments, one) for one in views}
    keys = list(redis.scan_iter(_type="hash"))
    capsys.readouterr()
    assert forget(["--entity", entity, "--yes", "--recovery", str(tmp_path / "recovery"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["entity"] == values
    gone = 0
    for one in views:
        after = entities(payments, one)
        assert after == {key for key in before[one.name] if not is_own(key, one)}
        gone += len(before[one.name] - after)
        has_all_keys = values.keys() <= set(one.join_keys)
        assert (one.name in report["notes"][-1]) != has_all_keys
        if has_all_keys:
            assert parity(["--view", one.name]) == 0
    assert len(keys) - len(list(redis.scan_iter(_type="hash"))) == gone > 0
    for name, numbers in letters.items():
        (file,) = (payments / "dead_letters" / name).rglob("*.parquet")
        rows = pl.read_parquet(file, hive_partitioning=False)
        assert rows.filter(reason=FORGOTTEN)["offset"].to_list() == numbers
