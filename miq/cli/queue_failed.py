"""`miq queue retry` and `miq queue purge`: messages that failed, again or away. What waits or runs is left alone."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from sqlalchemy.orm import Session

from miq import settings
from miq.cli.connect import open_session
from miq.cli.output import AsJson, print_json
from miq.errors import SettingsError, UsageError
from miq.queue.change import FAILED_STATES, Failed, choose_failed, purge_failed, retry_failed
from miq.session import run_in

Ids = Annotated[
    list[int] | None, typer.Argument(metavar="[ID]...", min=1, max=2**63 - 1, help="Messages, see `miq sql S03`.")
]
State = Annotated[str | None, typer.Option(help=f"Only those in this state: {', '.join(FAILED_STATES)}.")]
Method = Annotated[str | None, typer.Option(metavar="CLASS[.METHOD]", help="Only those that call this.")]
Queue = Annotated[str | None, typer.Option(help="Only those of this queue.")]


def retry(
    ids: Ids = None,
    everything: Annotated[bool, typer.Option("--all", help="All that failed, or those that the options name.")] = False,
    state: State = None,
    method: Method = None,
    queue: Queue = None,
    as_json: AsJson = False,
) -> None:
    """Put failed messages back into the queue, with all attempts."""
    chosen = _chosen(ids, state, method, queue)
    if ids and (everything or chosen != Failed(ids)):
        raise UsageError("name the messages by id, or say --all with options, not both")
    if not (ids or everything):
        raise UsageError("which messages? name ids, or say --all, with --state, --method or --queue")
    with open_session() as session:
        _check_ids(session, ids)
        done = retry_failed(session, chosen)
    if as_json:
        print_json({"retried": done})
    else:
        print(f"{len(done)} {_messages(len(done))} put back")


def purge(
    ids: Ids = None,
    state: State = None,
    method: Method = None,
    queue: Queue = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="SECONDS", help="Only those that failed so long ago; also 7.days.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete failed messages: those that are named, or all that agree with the options."""
    chosen = _chosen(ids, state, method, queue, older_than)
    with open_session() as session:
        _check_ids(session, ids)
        if not yes:
            count = len(choose_failed(session, chosen))
            session.commit()
            if count:
                _ask(count)
        done = purge_failed(session, chosen)
    if as_json:
        print_json({"deleted": done})
    else:
        print(f"{done} {_messages(done)} deleted")


def _chosen(
    ids: list[int] | None, state: str | None, method: str | None, queue: str | None, older_than: str | None = None
) -> Failed:
    if state is not None and state not in FAILED_STATES:
        raise UsageError(f"no state {state!r} of failed messages; there are: {', '.join(FAILED_STATES)}")
    class_name, _, method_name = (method or "").partition(".")
    return Failed(ids or None, class_name or None, method_name or None, state, queue, _seconds(older_than))


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return settings.number(text, "older-than")
    except SettingsError:
        raise UsageError(f"--older-than {text!r}: write seconds, such as 3600, or 7.days") from None


def _check_ids(session: Session, ids: list[int] | None) -> None:
    """Raises UsageError for the first one that has not failed."""
    for message_id in ids or ():
        row = run_in(session, "SELECT state FROM miq_queue WHERE id = %(id)s", {"id": message_id}).fetchone()
        if row is None:
            raise UsageError(f"no message {message_id}; `miq sql S03` lists those that failed")
        if row[0] not in FAILED_STATES:
            raise UsageError(f"message {message_id} has not failed: it is {row[0]}")


def _ask(count: int) -> None:
    if not sys.stdin.isatty():
        raise UsageError(f"deleting {count} {_messages(count)} asks first: add --yes")
    typer.confirm(f"Delete {count} failed {_messages(count)}?", abort=True, err=True)


def _messages(count: int) -> str:
    return "message" if count == 1 else "messages"
