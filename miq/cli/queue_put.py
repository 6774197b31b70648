"""`miq queue put`: ask for a queue method by hand, with all that a message may say, and wait for what comes of it.

Whatever cannot be delivered is refused before anything is written: a method that nobody registered, arguments that it
does not take, a row, zone, role or server that is not there.
"""

from __future__ import annotations

import difflib
import inspect
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer
from sqlalchemy import select
from sqlalchemy.orm import Session

from miq.cli.connect import open_database
from miq.cli.output import AsJson, print_json, say
from miq.cli.tasks import finish, wait_for
from miq.db import Database
from miq.errors import BadMessage, UsageError
from miq.managers.find import find_zone
from miq.models import MiqQueue, MiqRegion, MiqServer, Priority, ServerRole
from miq.models.server_role import ROLES
from miq.queue.message import DEFAULT_TIMEOUT, Message
from miq.queue.methods import QueueMethod, base_name, find_method, known_methods, load_methods
from miq.queue.put import put_now
from miq.queue.region import read_region
from miq.queue.routes import Address, why_nobody
from miq.queue.tasks import generic_action_with_callback
from miq.session import run_in

#: seconds; who says more has said something else than he meant
_LONGEST = 10 * 366 * 86_400.0
_LARGEST_ID = 2**63 - 1


