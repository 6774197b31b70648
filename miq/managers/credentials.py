"""Checking a manager's credentials: one cheap live call, and what it says in `authentications`.

    NULL --check--> Valid | Invalid | Incomplete | Unreachable | Error

Runs as the queue method `authentication_check_types` in a worker, or in the process of whoever asked (`check_now`). No
transaction is open during the call. A status is written only if nobody has changed the rows meanwhile: what was checked
would not be what stands there.

The schedule asks for a check of every enabled manager (`authentication_check_schedule`). Such a check that could not be
made (Unreachable, Error) is made again, five times in all, 1, 2, 4, 8 and 16 minutes after it was asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import update
from sqlalchemy.orm import Session

from miq import plugins
from miq.clock import utc
from miq.connections import connection_spec
from miq.errors import (
    IncompleteCredentials,
    InvalidCredentials,
    MiqError,
    ProviderError,
    ProviderUnreachable,
    SecretError,
    UnknownProvider,
)
from miq.managers.rows import find_authentication
from miq.models import Authentication, AuthenticationStatus, ExtManagementSystem, Priority, Zone
from miq.queue.message import Message
from miq.queue.methods import queue_method
from miq.queue.put import THE_CALL, put, put_unless_exists
from miq.queue.tasks import create_task, task_callback
from miq.session import run_in
from miq.settings import Settings

log = logging.getLogger(__name__)

ROLE = "ems_operations"
TIMEOUT = 120
MAX_ATTEMPTS = 5
RETRYABLE = (AuthenticationStatus.UNREACHABLE, AuthenticationStatus.ERROR)

_STATUS: Mapping[type[ProviderError], AuthenticationStatus] = {
    InvalidCredentials: AuthenticationStatus.INVALID,
    IncompleteCredentials: AuthenticationStatus.INCOMPLETE,
    ProviderUnreachable: AuthenticationStatus.UNREACHABLE,
}


@dataclass(frozen=True)
class Checked:
    """What a check found: the columns `status` and `status_details`."""

    status: str
    details: str

    @property
    def valid(self) -> bool:
        return self.status == AuthenticationStatus.VALID


def queue_check(session: Session, ems: ExtManagementSystem, with_task: bool = True) -> int | None:
    """Ask a worker of the manager's zone for a check; the id of the task to wait for, None without one."""
    task_id = create_task(session, f"Check credentials of {ems.name}") if with_task else None
    message = Message(
        "ExtManagementSystem",
        "authentication_check_types",
        instance_id=ems.id,
        zone=_zone_name(session, ems),
        role=ROLE,
        priority=Priority.HIGH,
        msg_timeout=TIMEOUT,
        miq_task_id=task_id,
        callback=task_callback(task_id) if task_id is not None else None,
    )
    (put_unless_exists if task_id is None else put)(session, message)
    return task_id


def _zone_name(session: Session, ems: ExtManagementSystem) -> str | None:
    zone = session.get(Zone, ems.zone_id) if ems.zone_id is not None else None
    return zone.name if zone else None


@queue_method("ExtManagementSystem", "authentication_check_types", idempotent=True, model=ExtManagementSystem)
def authentication_check_types(session: Session, ems: ExtManagementSystem, *args: object) -> str:
    """The queue's way to a check; the status is its result.

    `args` are upstream's: types, of which only `default` is checked, and last, from the schedule, {"attempt": 1}.
    """
    options = args[-1] if args and isinstance(args[-1], Mapping) else {}
    attempt = int(options.get("attempt") or 0)
    if attempt and not ems.enabled:
        return "not checked: it is paused"
    status = check_now(session, ems, session.info["settings"]).status
    if 0 < attempt < MAX_ATTEMPTS and status in RETRYABLE:
        _queue_attempt(session, ems.id, _zone_name(session, ems), attempt + 1)
    return status


@queue_method("ExtManagementSystem", "authentication_check_schedule", idempotent=True)
def authentication_check_schedule(session: Session, record: None) -> int:
    """Ask for a check of every enabled manager of the message's zone, of all if it has none; how many.

    A child manager has its parent's credentials; one of a type that nobody knows cannot be checked.
    """
    found = run_in(
        session,
        "SELECT ems.id, zones.name FROM ext_management_systems ems JOIN zones ON zones.id = ems.zone_id"
        " WHERE ems.enabled AND ems.parent_ems_id IS NULL AND ems.type = ANY(%(types)s)"
        " AND (%(zone)s::text IS NULL OR zones.name = %(zone)s) ORDER BY ems.id",
        {"types": list(plugins.manager_types()), "zone": session.info["message"].zone},
    ).fetchall()
    for ems_id, zone in found:
        _queue_attempt(session, ems_id, zone, 1)
    return len(found)


def _queue_attempt(session: Session, ems_id: int, zone: str | None, attempt: int) -> None:
    """At most one attempt waits per manager: one that is asked for meanwhile is the one that waits."""
    message = Message(
        "ExtManagementSystem",
        "authentication_check_types",
        [{"attempt": attempt}],
        instance_id=ems_id,
        zone=zone,
        role=ROLE,
        priority=Priority.HIGH,
        deliver_on=utc() + timedelta(minutes=2 ** (attempt - 1)),
        msg_timeout=TIMEOUT,
    )
    put_unless_exists(session, message, match=THE_CALL)


def check_now(session: Session, ems: ExtManagementSystem, settings: Settings) -> Checked:
    """Check in this process and write what was found. Commits."""
    authentication = find_authentication(session, ems.id)
    seen = authentication.updated_on if authentication else None
    checked = _check(session, ems, settings)
    log.info(
        "MIQ(ExtManagementSystem#authentication_check) EMS: [%s] %s: %s", ems.name, checked.status, checked.details
    )
    if authentication is not None:
        _write(session, authentication.id, checked, seen)
    session.commit()
    return checked


def _check(session: Session, ems: ExtManagementSystem, settings: Settings) -> Checked:
    """What the live call says. Whatever a provider's code raises ends here as a status: it is the provider's own."""
    try:
        kind = plugins.manager_type(ems.type)
        if kind is None:
            raise UnknownProvider(f"no installed provider knows the type {ems.type}")
        spec = connection_spec(session, ems, settings)
        session.commit()
        plugins.load(kind.check)(spec)
    except SecretError:
        raise  # our own key is wrong, not the manager's credentials
    except ProviderError as error:
        return Checked(_status_of(error), _one_line(error))
    except MiqError as error:
        return Checked(AuthenticationStatus.ERROR, _one_line(error))
    except Exception as error:
        log.error("MIQ(ExtManagementSystem#authentication_check) EMS: [%s]", ems.name, exc_info=True)
        return Checked(AuthenticationStatus.ERROR, f"{type(error).__name__}: {_one_line(error)}")
    return Checked(AuthenticationStatus.VALID, "Ok")


def _status_of(error: ProviderError) -> AuthenticationStatus:
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), AuthenticationStatus.ERROR)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__


def _write(session: Session, authentication_id: int, checked: Checked, seen: object) -> None:
    moment = {"last_valid_on" if checked.valid else "last_invalid_on": utc()}
    unchanged = Authentication.updated_on.is_not_distinct_from(seen)
    session.execute(
        update(Authentication)
        .where(Authentication.id == authentication_id, unchanged)
        .values(status=checked.status, status_details=checked.details, **moment)
    )
