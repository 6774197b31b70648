"""The shape of `miq status`: folding, words, sizes and times, without a database."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from miq.cli.output import moment
from miq.cli.status_table import SERVER_COLUMNS, WORKER_COLUMNS, ending, fold, is_recent, megabytes, status_word

NOW = datetime(2026, 3, 4, 13, 44, 53)


def test_columns_are_those_of_evm_status() -> None:
    assert " ".join(SERVER_COLUMNS) == (
        "Region Zone Server Status PID SPID Workers Version Started Heartbeat MB Usage Roles"
    )
    assert " ".join(WORKER_COLUMNS) == (
        "Region Zone Type Status PID SPID Server Queue Started Heartbeat System UID MB Usage"
    )


def test_columns_with_one_value_are_folded_but_the_status_stays() -> None:
    folded = fold(("Zone", "Type", "Status", "UID"), [["default", "A", "started", ""], ["default", "B", "started", ""]])
    assert folded.columns == ("Type", "Status")
    assert folded.rows == (("A", "started"), ("B", "started"))
    assert folded.line == "All rows have the values: Zone=default"


@pytest.mark.parametrize("rows", [[], [["default", "started"]]])
def test_one_row_or_none_stays_whole(rows: list[list[str]]) -> None:
    folded = fold(("Zone", "Status"), rows)
    assert folded.columns == ("Zone", "Status")
    assert folded.line == ""


def test_different_values_are_not_folded() -> None:
    folded = fold(("Zone", "Status"), [["a", "started"], ["b", "started"]])
    assert folded.columns == ("Zone", "Status")
    assert folded.common == ()


def test_a_stop_that_waits_is_called_pending() -> None:
    assert [status_word(status) for status in ("stopping", "started", None)] == ["stop pending", "started", ""]


def test_megabytes_are_whole_and_have_a_limit() -> None:
    assert megabytes(Decimal(31_457_280), 2**30) == "30/1024"
    assert megabytes(31_457_279) == "29"
    assert megabytes(None, 2**30) == ""


def test_times_of_today_have_the_hour_older_ones_the_date() -> None:
    assert moment(NOW - timedelta(hours=23), NOW) == "14:44:53UTC"
    assert moment(NOW - timedelta(hours=25), NOW) == "2026-03-03"
    assert moment(None, NOW) == ""


def test_how_a_worker_ended() -> None:
    assert ending(None, 9, "out of memory") == "signal SIGKILL: out of memory"
    assert ending(1, None, "no manager") == "exit code 1: no manager"
    assert ending(0, None, None) == "exit code 0"
    assert ending(None, None, None) == "end unknown"
    assert ending(None, 200, None) == "signal 200"


def test_a_heartbeat_is_recent_within_its_time_out() -> None:
    assert is_recent(NOW - timedelta(seconds=119), NOW, 120)
    assert not is_recent(NOW - timedelta(seconds=121), NOW, 120)
    assert not is_recent(None, NOW, 120)
