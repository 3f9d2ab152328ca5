"""A freshness objective is refused if it could never be met, and the shortest one decides when values are stale."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from feast_repo.catalog import CatalogError
from feast_repo.declare.freshness import MARGIN, stale_after_ms
from feast_repo.features import purchase_prediction, user_click_features as clicks, user_profile_features as profiles
from feast_repo.settings import StreamSettings

if TYPE_CHECKING:
    from pathlib import Path

LEAST = timedelta(minutes=12)
"""The slide of 10 minutes and the lateness of 2."""
MILLISECOND = timedelta(milliseconds=1)
FEATURES = """
from dataclasses import replace
from datetime import timedelta
from feast_repo.declare import Catalog
from feast_repo.features import user_click_features
catalog = Catalog(views=(replace(user_click_features, freshness=timedelta(minutes=13)),))
"""


@pytest.mark.parametrize("declared", [clicks, profiles, purchase_prediction], ids=lambda one: one.name)
@pytest.mark.parametrize("freshness", [timedelta(0), -LEAST], ids=str)
def test_it_must_be_positive(declared: object, freshness: timedelta) -> None:
    with pytest.raises(ValueError, match=r"^(view|service) .* must be positive$"):
        replace(declared, freshness=freshness)  # type: ignore[type-var]  # one of three declarations


def test_of_a_windowed_view_it_is_at_least_slide_and_lateness() -> None:
    assert replace(clicks, freshness=LEAST).freshness == LEAST
    with pytest.raises(
        ValueError, match=r"^view 'user_click_features': freshness 0:11:59.* are 0:12:00 old"
    ) as refused:
        replace(clicks, freshness=LEAST - MILLISECOND)
    assert "\n" not in str(refused.value)


def test_of_a_service_it_is_so_for_each_of_its_windowed_views() -> None:
    assert replace(purchase_prediction, freshness=LEAST).freshness == LEAST
    with pytest.raises(ValueError, match="service 'purchase_prediction', view 'user_click_features': freshness"):
        replace(purchase_prediction, freshness=LEAST - MILLISECOND)


def test_of_a_service_of_batch_views_it_may_be_anything() -> None:
    assert replace(purchase_prediction, views=(profiles,), label=None, freshness=MILLISECOND).views == (profiles,)


def test_a_deployment_whose_lateness_makes_it_unreachable_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "features.py").write_text(FEATURES)
    monkeypatch.setenv("FEATURE_REPO", str(tmp_path))
    monkeypatch.setenv("ALLOWED_LATENESS_SECONDS", "180")
    assert StreamSettings().catalog.view().least_freshness == timedelta(minutes=13)
    monkeypatch.setenv("ALLOWED_LATENESS_SECONDS", "181")
    with pytest.raises(
        CatalogError,
        match=r"^ALLOWED_LATENESS_SECONDS=181: view .*: freshness 0:13:00 could never be met: values are 0:13:01 old",
    ):
        _ = StreamSettings().catalog


def test_the_shorter_one_of_view_and_service_holds() -> None:
    hour, day = timedelta(hours=1), timedelta(days=1)
    assert stale_after_ms(profiles, hour) == 3_600_000
    for view in (clicks, profiles):
        assert stale_after_ms(replace(view, freshness=hour)) == 3_600_000
        assert stale_after_ms(replace(view, freshness=hour), day) == 3_600_000
        assert stale_after_ms(replace(view, freshness=day), hour) == 3_600_000


def test_without_any_the_limit_is_derived() -> None:
    derived = (LEAST + MARGIN) // MILLISECOND
    assert stale_after_ms(clicks) == derived
    assert stale_after_ms(clicks, timedelta(hours=1)) == derived, "a service makes no view's limit longer"
    assert stale_after_ms(clicks, LEAST) == derived - MARGIN // MILLISECOND
    assert stale_after_ms(profiles) is None
