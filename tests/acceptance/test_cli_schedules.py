"""`miq schedules` as its users run it: what is shown, what is written, and one line for everything that cannot be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from miq.cli import app
from miq.paths import Home

MIQ = [sys.executable, "-m", "miq.workers.bin.miq"]


class Appliance:
    """An own MIQ_HOME and database, and the command over them."""

    def __init__(self, home: Path, dsn: str) -> None:
        self.environment = {**os.environ, "MIQ_HOME": str(home), "DATABASE_URL": dsn, "NO_COLOR": "1"}
        self.dsn = dsn

    def miq(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [*MIQ, "schedules", *arguments]
        done = subprocess.run(argv, env=self.environment, capture_output=True, text=True, timeout=60)
        assert "Traceback" not in done.stderr
        return done

    def ok(self, *arguments: str) -> str:
        done = self.miq(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def error(self, *arguments: str) -> str:
        """The one line of a command that exits with 2."""
        done = self.miq(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), done
        (line,) = done.stderr.splitlines()
        return line

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture
def appliance(home: Home, dsn: str) -> Appliance:
    return Appliance(home.path, dsn)


ADD = ("add", "nightly", "--method", "noop", "--resource", "Diagnostics", "--every", "1 daily")


def test_add_list_switch_and_remove(appliance: Appliance) -> None:
    said = appliance.ok(*ADD, "--at", "02:00", "--tz", "Europe/Berlin")
    assert said.startswith("added nightly (id 1): daily at 02:00 Europe/Berlin, next run 20")
    ((action, run_at, *facts),) = appliance.sql(
        "SELECT sched_action, run_at, description, enabled, userid, resource_type, resource_id, updated_at IS NOT NULL"
        " FROM miq_schedules"
    )
    assert json.loads(action) == {"method": "noop", "args": [], "options": {}}
    assert json.loads(run_at)["interval"] == {"unit": "daily", "value": 1}
    assert facts == ["nightly", True, "system", "Diagnostics", None, True]

    (listed,) = json.loads(appliance.ok("list", "--json"))
    assert (listed["name"], listed["call"], listed["run_at"], listed["problem"]) == (
        "nightly",
        "Diagnostics.noop",
        "daily at 02:00 Europe/Berlin",
        None,
    )
    assert listed["next_run_on"].endswith("Z")
    table = appliance.ok()
    assert "daily at 02:00 Europe/Berlin" in table
    assert table == appliance.ok("list")

    assert appliance.ok("disable", "nightly") == "disabled nightly (id 1): daily at 02:00 Europe/Berlin\n"
    assert json.loads(appliance.ok("--json"))[0]["next_run_on"] is None
    assert "next run" in appliance.ok("enable", "1")
    assert json.loads(appliance.ok("remove", "nightly", "--json"))["id"] == 1
    assert appliance.sql("SELECT count(*) FROM miq_schedules") == [(0,)]


def test_all_that_can_be_said_of_one(appliance: Appliance) -> None:
    appliance.sql("INSERT INTO zones (name, visible) VALUES ('east', true)")
    appliance.sql("INSERT INTO miq_tasks (id, name) VALUES (7, 'try')")
    said = appliance.ok(
        *("add", "told", "--method", "queue_callback", "--resource", "MiqTask:7", "--every", "2 monthly"),
        *("--at", "2099-01-31T02:00", "--tz", "Asia/Tokyo", "--args", '["Finished", "ok", "", null]'),
        *("--queue", "other", "--zone", "east", "--role", "event", "--priority", "20", "--timeout", "30"),
        *("--description", "why", "--disabled"),
    )
    assert said == "added told (id 1): every 2 months on day 31 at 02:00 Asia/Tokyo\n"
    ((action, run_at, *facts),) = appliance.sql(
        "SELECT sched_action, run_at, description, enabled, resource_type, resource_id FROM miq_schedules"
    )
    assert json.loads(action)["args"] == ["Finished", "ok", "", None]
    assert json.loads(action)["options"] == {
        "queue_name": "other", "zone": "east", "role": "event", "priority": 20, "msg_timeout": 30,
    }  # fmt: skip
    assert json.loads(run_at)["start_time"] == "2099-01-30T17:00:00Z"
    assert facts == ["why", False, "MiqTask", 7]


def test_a_schedule_that_makes_no_sense_is_shown_with_what_is_wrong(appliance: Appliance) -> None:
    appliance.sql(
        "INSERT INTO miq_schedules (name, run_at, sched_action, resource_type, enabled)"
        " VALUES ('odd', 'nonsense', '{\"method\": \"test\"}', 'Vm', true)"
    )
    assert "run_at is not JSON" in appliance.ok()
    (listed,) = json.loads(appliance.ok("--json"))
    assert (listed["next_run_on"], "run_at is not JSON" in listed["problem"]) == (None, True)
    assert appliance.ok("remove", "odd").startswith("removed odd (id 1): schedule 'odd'")


def changed(**options: str) -> list[str]:
    """A good `add` with other options."""
    given = {"--method": "noop", "--resource": "Diagnostics", "--every": "1 daily", **options}
    return ["add", "nightly", *(word for option in given.items() for word in option)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", " ", *ADD[2:]], "a schedule needs a name"),
        (ADD[:-2], "Missing option '--every'"),
        (changed(**{"--every": "1 yearly"}), "interval unit 'yearly': write one of minutely, hourly, daily"),
        (changed(**{"--every": "0 daily"}), "interval value '0': write a whole number from 1 to 10000"),
        (changed(**{"--every": "daily 2"}), "interval unit '2'"),
        (changed(**{"--every": "once"}), "once needs a time"),
        (changed(**{"--every": "once", "--at": "2020-01-01T00:00"}), "it would never run: once, on 2020-01-01"),
        (changed(**{"--at": "25:00"}), "time '25:00': write HH:MM, from 00:00 to 23:59"),
        (changed(**{"--at": "noon"}), "time 'noon': write HH:MM, or a date and time"),
        (changed(**{"--tz": "Mars"}), "tz 'Mars' is not a time zone"),
        (changed(**{"--args": "{}"}), "--args '{}': write a JSON array"),
        (changed(**{"--args": "x"}), "--args 'x': write a JSON array"),
        (changed(**{"--args": "[1]"}), "Diagnostics.noop cannot be called with [1]: too many positional arguments"),
        (changed(**{"--method": "nop"}), "is it Diagnostics.noop"),
        (changed(**{"--resource": "Vm"}), "Vm.noop is not a queue method of this installation"),
        (changed(**{"--resource": "Diagnostics:1"}), "Diagnostics.noop is a class method: leave the resource's id out"),
        (changed(**{"--resource": "Diagnostics:"}), "write TYPE or TYPE:ID"),
        (changed(**{"--resource": f"MiqTask:{2**63}", "--method": "queue_callback"}), "write TYPE or TYPE:ID"),
        (
            changed(**{"--resource": "MiqTask", "--method": "queue_callback"}),
            "MiqTask.queue_callback is called for one row: give its id as MiqTask:ID",
        ),
        (
            changed(**{"--resource": "MiqTask:9", "--method": "queue_callback", "--args": "[1, 2, 3, 4]"}),
            "no MiqTask 9",
        ),
        (changed(**{"--role": "boss"}), "no role 'boss'; there are: automate"),
        (changed(**{"--zone": "west"}), "no zone 'west'"),
        (changed(**{"--priority": "201"}), "'--priority': Input should be less than or equal to 200"),
        (["enable", "nothing"], "no schedule 'nothing'; `miq schedules` lists them"),
        (["disable", "99"], "no schedule '99'"),
        (["remove", "9" * 30], "no schedule '999"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    appliance: Appliance,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    """In this process, for there are many of them."""
    monkeypatch.setenv("DATABASE_URL", appliance.dsn)
    assert app.main(["schedules", *arguments]) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert (out, line.startswith("miq: "), said in line) == ("", True, True), line
    assert appliance.sql("SELECT count(*) FROM miq_schedules") == [(0,)]


def test_names_are_unique_per_class_and_ids_tell_them_apart(appliance: Appliance) -> None:
    appliance.ok(*ADD)
    assert "there is a schedule named 'nightly' for Diagnostics already (id 1)" in appliance.error(*ADD)
    appliance.ok(*changed(**{"--resource": "MiqQueue", "--method": "check_for_timeout"}))
    line = appliance.error("disable", "nightly")
    assert "2 schedules are named 'nightly': name one by its id: 1 (Diagnostics), 2 (MiqQueue)" in line
    assert appliance.ok("disable", "2").startswith("disabled nightly (id 2)")
