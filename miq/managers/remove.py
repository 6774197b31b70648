"""Removing a manager: it is paused, then its rows go; its VMs and templates stay, archived, with what hangs on them.

Pausing comes first and by itself, so that the server takes the manager's workers away while we wait for the saver,
which holds the same advisory lock while it writes. Then everything happens in one transaction, or nothing.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import CursorResult, Delete, Update, delete, or_, select, update
from sqlalchemy.orm import Session

from miq import names
from miq.clock import utc
from miq.db import lock_manager
from miq.managers.rows import RESOURCE
from miq.models import (
    Authentication,
    AvailabilityZone,
    CustomAttribute,
    EmsRefresh,
    Endpoint,
    ExtManagementSystem,
    Flavor,
    KeyPairVm,
    MessageState,
    MiqQueue,
    MiqTask,
    TaskState,
    TaskStatus,
    Vm,
)
from miq.session import raw_connection

#: inventory that means nothing without its manager; every table with an `ems_id` is here or in ARCHIVED
DELETED = (AvailabilityZone, Flavor, EmsRefresh)
ARCHIVED = (Vm,)


def remove_manager(session: Session, ems: ExtManagementSystem) -> dict[str, int]:
    """Remove it; how many rows were archived and deleted, by table. Commits twice: the pause, and the rest."""
    ems.enabled = False
    session.commit()
    lock_manager(raw_connection(session), ems.id)
    done = {"vms": _archive_vms(session, ems.id), "miq_queue": _drop_messages(session, ems)}
    for model in DELETED:
        done[model.__tablename__] = _rows(session, delete(model).where(model.ems_id == ems.id))
    _drop_belongings(session, ems.id)
    session.delete(ems)
    session.commit()
    return done


def _rows(session: Session, statement: Delete | Update) -> int:
    result: Any = session.execute(statement)
    assert isinstance(result, CursorResult)
    return result.rowcount


def _archive_vms(session: Session, ems_id: int) -> int:
    archived = update(Vm).where(Vm.ems_id == ems_id)
    return _rows(
        session,
        archived.values(
            ems_id=None,
            former_ems_id=ems_id,
            archived_on=utc(),
            # these rows go with the manager
            availability_zone_id=None,
            flavor_id=None,
        ).execution_options(synchronize_session=False),
    )


def _drop_messages(session: Session, ems: ExtManagementSystem) -> int:
    """Messages that nobody will take any more; who waits for one of them is told."""
    about_it = (MiqQueue.class_name.in_([RESOURCE, ems.type or ""])) & (MiqQueue.instance_id == ems.id)
    gone = session.execute(
        delete(MiqQueue)
        .where(MiqQueue.state == MessageState.READY, or_(MiqQueue.queue_name == names.queue_of(ems.id), about_it))
        .returning(MiqQueue.miq_task_id)
        .execution_options(synchronize_session=False)
    ).all()
    tasks = [task_id for (task_id,) in gone if task_id is not None]
    session.execute(
        update(MiqTask)
        .where(MiqTask.id.in_(tasks), MiqTask.state != TaskState.FINISHED)
        .values(state=TaskState.FINISHED, status=TaskStatus.ERROR, message=f"{ems.name} was removed", updated_on=utc())
        .execution_options(synchronize_session=False)
    )
    return len(gone)


def _drop_belongings(session: Session, ems_id: int) -> None:
    """Endpoints, credentials and key pairs, and labels of the manager itself."""
    keys = select(Authentication.id).where(
        Authentication.resource_type == RESOURCE, Authentication.resource_id == ems_id
    )
    session.execute(
        delete(KeyPairVm).where(KeyPairVm.authentication_id.in_(keys)).execution_options(synchronize_session=False)
    )
    for model in (Authentication, Endpoint, CustomAttribute):
        session.execute(
            delete(model)
            .where(model.resource_type == RESOURCE, model.resource_id == ems_id)
            .execution_options(synchronize_session=False)
        )
