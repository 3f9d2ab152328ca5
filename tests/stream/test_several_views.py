"""Views of one stream in one engine give what each gives alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings, strategies as st

from feast_repo.features import user_click_features
from stream.windows import WindowEngine
from tests.stream.reference import records_frame
from tests.stream.test_windows_properties import EXAMPLES, expected, logs, plain, views


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(st.data())
def test_each_view_gets_what_it_gets_alone(data: st.DataObject) -> None:
    first = data.draw(views(user_click_features.source))
    source = replace(first.source, deduplication_horizon=timedelta(days=1) if first.source.event_id else None)
    second = data.draw(views(user_click_features.source))
    both = [replace(first, name="first", source=source), replace(second, name="second", source=source)]
    log = data.draw(logs(both[0]))
    cut = data.draw(st.integers(0, len(log)))
    engine, frame = WindowEngine(source, both), records_frame(source, log)
    parts = [engine.process(frame[:cut])]
    engine = WindowEngine.restore(source, both, engine.snapshot())
    parts.append(engine.process(frame[cut:]))
    for view in both:
        alone = expected(view, log)
        windows = [plain(window) for part in parts for window in part.windows if window.view == view.name]
        assert windows == alone.windows
        assert [missed for part in parts for missed in part.missed[view.name].tolist()] == alone.missed
        assert sum(len(part.late(view.name)) for part in parts) == sum(missed > 0 for missed in alone.missed)


def test_a_stream_without_views_has_a_watermark_all_the_same() -> None:
    stream = user_click_features.source
    engine = WindowEngine(stream, [])
    record = {**dict.fromkeys(stream.schema), "user_id": "u", "event_id": "e", "event_type": "view"}
    frame = records_frame(stream, [{**record, "event_timestamp": 1_772_366_400_000, "kafka_timestamp": 1}])
    assert engine.process(frame).windows == []
    assert engine.watermark_ms == 1_772_366_400_000 - stream.lateness_ms
    assert WindowEngine.restore(stream, [], engine.snapshot()).watermark_ms == engine.watermark_ms
