"""The account of `make run`: its changes are pure, deterministic and bounded, and their log can be shortened."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import pytest

from miq.demo.account import (
    LARGEST,
    ROLES,
    SMALLEST,
    SUBNETS,
    Account,
    account_of,
    first_changes,
    next_change,
    pause_after,
    shortest_log,
)
from miq.demo.changes import Change, ChangeLog, Verb
from miq.demo.simulator import IMAGES
from miq.errors import UsageError


def life(steps: int) -> list[Change]:
    """The log of an account after that many changes."""
    changes = first_changes()
    account = account_of(changes)
    for _ in range(steps):
        changes.append(next_change(account))
        account = account.after(changes[-1])
    return changes


def test_it_begins_with_about_25_machines_in_several_states_and_types() -> None:
    machines = account_of(first_changes()).machines.values()
    assert 22 <= len(machines) <= 26
    assert {machine.running for machine in machines} == {True, False}
    assert len({machine.type for machine in machines}) > 5
    assert {machine.zone for machine in machines} == set(SUBNETS)
    assert any(change.verb is Verb.TERMINATE for change in first_changes())


def test_the_same_account_always_gets_the_same_next_change() -> None:
    assert first_changes() == first_changes()
    assert life(300) == life(300)
    assert pause_after(7) == pause_after(7)


def test_steps_are_never_used_twice() -> None:
    steps = [change.step for change in life(300)]
    assert steps == list(range(1, len(steps) + 1))


def test_it_changes_for_ever_and_stays_small() -> None:
    account = account_of(first_changes())
    seen = set()
    for _ in range(6000):
        change = next_change(account)
        seen.add(change.verb)
        account = account.after(change)
        assert SMALLEST - 1 <= len(account.machines) <= LARGEST
    assert seen == set(Verb) - {Verb.SKIP}


def test_machines_are_started_stopped_and_resized_only_when_they_can_be() -> None:
    account = account_of([])
    for change in life(500):
        machine = account.machines.get(change.name)
        assert (machine is None) == (change.verb is Verb.LAUNCH)
        if machine is not None:
            assert machine.running == {Verb.START: False, Verb.RESIZE: False, Verb.STOP: True}.get(
                change.verb, machine.running
            )
        account = account.after(change)


def test_no_two_machines_share_an_address_and_each_is_in_its_subnet() -> None:
    account = account_of([])
    for change in life(500):
        account = account.after(change)
        machines = account.machines.values()
        assert len({machine.address for machine in machines}) == len(machines)
    for machine in account.machines.values():
        assert ipaddress.ip_address(machine.address) in ipaddress.ip_network(SUBNETS[machine.zone])


def test_the_shortest_log_leads_to_the_same_account() -> None:
    for steps in (0, 1, 50, 500):
        account = account_of(life(steps))
        short = shortest_log(account)
        assert account_of(short) == account
        assert len(short) <= 2 * LARGEST + 1


def test_the_images_of_the_roles_exist() -> None:
    assert {role.image for role in ROLES.values()} <= {image["ami_id"] for image in json.loads(IMAGES.read_text())}


def test_the_log_keeps_what_was_appended_and_drops_a_torn_line(tmp_path: Path) -> None:
    log = ChangeLog(tmp_path / "changes.jsonl")
    assert log.load() == []
    changes = life(20)
    for change in changes:
        log.append(change)
    with (tmp_path / "changes.jsonl").open("a") as file:
        file.write('{"step": 9')
    assert log.load() == changes
    log.append(Change(len(changes) + 1, Verb.SKIP))
    assert log.load()[:-1] == changes


def test_rewriting_the_log_replaces_it(tmp_path: Path) -> None:
    log = ChangeLog(tmp_path / "changes.jsonl")
    log.rewrite(life(50))
    short = shortest_log(account_of(log.load()))
    log.rewrite(short)
    assert log.load() == short


@pytest.mark.parametrize("line", ["{}", "[1]", "7", "what?", '{"step": 1, "at": 1, "verb": "fly", "name": "web-01"}'])
def test_a_file_that_is_no_log_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "changes.jsonl").write_text(line + "\n")
    with pytest.raises(UsageError, match=r"changes\.jsonl"):
        ChangeLog(tmp_path / "changes.jsonl").load()


def test_an_unknown_machine_is_left_alone() -> None:
    assert Account().after(Change(1, Verb.STOP, "web-99")).machines == {}