def put_message(
    call: Annotated[str, typer.Argument(metavar="CLASS.METHOD", help="A queue method, e.g. Diagnostics.sleep.")],
    args: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARG]...", help="Each is JSON, or else text; -- before a negative one."),
    ] = None,
    queue: Annotated[str, typer.Option(help="The queue.")] = "generic",
    zone: Annotated[str | None, typer.Option(help="Only for servers of this zone.")] = None,
    role: Annotated[str | None, typer.Option(help="Only where this role is active.")] = None,
    server: Annotated[str | None, typer.Option(help="Only for this server: GUID, name or id.")] = None,
    priority: Annotated[int, typer.Option(help="0 (soon) to 200.")] = int(Priority.NORMAL),
    delay: Annotated[float, typer.Option("--in", metavar="SECONDS", help="Not before so many seconds.")] = 0.0,
    expires_in: Annotated[float | None, typer.Option(metavar="SECONDS", help="Not after so many seconds.")] = None,
    timeout: Annotated[int, typer.Option(metavar="SECONDS", help="How long it may run.")] = DEFAULT_TIMEOUT,
    task_id: Annotated[str | None, typer.Option(help="Never beside another message of this task id.")] = None,
    instance: Annotated[int | None, typer.Option(metavar="ID", min=1, max=_LARGEST_ID, help="The row to call.")] = None,
    target: Annotated[int | None, typer.Option(metavar="ID", max=_LARGEST_ID, help="Comes first in the args.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a message into the queue."""
    class_name, _, method_name = call.rpartition(".")
    message = Message(
        class_name, method_name, [_value(each) for each in args or ()], instance_id=instance, target_id=target,
        queue_name=queue, role=role, priority=priority, msg_timeout=timeout, task_id=task_id,
    )  # fmt: skip
    method = _method(message)
    _check_call(method, message)
    _check_times(delay, expires_in)
    with open_database() as database:
        with database.session() as session:
            _check_row(session, method, instance)
            _check_role(session, role)
            message = replace(message, zone=_zone(session, zone), server_guid=_guid(session, server))
            message = _timed(session, message, delay, expires_in)
        put_ids = _put(database, message, wait)
        nobody = None if delay else why_nobody(_address(message), read_region(database))
        _tell(database, put_ids, message, nobody, as_json)


# -- what is called ----------------------------------------------------------------------------------------------------


def _method(message: Message) -> QueueMethod:
    if not (message.class_name and message.method_name):
        raise UsageError(
            f"{message.command.strip('.')!r} is no queue method: write CLASS.METHOD, e.g. Diagnostics.noop"
        )
    load_methods()
    try:
        return find_method(message.class_name, message.method_name)
    except BadMessage:
        raise UsageError(f"no queue method {message.command!r}; {_hint(message)}") from None


def _hint(message: Message) -> str:
    known = list(known_methods())
    own = sorted(each.method_name for each in known if each.class_name == base_name(message.class_name))
    if own:
        return _close(message.method_name, own, own)
    return _close(message.command, [each.command for each in known], sorted({each.class_name for each in known}))


def _close(wanted: str, known: Sequence[str], listed: Sequence[str]) -> str:
    """What the user may have meant, or what there is."""
    near = difflib.get_close_matches(wanted, known, n=3)
    return f"is it {' or '.join(near)}?" if near else f"there are {', '.join(listed)}"


def _value(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """What an argument stands for; NaN and Infinity, which JSON does not know, are text."""
    try:
        return json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return text


def _check_call(method: QueueMethod, message: Message) -> None:
    if message.instance_id is not None and method.model is None:
        raise UsageError(f"{message.command} is a class method: it is called without --instance")
    if message.instance_id is None and method.model is not None:
        raise UsageError(f"{message.command} is called on a row: name it with --instance ID")
    if message.instance_id is not None and message.target_id is not None:
        raise UsageError(f"{message.command} is called on a row: --target is for class methods")
    target = [] if message.target_id is None else [message.target_id]
    signature = inspect.signature(method.function)
    try:
        signature.bind(None, None, *target, *message.args)
    except TypeError as error:
        named = list(signature.parameters.values())[2:]
        takes = ", ".join(str(each.replace(annotation=inspect.Parameter.empty)) for each in named)
        raise UsageError(f"{message.command}({takes}) cannot be called so: {error}") from None


def _check_row(session: Session, method: QueueMethod, instance: int | None) -> None:
    if instance is not None and method.model is not None and session.get(method.model, instance) is None:
        raise UsageError(f"no {method.class_name} {instance}")


# -- who takes it, and when --------------------------------------------------------------------------------------------


def _check_role(session: Session, role: str | None) -> None:
    known = sorted({name for name, *_ in ROLES} | set(filter(None, session.scalars(select(ServerRole.name)))))
    if role is not None and role not in known:
        raise UsageError(f"no role {role!r}; {_close(role, known, known)}")


def _zone(session: Session, wanted: str | None) -> str | None:
    if wanted is None:
        return None
    zone = find_zone(session, wanted)
    if session.scalar(select(MiqRegion.id).where(MiqRegion.maintenance_zone_id == zone.id)) is not None:
        raise UsageError(f"zone {wanted!r} is the one for maintenance: nobody takes messages there")
    return zone.name


def _guid(session: Session, wanted: str | None) -> str | None:
    if wanted is None:
        return None
    servers = session.scalars(select(MiqServer).order_by(MiqServer.id)).all()
    found = (
        [each for each in servers if each.guid == wanted]
        or [each for each in servers if each.name == wanted]
        or [each for each in servers if str(each.id) == wanted]
    )
    if len(found) == 1:
        return found[0].guid
    listed = ", ".join(f"{each.name} (id {each.id}, GUID {each.guid})" for each in found or servers)
    if found:
        raise UsageError(f"{len(found)} servers are called {wanted!r}: {listed}; name one by its id")
    raise UsageError(f"no server {wanted!r}; there are: {listed or 'none yet'}")


def _check_times(delay: float, expires_in: float | None) -> None:
    for option, seconds in (("--in", delay), ("--expires-in", expires_in)):
        if seconds is not None and not 0 <= seconds <= _LONGEST:
            raise UsageError(f"{option} {seconds:g}: write seconds, from 0 to {_LONGEST:.0f}")
    if expires_in is not None and expires_in <= delay:
        raise UsageError(f"it would expire before it is due: --expires-in {expires_in:g}, --in {delay:g}")


def _timed(session: Session, message: Message, delay: float, expires_in: float | None) -> Message:
    """By the clock of the database, which decides when it is due."""
    row = run_in(
        session,
        "SELECT utc_now() + make_interval(secs => nullif(%(delay)s::float8, 0)),"
        " utc_now() + make_interval(secs => %(expires_in)s::float8)",
        {"delay": delay, "expires_in": expires_in},
    ).fetchone()
    assert row is not None
    return replace(message, deliver_on=row[0], expires_on=row[1])


# -- putting and waiting -----------------------------------------------------------------------------------------------


def _put(database: Database, message: Message, wait: bool) -> tuple[int | None, int | None]:
    """The ids of the message and, when somebody waits, of its task. What is wrong with the message is the user's."""
    try:
        if not wait:
            return put_now(database, message), None
        with database.session() as session:
            miq_task_id = generic_action_with_callback(session, message.command, "system", message)
            return session.scalar(select(MiqQueue.id).where(MiqQueue.miq_task_id == miq_task_id)), miq_task_id
    except BadMessage as error:
        raise UsageError(str(error)) from None


def _address(message: Message) -> Address:
    zone = message.zone if isinstance(message.zone, str) else None
    return Address(message.queue_name, zone, message.role, message.server_guid, message.priority)


def _tell(
    database: Database, put_ids: tuple[int | None, int | None], message: Message, nobody: str | None, as_json: bool
) -> None:
    """Tell that it is put, or wait for its task and tell how that ended."""
    message_id, miq_task_id = put_ids
    if miq_task_id is None and as_json:
        print_json({"id": message_id, "queue_name": message.queue_name, "waits_because": nobody})
        return
    if nobody:
        say(f"message {message_id} waits: {nobody}")
    if miq_task_id is None:
        print(f"message {message_id} put into queue {message.queue_name}")
        return
    finish(database, wait_for(database, miq_task_id, math.inf), as_json)
