"""The agenda of the schedule worker: when each timer is due, whatever the clocks, the roles and the settings do."""

from __future__ import annotations

import inspect
import logging
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from miq.errors import SettingsError
from miq.queue.methods import find_method, load_methods
from miq.settings_loader import defaults
from miq.workers.timers import Agenda, Put, Timer, next_by_cron, system_timers


def job(session: Session) -> None:
    raise AssertionError("only asked for, never run")


class Clocks:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.utc = datetime(2026, 3, 1, 0, 0, 30)

    def move(self, seconds: float) -> None:
        self.seconds += seconds
        self.utc += timedelta(seconds=seconds)

    def agenda(self) -> Agenda:
        return Agenda(lambda: self.seconds, lambda: self.utc)


def timer(name: str = "a", every: float | str = 60.0, first: float | None = None) -> Timer:
    return Timer(name, every, job, first=first)


def names(agenda: Agenda) -> list[str]:
    return [each.name for each in agenda.due()]


def test_a_timer_is_due_after_one_interval_and_stays_so_until_it_has_run() -> None:
    clocks = Clocks()
    agenda = clocks.agenda()
    agenda.replace([timer("a", 60.0), timer("b", 90.0), timer("soon", 3600.0, first=5.0)])
    assert (names(agenda), agenda.seconds_left()) == ([], 5.0)
    clocks.move(5)
    (soon,) = agenda.due()
    agenda.has_run(soon)
    clocks.move(54.9)
    assert names(agenda) == []
    assert agenda.seconds_left() == pytest.approx(0.1)
    clocks.move(0.2)
    assert names(agenda) == ["a"]
    assert names(agenda) == ["a"]
    agenda.has_run(agenda.due()[0])
    assert names(agenda) == []
    assert agenda.seconds_left() == pytest.approx(29.9)
    clocks.move(3600)
    assert names(agenda) == ["a", "b", "soon"]


def test_a_long_outage_is_caught_up_with_once() -> None:
    clocks = Clocks()
    agenda = clocks.agenda()
    agenda.replace([timer("a", 15.0), timer("c", "1 * * * *")])
    clocks.move(86400)
    for each in agenda.due():
        agenda.has_run(each)
    assert names(agenda) == []
    assert agenda.seconds_left() == 15.0


def test_cron_lines_go_by_the_wall_clock_in_utc() -> None:
    clocks = Clocks()
    agenda = clocks.agenda()
    agenda.replace([timer("c", "1 * * * *")])
    assert agenda.seconds_left() == 30.0
    clocks.utc += timedelta(seconds=29)
    assert (names(agenda), agenda.seconds_left()) == ([], 1.0)
    clocks.utc += timedelta(seconds=1)
    agenda.has_run(agenda.due()[0])
    assert agenda.seconds_left() == 3600.0


def test_what_stays_keeps_its_time_and_what_comes_back_begins_anew() -> None:
    clocks = Clocks()
    agenda = clocks.agenda()
    both = [timer("a", 60.0), timer("c", "1 * * * *")]
    agenda.replace([*both, timer("of a role", 60.0)])
    clocks.move(20)
    agenda.replace(both)
    assert agenda.seconds_left() == 10.0
    agenda.replace([timer("of a role", 60.0), timer("a", 60.0)])
    assert agenda.seconds_left() == 40.0
    clocks.move(40)
    assert names(agenda) == ["a"]


def test_a_shorter_interval_counts_at_once_a_longer_one_from_the_next_time_on() -> None:
    clocks = Clocks()
    agenda = clocks.agenda()
    agenda.replace([timer(every=3600.0)])
    clocks.move(100)
    agenda.replace([timer(every=10.0)])
    assert agenda.seconds_left() == 10.0
    agenda.replace([timer(every=7200.0)])
    assert agenda.seconds_left() == 10.0
    clocks.move(10)
    agenda.has_run(agenda.due()[0])
    assert agenda.seconds_left() == 7200.0


def test_an_interval_that_becomes_a_cron_line_and_back() -> None:
    clocks = Clocks()
    agenda = clocks.agenda()
    for every, left in ((60.0, 60.0), ("1 * * * *", 30.0), ("2 * * * *", 90.0), (45.0, 45.0)):
        agenda.replace([timer(every=every)])
        assert agenda.seconds_left() == left


