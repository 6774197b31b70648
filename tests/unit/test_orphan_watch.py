"""When a warning about messages that nobody can take is written, and what it says."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from miq.queue.routes import Orphan
from miq.workers.orphan_watch import REPEAT, OrphanWatch


def orphan(**changes: Any) -> Orphan:
    values: dict[str, Any] = {
        "queue_name": "generic",
        "zone": "east",
        "role": "smartstate",
        "server_guid": None,
        "count": 3,
        "oldest": datetime(2026, 1, 1),
        "methods": ("Test.note",),
        "reason": "role 'smartstate' is active nowhere",
    }
    return Orphan(**values | changes)


def test_the_line_names_address_and_reason() -> None:
    (line,) = OrphanWatch().lines([orphan()], 0.0)
    assert line == (
        "MIQ(MiqQueue.check_orphans) no running worker can take 3 messages"
        " (zone [east], role [smartstate], queue [generic]): role 'smartstate' is active nowhere"
    )
    (line,) = OrphanWatch().lines([orphan(zone=None, role=None, server_guid="guid", reason="why")], 0.0)
    assert line.endswith("(zone [any], role [none], queue [generic], server [guid]): why")


def test_the_same_is_told_again_after_ten_minutes_a_change_at_once() -> None:
    watch = OrphanWatch()
    assert len(watch.lines([orphan()], 0.0)) == 1
    assert watch.lines([orphan(count=4)], REPEAT - 1) == []
    assert len(watch.lines([orphan(), orphan(zone="west")], REPEAT - 1)) == 1
    assert len(watch.lines([orphan(count=5), orphan(zone="west")], REPEAT)) == 1
    assert len(watch.lines([orphan(reason="another")], REPEAT + 1)) == 1


def test_what_was_over_is_news_when_it_comes_back() -> None:
    watch = OrphanWatch()
    assert len(watch.lines([orphan()], 0.0)) == 1
    assert watch.lines([], 60.0) == []
    assert len(watch.lines([orphan()], 120.0)) == 1
