"""The simulated account as a value: what it holds, how a change alters it, which change comes next.

Pure and deterministic: the same account always gets the same next change. The ids that the simulator gives are no
part of it; machines are known by name. Between SMALLEST and LARGEST machines live at a time, so the account changes for
ever and stays small.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from random import Random
from typing import Any

from miq.demo.changes import Change, Verb

SMALLEST, LARGEST = 22, 28
SECONDS_BETWEEN_CHANGES = (10.0, 20.0)

#: zone letter -> the addresses of its subnet
SUBNETS = {"a": "10.42.0.0/20", "b": "10.42.16.0/20", "c": "10.42.32.0/20"}

#: of `images.json`: the ones that everybody has, and the account's own
AMAZON_LINUX, UBUNTU, DEBIAN, WINDOWS = (f"ami-0d0e0a000000000{number}" for number in (1, 2, 3, 4))
OWN_WEB, OWN_DATABASE = (f"ami-0d0e0b000000000{number}" for number in (1, 2))

TAGS = {
    "Owner": ("ana", "bo", "chidi", "dara", "emre"),
    "Stage": ("dev", "test", "prod"),
    "CostCenter": ("4100", "4200", "7300"),
    "Backup": ("none", "daily", "weekly"),
}


@dataclass(frozen=True)
class Role:
    """A kind of machine, and how many there are at first."""

    image: str
    types: tuple[str, ...]
    count: int
    data_gb: int = 0


ROLES = {
    "web": Role(OWN_WEB, ("t3.micro", "t3.small", "t3.medium"), 6),
    "app": Role(UBUNTU, ("m5.large", "m5.xlarge"), 6),
    "db": Role(OWN_DATABASE, ("r5.large", "r5.xlarge"), 3, data_gb=100),
    "cache": Role(AMAZON_LINUX, ("r5.large", "r5.xlarge"), 2),
    "batch": Role(DEBIAN, ("c5.large", "c5.xlarge", "c5.2xlarge"), 4),
    "build": Role(DEBIAN, ("c5.xlarge", "c5.2xlarge"), 2, data_gb=40),
    "office": Role(WINDOWS, ("t3.medium", "t3.large"), 1),
    "bastion": Role(AMAZON_LINUX, ("t2.nano", "t2.micro"), 1),
}


@dataclass(frozen=True)
class Machine:
    """An instance, as the changes that would make it as it is now: its launch, and its last start or stop."""

    launch: Change
    switch: Change | None = None

    @property
    def name(self) -> str:
        return self.launch.name

    @property
    def role(self) -> str:
        return self.name.rpartition("-")[0]

    @property
    def running(self) -> bool:
        return self.switch is None or self.switch.verb is Verb.START

    @property
    def type(self) -> str:
        return str(self.launch.values["type"])

    @property
    def zone(self) -> str:
        return str(self.launch.values["zone"])

    @property
    def address(self) -> str:
        return str(self.launch.values["address"])

    @property
    def tags(self) -> Mapping[str, str]:
        tags: Mapping[str, str] = self.launch.values["tags"]
        return tags

    def altered(self, **values: Any) -> Machine:  # noqa: ANN401 - any of the launch's values
        """As if it had been launched with these values."""
        return replace(self, launch=replace(self.launch, values={**self.launch.values, **values}))


@dataclass(frozen=True)
class Account:
    """All that lives after `step`."""

    step: int = 0
    machines: Mapping[str, Machine] = field(default_factory=dict)

    def after(self, change: Change) -> Account:
        """The account once the change has happened."""
        machines = dict(self.machines)
        machine = machines.pop(change.name, None)
        if change.verb is Verb.LAUNCH:
            machine = Machine(change)
        elif machine is not None:
            machine = _altered(machine, change)
        if machine is not None:
            machines[change.name] = machine
        return Account(change.step, machines)


def _altered(machine: Machine, change: Change) -> Machine | None:
    match change.verb:
        case Verb.START | Verb.STOP:
            return replace(machine, switch=change)
        case Verb.TAG:
            return machine.altered(tags={**machine.tags, change.values["key"]: change.values["value"]})
        case Verb.RESIZE:
            return machine.altered(type=change.values["type"])
        case Verb.TERMINATE:
            return None
    return machine


def account_of(changes: Iterable[Change]) -> Account:
    """What the changes lead to."""
    return reduce(Account.after, changes, Account())


def shortest_log(account: Account) -> list[Change]:
    """The fewest changes that lead to the account; each keeps its step, so the ids stay."""
    changes = [machine.launch for machine in account.machines.values()]
    changes += [machine.switch for machine in account.machines.values() if machine.switch]
    # A step is never used twice, even if its machine is gone: it would give the ids of that machine to another one.
    return [*sorted(changes, key=lambda change: change.step), Change(account.step, Verb.SKIP)]


def first_changes() -> list[Change]:
    """How the account begins: every role's machines, some of them stopped, one already terminated."""
    account = Account()
    changes: list[Change] = []
    for role, kind in ROLES.items():
        for _ in range(kind.count):
            changes.append(_launch(account, _random(account), role))
            account = account.after(changes[-1])
    names = list(account.machines)
    ends = [(Verb.STOP, name) for name in names[4::4]] + [(Verb.TERMINATE, names[-4])]
    changes += [Change(account.step + number, verb, name) for number, (verb, name) in enumerate(ends, 1)]
    return changes