def test_nothing_at_all_and_what_is_switched_off() -> None:
    agenda = Clocks().agenda()
    agenda.replace([timer("a", 0.0), timer("b", "")])
    assert (agenda.due(), agenda.seconds_left()) == ([], None)


def test_a_bad_cron_line_is_named_and_the_others_run(caplog: pytest.LogCaptureFixture) -> None:
    agenda = Clocks().agenda()
    with caplog.at_level(logging.ERROR):
        agenda.replace([timer("bad", "61 * * * *"), timer("worse", "often"), timer("good", 60.0)])
    assert agenda.seconds_left() == 60.0
    assert [record.getMessage() for record in caplog.records] == [
        "MIQ(Agenda#replace) timer [bad] does not run: '61 * * * *' is no cron line: write five fields,"
        " such as 0 2 * * 6",
        "MIQ(Agenda#replace) timer [worse] does not run: 'often' is no cron line: write five fields, such as 0 2 * * 6",
    ]


@pytest.mark.parametrize("line", ["", "* * * *", "0 2 * * 8", "0 2 31 2 *", "@hourly", "a b c d e"])
def test_what_is_no_cron_line(line: str) -> None:
    with pytest.raises(SettingsError, match="cron line"):
        next_by_cron(line, datetime(2026, 1, 1))


@given(
    st.sampled_from(["1 * * * *", "0 2 * * 6", "*/7 3 * * *"]), st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1))
)
def test_a_cron_line_only_ever_moves_on(line: str, after: datetime) -> None:
    following = next_by_cron(line, after)
    assert following > after
    assert following.second == following.microsecond == 0


def test_the_table_is_that_of_the_modelled_system() -> None:
    """Reference 6.2, as far as its methods exist, with the shipped settings."""
    found = {each.name: each for each in system_timers(defaults(), "default")}
    calls = {}
    for name, each in found.items():
        assert isinstance(each.job, Put)
        message = each.job.message
        calls[name] = (message.command, each.every, each.first, message.priority, message.role, message.zone, each.role)
        assert each.job.each_zone is (name == "authentication_check_interval")
    assert {name: call for name, call in calls.items() if not name.startswith(("vacuum", "refresh"))} == {
        "queue_timeout_interval": ("MiqQueue.check_for_timeout", 15, None, 50, None, None, "scheduler"),
        "task_timeout_check_frequency": (
            "MiqTask.update_status_for_timed_out_active_tasks", 3600, 60, 50, None, None, "scheduler",
        ),
        "task_purge_interval": ("MiqTask.purge_timer", 86400, None, 50, None, None, "scheduler"),
        "failed_messages_purge_interval": ("MiqQueue.purge_timer", 3600, None, 50, None, None, "scheduler"),
        "worker_exits_purge_interval": ("MiqWorkerExit.purge_timer", 3600, None, 50, None, None, "scheduler"),
        "authentication_check_interval": (
            "ExtManagementSystem.authentication_check_schedule", 3600, None, 20, None, None, "scheduler",
        ),
        "reindex_MiqQueue": (
            "MiqQueue.reindex", "1 * * * *", None, 50, "database_operations", None, "database_operations",
        ),
    }  # fmt: skip
    assert calls["refresh_ec2"] == (
        "ExtManagementSystem.refresh_all_ems_timer", 86400, None, 50, None, "default", "scheduler",
    )  # fmt: skip
    vacuumed = {name.removeprefix("vacuum_") for name in found if name.startswith("vacuum_")}
    assert {"MiqQueue", "MiqWorker", "MiqServer", "MiqTask", "Vm"} <= vacuumed
    assert calls["vacuum_Vm"][:2] == ("Vm.vacuum", "0 2 * * 6")


def test_every_call_of_the_table_is_a_method_that_takes_it() -> None:
    load_methods()
    for each in system_timers(defaults(), "default"):
        assert isinstance(each.job, Put)
        message = each.job.message
        method = find_method(message.class_name, message.method_name)
        inspect.signature(method.function).bind(None, None, *message.args)
        assert (method.idempotent, method.model) == (True, None)
