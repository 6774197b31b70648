"""`submit_job`: put a message by what it is for; queue, role and zone follow from the service (reference 5.4).

automate        generic, role automate, any zone
ems_inventory   the manager's refresh queue, role ems_inventory, the manager's zone
ems_operations  the manager's operations queue, role ems_operations, the manager's zone or mine
event           ems, role event, my zone
generic         generic, no role, my zone
notifier        generic, role notifier, any zone
reporting       reporting (generic when it is urgent), role reporting, any zone
smartproxy      smartproxy, role smartproxy, my zone
smartstate      generic, role smartstate, the resource's zone or mine
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from sqlalchemy.orm import Session

from miq import names
from miq.connections import ManagerRow, manager_rows
from miq.errors import BadMessage
from miq.models import Priority
from miq.models.worker_types import worker_types
from miq.queue.message import Inherit, Message
from miq.queue.put import put

GENERIC = "generic"

#: the queue of a service that does not belong to a manager; its role is its name
_QUEUES = {
    "automate": "generic",
    "event": "ems",
    GENERIC: "generic",
    "notifier": "generic",
    "reporting": "reporting",
    "smartproxy": "smartproxy",
    "smartstate": "generic",
}
#: services whose work is done where the manager is
_BY_MANAGER = ("ems_inventory", "ems_operations", "smartstate")


class OfManager(Protocol):
    """A resource that a manager looks after: a VM, a host."""

    @property
    def ems_id(self) -> int | None: ...


#: a manager's id, or something of a manager's
Affinity = int | OfManager


def submit_job(
    session: Session, message: Message, *, service: str = GENERIC, affinity: Affinity | None = None
) -> int | None:
    """Put the message where its service is done, whatever its own queue, role and zone; its id, None in maintenance.

    Raises BadMessage for a service that nobody knows, a manager that is gone, or an affinity of `generic`.
    """
    if service == GENERIC and affinity is not None:
        raise BadMessage(f"{message.command} is a generic job, and such a job has no affinity: name a service")
    return put(session, placed(message, service, _manager(session, affinity)))


def placed(message: Message, service: str, manager: ManagerRow | None) -> Message:
    """The message with the queue, role and zone of its service. Raises BadMessage."""
    if service == "ems_inventory":
        if manager is None:
            raise BadMessage(f"{message.command}: ems_inventory is done for a manager, give it as affinity")
        queue_name = _refresh_queue(manager)
    elif service == "ems_operations":
        queue_name = _operations_queue(manager)
    elif service in _QUEUES:
        urgent = service == "reporting" and message.priority <= Priority.HIGH
        queue_name = "generic" if urgent else _QUEUES[service]
    else:
        known = ", ".join(sorted({*_QUEUES, *_BY_MANAGER}))
        raise BadMessage(f"{message.command}: no service {service!r}; there are {known}")
    zone = manager.zone if manager is not None and service in _BY_MANAGER else Inherit.ZONE
    return replace(message, queue_name=queue_name, role=None if service == GENERIC else service, zone=zone)


def _manager(session: Session, affinity: Affinity | None) -> ManagerRow | None:
    ems_id = affinity if isinstance(affinity, int) or affinity is None else affinity.ems_id
    if ems_id is None:
        return None
    found = manager_rows(session, [ems_id])
    if not found:
        raise BadMessage(f"there is no manager {ems_id}; `miq ems list` lists them")
    return found[0]


def _refresh_queue(manager: ManagerRow) -> str:
    """A child manager without a refresh worker of its own is refreshed with its parent (reference 5.10)."""
    parent = manager.parent_ems_id
    return names.queue_of(manager.id if parent is None or _has_worker(manager, "ems_inventory") else parent)


def _operations_queue(manager: ManagerRow | None) -> str:
    if manager is not None and _has_worker(manager, "ems_operations"):
        return names.queue_of(manager.id)
    return "generic"


def _has_worker(manager: ManagerRow, role: str) -> bool:
    """Whether a type of worker serves each manager of this class under that role."""
    return any(
        kind.per == "manager" and kind.manager == manager.type and role in kind.required_roles
        for kind in worker_types().values()
    )