def next_change(account: Account) -> Change:
    """What happens next."""
    random = _random(account)
    running = [machine for machine in account.machines.values() if machine.running]
    stopped = [machine for machine in account.machines.values() if not machine.running]
    weights = {
        Verb.LAUNCH: 0 if len(account.machines) >= LARGEST else 3,
        Verb.TERMINATE: 0 if len(account.machines) <= SMALLEST else 3,
        Verb.STOP: 5 if len(running) > len(stopped) else 0,
        Verb.START: min(5, len(stopped)),
        Verb.RESIZE: min(2, len(stopped)),
        Verb.TAG: 4 if account.machines else 0,
    }
    verb = random.choices(list(weights), list(weights.values()))[0]
    if verb is Verb.LAUNCH:
        return _launch(account, random, random.choice(list(ROLES)))
    choice = {Verb.STOP: running, Verb.START: stopped, Verb.RESIZE: stopped}.get(verb, list(account.machines.values()))
    return _change(account.step + 1, verb, random.choice(choice), random)


def pause_after(step: int) -> float:
    """Seconds from this change to the next one."""
    return Random(step).uniform(*SECONDS_BETWEEN_CHANGES)  # noqa: S311 - a simulation, no secret


def _random(account: Account) -> Random:
    return Random(account.step + 1)  # noqa: S311 - a simulation, no secret


def _change(step: int, verb: Verb, machine: Machine, random: Random) -> Change:
    values: dict[str, str] = {}
    if verb is Verb.TAG:
        key = random.choice(list(TAGS))
        values = {"key": key, "value": random.choice([each for each in TAGS[key] if each != machine.tags.get(key)])}
    if verb is Verb.RESIZE:
        values = {"type": random.choice([each for each in ROLES[machine.role].types if each != machine.type])}
    return Change(step, verb, machine.name, values)


def _launch(account: Account, random: Random, role: str) -> Change:
    kind, step, zone = ROLES[role], account.step + 1, random.choice(list(SUBNETS))
    name = next(each for number in range(1, LARGEST + 2) if (each := f"{role}-{number:02}") not in account.machines)
    tags = {"Role": role} | {key: random.choice(values) for key, values in TAGS.items() if random.random() < 0.8}
    values = {"image": kind.image, "type": random.choice(kind.types), "zone": zone, "data_gb": kind.data_gb}
    values |= {"address": _free_address(account, zone), "tags": tags}
    return Change(step, Verb.LAUNCH, name, values)


def _free_address(account: Account, zone: str) -> str:
    """An address that no machine has and none had lately."""
    taken = {machine.address for machine in account.machines.values()}
    subnet = ipaddress.ip_network(SUBNETS[zone])
    # 16 at the start and one at the end are the cloud's
    hosts = (str(subnet[16 + (account.step + offset) % (subnet.num_addresses - 17)]) for offset in range(LARGEST + 1))
    return next(host for host in hosts if host not in taken)
