"""The commands of docs/feast.md, on the repository that `feast init` makes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from feast import FeatureStore

from feast_repo.settings import PROJECT_ROOT

PAGE = (PROJECT_ROOT / "docs" / "feast.md").read_text()
BIN = Path(sys.executable).parent
ROWS = [{"driver_id": number, "val_to_add": 1, "val_to_add_2": 2} for number in (1001, 1002, 1003)]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


def run(command: str, folder: Path, redis_url: str) -> str:
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "REDIS_URL": redis_url, "FEAST_USAGE": "False"}
    done = subprocess.run(
        ["bash", "-euc", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.filterwarnings("ignore")  # Feast's own
def test_the_page_on_the_template(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    run("feast init somebodys", tmp_path, redis_url)
    repository = tmp_path / "somebodys" / "feature_repo"
    ours, theirs = (yaml.safe_load(block) for block in blocks("yaml"))
    (commands,) = blocks("sh")
    before, workflow = commands.splitlines()[:2], commands.splitlines()[2]

    def configure(stores: dict[str, Any], **rest: Any) -> None:
        config = yaml.safe_load((repository / "feature_store.yaml").read_text())
        config["online_store"] |= {**stores["online_store"], **rest}
        config["offline_store"] = stores["offline_store"]
        (repository / "feature_store.yaml").write_text(yaml.safe_dump(config))

    def read() -> tuple[Any, Any]:
        store = FeatureStore(repo_path=str(repository))
        service = store.get_feature_service("driver_activity_v2")
        online = store.get_online_features(service, ROWS)
        return online.proto, store.get_feature_view("driver_hourly_stats").features

    configure(ours)  # the path of the SQLite store stays where it is
    run("\n".join(before), repository, redis_url)
    with_ours = read()
    assert all(with_ours[0].results[place].values[0].ByteSize() for place in range(3))

    template = yaml.safe_load((repository / "feature_store.yaml").read_text())
    theirs["online_store"]["connection_string"] = redis_url.split("/")[2]
    template["online_store"] = theirs["online_store"]  # Feast's own Redis store takes no path
    (repository / "feature_store.yaml").write_text(
        yaml.safe_dump({**template, "offline_store": theirs["offline_store"]})
    )
    assert read() == with_ours

    configure(ours, connection_string=redis_url.split("/")[2])
    shown = run(workflow, repository, redis_url)
    assert "Run feast teardown" in shown
    assert "conv_rate_plus_val1  :  [1001.0" in shown
    assert "vehicle_type" in shown
