"""How `make run` words what the tables say."""

from __future__ import annotations

from miq.demo.watch import refresh_line, row_line, worker_lines

GENERIC = (1, "MiqGenericWorker", "starting", None, "generic")
REFRESH = (2, "ManageIQ::Providers::Amazon::CloudManager::RefreshWorker", "started", 77, "ems_5")


def test_workers_are_told_when_they_come_change_and_go() -> None:
    assert list(worker_lines({}, {1: GENERIC})) == ["worker   1  Generic                  starting  pid -  generic"]
    assert list(worker_lines({1: GENERIC}, {1: GENERIC})) == []
    started = (1, "MiqGenericWorker", "started", 76, "generic")
    lines = list(worker_lines({1: GENERIC}, {1: started, 2: REFRESH}))
    assert lines == [
        "worker   1  Generic                  started   pid 76  generic",
        "worker   2  Amazon::Cloud::Refresh   started   pid 77  ems_5",
    ]
    assert list(worker_lines({2: REFRESH}, {})) == ["worker   2  Amazon::Cloud::Refresh   gone"]


def test_the_first_refresh_tells_every_collection_later_ones_what_changed() -> None:
    counts = {
        "vms": {"seen": 25, "created": 1, "updated": 2, "unchanged": 22, "archived": 1},
        "flavors": {"seen": 61, "created": 0, "updated": 0, "unchanged": 61, "archived": 0},
    }
    first = refresh_line("ok", 1.04, "worker start", counts, None, everything=True)
    assert first == "refresh ok in 1.0 s (worker start): vms 25 +1 ~2 -1, flavors 61"
    later = refresh_line("ok", 1.04, "worker start", counts, None, everything=False)
    assert later == "refresh ok in 1.0 s (worker start): vms 25 +1 ~2 -1"


def test_a_failed_refresh_tells_why() -> None:
    assert refresh_line("error", None, None, {}, "no way", everything=False) == (
        "refresh error in 0.0 s (no cause): nothing changed; no way"
    )


def test_a_row_shows_what_hangs_on_it_and_nothing_that_is_missing() -> None:
    row = (7, "web-01", "running", "on", "t3.small", "us-east-1a", False, "Owner=ana")
    assert row_line(row) == "id 7  web-01       running/on  t3.small  us-east-1a  Owner=ana"
    gone = (7, "web-01", "terminated", "terminated", None, None, True, None)
    assert row_line(gone) == "id 7  web-01       terminated/terminated  archived"
