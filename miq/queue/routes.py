"""Who can take which messages, and which ones nobody can take.

A message waits for ever when its queue, zone, role or server is one that nobody serves, and no error tells so.
`orphans()` finds such messages in one pass over the queue, and says why. Only what is due counts: a deferred message
waits for its time, an expired one for nobody. `takers` and `why_nobody` are pure; who takes is `region`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from miq import names
from miq.db import Database
from miq.queue.claim import Route
from miq.queue.region import Region, Server, read_region
from miq.queue.statements import statement


class Address(NamedTuple):
    """What of a message says who may take it. None means any; without queue or priority it is nobody."""

    queue_name: str | None
    zone: str | None
    role: str | None
    server_guid: str | None
    priority: int | None


@dataclass(frozen=True)
class Group:
    """Messages that are due, of one address and method; `oldest` is UTC."""

    address: Address
    method: str
    count: int
    oldest: datetime


@dataclass(frozen=True)
class Orphan:
    """Messages that are due and that nobody can take; `oldest` is UTC."""

    queue_name: str | None
    zone: str | None
    role: str | None
    server_guid: str | None
    count: int
    oldest: datetime
    methods: tuple[str, ...]
    reason: str


#: zone, server, role, priority: as the claim compares them
_FITS: tuple[Callable[[Address, Route], bool], ...] = (
    lambda address, worker: address.zone is None or address.zone == worker.zone,
    lambda address, worker: address.server_guid is None or address.server_guid == worker.server_guid,
    lambda address, worker: address.role is None or address.role in worker.roles,
    lambda address, worker: address.priority is not None and address.priority <= worker.max_priority,
)


def takers(workers: Iterable[Route], addresses: Iterable[Address]) -> dict[Address, list[Route]]:
    """For every address the workers that may take its messages."""
    by_queue: dict[str | None, list[Route]] = {}
    for worker in workers:
        by_queue.setdefault(worker.queue_name, []).append(worker)
    return {
        address: [each for each in by_queue.get(address.queue_name, ()) if all(fits(address, each) for fits in _FITS)]
        for address in addresses
    }


def why_nobody(address: Address, region: Region) -> str | None:
    """Why no worker takes messages of this address; None when one does."""
    if takers(region.workers, [address])[address]:
        return None
    return next(_reasons(address, region))


def _reasons(address: Address, region: Region) -> Iterator[str]:
    """What is wrong with an address that nobody serves, the plainest reason first."""
    queue_name, zone, role, guid, priority = address
    alive: list[Server | Route] = [*region.servers, *region.workers]
    if queue_name is None:
        yield "it names no queue"
    if priority is None:
        yield "it has no priority"
    if zone is not None and zone not in region.zones:
        yield f"zone {zone!r} does not exist"
    if role is not None and role not in region.roles:
        yield f"role {role!r} does not exist"
    if not alive:
        yield "no server runs"
    if guid is not None and guid not in region.guids:
        yield f"server {guid} does not run"
    if zone is not None and zone not in {each.zone for each in alive}:
        yield f"no server of zone {zone!r} runs"
    if role is not None and not any(role in each.roles for each in alive):
        yield f"role {role!r} is active nowhere"
    yield from _reasons_on_queue(address, region)


def _reasons_on_queue(address: Address, region: Region) -> Iterator[str]:
    queue = f"queue {address.queue_name!r}"
    left = [each for each in region.workers if each.queue_name == address.queue_name]
    if not left:
        yield from _reasons_of_manager(address.queue_name, region)
        yield f"no worker serves {queue}"
    said = (
        f"no worker of zone {address.zone!r} serves {queue}",
        f"no worker of server {address.server_guid} serves {queue}",
        f"no worker with role {address.role!r} serves {queue}",
        f"only workers with a priority limit of {max((each.max_priority for each in left), default=0)} serve it",
    )
    for fits, reason in zip(_FITS, said, strict=True):
        left = [each for each in left if fits(address, each)]
        if not left:
            yield reason


def _reasons_of_manager(queue_name: str | None, region: Region) -> Iterator[str]:
    """What keeps the worker of a manager's queue from being there."""
    ems_id = names.ems_id_of(queue_name)
    manager = region.managers.get(ems_id) if ems_id is not None else None
    if ems_id is not None and manager is None:
        yield f"there is no manager {ems_id}"
    if manager is not None and not manager.enabled:
        yield f"manager {manager.name!r} is paused"
    if manager is not None and not manager.valid:
        yield f"the credentials of manager {manager.name!r} are {manager.status or 'not checked'}"


def orphans(database: Database) -> list[Orphan]:
    """Messages that are due and that nobody can take, by address and reason, the oldest first."""
    rows = database.run(statement("due_by_address")).fetchall()
    groups = [Group(Address(*row[:5]), *row[5:]) for row in rows]
    if not groups:
        return []
    region = read_region(database)
    taken = takers(region.workers, {group.address for group in groups})
    alike: dict[tuple[str | None, ...], list[Group]] = {}
    for group in groups:
        if not taken[group.address]:
            key = (*group.address[:4], why_nobody(group.address, region))
            alike.setdefault(key, []).append(group)
    return sorted((_orphan(*each) for each in alike.items()), key=lambda orphan: orphan.oldest)


def _orphan(key: tuple[str | None, ...], groups: Sequence[Group]) -> Orphan:
    queue_name, zone, role, server_guid, reason = key
    return Orphan(
        queue_name,
        zone,
        role,
        server_guid,
        count=sum(group.count for group in groups),
        oldest=min(group.oldest for group in groups),
        methods=tuple(sorted({group.method for group in groups})),
        reason=reason or "",
    )
