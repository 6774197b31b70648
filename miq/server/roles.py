"""Roles: assigned by settings, activated by the region's master. `decide` is pure; the rest records.

A role with max_concurrent 0 is active wherever it is assigned; else on the servers with the smallest priority numbers
(1 before 2 before 3, null counts as 2), and equal numbers never migrate (reference 2.6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from miq.clock import utc
from miq.errors import SettingsError
from miq.models import AssignedServerRole, MiqRegion, MiqServer, ServerRole
from miq.models.miq_server import SERVER_ACTIVE


@dataclass(frozen=True)
class Assigned:
    """One server's right to a role."""

    id: int
    server_id: int
    priority: int | None
    active: bool

    @property
    def rank(self) -> int:
        return 2 if self.priority is None else self.priority


def decide(assigned: Sequence[Assigned], max_concurrent: int) -> set[int]:
    """Ids of the assignments that are to be active, among servers that are alive."""
    if max_concurrent == 0:
        return {each.id for each in assigned}
    ordered = sorted(assigned, key=lambda each: (each.rank, not each.active, each.id))
    return {each.id for each in ordered[:max_concurrent]}


def find(session: Session, names: Sequence[str]) -> set[int]:
    """Ids of the roles with these names; `*` means all. Raises SettingsError for one that nobody knows."""
    roles = {role.name or "": role for role in session.scalars(select(ServerRole)) if role.role_scope != "database"}
    wanted = set(roles) if "*" in names else set(names)
    if unknown := sorted(wanted - set(roles)):
        raise SettingsError(
            f"setting server.role: unknown role {', '.join(unknown)}; there are {', '.join(sorted(roles))}"
        )
    return {roles[name].id for name in wanted}


def assign(session: Session, server_id: int, names: Sequence[str]) -> None:
    """Make the server's assignments those of its setting `server.role`. Raises SettingsError."""
    ids = find(session, names)
    has = set(
        session.scalars(select(AssignedServerRole.server_role_id).where(AssignedServerRole.miq_server_id == server_id))
    )
    session.execute(
        delete(AssignedServerRole).where(
            AssignedServerRole.miq_server_id == server_id, AssignedServerRole.server_role_id.not_in(ids)
        )
    )
    session.add_all(
        AssignedServerRole(miq_server_id=server_id, server_role_id=role_id, priority=2, active=False)
        for role_id in sorted(ids - has)
    )


def become_master(session: Session, server_id: int, heartbeat_timeout: float) -> bool:
    """Take the post if nobody alive holds it; whether this server is master now. Serialised by the region's row."""
    session.execute(select(MiqRegion.id).with_for_update())
    master = session.scalars(
        select(MiqServer).where(
            MiqServer.is_master.is_(True), MiqServer.id != server_id, MiqServer.status.in_(SERVER_ACTIVE)
        )
    ).first()
    beat = master.last_heartbeat if master is not None else None
    if beat is not None and (utc() - beat).total_seconds() <= heartbeat_timeout:
        return False
    session.execute(update(MiqServer).values(is_master=MiqServer.id == server_id))
    return True


def activate(session: Session) -> None:
    """Give every assigned role to the servers that should have it now, zone by zone and for the region."""
    rows = session.execute(
        select(AssignedServerRole, ServerRole, MiqServer.zone_id)
        .join(ServerRole, ServerRole.id == AssignedServerRole.server_role_id)
        .join(MiqServer, MiqServer.id == AssignedServerRole.miq_server_id)
        .where(MiqServer.status.in_(SERVER_ACTIVE))
    ).all()
    groups: dict[tuple[int, int | None], list[tuple[AssignedServerRole, ServerRole]]] = {}
    for assigned, role, zone_id in rows:
        groups.setdefault((role.id, zone_id if role.role_scope == "zone" else None), []).append((assigned, role))
    for group in groups.values():
        facts = [Assigned(each.id, each.miq_server_id or 0, each.priority, bool(each.active)) for each, _ in group]
        chosen = decide(facts, group[0][1].max_concurrent or 0)
        for assigned, _ in group:
            if bool(assigned.active) != (assigned.id in chosen):
                assigned.active = assigned.id in chosen


def deactivate(session: Session, server_id: int) -> None:
    """Take every role from a server that goes."""
    session.execute(
        update(AssignedServerRole)
        .where(AssignedServerRole.miq_server_id == server_id, AssignedServerRole.active.is_(True))
        .values(active=False)
    )


def active_roles(session: Session, server_id: int) -> list[str]:
    """Names of the roles that a server has now, sorted."""
    return sorted(
        filter(
            None,
            session.scalars(
                select(ServerRole.name)
                .join(AssignedServerRole, AssignedServerRole.server_role_id == ServerRole.id)
                .where(AssignedServerRole.miq_server_id == server_id, AssignedServerRole.active.is_(True))
            ),
        )
    )
