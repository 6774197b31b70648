"""Who should run, and who does: sets compared, never lengths. Pure: facts in, starts and stops out.

A stopping worker of a manager counts as present, so that two of them never write one inventory; so does an unsupervised
one, that somebody runs by hand: the server stops its own twin for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from miq import names
from miq.models.worker_types import WorkerType

Key = tuple[str, str | None]


@dataclass(frozen=True)
class ManagerFact:
    """A manager that is in the server's zone, enabled, and has valid credentials."""

    id: int
    type: str


@dataclass(frozen=True)
class Present:
    """A worker that exists. `mine`: a child of this server; others are unsupervised."""

    key: Key
    guid: str
    mine: bool = True
    stopping: bool = False


@dataclass(frozen=True)
class Plan:
    """What to do: keys to start (as often as they stand there), guids to stop with the reason."""

    starts: list[Key]
    stops: list[tuple[str, str]]


def wanted(
    types: Iterable[type[WorkerType]],
    active_roles: Collection[str],
    managers: Collection[ManagerFact],
    count_of: Callable[[type[WorkerType]], int],
) -> dict[Key, int]:
    """How many workers of which type on which queue (reference 3.4)."""
    result: dict[Key, int] = {}
    for kind in types:
        if kind.required_roles and not any(role in active_roles for role in kind.required_roles):
            continue
        if kind.per == "manager":
            result |= {
                (kind.name, names.queue_of(manager.id)): 1 for manager in managers if manager.type == kind.manager
            }
        elif kind.per == "single":
            result[kind.name, kind.queue_name] = 1
        else:
            count = count_of(kind)
            if kind.maximum_count is not None:
                count = min(count, kind.maximum_count)
            if count > 0:
                result[kind.name, kind.queue_name] = count
    return result


def plan(
    want: Mapping[Key, int], present: Collection[Present], exclusive: Collection[str], held_back: Collection[Key]
) -> Plan:
    """Compare. `exclusive`: names of types that never run twice on a queue; `held_back`: keys in back-off."""
    living = Counter(worker.key for worker in present if not worker.stopping)
    counted = Counter(worker.key for worker in present if not worker.stopping or worker.key[0] in exclusive)
    starts = [key for key, count in want.items() if key not in held_back for _ in range(max(0, count - counted[key]))]
    stops: list[tuple[str, str]] = []
    for key, alive in living.items():
        surplus = alive - want.get(key, 0)
        mine = [worker for worker in present if worker.key == key and worker.mine and not worker.stopping]
        reason = "no longer wanted" if key not in want else "more than wanted"
        stops += [(worker.guid, reason) for worker in mine[::-1][: max(0, surplus)]]
    return Plan(starts, stops)
